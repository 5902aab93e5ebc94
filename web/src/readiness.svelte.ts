// What the console cannot do at the moment: write, mostly. Asked now and then, and at once when a change was refused for it.

import * as api from "./api";

const EVERY_MS = 30_000;
const WHILE_FAILING_MS = 5_000;
const AT_ONCE_MS = 1_000; // the console gives one answer for a second

/** The checks of /api/ready that say why nothing can be changed, the plainest reason first. */
export const REASONS = ["disk", "audit", "database"] as const;
export type Reason = (typeof REASONS)[number];

class Readiness {
  /** Why changes fail, or soon will; null while they work. */
  reason = $state.raw<Reason | null>(null);
  /** Does more fail than the room that is left? Then nothing can be changed now. */
  stopped = $state(false);

  #next: ReturnType<typeof setTimeout> | undefined;
  #asking = new AbortController();

  start(): void {
    this.#asking = new AbortController();
    const { signal } = this.#asking;
    api.when_unavailable(() => this.#ask_in(AT_ONCE_MS));
    document.addEventListener("visibilitychange", () => document.hidden || this.#ask_in(0), { signal });
    this.#ask_in(0);
  }

  stop(): void {
    this.#asking.abort();
    clearTimeout(this.#next);
    this.reason = null;
    this.stopped = false;
  }

  #ask_in(wait_ms: number): void {
    clearTimeout(this.#next);
    this.#next = setTimeout(() => void this.#ask(), wait_ms);
  }

  async #ask(): Promise<void> {
    const { signal } = this.#asking;
    if (!document.hidden) {
      try {
        this.#take(await api.readiness(signal));
      } catch {
        // It does not answer at all, which the live connection shows.
      }
    }
    if (!signal.aborted) this.#ask_in(this.reason ? WHILE_FAILING_MS : EVERY_MS);
  }

  #take(checks: Readonly<Record<string, { status: string }>>): void {
    const failing = REASONS.filter((name) => checks[name] && checks[name].status !== "ok");
    this.reason = failing[0] ?? null;
    this.stopped = failing.some((name) => name !== "disk");
  }
}

export const readiness = new Readiness();
