// How many runs wait for a decision of whoever is logged in.

import * as calls from "./calls";

/** The live connection tells of every change; this is for what it missed, and for the end of an approval's time. */
const ASK_MS = 30_000;
const MOST = 100;
/** A run under way says once a second that something changed. */
const SOON_MS = 1_500;

class Approvals {
  waiting = $state(0);
  #stopping = new AbortController();
  #soon: ReturnType<typeof setTimeout> | undefined;

  /** Keep the number true until the returned function is called. */
  start(): () => void {
    const stopping = (this.#stopping = new AbortController());
    const look = () => this.look();
    const asking = setInterval(look, ASK_MS);
    document.addEventListener("visibilitychange", look, { signal: stopping.signal });
    look();
    return () => {
      clearInterval(asking);
      stopping.abort();
      this.waiting = 0;
    };
  }

  look(): void {
    if (!document.hidden) void this.#ask(this.#stopping.signal);
  }

  /** Look, together with whatever else asks for it meanwhile. */
  look_soon(): void {
    this.#soon ??= setTimeout(() => {
      this.#soon = undefined;
      this.look();
    }, SOON_MS);
  }

  async #ask(signal: AbortSignal): Promise<void> {
    try {
      const { items } = await calls.runs({ status: "awaiting_approval" }, { limit: MOST }, signal);
      this.waiting = items.filter((run) => run.may_decide).length;
    } catch {
      // The number is a help; what it counts is on the page of the runs.
    }
  }
}

export const approvals = new Approvals();
