// One typed function per endpoint. Nothing else calls fetch.

import type * as T from "./types";

export class ApiError extends Error {
  constructor(
    readonly problem: T.Problem,
    readonly retry_after_s: number | null = null,
  ) {
    super(problem.detail);
  }

  get code(): string {
    return this.problem.code;
  }

  get status(): number {
    return this.problem.status;
  }

  /** The sentence for one field of the form, or undefined when that field is fine. */
  field(name: string): string | undefined {
    return this.problem.errors?.find((error) => error.field === name)?.message;
  }
}

const DEADLINE_MS = 30_000;
const SAFE = new Set(["GET", "HEAD"]);

let csrf_token = "";
let on_logged_out: () => void = () => undefined;
let on_unavailable: () => void = () => undefined;

export function use_csrf_token(token: string): void {
  csrf_token = token;
}

export function when_logged_out(react: () => void): void {
  on_logged_out = react;
}

/** Told of every request that was refused because the console cannot write, or is not whole, at the moment. */
export function when_unavailable(react: () => void): void {
  on_unavailable = react;
}

/** What a change has to carry besides the cookie. */
export function csrf_header(): Record<string, string> {
  return csrf_token ? { "X-CSRF-Token": csrf_token } : {};
}

export async function call<R>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<R> {
  const headers: Record<string, string> = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (!SAFE.has(method)) Object.assign(headers, csrf_header());
  const deadline = AbortSignal.timeout(DEADLINE_MS);
  let response: Response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
    });
  } catch (failure) {
    if (signal?.aborted) throw failure;
    throw new ApiError({ title: "Unreachable", status: 0, detail: "", code: "console_unreachable" });
  }
  if (!response.ok) throw await refused(response);
  if (response.status === 204) return undefined as R;
  return (await response.json()) as R;
}

/** A long answer, to be read as it arrives; it may take as long as it takes. */
export async function stream(path: string, signal: AbortSignal): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { credentials: "same-origin", signal });
  } catch (failure) {
    if (signal.aborted) throw failure;
    throw new ApiError({ title: "Unreachable", status: 0, detail: "", code: "console_unreachable" });
  }
  if (!response.ok) throw await refused(response);
  return response;
}

async function refused(response: Response): Promise<ApiError> {
  let problem: T.Problem;
  try {
    problem = (await response.json()) as T.Problem;
  } catch {
    problem = { title: response.statusText, status: response.status, detail: "", code: "unreadable" };
  }
  if (response.status === 503) on_unavailable();
  if (response.status === 401 && problem.code !== "login_failed") on_logged_out();
  const wait = Number(response.headers.get("Retry-After"));
  return new ApiError({ ...problem, status: response.status }, wait > 0 ? wait : null);
}

/** The page itself, as the console has it now. */
export async function front_page(): Promise<string> {
  const response = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(DEADLINE_MS) });
  if (!response.ok) throw await refused(response);
  return response.text();
}

/** What the console says of itself: each check by name. It answers 503 when one of them fails. */
export async function readiness(signal: AbortSignal): Promise<T.Checks> {
  const deadline = AbortSignal.timeout(DEADLINE_MS);
  const response = await fetch("/api/ready", { method: "GET", signal: AbortSignal.any([signal, deadline]) });
  return ((await response.json()) as { checks: T.Checks }).checks;
}

const get = <R>(path: string, signal?: AbortSignal) => call<R>("GET", path, undefined, signal);
const post = <R>(path: string, body?: unknown) => call<R>("POST", path, body);
const id = encodeURIComponent;

export const setup_status = () => get<{ needed: boolean }>("/api/setup/status");
export const setup_initialize = (body: { token: string; username: string; password: string }) =>
  post<T.SessionBody>("/api/setup/initialize", body);

export const login = (username: string, password: string) =>
  post<T.SessionBody>("/api/auth/login", { username, password });
export const logout = () => post<void>("/api/auth/logout");
export const verify = () => get<T.SessionBody>("/api/auth/verify");

/** Every server the user may see, page after page. */
export async function servers(signal?: AbortSignal): Promise<T.Server[]> {
  const all: T.Server[] = [];
  let cursor: string | null | undefined = "";
  do {
    const page: T.List<T.Server> = await get(
      `/api/servers?limit=1000${cursor ? `&cursor=${id(cursor)}` : ""}`,
      signal,
    );
    all.push(...page.items);
    cursor = page.next;
  } while (cursor);
  return all;
}
export const server = (server_id: string, signal?: AbortSignal) =>
  get<T.ServerDetail>(`/api/servers/${id(server_id)}`, signal);
