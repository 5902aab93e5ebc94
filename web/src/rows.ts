// Which servers the table shows and in which order: filter, sort, and what asks for a person. Pure.

import type { Server, Status } from "./types";

export type Values = Readonly<Record<string, number | null | undefined>>;

export const COLUMNS = ["status", "name", "cpu", "memory", "disk", "load", "network", "uptime"] as const;
export type Column = (typeof COLUMNS)[number];

/** Columns whose order moves by itself: rows must not jump about while they are read. */
export const MOVING: ReadonlySet<Column> = new Set(["cpu", "memory", "disk", "load", "network", "uptime"]);

/** `unapproved`, `waiting` and `disabled` are finer than the console's status, and what a person looks for. */
export type Shown = Status | "disabled" | "waiting" | "unapproved";

export function shown_status(server: Server): Shown {
  if (!server.enabled) return "disabled";
  if (server.status !== "unknown") return server.status;
  return server.status_reason === "host_key_unknown" ? "unapproved" : "waiting";
}

/** Worst first: the order of the status column and of the attention strip. */
const URGENCY: readonly Shown[] = [
  "host_key_changed",
  "auth_failed",
  "unapproved",
  "offline",
  "degraded",
  "waiting",
  "unknown",
  "online",
  "disabled",
];

export function urgency(server: Server): number {
  return URGENCY.indexOf(shown_status(server));
}

/** Does this server wait for a decision that only a person can make? */
export function needs_person(server: Server): boolean {
  return urgency(server) < URGENCY.indexOf("offline");
}

export interface Filter {
  text: string;
  status: string;
  group: string;
  label: string;
}

export function matches(server: Server, filter: Filter): boolean {
  if (filter.status && shown_status(server) !== filter.status) return false;
  if (filter.group && !server.groups.some((group) => group.name === filter.group)) return false;
  if (filter.label && !label_texts(server).includes(filter.label)) return false;
  return filter.text
    .toLowerCase()
    .split(/\s+/)
    .every((word) => searchable(server).includes(word));
}

const searched = new WeakMap<Server, string>();

function searchable(server: Server): string {
  let text = searched.get(server);
  if (text === undefined) {
    const groups = server.groups.map((group) => group.name);
    text = [server.name, server.host, ...groups, ...label_texts(server)].join("\n").toLowerCase();
    searched.set(server, text);
  }
  return text;
}

export function label_texts(server: Pick<Server, "labels">): string[] {
  return Object.entries(server.labels).map(([name, value]) => (value ? `${name}=${value}` : name));
}

const by_name = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

const VALUE_OF: Partial<Record<Column, (values: Values) => number | null | undefined>> = {
  cpu: (values) => values.cpu_percent,
  memory: (values) => values.memory_percent,
  disk: (values) => values.disk_percent,
  load: (values) => values.load1,
  network: (values) => sum(values.net_rx_bytes_per_second, values.net_tx_bytes_per_second),
  uptime: (values) => values.uptime_seconds,
};

function sum(one: number | null | undefined, other: number | null | undefined): number | null {
  return one == null && other == null ? null : (one ?? 0) + (other ?? 0);
}

/** Servers in order. Without a value they come last, whichever way; the name settles a tie. */
export function sorted(
  servers: readonly Server[],
  column: Column,
  descending: boolean,
  values_of: (server: Server) => Values | undefined,
): Server[] {
  const sign = descending ? -1 : 1;
  const name_order = new Map(
    [...servers].sort((a, b) => by_name.compare(a.name, b.name)).map((server, index) => [server, index]),
  );
  const tie = (a: Server, b: Server) => (name_order.get(a) as number) - (name_order.get(b) as number);
  const value_of = VALUE_OF[column];
  if (!value_of) {
    const rank = column === "status" ? urgency : () => 0;
    const tie_sign = column === "name" ? sign : 1;
    return [...servers].sort((a, b) => sign * (rank(a) - rank(b)) || tie_sign * tie(a, b));
  }
  const keys = new Map(servers.map((server) => [server, value_of(values_of(server) ?? {}) ?? null]));
  return [...servers].sort((a, b) => {
    const one = keys.get(a) as number | null;
    const other = keys.get(b) as number | null;
    if (one === null || other === null) return Number(one === null) - Number(other === null) || tie(a, b);
    return sign * (one - other) || tie(a, b);
  });
}
