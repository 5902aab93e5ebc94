// The endpoints of runs, tasks, the command policy and saved commands, and their JSON in the names it uses.

import { call } from "../api";
import type { Capability, List, Status as ServerStatus } from "../types";
import type { Status } from "./states";

export type Ruling = "allow" | "needs_approval" | "deny";
export type Mode = "denylist" | "allowlist";
export type Stream = "stdout" | "stderr";

/** What the policy found in a command. `span` counts bytes of its UTF-8 text. */
export interface Finding {
  rule: string;
  category?: string;
  severity?: string;
  verdict: Ruling;
  span?: [start: number, end: number] | null;
  via?: string[];
  resolved?: string | null;
  why: string;
  hint?: string | null;
}

export interface Verdict {
  verdict: Ruling;
  digest?: string;
  engine?: string;
  mode?: Mode;
  rule?: string | null;
  reason?: string | null;
  span?: [start: number, end: number] | null;
  findings?: Finding[];
}

export interface Selector {
  servers: string[];
  groups: string[];
  labels: Record<string, string>;
  all?: boolean;
}

/** A variable of the command's environment whose value appears nowhere else. */
export interface Secret {
  name: string;
  value: string;
}

/** A server that is meant, and why no command may run there. */
export interface Chosen {
  id: string;
  name: string;
  status: ServerStatus;
  capability: Capability;
  obstacle: string | null;
  sentence: string | null;
}

export interface Preview {
  servers: Chosen[];
  excluded: Chosen[];
  verdict: Verdict;
}

export interface OrderBody {
  command: string;
  selector: Selector;
  timeout_seconds?: number | null;
  max_parallel?: number;
  max_failures?: number | null;
  canary?: number;
  store_output?: boolean | null;
  reason?: string | null;
  secrets?: Record<string, string>;
}

export interface Progress {
  total: number;
  open: number;
  failed: number;
  by_status: Partial<Record<Status, number>>;
}

export interface Run {
  id: string;
  command: string;
  user_id: string | null;
  user_name: string;
  reason: string | null;
  retry_of: string | null;
  ruling: Ruling;
  rule: string | null;
  digest: string;
  timeout_seconds: number;
  max_parallel: number;
  max_failures: number | null;
  canary: number;
  store_output: boolean;
  secret_names?: string[];
  created_at: string;
  expires_at: string | null;
  decision: "approve" | "reject" | "expire" | null;
  decided_at: string | null;
  decided_by: string | null;
  decided_name: string | null;
  /** May whoever asks decide about it now? */
  may_decide: boolean;
  cancelled_at: string | null;
  cancelled_name: string | null;
  finished_at: string | null;
  progress: Progress;
}

/** A run as its own page shows it. */
export interface RunDetail extends Run {
  verdict: Verdict;
  selector: Selector;
}

export interface Task {
  id: string;
  run_id: string;
  server_id: string;
  server_name: string;
  status: Status;
  cause: string | null;
  sentence: string | null;
  detail: string | null;
  mode: "wrapped" | "attached" | null;
  exit_code: number | null;
  started_at: string | null;
  finished_at: string | null;
  cancel_requested_at: string | null;
  stdout_bytes: number | null;
  stderr_bytes: number | null;
  truncated: boolean;
}

/** A server on which a run is not tried again; without a name, those that one may not see. */
export interface LeftOut {
  server_id: string | null;
  server_name: string | null;
  sentence: string;
}

/** The beginning of what a task printed. */
export type Printed = Pick<Outputs, "stdout_sent_bytes" | "stderr_sent_bytes"> & { stdout: string; stderr: string };

/** Tasks of a run that ended alike: the same state, exit code and output. */
export interface Outputs {
  status: Status;
  exit_code: number | null;
  cause: string | null;
  sentence: string | null;
  has_output: boolean;
  stdout_bytes: number;
  stderr_bytes: number;
  /** The beginning of each; null when there are so many groups that this one comes without. */
  stdout: string | null;
  stderr: string | null;
  stdout_sent_bytes: number;
  stderr_sent_bytes: number;
  tasks: { id: string; server_id: string; server_name: string; detail: string | null }[];
}

export interface Rule {
  id: string;
  category: string;
  text: string;
  severity: string;
  verdict: Ruling;
  references: string[];
  examples: { dangerous: string[]; everyday: string[] };
}

export interface Rules {
  mode: Mode;
  items: Rule[];
  deny_patterns: string[];
  allow_patterns: string[];
}

export interface ReplayBody {
  mode?: Mode;
  deny_patterns?: string[];
  allow_patterns?: string[];
  days: number;
}

