import { expect, test } from "vitest";
import { matches, needs_person, shown_status, sorted, type Column, type Values } from "../src/rows";
import type { Server } from "../src/types";
import { visible_rows } from "../src/window";

function server(name: string, given: Partial<Server> = {}): Server {
  return {
    id: name,
    name,
    host: `${name}.example.com`,
    port: 22,
    username: "ops",
    auth: "key",
    jump_server_id: null,
    labels: {},
    groups: [],
    capability: "observe",
    enabled: true,
    status: "online",
    status_reason: null,
    status_detail: null,
    status_at: null,
    reason: null,
    latest: null,
    probe: null,
    ...given,
  };
}

const everything = { text: "", status: "", group: "", label: "" };
const order = (servers: Server[], column: Column, descending: boolean, values: Record<string, Values> = {}) =>
  sorted(servers, column, descending, (one) => values[one.id]).map((one) => one.name);

test("names are in the order people count in", () => {
  const servers = ["web-10", "web-2", "Web-1"].map((name) => server(name));
  expect(order(servers, "name", false)).toEqual(["Web-1", "web-2", "web-10"]);
  expect(order(servers, "name", true)).toEqual(["web-10", "web-2", "Web-1"]);
});

test("a server without a value comes last, whichever way", () => {
  const servers = ["a", "b", "c"].map((name) => server(name));
  const values = { a: { cpu_percent: 5 }, c: { cpu_percent: 50 } };
  expect(order(servers, "cpu", true, values)).toEqual(["c", "a", "b"]);
  expect(order(servers, "cpu", false, values)).toEqual(["a", "c", "b"]);
});

test("what needs a person comes first by status", () => {
  const servers = [
    server("on"),
    server("off", { status: "offline" }),
    server("new", { status: "unknown", status_reason: "host_key_unknown" }),
    server("changed", { status: "host_key_changed" }),
    server("disabled", { enabled: false, status: "unknown" }),
  ];
  expect(order(servers, "status", false)).toEqual(["changed", "new", "off", "on", "disabled"]);
  expect(servers.filter(needs_person).map((one) => one.name)).toEqual(["new", "changed"]);
});

test("a server that is not connected yet is waiting, not unapproved", () => {
  expect(shown_status(server("a", { status: "unknown" }))).toBe("waiting");
});

test("every word of the search must be found, in the name, the address, a group or a label", () => {
  const one = server("web-1", { labels: { env: "prod" }, groups: [{ id: "g", name: "Frontend" }] });
  expect(matches(one, { ...everything, text: "WEB prod" })).toBe(true);
  expect(matches(one, { ...everything, text: "front example.com" })).toBe(true);
  expect(matches(one, { ...everything, text: "web stage" })).toBe(false);
});

test("filters by status, group and label must all hold", () => {
  const one = server("web-1", { labels: { env: "prod" }, groups: [{ id: "g", name: "Frontend" }] });
  expect(matches(one, { text: "", status: "online", group: "Frontend", label: "env=prod" })).toBe(true);
  expect(matches(one, { text: "", status: "offline", group: "Frontend", label: "env=prod" })).toBe(false);
});

test("only the rows on the screen and a chunk around them exist, and the space around keeps the height", () => {
  const shown = visible_rows(2000, 36, 36_000, 900);
  expect(shown.first).toBe(992);
  expect(shown.end).toBe(1040);
  expect(shown.above + (shown.end - shown.first) * 36 + shown.below).toBe(2000 * 36);
});

test("a short step of a scroll changes no row", () => {
  const rows = (scrolled: number) => visible_rows(2000, 36, scrolled, 900).first;
  expect(rows(36_000 + 7 * 36)).toBe(rows(36_000));
  expect(rows(36_000 + 8 * 36)).toBe(rows(36_000) + 8);
});

test("a list that became shorter than the scroll position shows its end", () => {
  expect(visible_rows(3, 36, 36_000, 900)).toEqual({ first: 0, end: 3, above: 0, below: 0 });
});
