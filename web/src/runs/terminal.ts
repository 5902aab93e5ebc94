// What a host printed, made harmless: colours become classes, every other control becomes a sign that can be seen, or
// nothing. Nothing that a host prints can move, hide or overwrite what it printed before, or leave its line. Pure.
//
// Sequences are those of ECMA-48 (CSI, OSC, DCS, SOS, PM, APC, and their 8-bit forms); of SGR the 16 colours, bold, faint,
// italic and underlined are kept. Conceal is not: text that is there is shown.

export interface Piece {
  text: string;
  /** Class names of our own, such as `bold fg-2`; empty for plain text. `remark` is ours alone. */
  look: string;
}

export interface Line {
  /** Grows by one from line to line, also when earlier lines have been dropped. */
  number: number;
  pieces: Piece[];
}

/** A longer line is broken, so that one without end cannot hold up the page. */
export const LINE_MAX = 4_096;
const SEQUENCE_MAX = 4_096;

// C0, DEL, C1, and the characters that reorder or hide text: bidi controls, zero-width, line separators, tags.
const SPECIAL =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/u;
const SPECIALS = new RegExp(SPECIAL, "gu");

/** The sign that stands for a control character. */
export function visible(character: string): string {
  const code = character.codePointAt(0) as number;
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  return `\u2039${code.toString(16).toUpperCase().padStart(4, "0")}\u203a`;
}

interface Look {
  bold: boolean;
  faint: boolean;
  italic: boolean;
  underlined: boolean;
  fg: number | null;
  bg: number | null;
}

const PLAIN: Look = { bold: false, faint: false, italic: false, underlined: false, fg: null, bg: null };

type State = "text" | "escape" | "csi" | "string" | "string escape" | "charset";

export class Terminal {
  /** The lines so far; the last may still grow. */
  lines: Line[] = [{ number: 0, pieces: [] }];
  /** How many lines were dropped because there were more than are kept. */
  dropped = 0;
  #most: number;
  #state: State = "text";
  #sequence = "";
  #look: Look = PLAIN;
  #classes = "";
  #length = 0;
  #return = false;

  constructor(most_lines = Infinity) {
    this.#most = most_lines;
  }

  feed(text: string): void {
    let at = 0;
    while (at < text.length) {
      if (this.#state === "text") at = this.#text(text, at);
      else {
        const character = String.fromCodePoint(text.codePointAt(at) as number);
        if (this.#sequenced(character)) at += character.length;
      }
    }
    this.#trim();
  }

  /** A line of our own between what the host printed before it and after it. It looks as nothing of the host's can. */
  remark(text: string): void {
    this.#state = "text";
    this.#return = false;
    if (this.#length > 0) this.#break();
    (this.lines.at(-1) as Line).pieces.push({ text, look: "remark" });
    this.#break();
    this.#trim();
  }

  #text(text: string, at: number): number {
    SPECIALS.lastIndex = at;
    const found = SPECIALS.exec(text);
    const end = found?.index ?? text.length;
    if (end > at) this.#write(text.slice(at, end));
    if (!found) return end;
    this.#special(found[0]);
    return end + found[0].length;
  }

  #special(character: string): void {
    if (character === "\n") {
      this.#return = false;
      this.#break();
    } else if (character === "\r") {
      // Before a line feed it means nothing; alone it would overwrite the line, here it ends it and says so.
      this.#return = true;
    } else if (character === "\t") this.#write("\t");
    else if (character === "\u001b") this.#state = "escape";
    else if (character === "\u009b") this.#begin("csi");
    else if ("\u0090\u0098\u009d\u009e\u009f".includes(character)) this.#begin("string");
    else this.#write(visible(character));
  }

  #begin(state: State): void {
    this.#state = state;
    this.#sequence = "";
  }

