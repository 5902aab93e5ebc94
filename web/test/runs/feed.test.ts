// A run as its page knows it: what the live connection tells, what is asked for, and answers that come too late.

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { fleet as Fleet } from "../../src/fleet.svelte";
import type { RunFeed as Feed } from "../../src/runs/feed.svelte";
import type { Status } from "../../src/runs/states";

/** The other end of the live connection, in the test's hands. */
class FakeSocket {
  static last: FakeSocket;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  send = () => undefined;
  close = () => undefined;

  constructor() {
    FakeSocket.last = this;
  }

  say(message: unknown): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }
}

let status: Status;
let asked: string[];
let held: (() => void)[] | null;
let fleet: typeof Fleet;
let feed: Feed;
let stop: () => void;

/** A console with one run of one task; an answer says how things were when it was asked. */
async function answer(path: string): Promise<Response> {
  const url = new URL(path, "http://console");
  const open = status === "failed" ? 0 : 1;
  const run = { id: "r", progress: { total: 1, open, failed: status === "failed" ? 1 : 0, by_status: { [status]: 1 } } };
  const task = { id: "t", server_id: "s", server_name: "web-1", status, cause: null, exit_code: null };
  asked.push(url.pathname);
  if (held) await new Promise<void>((resolve) => held?.push(resolve));
  return Response.json(url.pathname === "/api/runs/r" ? run : { items: url.pathname === "/api/tasks" ? [task] : [] });
}

/** The next question has come; answer it with how things were then. */
async function let_go(path: string): Promise<void> {
  await vi.waitFor(() => expect([asked.at(-1), held?.length]).toEqual([path, 1]));
  held?.shift()?.();
}

const tell = (now: Status) => FakeSocket.last.say({ type: "task", run: "r", tasks: [{ id: "t", server_id: "s", status: now, cause: null, exit_code: 1 }] });

beforeEach(async () => {
  vi.useFakeTimers();
  const here = { pathname: "/runs/r", search: "", protocol: "http:", host: "console" };
  vi.stubGlobal("location", here);
  vi.stubGlobal("document", Object.assign(new EventTarget(), { hidden: false }));
  vi.stubGlobal("addEventListener", () => undefined);
  vi.stubGlobal("WebSocket", FakeSocket);
  vi.stubGlobal("fetch", answer);
  [status, asked, held] = ["queued", [], null];
  const { RunFeed } = await import("../../src/runs/feed.svelte");
  ({ fleet } = await import("../../src/fleet.svelte"));
  fleet.start();
  feed = new RunFeed("r");
  stop = feed.start();
  FakeSocket.last.onopen?.();
  FakeSocket.last.say({ type: "watching", run: "r" });
  await vi.waitFor(() => expect(feed.tasks[0]?.status).toBe("queued"));
});

afterEach(() => {
  stop();
  fleet.stop();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

test("what the connection tells is shown, and asked for at once when it is the end", async () => {
  tell("running");
  expect([feed.tasks[0]?.status, feed.progress?.open, feed.is_over]).toEqual(["running", 1, false]);
  status = "failed";
  tell("failed");
  expect([feed.progress?.failed, feed.is_over]).toEqual([1, false]);
  await vi.waitFor(() => expect(feed.is_over).toBe(true), { timeout: 500 });
  const before = asked.length;
  await vi.advanceTimersByTimeAsync(60_000);
  expect(asked.length).toBe(before);
});

test("an answer that was on its way does not open again what is over, and another question follows it", async () => {
  [status, held] = ["running", []];
  feed.now();
  await let_go("/api/runs/r");
  await vi.waitFor(() => expect(asked.at(-1)).toBe("/api/tasks"));
  status = "failed";
  tell("failed");
  await let_go("/api/tasks");
  await let_go("/api/runs/r");
  expect([feed.tasks[0]?.status, feed.progress?.open, feed.is_over]).toEqual(["failed", 0, false]);
  await let_go("/api/tasks");
  await vi.waitFor(() => expect(feed.is_over).toBe(true), { timeout: 500 });
});
