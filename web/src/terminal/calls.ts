// The part of the API that is about terminals, in the names the console uses.

import { call } from "../api";
import type { List } from "../types";

export type SessionStatus = "active" | "closed" | "interrupted" | "timeout" | "stopped";
/** What can be said of the file of a recording. */
export type Kept = "open" | "unverified" | "verified" | "damaged" | "missing" | "archived";

/** A shell that somebody opened. */
export interface Session {
  id: string;
  user_id: string;
  user_name: string;
  server_id: string;
  server_name: string;
  account: string;
  reason: string | null;
  status: SessionStatus;
  cause: string | null;
  sentence?: string | null;
  created_at: string;
  started_at: string | null;
  finished_at: string | null;
  /** null: no shell was opened, so there is none. */
  recording: Kept | null;
  recording_bytes: number;
  output_bytes: number;
  chunks: number;
  head: string | null;
  verified_at: string | null;
  /** Active, and a browser is there that types in it; else it waits for one to come back. */
  is_attached?: boolean;
  /** Active, and nothing is typed or shown any more: the last of it is being written down. */
  is_ending?: boolean;
  /** Who looks on, while it is active. */
  watchers?: string[];
}

/** What opens the socket, once. */
export interface Ticket {
  ticket: string;
  path: string;
}

export type Verdict = "intact" | "unproven" | "damaged" | "missing";

/** A recording held against the audit log. */
export interface Verification {
  verdict: Verdict;
  findings: { code: string; message: string; chunk: number | null }[];
  chunks: number;
}

export interface Hit {
  session_id: string;
  server_name: string;
  user_name: string;
  started_at: string;
  at_s: number;
  line: string;
}

export interface Hits extends List<Hit> {
  /** Whether every recording was looked through; else `next` goes on. */
  is_complete: boolean;
  /** Recordings that could not be read, or lie in the archive only. */
  not_searched?: number;
}

export type ExportFormat = "v2" | "v3" | "text";

/** The filters of the list as the address bar and the console name them. */
export const FILTERS = ["status", "recording", "server_id", "user_id", "from", "to"] as const;
export type Filters = Partial<Record<(typeof FILTERS)[number], string>>;
/** Recordings that are not what the audit log says of them. */
export const BROKEN = "damaged,missing";

const id = encodeURIComponent;
const path = (session_id: string) => `/api/terminal/sessions/${id(session_id)}`;

export const open = (body: { server_id: string; cols: number; rows: number; reason: string | null }) =>
  call<Ticket & { id: string }>("POST", "/api/terminal/sessions", body);
export const ticket = (session_id: string, purpose: "attach" | "watch") =>
  call<Ticket>("POST", `${path(session_id)}/ticket`, { purpose });
export const stop = (session_id: string, reason: string | null) =>
  call<unknown>("POST", `${path(session_id)}/stop`, { reason });

export const session = (session_id: string, signal?: AbortSignal) =>
  call<Session>("GET", path(session_id), undefined, signal);
export function sessions(filters: Filters, page: { limit: number; cursor?: string | null }, signal?: AbortSignal) {
  return call<List<Session>>("GET", `/api/terminal/sessions?${query(filters, page)}`, undefined, signal);
}
export function search(q: string, filters: Filters, page: { limit: number; cursor?: string | null }, signal?: AbortSignal) {
  const { status: _status, recording: _recording, ...where } = filters;
  return call<Hits>("GET", `/api/terminal/search?${query({ q, ...where }, page)}`, undefined, signal);
}

export const verify = (session_id: string) => call<Verification>("POST", `${path(session_id)}/verify`);
export const replay_url = (session_id: string) => `${path(session_id)}/replay`;
export const download_url = (session_id: string, format: ExportFormat) => `${path(session_id)}/recording?format=${format}`;

/** A day alone means all of it, as in the audit log. */
function through(to: string): string {
  return /^\d{4}-\d\d-\d\d$/.test(to) ? `${to}T23:59:59.999999Z` : to;
}

function query(filters: Record<string, string | undefined>, page: { limit: number; cursor?: string | null }): URLSearchParams {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(filters)) if (value) search.set(name, name === "to" ? through(value) : value);
  search.set("limit", String(page.limit));
  if (page.cursor) search.set("cursor", page.cursor);
  return search;
}
