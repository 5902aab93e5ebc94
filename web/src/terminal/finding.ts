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

export class Lines {
  #terminal = new Terminal();
  #lines: Line[] = [];

  /** All lines in the order of time. What a full-screen program draws comes as it was sent. */
  constructor(events: readonly Event[]) {
    for (const event of events) if (event.kind === "output") this.#feed(event.text, event.at_s);
  }

  find(wanted: string): Hit[] {
    const lower = wanted.trim().toLowerCase();
    if (lower === "") return [];
    return this.#lines.flatMap(({ text, grown }) => {
      const at = text.toLowerCase().indexOf(lower);
      if (at < 0) return [];
      const shown = grown.find(({ length }) => length >= at + lower.length) ?? grown.at(-1);
      return [{ at_s: shown?.at_s ?? 0, text: text.trim() }];
    });
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
