// Where a text was shown in a recording: its lines as somebody would read them, each with the second it was shown. Pure.

import { Terminal } from "../runs/terminal";
import type { Event } from "./cast";

export interface Hit {
  at_s: number;
  text: string;
}

/** A line, and how long it was at which second: lines only grow. */
interface Line {
  text: string;
  grown: { length: number; at_s: number }[];
}

/** Signs that stand for control characters: they are no text to look for. */
const SIGNS = /[\u2400-\u2421\u240d]/g;
/** Where a program goes elsewhere on the screen, what it prints next is another line; where it skips, a space. */
const MOVES = /\x1b\[\d*(?:;\d*)?[HfdG]/g; // eslint-disable-line no-control-regex
const SKIPS = /\x1b\[\d*C/g; // eslint-disable-line no-control-regex

/** Lines between two looks at the clock. */
const AT_ONCE = 64;

/** Read and looked through a slice at a time: a long recording takes seconds, and the page must not stand still for them. */
export class Lines {
  /** Lines that hold what is wanted, of those that have been looked through, in the order of time. */
  readonly hits: Hit[] = [];
  #events: readonly Event[];
  #terminal = new Terminal();
  #lines: Line[] = [];
  #wanted = "";
  #read = 0;
  #looked = 0;

  /** What a full-screen program draws comes as it was sent. */
  constructor(events: readonly Event[]) {
    this.#events = events;
  }

  /** Look for this from now on, from the beginning. */
  want(text: string): void {
    this.#wanted = text.trim().toLowerCase();
    this.#looked = 0;
    this.hits.length = 0;
  }

  /** Go on until `is_over` says so; false when there is nothing left to do. What was read already is looked through first. */
  work(is_over: () => boolean): boolean {
    for (let has_more = true; has_more; ) {
      if (is_over()) return true;
      has_more = this.#look() || this.#read_on();
    }
    return false;
  }

  #look(): boolean {
    const whole = this.#read < this.#events.length ? this.#lines.length - 1 : this.#lines.length;
    if (this.#wanted === "") this.#looked = Math.max(whole, 0);
    if (this.#looked >= whole) return false;
    const end = Math.min(this.#looked + AT_ONCE, whole);
    for (; this.#looked < end; this.#looked += 1) this.#look_at(this.#lines[this.#looked] as Line);
    return true;
  }

  #look_at({ text, grown }: Line): void {
    const at = text.toLowerCase().indexOf(this.#wanted);
    if (at < 0) return;
    const shown = grown.find(({ length }) => length >= at + this.#wanted.length) ?? grown.at(-1);
    this.hits.push({ at_s: shown?.at_s ?? 0, text: text.trim() });
  }

  #read_on(): boolean {
    const event = this.#events[this.#read];
    if (!event) return false;
    this.#read += 1;
    if (event.kind === "output") this.#feed(event.text, event.at_s);
    return true;
  }

  #feed(text: string, at_s: number): void {
    const from = Math.max(0, this.#terminal.lines.length - 1);
    this.#terminal.feed(text.replace(MOVES, "\n").replace(SKIPS, " "));
    for (let index = from; index < this.#terminal.lines.length; index += 1) {
      const pieces = this.#terminal.lines[index]?.pieces ?? [];
      const now = pieces.map((piece) => piece.text).join("").replace(SIGNS, "");
      const line = (this.#lines[index] ??= { text: "", grown: [] });
      if (now.length === line.text.length) continue;
      line.text = now;
      line.grown.push({ length: now.length, at_s });
    }
  }
}
