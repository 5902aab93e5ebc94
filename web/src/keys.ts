// One-letter shortcuts, and `g` followed by a letter. They never act while somebody types or a dialog is open.

export type Shortcuts = Readonly<Record<string, () => void>>;

const CHORD_MS = 1_000;

export function is_typing(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target.isContentEditable) return true;
  if (target instanceof HTMLInputElement) return !["checkbox", "radio", "button"].includes(target.type);
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement;
}

/** Listens on the window until the returned function is called. Keys are `event.key`, chords `g f`. */
export function listen(shortcuts: Shortcuts): () => void {
  let chord = "";
  let chord_at = 0;
  function press(event: KeyboardEvent) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (is_typing(event.target) || document.querySelector("dialog[open]")) return;
    const key = chord && event.timeStamp - chord_at < CHORD_MS ? `${chord} ${event.key}` : event.key;
    chord = event.key === "g" ? "g" : "";
    chord_at = event.timeStamp;
    const act = shortcuts[key];
    if (!act) return;
    event.preventDefault();
    act();
  }
  addEventListener("keydown", press);
  return () => removeEventListener("keydown", press);
}