export interface Replayed {
  run_id: string;
  command: string;
  created_at: string;
  user_name: string;
  was: Ruling;
  now: Ruling;
  rule: string | null;
}

export interface Parameter {
  name: string;
  label: string;
  default: string | null;
  pattern: string | null;
}

export interface SavedBody {
  name: string;
  description: string;
  command: string;
  parameters: Parameter[];
}

/** A saved command. */
export interface Saved extends SavedBody {
  id: string;
  created_at: string;
  created_by: string | null;
  updated_at: string | null;
}

/** The filters of the history as the address bar and the console name them. */
export const FILTERS = ["status", "server_id", "user_id", "from", "to"] as const;
export type Filters = Partial<Record<(typeof FILTERS)[number], string>>;

const TASKS_AT_ONCE = 1_000;

const get = <R>(path: string, signal?: AbortSignal) => call<R>("GET", path, undefined, signal);
const post = <R>(path: string, body?: unknown, signal?: AbortSignal) => call<R>("POST", path, body, signal);
const id = encodeURIComponent;

export const preview = (body: { command: string; selector: Selector; secret_names: string[] }, signal?: AbortSignal) =>
  post<Preview>("/api/tasks/preview", body, signal);
export const start = (body: OrderBody) => post<{ run_id: string; status: Status; verdict: Verdict }>("/api/tasks", body);

export function runs(filters: Filters, page: { limit: number; cursor?: string | null }, signal?: AbortSignal) {
  const search = new URLSearchParams(filters);
  search.set("limit", String(page.limit));
  if (page.cursor) search.set("cursor", page.cursor);
  return get<List<Run>>(`/api/runs?${search}`, signal);
}
export const run = (run_id: string, signal?: AbortSignal) => get<RunDetail>(`/api/runs/${id(run_id)}`, signal);
export const outputs = (run_id: string, signal?: AbortSignal) =>
  get<List<Outputs>>(`/api/runs/${id(run_id)}/outputs`, signal);
export const cancel_run = (run_id: string) => post<RunDetail>(`/api/runs/${id(run_id)}/cancel`);
export const approve_run = (run_id: string, digest: string) =>
  post<RunDetail>(`/api/runs/${id(run_id)}/approve`, { digest });
export const reject_run = (run_id: string, reason: string | null) =>
  post<RunDetail>(`/api/runs/${id(run_id)}/reject`, { reason });
export const retry_failed = (run_id: string, secrets: Record<string, string> = {}) =>
  post<{ run_id: string; left_out: LeftOut[] }>(`/api/runs/${id(run_id)}/retry-failed`, { secrets });

/** Every task of a run, page after page. */
export async function tasks(run_id: string, signal?: AbortSignal): Promise<Task[]> {
  const all: Task[] = [];
  let cursor: string | null | undefined = null;
  do {
    const search = new URLSearchParams({ run_id, limit: String(TASKS_AT_ONCE) });
    if (cursor) search.set("cursor", cursor);
    const page: List<Task> = await get(`/api/tasks?${search}`, signal);
    all.push(...page.items);
    cursor = page.next;
  } while (cursor);
  return all;
}
export const task = (task_id: string, signal?: AbortSignal) => get<Task & Printed>(`/api/tasks/${id(task_id)}`, signal);
export const cancel_task = (task_id: string) => post<Task>(`/api/tasks/${id(task_id)}/cancel`);

export function output_url(task_id: string, stream: Stream, more: { offset?: number; follow?: boolean } = {}): string {
  const search = new URLSearchParams({ stream });
  if (more.offset) search.set("offset", String(more.offset));
  if (more.follow) search.set("follow", "true");
  if (more.follow) search.set("framed", "true");
  return `/api/tasks/${id(task_id)}/output?${search}`;
}

export const check = (body: { command: string; mode?: Mode; selector?: Selector }, signal?: AbortSignal) =>
  post<Verdict>("/api/policy/check", body, signal);
export const rules = () => get<Rules>("/api/policy/rules");
export const replay = (body: ReplayBody) => post<{ runs: number; items: Replayed[] }>("/api/policy/replay", body);

export const snippets = () => get<List<Saved>>("/api/snippets");
export const add_snippet = (body: SavedBody) => post<Saved>("/api/snippets", body);
export const change_snippet = (snippet_id: string, body: SavedBody) =>
  call<Saved>("PATCH", `/api/snippets/${id(snippet_id)}`, body);
export const remove_snippet = (snippet_id: string) => call<void>("DELETE", `/api/snippets/${id(snippet_id)}`);
