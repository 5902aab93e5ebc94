// Every call of the pages of runs asks for something that the console's description has, with fields that it knows.

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import * as calls from "../../src/runs/calls";
import { description, expect_described } from "../description";

const selector = { servers: ["s"], groups: ["g"], labels: { env: "prod" }, all: false };
const order = {
  command: "uptime",
  selector,
  timeout_seconds: 60,
  max_parallel: 50,
  max_failures: 1,
  canary: 1,
  store_output: true,
  reason: "because",
  secrets: {},
};
const snippet = {
  name: "n",
  description: "",
  command: "echo {{a}}",
  parameters: [{ name: "a", label: "A", default: null, pattern: null }],
};

const table: Record<string, () => Promise<unknown>> = {
  preview: () => calls.preview({ command: "uptime", selector, secret_names: ["DB_PASSWORD"] }),
  start: () => calls.start(order),
  runs: () => calls.runs({ status: "failed", server_id: "s", user_id: "u", from: "2026-01-01", to: "2026-01-02" }, { limit: 50, cursor: "c" }),
  run: () => calls.run("r"),
  outputs: () => calls.outputs("r"),
  cancel_run: () => calls.cancel_run("r"),
  approve_run: () => calls.approve_run("r", "sha256:x"),
  reject_run: () => calls.reject_run("r", "no"),
  retry_failed: () => calls.retry_failed("r", { TOKEN: "value" }),
  tasks: () => calls.tasks("r"),
  task: () => calls.task("t"),
  cancel_task: () => calls.cancel_task("t"),
  output_url: () => fetch(calls.output_url("t", "stderr", { offset: 1, follow: true }), { method: "GET" }),
  check: () => calls.check({ command: "uptime", mode: "denylist", selector }),
  rules: () => calls.rules(),
  replay: () => calls.replay({ mode: "allowlist", deny_patterns: ["a"], allow_patterns: ["b"], days: 30 }),
  snippets: () => calls.snippets(),
  add_snippet: () => calls.add_snippet(snippet),
  change_snippet: () => calls.change_snippet("n", snippet),
  remove_snippet: () => calls.remove_snippet("n"),
};
const POLICY = new Set(["check", "rules", "replay"]);

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

test("every call is in the table above", () => {
  expect(Object.keys(table).sort()).toEqual(Object.keys(calls).filter((name) => name !== "FILTERS").sort());
});

test.each(Object.keys(table).filter((name) => !POLICY.has(name) || "/api/policy/check" in description.paths))("%s is described", async (name) => {
  await table[name]?.();
  const { url, init } = asked[0] as (typeof asked)[0];
  expect_described(url, init);
});

test("a run of many pages is fetched to its end", async () => {
  const pages = [
    { items: [{ id: "a" }], next: "c+1" },
    { items: [{ id: "b" }], next: null },
  ];
  vi.stubGlobal("fetch", async (path: string, init: RequestInit) => {
    asked.push({ url: new URL(path, "http://console"), init });
    return Response.json(pages.shift());
  });
  expect((await calls.tasks("r")).map((one) => one.id)).toEqual(["a", "b"]);
  expect(asked[1]?.url.searchParams.get("cursor")).toBe("c+1");
});
