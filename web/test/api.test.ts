// Every function of api.ts asks for something that the console's description has, with fields that it knows.

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import * as api from "../src/api";
import type { ServerBody } from "../src/types";
import { expect_described } from "./description";

const server: ServerBody = {
  name: "web-1",
  host: "10.0.0.1",
  port: 22,
  username: "ops",
  auth: { type: "key", key_id: "k", private_key: "p", passphrase: "s", password: "w" },
  jump_server_id: null,
  labels: {},
  capability: "observe",
};

const calls: Record<string, () => Promise<unknown>> = {
  processes: () => api.processes("s"),
  readiness: () => api.readiness(new AbortController().signal),
  setup_status: () => api.setup_status(),
  setup_initialize: () => api.setup_initialize({ token: "t", username: "ada", password: "p" }),
  login: () => api.login("ada", "p"),
  logout: () => api.logout(),
  verify: () => api.verify(),
  servers: () => api.servers(),
  server: () => api.server("s"),
  add_server: () => api.add_server(server),
  change_server: () => api.change_server("s", { ...server, enabled: true }),
  remove_server: () => api.remove_server("s"),
  test_new_server: () => api.test_new_server(server),
  test_server: () => api.test_server("s"),
  import_servers: () => api.import_servers({ format: "auto", text: "", dry_run: true, username: "ops" }),
  host_keys: () => api.host_keys("s"),
  trust_host_key: () => api.trust_host_key("s", "SHA256:x"),
  trust_host_keys: () => api.trust_host_keys([{ server_id: "s", fingerprint: "SHA256:x" }]),
  metrics: () => api.metrics("s", { metrics: ["cpu_percent", "load1"], from_s: 1, to_s: 2, points: 3 }),
  groups: () => api.groups(),
  add_group: () => api.add_group({ name: "g", description: "" }),
  change_group: () => api.change_group("g", { name: "g", description: "" }),
  remove_group: () => api.remove_group("g"),
  group_members: () => api.group_members("g"),
  set_group_members: () => api.set_group_members("g", ["s"]),
  group_grants: () => api.group_grants("g"),
  set_group_grants: () => api.set_group_grants("g", [{ user_id: "u", role: "viewer" }]),
  users: () => api.users(),
  add_user: () => api.add_user({ name: "u", password: "p", role: null }),
  change_user: () => api.change_user("u", { role: null, disabled: true, password: "p" }),
  remove_user: () => api.remove_user("u"),
  change_own_password: () => api.change_own_password("p", "q"),
  tokens: () => api.tokens(),
  add_token: () => api.add_token({ name: "t", scopes: ["read"], expires_in_days: 1, password: "p" }),
  revoke_token: () => api.revoke_token("t"),
  sessions: () => api.sessions(),
  end_session: () => api.end_session("s"),
  ssh_keys: () => api.ssh_keys(),
  add_ssh_key: () => api.add_ssh_key({ name: "k", private_key: "p", passphrase: "s" }),
  remove_ssh_key: () => api.remove_ssh_key("k"),
};
const NOT_CALLS = new Set(["call", "stream", "front_page", "ApiError", "csrf_header", "use_csrf_token", "when_logged_out", "when_unavailable"]);

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
  api.use_csrf_token("");
});

test("every function is in the table below", () => {
  const exported = Object.keys(api).filter((name) => !NOT_CALLS.has(name));
  expect(Object.keys(calls).sort()).toEqual(exported.sort());
});

test.each(Object.entries(calls))("%s is described", async (_, call) => {
  await call();
  const { url, init } = asked[0] as (typeof asked)[0];
  expect_described(url, init);
});

test("only what changes something carries the CSRF token", async () => {
  api.use_csrf_token("csrf");
  await api.servers();
  await api.remove_server("s");
  expect(asked.map(({ init }) => (init.headers as Record<string, string>)["X-CSRF-Token"])).toEqual([undefined, "csrf"]);
});

test("every page of the servers is fetched", async () => {
  const pages = [
    { items: [{ id: "a" }], next: "c+1" },
    { items: [{ id: "b" }], next: null },
  ];
  vi.stubGlobal("fetch", async (path: string, init: RequestInit) => {
    asked.push({ url: new URL(path, "http://console"), init });
    return Response.json(pages.shift());
  });
  expect((await api.servers()).map((one) => one.id)).toEqual(["a", "b"]);
  expect(asked[1]?.url.searchParams.get("cursor")).toBe("c+1");
});

test("a refusal tells its code, its fields and how long to wait", async () => {
  const problem = { title: "No", status: 429, detail: "Wait.", code: "too_many_requests", errors: [{ field: "name", message: "taken" }] };
  vi.stubGlobal("fetch", async () => Response.json(problem, { status: 429, headers: { "Retry-After": "7" } }));
  const failure = await api.login("ada", "p").catch((refusal: unknown) => refusal);
  expect(failure).toMatchObject({ code: "too_many_requests", status: 429, retry_after_s: 7 });
  expect((failure as api.ApiError).field("name")).toBe("taken");
});

test("what the console cannot do now is told at once, and its checks are read from a refusal too", async () => {
  const told = vi.fn();
  api.when_unavailable(told);
  const refused = { title: "No", status: 503, detail: "Full.", code: "audit_unavailable", checks: { disk: { status: "fail", message: "full" } } };
  vi.stubGlobal("fetch", async () => Response.json(refused, { status: 503 }));
  await expect(api.remove_server("s")).rejects.toMatchObject({ code: "audit_unavailable" });
  expect(told).toHaveBeenCalledTimes(1);
  expect((await api.readiness(new AbortController().signal)).disk?.status).toBe("fail");
  expect(told).toHaveBeenCalledTimes(1);
});

test("an answer that is no problem document, and no answer at all, are failures with a code too", async () => {
  vi.stubGlobal("fetch", async () => new Response("<html>", { status: 502 }));
  await expect(api.verify()).rejects.toMatchObject({ code: "unreadable", status: 502 });
  vi.stubGlobal("fetch", async () => Promise.reject(new TypeError("failed")));
  await expect(api.verify()).rejects.toMatchObject({ code: "console_unreachable" });
});

test("a session that ended is told once to whoever listens, a wrong password is not", async () => {
  const told = vi.fn();
  api.when_logged_out(told);
  vi.stubGlobal("fetch", async () => Response.json({ code: "login_failed", status: 401 }, { status: 401 }));
  await expect(api.login("ada", "p")).rejects.toThrow();
  expect(told).not.toHaveBeenCalled();
  vi.stubGlobal("fetch", async () => Response.json({ code: "unauthenticated", status: 401 }, { status: 401 }));
  await expect(api.servers()).rejects.toThrow();
  expect(told).toHaveBeenCalledOnce();
});
