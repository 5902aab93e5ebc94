// Parts of the page that are fetched when they are needed: a network that is gone must not take the page with it.

import * as api from "./api";

const AHEAD_MS = 1_000;

/**
 * A part of the page. The console may have been upgraded under it, and have that part under another name: then the page
 * begins again, once. Without the console it stays, and says so: raises an ApiError.
 */
export async function part<T>(load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch {
    if (await is_of_another_build()) begin_again();
    throw new api.ApiError({ title: "Unreachable", status: 0, detail: "", code: "part_unreachable" });
  }
}

/** Have parts fetched in a moment, before somebody needs them. Whether they came is seen when they are. */
export function ahead(...parts: (() => Promise<unknown>)[]): () => void {
  const timer = setTimeout(() => void Promise.allSettled(parts.map((load) => load())), AHEAD_MS);
  return () => clearTimeout(timer);
}

/** Does the console answer, with a page that has other scripts than this one? */
async function is_of_another_build(): Promise<boolean> {
  const scripts = [...document.querySelectorAll<HTMLScriptElement>('head script[type="module"]')];
  try {
    const page = await api.front_page();
    return scripts.some((script) => !page.includes(`"${script.getAttribute("src")}"`));
  } catch {
    return false;
  }
}

/** Once in the life of this address: a console behind two builds would have the page begin for ever. */
function begin_again(): void {
  if ((history.state as { begun_again?: boolean } | null)?.begun_again) return;
  history.replaceState({ begun_again: true }, "");
  location.reload();
}
