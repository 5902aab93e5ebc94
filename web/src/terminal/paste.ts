// What is pasted, before it is sent: cleaned of what acts instead of being text, and told apart by how much it can do. Pure.

export interface Pasted {
  text: string;
  lines: number;
  /** How many control characters were taken out. */
  removed: number;
  /** It ends with a line feed: a shell without bracketed paste runs even the last line at once. */
  ends_line: boolean;
}

// C0 but tab, line feed and return; DEL; C1. An escape among them could end a bracketed paste and so begin to type.
const CONTROLS = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/g;

export function pasted(text: string): Pasted {
  const clean = text.replace(CONTROLS, "").replace(/\r\n?/g, "\n");
  const body = clean.replace(/\n+$/, "");
  return {
    text: clean,
    lines: body === "" ? 0 : body.split("\n").length,
    removed: text.length - text.replace(CONTROLS, "").length,
    ends_line: clean.endsWith("\n"),
  };
}

/** Whether somebody has to look at it first. */
export function asks(paste: Pasted): boolean {
  return paste.lines > 1 || paste.ends_line || paste.removed > 0;
}

/** The text without its last line feeds: it waits at the prompt for a person's Enter. */
export function without_enter(text: string): string {
  return text.replace(/\n+$/, "");
}