  /** One character of a sequence; false when it ends the sequence without being part of it. */
  #sequenced(character: string): boolean {
    if (this.#state === "escape") return this.#escaped(character);
    if (this.#state === "charset") this.#state = "text";
    else if (this.#state === "csi") return this.#csi(character);
    else return this.#string(character);
    return true;
  }

  #escaped(character: string): boolean {
    if (character === "[") this.#begin("csi");
    else if ("]PX^_".includes(character)) this.#begin("string");
    else if ("()*+-./#% ".includes(character)) this.#state = "charset";
    else {
      this.#state = "text";
      // What is no sequence is not swallowed: the escape is shown, and what follows it is text.
      const is_sequence = character >= "0" && character <= "~";
      if (!is_sequence) this.#write(visible("\u001b"));
      return is_sequence;
    }
    return true;
  }

  #csi(character: string): boolean {
    if (character >= "@" && character <= "~") {
      if (character === "m" && /^[\d;:]*$/.test(this.#sequence)) this.#dress(this.#sequence);
      this.#state = "text";
      return true;
    }
    if (character < " " || character > "?" || this.#sequence.length >= 64) {
      this.#state = "text";
      return false;
    }
    this.#sequence += character;
    return true;
  }

  /** Titles, links, clipboard writes and the like: gone, up to their end, and never beyond the end of the line. */
  #string(character: string): boolean {
    if (character === "\u0007" || character === "\u009c") this.#state = "text";
    else if (character === "\n") {
      this.#state = "text";
      return false;
    } else if (this.#state === "string escape") {
      this.#state = "text";
      return character === "\\";
    } else if (character === "\u001b") this.#state = "string escape";
    else if (this.#sequence.length >= SEQUENCE_MAX) this.#state = "text";
    else this.#sequence += character;
    return true;
  }

  #dress(parameters: string): void {
    const codes = parameters.split(/[;:]/).map(Number);
    let look = { ...this.#look };
    for (let index = 0; index < codes.length; index += 1) {
      const code = codes[index] as number;
      if (code === 0) look = { ...PLAIN };
      else if (code === 1) look.bold = true;
      else if (code === 2) look.faint = true;
      else if (code === 3) look.italic = true;
      else if (code === 4) look.underlined = true;
      else if (code === 22) look.bold = look.faint = false;
      else if (code === 23) look.italic = false;
      else if (code === 24) look.underlined = false;
      else if (code >= 30 && code <= 37) look.fg = code - 30;
      else if (code >= 90 && code <= 97) look.fg = code - 90;
      else if (code >= 40 && code <= 47) look.bg = code - 40;
      else if (code >= 100 && code <= 107) look.bg = code - 100;
      else if (code === 39) look.fg = null;
      else if (code === 49) look.bg = null;
      else if (code === 38 || code === 48) {
        const colour = codes[index + 1] === 5 ? (codes[index + 2] ?? 99) : 99;
        const basic = colour < 16 ? colour % 8 : null;
        if (code === 38) look.fg = basic;
        else look.bg = basic;
        index += codes[index + 1] === 5 ? 2 : codes[index + 1] === 2 ? 4 : 0;
      }
    }
    this.#look = look;
    this.#classes = class_names(look);
  }

  #write(text: string): void {
    if (this.#return) {
      this.#return = false;
      this.#append("\u240d");
      this.#break();
    }
    for (let rest = text; rest; ) {
      if (this.#length >= LINE_MAX) this.#break();
      const part = rest.slice(0, LINE_MAX - this.#length);
      this.#append(part);
      rest = rest.slice(part.length);
    }
  }

  #append(text: string): void {
    const last = this.lines.at(-1) as Line;
    const piece = last.pieces.at(-1);
    this.#length += text.length;
    const grown =
      piece?.look === this.#classes
        ? [...last.pieces.slice(0, -1), { text: piece.text + text, look: piece.look }]
        : [...last.pieces, { text, look: this.#classes }];
    // A new object, so that whoever draws it sees that it changed.
    this.lines[this.lines.length - 1] = { number: last.number, pieces: grown };
  }

  #break(): void {
    this.lines.push({ number: (this.lines.at(-1) as Line).number + 1, pieces: [] });
    this.#length = 0;
    if (this.lines.length > this.#most * 2) this.#trim();
  }

  #trim(): void {
    const surplus = this.lines.length - this.#most;
    if (surplus <= 0) return;
    this.lines.splice(0, surplus);
    this.dropped += surplus;
  }
}

function class_names(look: Look): string {
  const names = (["bold", "faint", "italic", "underlined"] as const).filter((name) => look[name]) as string[];
  if (look.fg !== null) names.push(`fg-${look.fg}`);
  if (look.bg !== null) names.push(`bg-${look.bg}`);
  return names.join(" ");
}

/** A whole text as lines; what ends with a line feed has no empty line after it. */
export function lines_of(text: string, most_lines = Infinity): Line[] {
  const terminal = new Terminal(most_lines);
  terminal.feed(text);
  return without_empty_end(terminal.lines);
}

export function without_empty_end(lines: Line[]): Line[] {
  return lines.at(-1)?.pieces.length === 0 ? lines.slice(0, -1) : lines;
}

/** A text without colours and with every other control as a sign. */
export function plain_lines(text: string): string[] {
  return lines_of(text).map((line) => line.pieces.map((piece) => piece.text).join(""));
}

/** One line of text from anywhere, such as the beginning of a command in a list. */
export function harmless(text: string): string {
  return text.replace(SPECIALS, (character) => (character === "\n" || character === "\t" ? " " : visible(character)));
}
