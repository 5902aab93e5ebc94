// The states of tasks, in the order in which a run passes through them, and what follows from them. Pure.

import type { Progress, Run, Task } from "./calls";

export const STATES = [
  "awaiting_approval",
  "queued",
  "running",
  "success",
  "failed",
  "timeout",
  "interrupted",
  "cancelled",
  "skipped",
  "rejected",
  "denied",
] as const;
export type Status = (typeof STATES)[number];

const OPEN: ReadonlySet<Status> = new Set(["awaiting_approval", "queued", "running"]);
const FAILURES: ReadonlySet<Status> = new Set(["failed", "timeout", "interrupted"]);
/** What a retry tries again. */
const RETRIED: ReadonlySet<Status> = new Set([...FAILURES, "cancelled", "skipped"]);

/** Finished parts first, so that the bar fills from its left as a run goes on. */
const BAR: readonly Status[] = [
  "success",
  "failed",
  "timeout",
  "interrupted",
  "cancelled",
  "skipped",
  "rejected",
  "denied",
  "running",
  "queued",
  "awaiting_approval",
];

export const is_over = (status: Status) => !OPEN.has(status);
export const is_failure = (status: Status) => FAILURES.has(status);

export function retried(progress: Progress): number {
  return STATES.filter((status) => RETRIED.has(status)).reduce((sum, status) => sum + (progress.by_status[status] ?? 0), 0);
}

/** The parts of a progress bar that have a length. */
export function parts(progress: Progress): { state: Status; number: number }[] {
  return BAR.map((state) => ({ state, number: progress.by_status[state] ?? 0 })).filter(({ number }) => number > 0);
}

export function progress_of(tasks: readonly Pick<Task, "status">[]): Progress {
  const by_status: Partial<Record<Status, number>> = {};
  for (const { status } of tasks) by_status[status] = (by_status[status] ?? 0) + 1;
  const sum = (wanted: (status: Status) => boolean) => tasks.filter(({ status }) => wanted(status)).length;
  return { total: tasks.length, open: sum((status) => OPEN.has(status)), failed: sum(is_failure), by_status };
}

/** What stands on the page: a state, or one word for a run in several, or that what runs has been told to end. */
export type Shown = Status | "partly" | "cancelling";

/** One word for a whole run: what it is at while it is open, and the worst of its ends afterwards. */
export function shown_state({ progress, cancelled_at }: Pick<Run, "progress"> & Partial<Pick<Run, "cancelled_at">>): Shown {
  const has = (status: Status) => (progress.by_status[status] ?? 0) > 0;
  if (progress.open > 0 && has("awaiting_approval")) return "awaiting_approval";
  if (progress.open > 0 && cancelled_at && progress.open === progress.by_status.running) return "cancelling";
  if (progress.open > 0) return has("running") || progress.open < progress.total ? "running" : "queued";
  const present = STATES.filter(has);
  if (present.length === 1) return present[0] as Status;
  if (has("success")) return "partly";
  return present.find(is_failure) ?? present[0] ?? "success";
}

/** The same for one task: it runs until its host has confirmed that it does not. */
export function shown_task({ status, cancel_requested_at }: Pick<Task, "status" | "cancel_requested_at">): Shown {
  return status === "running" && cancel_requested_at !== null ? "cancelling" : status;
}

const by_name = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

export function in_order(tasks: readonly Task[]): Task[] {
  return [...tasks].sort((a, b) => by_name.compare(a.server_name, b.server_name));
}

export interface News {
  id: string;
  server_id: string;
  status: Status;
  cause: string | null;
  exit_code: number | null;
}

/** The tasks with what the live connection told of them; the same array when it told nothing new. */
export function with_news(tasks: readonly Task[], news: readonly News[]): readonly Task[] {
  const by_id = new Map(news.map((one) => [one.id, one]));
  let changed = false;
  const merged = tasks.map((task) => {
    const told = by_id.get(task.id);
    // Frames may overtake an answer that was on its way: what is over does not open again.
    if (!told || told.status === task.status || (is_over(task.status) && !is_over(told.status))) return task;
    changed = true;
    const { status, cause, exit_code } = told;
    return { ...task, status, cause, exit_code, sentence: cause === task.cause ? task.sentence : null };
  });
  return changed ? merged : tasks;
}
