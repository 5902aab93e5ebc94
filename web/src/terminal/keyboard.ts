// Keys that a phone's keyboard lacks, as the bytes a terminal sends for them. Pure.

export type Held = "ctrl" | "alt";
export type BarKey = "esc" | "tab" | "up" | "down" | "left" | "right" | "home" | "end" | "page_up" | "page_down";

const PLAIN: Record<BarKey, string> = {
  esc: "\x1b",
  tab: "\t",
  up: "\x1b[A",
  down: "\x1b[B",
  right: "\x1b[C",
  left: "\x1b[D",
  home: "\x1b[H",
  end: "\x1b[F",
  page_up: "\x1b[5~",
  page_down: "\x1b[6~",
};

const CURSOR = new Set<BarKey>(["up", "down", "left", "right", "home", "end"]);

/** `is_application`: a program such as vim asked for the other form of the cursor keys (DECCKM). */
export function bar_key(key: BarKey, held: ReadonlySet<Held>, is_application: boolean): string {
  const plain = PLAIN[key];
  const modifier = 1 + (held.has("alt") ? 2 : 0) + (held.has("ctrl") ? 4 : 0);
  if (modifier === 1) return CURSOR.has(key) && is_application ? plain.replace("[", "O") : plain;
  if (CURSOR.has(key)) return `\x1b[1;${modifier}${plain.at(-1)}`;
  if (plain.endsWith("~")) return plain.replace("~", `;${modifier}~`);
  return held.has("alt") ? `\x1b${plain}` : plain;
}

/** One character, typed while Ctrl or Alt is held on the bar. */
export function with_held(character: string, held: ReadonlySet<Held>): string {
  const controlled = held.has("ctrl") ? control(character) : character;
  return held.has("alt") ? `\x1b${controlled}` : controlled;
}

function control(character: string): string {
  const upper = character.toUpperCase();
  if (/^[@-_]$/.test(upper)) return String.fromCharCode(upper.charCodeAt(0) & 0x1f);
  if (character === " ") return "\0";
  if (character === "?") return "\x7f";
  return character;
}
