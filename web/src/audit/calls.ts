// The audit log's endpoints, and their JSON in the names it uses.

import { call } from "../api";
import type { List } from "../types";

export interface AuditItem {
  seq: number;
  time: string | null;
  user_id: string | null;
  username: string | null;
  action: string | null;
  target_type: string | null;
  target_id: string | null;
  outcome: string | null;
  ip: string | null;
  user_agent: string | null;
  request_id: string | null;
  meta_json: Record<string, unknown> | null;
  hash: string;
}

export interface AuditRecord {
  action: string;
  ts: string;
  outcome: string | null;
  phase: string;
  reason?: string;
  actor: { type: string; name: string; id?: string; roles?: string[]; token_id?: string };
  source?: { ip?: string; ua?: string; via?: string };
  request?: { id?: string; method?: string; route?: string };
  target?: { type: string; id: string; name?: string };
  change?: { paths: { p: string; old: unknown; new: unknown }[] };
  meta?: Record<string, unknown>;
  cause?: { parent_seq?: number };
  unreadable?: true; // somebody has damaged it, and it has nothing else
}

export interface Checkpoint {
  size: number;
  root: string;
  note: string;
  made_at: string;
  why: string;
  anchored_at: string | null;
}

export interface Segment {
  first_seq: number;
  end_seq: number;
  state: "sealed" | "uploaded" | "verified" | "pruned";
  place: string;
  key: string;
  sha256: string;
  size_bytes: number;
  oldest_at: string;
  newest_at: string;
  lock_mode: string | null;
  locked_until: string | null;
}

export interface Archive {
  place: string;
  is_local: boolean;
  retention_days: number;
  cleanup_enabled: boolean;
  next_run_at: string | null;
  is_running: boolean;
  failure: { at: string; cause: string } | null;
  next_deletion_at: string | null;
  obstacle: string | null;
  hold: string | null;
  first_seq: number;
  size: number;
  archived_bytes: number;
  total: number;
  items: Segment[];
}

export type Proven = "intact" | "broken" | "unproven";

/** The last whole verification. What is absent was not found out: see `why`. */
export interface Verified {
  seq: number;
  at: string;
  by: string;
  outcome: "success" | "failure" | "unknown" | "error";
  integrity?: Proven;
  completeness?: Proven;
  authenticity?: Proven;
  first_bad?: { first: number; last: number };
  first_seq?: number;
  size?: number;
  records?: number;
  signed_size?: number;
  duration_ms?: number;
  findings?: readonly { aspect: string; message: string }[];
  findings_total?: number;
  warnings?: readonly string[];
  why?: string;
  unreached?: string;
  recovered?: boolean;
}

export interface Verification {
  running: { started_at: string; started_by: string; records: number; total: number | null } | null;
  last: Verified | null;
}

export interface Hold {
  id: string;
  name: string;
  reason: string;
  filters: Record<string, string>;
  created_at: string;
  created_by: string;
  damaged: boolean; // its filters cannot be read, so it holds everything
}

/** The filters as the address bar and the console name them. */
export const FILTERS = ["from", "to", "user_id", "action", "target_type", "target_id", "outcome", "ip", "request_id"] as const;
export type Filters = Partial<Record<(typeof FILTERS)[number], string>>;

/** What a record can be about. */
export const TARGET_TYPES = [
  "audit_export",
  "audit_hold",
  "audit_log",
  "audit_segment",
  "audit_verification",
  "console",
  "file_copy",
  "group",
  "recordings",
  "run",
  "server",
  "session",
  "snippet",
  "ssh_key",
  "token",
  "user",
] as const;

const get = <R>(path: string, signal?: AbortSignal) => call<R>("GET", path, undefined, signal);

export function records(filters: Filters, page: { limit: number; cursor?: string | null }, signal?: AbortSignal) {
  const search = new URLSearchParams(filters);
  search.set("limit", String(page.limit));
  if (page.cursor) search.set("cursor", page.cursor);
  return get<List<AuditItem>>(`/api/audit-logs?${search}`, signal);
}
export const record = (seq: number, signal?: AbortSignal) =>
  get<{ seq: number; hash: string; record: AuditRecord }>(`/api/audit-logs/${seq}`, signal);
export const checkpoint = (signal?: AbortSignal) => get<Checkpoint>("/api/audit/checkpoint", signal);
export const key = (signal?: AbortSignal) => get<{ origin: string; vkey: string }>("/api/audit/key", signal);
export const proof = (seq: number, signal?: AbortSignal) =>
  get<{ seq: number; proof: string[]; checkpoint: Checkpoint }>(`/api/audit/proof/${seq}`, signal);
export const consistency = (from: number, to: number, signal?: AbortSignal) =>
  get<{ from: number; to: number; proof: string[] }>(`/api/audit/consistency?from=${from}&to=${to}`, signal);

export const verification = (signal?: AbortSignal) => get<Verification>("/api/audit/verify", signal);
export const start_verification = () => call<unknown>("POST", "/api/audit/verify");

export const archive = () => get<Archive>("/api/audit/segments");
export const archive_now = () => call<unknown>("POST", "/api/audit/archive");
export const holds = () => get<List<Hold>>("/api/audit/holds");
export const add_hold = (body: { name: string; reason: string; filters: Filters }) =>
  call<Hold>("POST", "/api/audit/holds", body);
export const release_hold = (hold_id: string) =>
  call<void>("DELETE", `/api/audit/holds/${encodeURIComponent(hold_id)}`);
