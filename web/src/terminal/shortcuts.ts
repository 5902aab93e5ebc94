// The keys that belong to the page and not to the shell. All with Ctrl and Shift, which no terminal program can see.

export const DEEDS = {
  C: "copy",
  F: "find",
  S: "snippets",
  D: "split",
  Enter: "leave",
  ArrowLeft: "previous_tab",
  ArrowRight: "next_tab",
  ArrowUp: "previous_pane",
  ArrowDown: "next_pane",
  "+": "larger",
  "-": "smaller",
  _: "smaller",
} as const;

export type Deed = (typeof DEEDS)[keyof typeof DEEDS];

/** Act on a shortcut of the page; true when it was one. Pasting is left to the browser, which has a key for it. */
export function act(event: KeyboardEvent, deed: (deed: Deed) => void): boolean {
  if (!event.ctrlKey || !event.shiftKey || event.altKey || event.metaKey) return false;
  if (event.key.toUpperCase() === "V") return true;
  const name = event.key.length === 1 ? event.key.toUpperCase() : event.key;
  const asked = DEEDS[name as keyof typeof DEEDS];
  if (!asked) return false;
  event.preventDefault();
  if (event.type === "keydown") deed(asked);
  return true;
}
