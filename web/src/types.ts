// The console's JSON, in the names it uses. Times are RFC 3339 text unless a name ends in `_s`.

import type { Verdict } from "./runs/calls";
import type { News } from "./runs/states";

export type Status = "unknown" | "online" | "degraded" | "offline" | "host_key_changed" | "auth_failed";
export type Role = "admin" | "operator" | "auditor" | "viewer";
export type Capability = "observe" | "run" | "terminal";
export type Scope = "read" | "operate" | "admin" | "metrics";
export type AuthType = "agent" | "key" | "password";
/** The console's own machine is read over a local pipe. */
export type AuthKind = AuthType | "local";

export interface List<T> {
  items: T[];
  next?: string | null;
}

export interface FieldError {
  field: string;
  message: string;
  line?: number | null;
}

export interface Problem {
  title: string;
  status: number;
  detail: string;
  code: string;
  request_id?: string;
  errors?: FieldError[];
  /** Of the command policy, where it refused. */
  verdict?: Verdict;
}

/** The checks of /api/ready by name. */
export type Checks = Readonly<Record<string, { status: "ok" | "fail"; message: string }>>;

export interface SessionBody {
  user: { id: string; name: string; role: Role | null };
  permissions: string[];
  csrf_token: string | null;
}

export interface Latest {
  at: string;
  cpu_percent?: number | null;
  memory_percent?: number | null;
  load1?: number | null;
  disk_percent?: number | null;
  net_rx_bytes_per_second?: number | null;
  net_tx_bytes_per_second?: number | null;
  uptime_seconds?: number | null;
}

export interface Reason {
  code: string;
  sentence: string;
  remedy: string;
}

export interface GroupRef {
  id: string;
  name: string;
}

export interface Server {
  id: string;
  name: string;
  host: string;
  port: number;
  username: string;
  auth: AuthKind;
  jump_server_id: string | null;
  labels: Record<string, string>;
  groups: GroupRef[];
  capability: Capability;
  enabled: boolean;
  status: Status;
  status_reason: string | null;
  status_detail: string | null;
  status_at: string | null;
  reason: Reason | null;
  latest: Latest | null;
  probe: { cpu_percent_of_core: number } | null;
}

/** A server as its own page shows it. */
export interface ServerDetail extends Server {
  jump_name: string | null;
  facts: Facts | null;
  /** Only for those who may read keys. */
  credential_id?: string | null;
  key_fingerprint?: string | null;
}

export interface Facts {
  system: string;
  kernel: string;
  architecture: string;
  hostname: string;
  cpus: number;
  memory_bytes: number | null;
  booted_at: number | null;
}

/** One of the processes that use most. The first reading has no CPU yet. */
export interface ProcessUse {
  pid: number;
  name: string;
  cpu_percent: number | null;
  memory_bytes: number;
}

export interface HostKey {
  type: string;
  fingerprint: string;
}

export interface HostKeys {
  pinned: HostKey[];
  offered: HostKey[];
}

export interface ServerBody {
  name: string;
  host: string;
  port: number;
  username: string;
  auth: { type: AuthType; key_id?: string; private_key?: string; passphrase?: string; password?: string };
  jump_server_id?: string | null;
  labels: Record<string, string>;
  capability?: Capability;
}

export type ServerChange = Partial<ServerBody> & { enabled?: boolean };

export interface TestResult {
  reachable: boolean;
  logged_in: boolean | null;
  reason: string | null;
  sentence: string | null;
  remedy: string | null;
  detail: string | null;
  offered: HostKey[];
  latency_ms: number | null;
}

export type ImportFormat = "auto" | "ssh_config" | "ansible_ini" | "ansible_yaml" | "csv" | "json";

export interface ImportBody {
  format: ImportFormat;
  text: string;
  dry_run: boolean;
  /** The account for hosts that name none. */
  username?: string;
}

export interface ImportRow {
  id: string | null;
  line: number | null;
  name: string;
  host: string;
  port: number;
  username: string;
  auth: AuthKind;
  identity_file: string | null;
  jump: string | null;
  labels: Record<string, string>;
  groups: string[];
  capability: Capability;
  notes: string[];
}

export interface ImportResult {
  format: ImportFormat;
  servers: ImportRow[];
  skipped: { line: number | null; name: string; why: string }[];
  created: number;
}

export interface TrustResult {
  trusted: string[];
  failed: { server_id: string; code: string; detail: string }[];
}

export type Point = [at: number, min: number, mean: number, max: number];

export interface MetricRange {
  metric: string;
  unit: string | null;
  step_s: number;
  points: Point[];
}

export interface Group {
  id: string;
  name: string;
  description: string;
  labels: Record<string, string>;
  server_count: number;
}

export interface Grant {
  user_id: string;
  role: Role;
}

export interface User {
  id: string;
  name: string;
  role: Role | null;
  disabled: boolean;
  created_at: string;
  password_changed_at: string | null;
}

export interface ApiToken {
  id: string;
  name: string;
  prefix: string;
  scopes: Scope[];
  works: boolean;
  created_at: string;
  expires_at: string | null;
  last_used_at: string | null;
  revoked_at: string | null;
}

export interface SessionInfo {
  id: string;
  current: boolean;
  created_at: string;
  last_seen_at: string;
  expires_at: string;
  ip: string | null;
  user_agent: string | null;
}

export interface SshKey {
  id: string;
  name: string;
  type: string;
  fingerprint: string;
  public_key: string;
  created_at: string;
}

export type LiveMessage =
  | { type: "hello" | "pong"; server_time: string }
  | { type: "subscribed" }
  | { type: "gap"; frames: number }
  | { type: "samples"; at: string; servers: Record<string, Record<string, number>> }
  | {
      type: "status";
      server: string;
      status: Status;
      reason: string | null;
      sentence?: string | null;
      remedy?: string | null;
      at?: string;
    }
  | { type: "task"; run: string; tasks: News[] }
  | { type: "watching"; run: string | null }
  | { type: "changed"; about?: "servers" | "runs" }
  | { type: "reconnect"; spread_s?: number }
  | { type: "error"; code: string };
