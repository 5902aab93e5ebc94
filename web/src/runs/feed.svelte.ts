// One run as it is now. The live connection tells what moved; asking again, unhurriedly, is what makes it true.

import * as api from "../api";
import { fleet } from "../fleet.svelte";
import * as calls from "./calls";
import type { Outputs, Progress, RunDetail, Task } from "./calls";
import { in_order, is_over, progress_of, with_news, type News } from "./states";

const ASK_MS = 1_000;
/** While the live connection tells what moves, asking only has to catch what it missed. */
const ASK_TOLD_MS = 5_000;
const ASK_LONGEST_MS = 15_000;
const TASK_MS = 3;
const OUTPUTS_MS = 2_000;
const OUTPUTS_SHARE = 10;

export class RunFeed {
  readonly id: string;
  run = $state.raw<RunDetail | null>(null);
  tasks = $state.raw<readonly Task[]>([]);
  groups = $state.raw<readonly Outputs[] | null>(null);
  missing = $state(false);
  failure = $state.raw<unknown>(null);
  /** Where the live connection tells of the tasks, they know more than the last answer about the run. */
  progress = $derived.by(() => (this.tasks.length > 0 && fleet.is_told(this.id) ? progress_of(this.tasks) : (this.run?.progress ?? null)));
  is_over = $derived(this.run !== null && this.run.progress.open === 0);

  #stopping = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #failures = 0;
  #tasks_due_at = 0;
  #outputs_due_at = 0;
  #ended_seen = -1;
  #complete = false;
  #asking = false;
  #acted = false;
  #ask_again = false;

  constructor(run_id: string) {
    this.id = run_id;
  }

  /** Keep it true until the returned function is called. */
  start(): () => void {
    const unwatch = fleet.watch_run(this.id, (news) => this.#hear(news));
    const look = () => document.hidden || this.now();
    document.addEventListener("visibilitychange", look, { signal: this.#stopping.signal });
    void this.#ask();
    return () => {
      unwatch();
      clearTimeout(this.#timer);
      this.#stopping.abort();
    };
  }

  /** Ask at once: somebody did something. */
  now(): void {
    this.#complete = false;
    this.#acted = true;
    this.#tasks_due_at = this.#outputs_due_at = 0;
    clearTimeout(this.#timer);
    // An answer that is on its way may not know of it yet.
    this.#ask_again = this.#asking;
    void this.#ask();
  }

  take(run: RunDetail): void {
    this.run = run;
    this.now();
  }

  #hear(news: readonly News[]): void {
    this.tasks = with_news(this.tasks, news);
    if (this.tasks.length > 0 && progress_of(this.tasks).open === 0 && !this.is_over) this.now();
  }

  async #ask(): Promise<void> {
    if (this.#asking) return;
    this.#asking = true;
    const { signal } = this.#stopping;
    try {
      if (!document.hidden) await this.#fetch(signal);
      this.failure = null;
      this.#failures = 0;
    } catch (refusal) {
      if (signal.aborted) return;
      if (refusal instanceof api.ApiError && refusal.status === 404) this.missing = true;
      this.failure = refusal;
      this.#failures += 1;
    } finally {
      this.#asking = false;
    }
    if (signal.aborted || this.missing) return;
    if (this.#ask_again) return this.now();
    if (this.#complete) return;
    const pause_ms = this.#failures > 0 ? Math.min(ASK_LONGEST_MS, ASK_MS * 2 ** this.#failures) : fleet.is_told(this.id) ? ASK_TOLD_MS : ASK_MS;
    this.#timer = setTimeout(() => void this.#ask(), pause_ms);
  }

  async #fetch(signal: AbortSignal): Promise<void> {
    const run = await calls.run(this.id, signal);
    const all_over = run.progress.open === 0;
    const moved = !same(progress_of(this.tasks), run.progress);
    const ended = run.progress.total - run.progress.open;
    // What was asked to end moves nothing yet, and is seen in its tasks only.
    const told = this.#acted || run.cancelled_at !== (this.run ?? run).cancelled_at;
    this.#acted = false;
    if (all_over || told || (moved && Date.now() >= this.#tasks_due_at)) {
      const answer = in_order(await calls.tasks(this.id, signal));
      // A frame may have overtaken it: what is over does not open again.
      this.tasks = with_news(answer, this.tasks.filter((task) => is_over(task.status)));
      this.#tasks_due_at = Date.now() + Math.max(ASK_MS, this.tasks.length * TASK_MS);
    }
    this.run = run;
    if (run.progress.total > 1 && ended !== this.#ended_seen && (all_over || Date.now() >= this.#outputs_due_at)) {
      const begun = performance.now();
      this.groups = (await calls.outputs(this.id, signal)).items;
      this.#ended_seen = ended;
      this.#outputs_due_at = Date.now() + Math.max(OUTPUTS_MS, OUTPUTS_SHARE * (performance.now() - begun));
    }
    this.#complete = all_over;
  }
}

function same(one: Progress, other: Progress): boolean {
  const names = new Set([...Object.keys(one.by_status), ...Object.keys(other.by_status)]) as Set<keyof Progress["by_status"]>;
  return [...names].every((name) => (one.by_status[name] ?? 0) === (other.by_status[name] ?? 0));
}
