// All terminals of this page: tabs, and the panes side by side in each. They stay when somebody looks at another page.

import * as calls from "./calls";
import type { Session } from "./calls";
import { choices } from "./choices.svelte";
import { Pane } from "./pane.svelte";
import { running } from "./running.svelte";
import type { Deed } from "./shortcuts";

export const PANES_MAX = 4;
const PLACE = "terminals";

export interface Tab {
  key: string;
  panes: readonly Pane[];
  /** Panes side by side, or one above the other. */
  is_stacked: boolean;
}

/** What the page of the terminals does for a key that was pressed in one. */
export type Wish = "snippets" | "leave" | "split";

class Desk {
  tabs = $state.raw<readonly Tab[]>([]);
  #tab_key = $state<string | null>(null);
  #pane_key = $state<string | null>(null);
  wish: (wish: Wish) => void = () => undefined;

  tab = $derived(this.tabs.find(({ key }) => key === this.#tab_key) ?? this.tabs[0] ?? null);
  pane = $derived(this.tab?.panes.find(({ key }) => key === this.#pane_key) ?? this.tab?.panes[0] ?? null);
  panes = $derived(this.tabs.flatMap(({ panes }) => panes));
  /** What each tab is called: the server, and a number where several are on the same. */
  titles = $derived.by(() => {
    const counts = new Map<string, number>();
    return new Map(
      this.tabs.map(({ key, panes }) => {
        const name = panes[0]?.server_name ?? "";
        const count = (counts.get(name) ?? 0) + 1;
        counts.set(name, count);
        return [key, count === 1 ? name : `${name} · ${count}`];
      }),
    );
  });
  live = $derived(this.panes.filter((pane) => pane.is_live).length);

  /** A terminal in a tab of its own. */
  open(server: { id: string; name: string }, session: Session | null = null): Pane {
    const pane = this.#made(server, session);
    this.tabs = [...this.tabs, { key: pane.key, panes: [pane], is_stacked: false }];
    this.choose(pane);
    return pane;
  }

  /** Another shell on the same server, beside the one that is used. */
  split(is_stacked: boolean): void {
    const tab = this.tab;
    const beside = this.pane;
    if (!tab || !beside || tab.panes.length >= PANES_MAX) return;
    const pane = this.#made({ id: beside.server_id, name: beside.server_name }, null);
    const panes = tab.panes.flatMap((one) => (one === beside ? [one, pane] : [one]));
    this.#change({ ...tab, panes, is_stacked: tab.panes.length === 1 ? is_stacked : tab.is_stacked });
    this.choose(pane);
  }

  close(pane: Pane): void {
    const tab = this.#tab_of(pane);
    if (!tab) return;
    if (this.panes.length === 1) forget();
    pane.close();
    const at = tab.panes.indexOf(pane);
    const panes = tab.panes.filter((one) => one !== pane);
    const tab_at = this.tabs.indexOf(tab);
    if (panes.length > 0) this.#change({ ...tab, panes });
    else this.tabs = this.tabs.filter((one) => one !== tab);
    const next = panes[Math.min(at, panes.length - 1)] ?? this.tabs[Math.min(tab_at, this.tabs.length - 1)]?.panes[0];
    if (next) this.choose(next);
  }

  choose(pane: Pane): void {
    this.#tab_key = this.#tab_of(pane)?.key ?? null;
    this.#pane_key = pane.key;
  }

  async copy(pane = this.pane): Promise<void> {
    const text = pane?.screen?.terminal.getSelection();
    if (text) await navigator.clipboard.writeText(text);
    pane?.focus();
  }

  step_tab(by: 1 | -1): void {
    const at = this.tabs.findIndex((tab) => tab === this.tab);
    const pane = this.tabs[(at + by + this.tabs.length) % this.tabs.length]?.panes[0];
    if (pane) this.#go_to(pane);
  }

  step_pane(by: 1 | -1): void {
    const panes = this.tab?.panes ?? [];
    const pane = panes[(panes.findIndex((one) => one === this.pane) + by + panes.length) % panes.length];
    if (pane) this.#go_to(pane);
  }

  clear(): void {
    for (const pane of this.panes) pane.leave();
    forget();
    this.tabs = [];
  }

  /** Which sessions this browser tab shows, so that they are back after it was loaded anew. Ids, and no ticket. */
  keep(): void {
    const shown = this.tabs.map(({ panes, is_stacked }) => ({ is_stacked, sessions: panes.filter(({ is_live }) => is_live).map(({ session_id }) => session_id) }));
    try {
      sessionStorage.setItem(PLACE, JSON.stringify(shown));
    } catch {
      // Storage is switched off: running sessions are found in the list.
    }
  }

  /** After the page was loaded anew: go on with the sessions that it showed and that still run. */
  async restore(signal: AbortSignal): Promise<void> {
    if (this.tabs.length > 0) return;
    const shown = kept();
    if (shown.length === 0) return;
    const running = await calls.sessions({ status: "active" }, { limit: 200 }, signal);
    if (signal.aborted || this.tabs.length > 0) return;
    const by_id = new Map(running.items.map((session) => [session.id, session]));
    const tabs = shown.map(({ is_stacked, sessions }) => ({
      is_stacked,
      panes: sessions.map((session_id) => by_id.get(session_id)).filter((session) => session !== undefined).map((session) => this.#made({ id: session.server_id, name: session.server_name }, session)),
    }));
    this.tabs = tabs.filter(({ panes }) => panes.length > 0).map(({ is_stacked, panes }) => ({ key: panes[0]?.key ?? "", is_stacked, panes }));
  }

  #made(server: { id: string; name: string }, session: Session | null): Pane {
    const pane: Pane = new Pane(server, (deed) => this.#do(deed, pane), session);
    return pane;
  }

  #tab_of(pane: Pane): Tab | undefined {
    return this.tabs.find(({ panes }) => panes.includes(pane));
  }

  #change(changed: Tab): void {
    this.tabs = this.tabs.map((tab) => (tab.key === changed.key ? changed : tab));
  }

  #go_to(pane: Pane): void {
    this.choose(pane);
    // Its place on the page is made first.
    requestAnimationFrame(() => pane.focus());
  }

  #do(deed: Deed, pane: Pane): void {
    if (deed === "copy") void this.copy(pane);
    else if (deed === "find") pane.finding = true;
    else if (deed === "previous_tab") this.step_tab(-1);
    else if (deed === "next_tab") this.step_tab(1);
    else if (deed === "previous_pane") this.step_pane(-1);
    else if (deed === "next_pane") this.step_pane(1);
    else if (deed === "larger") choices.step_size(1);
    else if (deed === "smaller") choices.step_size(-1);
    else this.wish(deed);
  }
}

function forget(): void {
  try {
    sessionStorage.removeItem(PLACE);
  } catch {
    // Storage is switched off: there is nothing in it.
  }
}

function kept(): { is_stacked: boolean; sessions: string[] }[] {
  try {
    const shown: unknown = JSON.parse(sessionStorage.getItem(PLACE) ?? "[]");
    if (!Array.isArray(shown)) return [];
    return shown.map(({ is_stacked, sessions }) => ({ is_stacked: is_stacked === true, sessions: Array.isArray(sessions) ? sessions.filter((one) => typeof one === "string") : [] }));
  } catch {
    return [];
  }
}

export const desk = new Desk();

running.leave_all = () => desk.clear();
$effect.root(() => {
  $effect(() => {
    running.live = desk.live;
  });
  // An empty desk may not have been restored yet.
  $effect(() => {
    if (desk.tabs.length > 0) desk.keep();
  });
});
