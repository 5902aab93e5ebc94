// One stream of one task's output, from its last megabyte on and as it comes. Only the last lines are kept here; all of
// it that the console keeps can be downloaded. What came faster than it is kept is left out, and a line says how much.

import * as api from "../api";
import { bytes as size } from "../format";
import { t } from "../messages";
import { output_url, type Stream } from "./calls";
import { Frames, type Piece } from "./frames";
import { is_over, type Status } from "./states";
import { Terminal, without_empty_end, type Line } from "./terminal";

export const LINES_KEPT = 4_000;
const BYTES_BEFORE = 1_048_576;
const PAUSE_MS = 1_000;
const PAUSE_LONGEST_MS = 10_000;
const DRAW_MS = 80;

export class Following {
  lines = $state.raw<readonly Line[]>([]);
  dropped = $state(0);
  /** Bytes at the beginning that were not fetched. */
  skipped_bytes = $state(0);
  /** How far into the stream this is. */
  reached_bytes = $state(0);
  state = $state<"following" | "lost" | "done">("following");
  failure = $state.raw<unknown>(null);

  #terminal = new Terminal(LINES_KEPT);
  #decoder = new TextDecoder();
  #drawing: ReturnType<typeof setTimeout> | undefined;

  /** Follow until the task is over or `signal` aborts. */
  async follow(task_id: string, stream: Stream, signal: AbortSignal): Promise<void> {
    let failures = 0;
    while (!signal.aborted) {
      try {
        const status = await this.#read(task_id, stream, signal);
        failures = 0;
        if (is_over(status)) break;
        this.state = "following";
      } catch (failure) {
        if (signal.aborted) return;
        if (failure instanceof api.ApiError && failure.status >= 400 && failure.status < 500) {
          this.failure = failure;
          break;
        }
        failures += 1;
        this.state = "lost";
      }
      await paused(Math.min(PAUSE_LONGEST_MS, PAUSE_MS * 2 ** failures), signal);
    }
    if (signal.aborted) return;
    this.#terminal.feed(this.#decoder.decode());
    this.state = "done";
    this.#draw();
  }

  /** Read what there is from the offset on; returns the state that the task had when the answer began. */
  async #read(task_id: string, stream: Stream, signal: AbortSignal): Promise<Status> {
    let response = await this.#open(task_id, stream, signal);
    const total = Number(response.headers.get("X-Total-Bytes") ?? 0);
    if (this.reached_bytes === 0 && total > 2 * BYTES_BEFORE) {
      await response.body?.cancel();
      this.reached_bytes = this.skipped_bytes = total - BYTES_BEFORE;
      response = await this.#open(task_id, stream, signal);
    }
    const frames = new Frames();
    const reader = response.body?.getReader();
    for (let read = await reader?.read(); read && !read.done; read = await reader?.read())
      for (const piece of frames.feed(read.value)) this.#take(piece);
    return (response.headers.get("X-Task-Status") ?? "success") as Status;
  }

  async #open(task_id: string, stream: Stream, signal: AbortSignal): Promise<Response> {
    const response = await api.stream(output_url(task_id, stream, { offset: this.reached_bytes, follow: true }), signal);
    this.state = "following";
    return response;
  }

  #take({ at, bytes }: Piece): void {
    if (at > this.reached_bytes) this.#leave_out(at - this.reached_bytes);
    this.reached_bytes = at + bytes.length;
    this.#terminal.feed(this.#decoder.decode(bytes, { stream: true }));
    this.#drawing ??= setTimeout(() => this.#draw(), DRAW_MS);
  }

  #leave_out(missing: number): void {
    this.#terminal.feed(this.#decoder.decode());
    this.#terminal.remark(t.runs.output.left_out(size(missing)));
  }

  #draw(): void {
    clearTimeout(this.#drawing);
    this.#drawing = undefined;
    this.lines = without_empty_end(this.#terminal.lines.slice());
    this.dropped = this.#terminal.dropped;
  }
}

function paused(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
