// A recording as the console sends it: asciicast v3, one JSON value a line, a header and then events with the seconds since
// the event before. Read as it arrives. Pure.
//
//     {"version":3,"term":{"cols":80,"rows":24},"timestamp":1764096000,"title":"ada on web-1"}
//     [0.25,"o","$ "]
//     [1.5,"r","100x30"]
//     [0.1,"m","watched by grace"]
//     [0.0,"x","0"]

export interface Header {
  cols: number;
  rows: number;
  /** When it began, Unix seconds. */
  started_at_s: number | null;
}

export type Event =
  | { at_s: number; kind: "output"; text: string }
  | { at_s: number; kind: "resize"; cols: number; rows: number }
  | { at_s: number; kind: "mark"; label: string }
  | { at_s: number; kind: "exit"; status: string };

export class Cast {
  header: Header | null = null;
  readonly events: Event[] = [];
  /** When the last event was. */
  duration_s = 0;
  /** Of output so far, in characters: what it takes to keep it here. */
  size = 0;
  /** Lines that could not be read. They are counted and left out. */
  unread = 0;
  #rest = "";

  /** The next piece of the answer, wherever it was cut. */
  feed(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#line(line);
  }

  /** The answer is whole: what follows the last line feed is a line too. */
  end(): void {
    this.#line(this.#rest);
    this.#rest = "";
  }

  get marks(): readonly (Event & { kind: "mark" })[] {
    return this.events.filter((event): event is Event & { kind: "mark" } => event.kind === "mark");
  }

  #line(line: string): void {
    if (line.trim() === "" || line.startsWith("#")) return;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      this.unread += 1;
      return;
    }
    if (!this.header) this.#begin(value);
    else this.#event(value);
  }

  #begin(value: unknown): void {
    const told = (value ?? {}) as { term?: { cols?: unknown; rows?: unknown }; timestamp?: unknown };
    this.header = {
      cols: within(told.term?.cols, 80),
      rows: within(told.term?.rows, 24),
      started_at_s: typeof told.timestamp === "number" ? told.timestamp : null,
    };
  }

  #event(value: unknown): void {
    if (!Array.isArray(value) || typeof value[0] !== "number" || !(value[0] >= 0) || typeof value[2] !== "string") {
      this.unread += 1;
      return;
    }
    const [since_s, code, data] = value as [number, unknown, string];
    this.duration_s += since_s;
    const at_s = this.duration_s;
    if (code === "o") {
      this.size += data.length;
      this.events.push({ at_s, kind: "output", text: data });
    } else if (code === "r") {
      const [cols, rows] = data.split("x").map(Number);
      this.events.push({ at_s, kind: "resize", cols: within(cols, 80), rows: within(rows, 24) });
    } else if (code === "m") this.events.push({ at_s, kind: "mark", label: data });
    else if (code === "x") this.events.push({ at_s, kind: "exit", status: data });
  }
}

/** A size that a terminal can have; the recording of a hostile host may say anything. */
function within(value: unknown, otherwise: number): number {
  return typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= 1_000 ? value : otherwise;
}

/** Index of the first event after this instant. */
export function first_after(events: readonly Event[], at_s: number): number {
  let [low, high] = [0, events.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((events[middle] as Event).at_s <= at_s) low = middle + 1;
    else high = middle;
  }
  return low;
}
