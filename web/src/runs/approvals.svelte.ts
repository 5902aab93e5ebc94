// How many runs wait for a decision of whoever is logged in.

import { session } from "../session.svelte";
import * as calls from "./calls";

const ASK_MS = 15_000;
const MOST = 100;

class Approvals {
  waiting = $state(0);

  /** Keep the number true until the returned function is called. */
  start(): () => void {
    const stopping = new AbortController();
    const look = () => document.hidden || void this.#ask(stopping.signal);
    const asking = setInterval(look, ASK_MS);
    document.addEventListener("visibilitychange", look, { signal: stopping.signal });
    look();
    return () => {
      clearInterval(asking);
      stopping.abort();
      this.waiting = 0;
    };
  }

  async #ask(signal: AbortSignal): Promise<void> {
    try {
      const { items } = await calls.runs({ status: "awaiting_approval" }, { limit: MOST }, signal);
      const now = Date.now();
      this.waiting = items.filter((run) => run.user_id !== session.user?.id && Date.parse(run.expires_at ?? "") > now).length;
    } catch {
      // The number is a help; what it counts is on the page of the runs.
    }
  }
}

export const approvals = new Approvals();
