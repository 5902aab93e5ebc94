// Every call of the pages of terminals asks for something that the console's description has, with fields that it knows.

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import * as calls from "../../src/terminal/calls";
import * as files from "../../src/terminal/files";
import { expect_described } from "../description";

const filters = { status: "closed", server_id: "s", user_id: "u", from: "2026-01-01", to: "2026-01-02" };
const page = { limit: 50, cursor: "c" };

const table: Record<string, () => Promise<unknown>> = {
  open: () => calls.open({ server_id: "s", cols: 80, rows: 24, reason: "INC-4711" }),
  ticket: () => calls.ticket("t", "watch"),
  stop: () => calls.stop("t", "maintenance"),
  session: () => calls.session("t"),
  sessions: () => calls.sessions(filters, page),
  search: () => calls.search("systemctl", filters, page),
  verify: () => calls.verify("t"),
  replay_url: () => fetch(calls.replay_url("t"), { method: "GET" }),
  download_url: () => fetch(calls.download_url("t", "v2"), { method: "GET" }),
};
const described_files: Record<string, () => Promise<unknown>> = {
  list: () => files.list("s", "/etc"),
  download_url: () => fetch(files.download_url("s", "/etc/hosts"), { method: "GET" }),
};

let asked: { url: URL; init: RequestInit }[];

beforeEach(() => {
  asked = [];
  vi.stubGlobal("fetch", async (path: string, init: RequestInit) => {
    asked.push({ url: new URL(path, "http://console"), init });
    return Response.json({ items: [], next: null });
  });
});

afterEach(() => {
  vi.unstubAllGlobals();
});

test("every function is in the table above", () => {
  const exported = Object.entries(calls).filter(([, value]) => typeof value === "function");
  expect(Object.keys(table).sort()).toEqual(exported.map(([name]) => name).sort());
});

test.each([...Object.entries(table), ...Object.entries(described_files)])("%s is described", async (_, call) => {
  await call();
  const { url, init } = asked[0] as (typeof asked)[0];
  expect_described(url, init);
});

test("a day as the end means all of it", async () => {
  await calls.sessions({ from: "2026-01-01", to: "2026-01-02" }, { limit: 1 });

  expect(asked[0]?.url.searchParams.get("from")).toBe("2026-01-01");
  expect(asked[0]?.url.searchParams.get("to")).toBe("2026-01-02T23:59:59.999999Z");
});

test("a name is sent back exactly as the console encoded it, and put into a folder as one name", () => {
  expect(files.download_url("s", "/a/%FF%26b")).toBe("/api/servers/s/files/content?path=/a/%FF%26b");
  expect(files.within("/srv/", "a/b&c #1.txt")).toBe("/srv/a%2Fb%26c%20%231.txt");
  expect(files.parent("/srv/data/")).toBe("/srv");
  expect(files.parent("/srv")).toBe("/");
  expect(files.parent("/")).toBeNull();
});
