// A run that is being written: handed over by the page that chose servers or a saved command, and kept while somebody
// looks something up on another page. It lives as long as this page of the browser.

import type { OrderBody } from "./calls";

export type Draft = Partial<Omit<OrderBody, "selector" | "secrets">> & { selector?: Partial<OrderBody["selector"]>; secret_names?: string[] };

let kept: Draft | null = null;

export function keep(draft: Draft | null): void {
  kept = draft;
}

export function take(): Draft | null {
  const draft = kept;
  kept = null;
  return draft;
}

/** What the address asks for: `server` and `group` by id, `label` as name=value, each as often as wanted. */
export function from_query(query: URLSearchParams): Draft | null {
  const labels = query.getAll("label").map((text) => {
    const at = text.indexOf("=");
    return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
  });
  const selector = { servers: query.getAll("server"), groups: query.getAll("group"), labels: Object.fromEntries(labels) as Record<string, string> };
  const command = query.get("command") ?? undefined;
  if (command === undefined && selector.servers.length + selector.groups.length + labels.length === 0) return null;
  return { command, selector };
}
