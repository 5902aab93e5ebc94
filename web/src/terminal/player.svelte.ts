// A recording played on the same screen that a terminal is drawn on, so that both look the same.
//
// Going forward draws what lies between. Going back begins at the nearest snapshot before, or at the beginning: a snapshot
// is taken now and then where the terminal is in no state that a snapshot would lose.

import { first_after, type Cast, type Event } from "./cast";
import type { Paper, Snapshot } from "./paper";

export const SPEEDS = [0.5, 1, 2, 4, 8] as const;
/** Nothing printed for longer than this is idle; of it only a moment is left where idle time is skipped. */
const IDLE_S = 2;
const IDLE_LEFT_S = 0.4;
const SNAPSHOT_EVERY = 1024 * 1024;
const TICK_MS = 33;
const WRITE_AT_ONCE = 256 * 1024;

/** The screen when the events before this index were drawn. */
interface Stop extends Snapshot {
  index: number;
}

export class Player {
  position_s = $state(0);
  playing = $state(false);
  speed = $state<(typeof SPEEDS)[number]>(1);
  skips_idle = $state(true);
  /** Of the terminal that was recorded, at this position. */
  size = $state.raw({ cols: 80, rows: 24 });
  /** The recording goes on while it is watched: how far it is known. */
  duration_s = $state(0);

  readonly cast: Cast;
  #paper: Paper;
  #drawn = 0;
  #wanted: number | null = null;
  #working: Promise<void> | null = null;
  #snapshot_every: number;
  #since_snapshot = 0;
  #is_from_snapshot = false;
  /** Indices of the events that change the size. */
  #resizes: readonly number[];
  #stops: Stop[] = [];
  #ticking: ReturnType<typeof setInterval> | undefined;
  #ticked_ms = 0;

  /** `snapshot_every`: characters of output between two. */
  constructor(cast: Cast, paper: Paper, snapshot_every = SNAPSHOT_EVERY) {
    this.#snapshot_every = snapshot_every;
    this.cast = cast;
    this.#paper = paper;
    this.#resizes = cast.events.flatMap((event, index) => (event.kind === "resize" ? [index] : []));
    const { cols, rows } = cast.header ?? { cols: 80, rows: 24 };
    this.#stops = [{ index: 0, cols, rows, text: "", saved: null }];
    this.#resize(cols, rows);
    this.duration_s = cast.duration_s;
  }

  play(): void {
    if (this.playing) return;
    if (this.position_s >= this.duration_s) void this.seek(0);
    this.playing = true;
    this.#ticked_ms = performance.now();
    this.#ticking = setInterval(() => this.#tick(), TICK_MS);
  }

  pause(): void {
    this.playing = false;
    clearInterval(this.#ticking);
  }

  toggle(): void {
    if (this.playing) this.pause();
    else this.play();
  }

  /** Show the screen as it was at this second; resolves when it is drawn. */
  async seek(to_s: number): Promise<void> {
    this.position_s = Math.min(Math.max(0, to_s), this.duration_s);
    await this.#show(this.position_s);
  }

  /** The next instant at which something is printed, or the end. */
  async step(by: 1 | -1): Promise<void> {
    this.pause();
    const events = this.cast.events;
    const index = first_after(events, this.position_s);
    const target = by > 0 ? events[index] : events[first_after(events, (events[index - 1]?.at_s ?? 0) - 0.001) - 1];
    await this.seek(target?.at_s ?? (by > 0 ? this.duration_s : 0));
  }

  dispose(): void {
    this.pause();
    this.#wanted = null;
  }

  #tick(): void {
    const now_ms = performance.now();
    const passed_s = ((now_ms - this.#ticked_ms) / 1000) * this.speed;
    this.#ticked_ms = now_ms;
    // What is not drawn yet is not run away from.
    if (this.#working) return;
    let to_s = this.position_s + passed_s;
    if (this.skips_idle) to_s = this.#past_idle(to_s);
    this.position_s = Math.min(to_s, this.duration_s);
    void this.#show(this.position_s);
    if (this.position_s >= this.duration_s) this.pause();
  }

  #past_idle(to_s: number): number {
    const events = this.cast.events;
    const index = first_after(events, to_s);
    const before_s = events[index - 1]?.at_s ?? 0;
    const next_s = events[index]?.at_s ?? this.duration_s;
    return next_s - before_s > IDLE_S && to_s - before_s > IDLE_LEFT_S ? Math.max(to_s, next_s - 0.05) : to_s;
  }

  /** Only the newest wish counts: somebody who drags along the time line passes many. */
  #show(at_s: number): Promise<void> {
    this.#wanted = first_after(this.cast.events, at_s);
    this.#working ??= this.#work().finally(() => (this.#working = null));
    return this.#working;
  }

  async #work(): Promise<void> {
    while (this.#wanted !== null) {
      const to = this.#wanted;
      if (to < this.#drawn || this.#would_rewrap(to)) await this.#go_back(to);
      await this.#advance(to);
      if (this.#wanted === to) this.#wanted = null;
    }
  }

  async #go_back(to: number): Promise<void> {
    const stop = this.#stops.findLast(({ index }) => index <= to && (index === 0 || !this.#is_resized(index, to))) as Stop;
    await this.#paper.restore(stop);
    this.#is_from_snapshot = stop.index > 0;
    this.size = { cols: stop.cols, rows: stop.rows };
    this.#drawn = stop.index;
    this.#since_snapshot = 0;
  }

  async #advance(to: number): Promise<void> {
    while (this.#drawn < to) {
      let text = "";
      let event: Event | undefined;
      while (this.#drawn < to && text.length < WRITE_AT_ONCE) {
        event = this.cast.events[this.#drawn] as Event;
        if (event.kind === "resize" && text !== "") break;
        this.#drawn += 1;
        if (event.kind === "output") text += event.text;
        else if (event.kind === "resize") this.#resize(event.cols, event.rows);
      }
      await this.#paper.write(text);
      this.#since_snapshot += text.length;
      if (this.#since_snapshot >= this.#snapshot_every) this.#take_snapshot();
      // Somebody wants to see something earlier meanwhile.
      if (this.#wanted !== null && this.#wanted < this.#drawn) return;
    }
  }

  /** A screen that came from a snapshot breaks its lines in other places when its size changes. */
  #would_rewrap(to: number): boolean {
    return this.#is_from_snapshot && this.#is_resized(this.#drawn, to);
  }

  #is_resized(from: number, to: number): boolean {
    return this.#resizes.some((index) => index >= from && index < to);
  }

  #take_snapshot(): void {
    if ((this.#stops.at(-1)?.index ?? 0) >= this.#drawn || !this.#paper.is_plain()) return;
    this.#stops.push({ ...this.#paper.snapshot(), index: this.#drawn });
    this.#since_snapshot = 0;
  }

  #resize(cols: number, rows: number): void {
    this.size = { cols, rows };
    this.#paper.terminal.resize(cols, rows);
  }
}