export const processes = (server_id: string, signal?: AbortSignal) =>
  get<T.List<T.ProcessUse>>(`/api/servers/${id(server_id)}/processes`, signal);
export const add_server = (body: T.ServerBody) => post<T.ServerDetail>("/api/servers", body);
export const change_server = (server_id: string, change: T.ServerChange) =>
  call<T.ServerDetail>("PATCH", `/api/servers/${id(server_id)}`, change);
export const remove_server = (server_id: string) => call<void>("DELETE", `/api/servers/${id(server_id)}`);
export const test_new_server = (body: T.ServerBody) => post<T.TestResult>("/api/servers/test", body);
export const test_server = (server_id: string) => post<T.TestResult>(`/api/servers/${id(server_id)}/test`);
export const import_servers = (body: T.ImportBody) => post<T.ImportResult>("/api/servers/import", body);

export const host_keys = (server_id: string) => get<T.HostKeys>(`/api/servers/${id(server_id)}/host-key`);
export const trust_host_key = (server_id: string, fingerprint: string) =>
  post<T.HostKeys>(`/api/servers/${id(server_id)}/host-key`, { fingerprint });
export const trust_host_keys = (items: { server_id: string; fingerprint: string }[]) =>
  post<T.TrustResult>("/api/servers/host-keys/trust", { items });

export interface RangeQuery {
  metrics: readonly string[];
  from_s: number;
  to_s: number;
  points: number;
}

/** History of several series of one server over one range. */
export async function metrics(
  server_id: string,
  query: RangeQuery,
  signal?: AbortSignal,
): Promise<T.MetricRange[]> {
  const search = new URLSearchParams();
  for (const metric of query.metrics) search.append("metric", metric);
  search.set("from", new Date(query.from_s * 1000).toISOString());
  search.set("to", new Date(query.to_s * 1000).toISOString());
  search.set("points", String(query.points));
  const answer = await get<T.List<T.MetricRange> | T.MetricRange>(
    `/api/servers/${id(server_id)}/metrics?${search}`,
    signal,
  );
  return "items" in answer ? answer.items : [answer];
}

export const groups = () => get<T.List<T.Group>>("/api/groups");
export const add_group = (body: { name: string; description: string }) => post<T.Group>("/api/groups", body);
export const change_group = (group_id: string, change: { name?: string; description?: string }) =>
  call<T.Group>("PATCH", `/api/groups/${id(group_id)}`, change);
export const remove_group = (group_id: string) => call<void>("DELETE", `/api/groups/${id(group_id)}`);
export const group_members = (group_id: string) =>
  get<{ servers: string[] }>(`/api/groups/${id(group_id)}/members`);
export const set_group_members = (group_id: string, servers: string[]) =>
  call<unknown>("PUT", `/api/groups/${id(group_id)}/members`, { servers });
export const group_grants = (group_id: string) =>
  get<{ grants: T.Grant[] }>(`/api/groups/${id(group_id)}/grants`);
export const set_group_grants = (group_id: string, grants: T.Grant[]) =>
  call<unknown>("PUT", `/api/groups/${id(group_id)}/grants`, { grants });

export const users = () => get<T.List<T.User>>("/api/users");
export const add_user = (body: { name: string; password: string; role: T.Role | null }) =>
  post<T.User>("/api/users", body);
export const change_user = (
  user_id: string,
  change: { role?: T.Role | null; disabled?: boolean; password?: string },
) => call<T.User>("PATCH", `/api/users/${id(user_id)}`, change);
export const remove_user = (user_id: string) => call<void>("DELETE", `/api/users/${id(user_id)}`);
export const change_own_password = (current: string, next: string) =>
  post<void>("/api/users/me/password", { current, new: next });

export const tokens = () => get<T.List<T.ApiToken>>("/api/tokens");
export const add_token = (body: { name: string; scopes: T.Scope[]; expires_in_days: number; password?: string }) =>
  post<T.ApiToken & { token: string }>("/api/tokens", body);
export const revoke_token = (token_id: string) => call<void>("DELETE", `/api/tokens/${id(token_id)}`);

export const sessions = () => get<T.List<T.SessionInfo>>("/api/sessions");
export const end_session = (session_id: string) => call<void>("DELETE", `/api/sessions/${id(session_id)}`);

export const ssh_keys = () => get<T.List<T.SshKey>>("/api/ssh-keys");
export const add_ssh_key = (body: { name: string; private_key: string; passphrase?: string }) =>
  post<T.SshKey>("/api/ssh-keys", body);
export const remove_ssh_key = (key_id: string) => call<void>("DELETE", `/api/ssh-keys/${id(key_id)}`);
