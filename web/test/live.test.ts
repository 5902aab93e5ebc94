import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Live, PING_MS, SILENCE_MS, type LiveState, type Socket } from "../src/live";
import type { LiveMessage } from "../src/types";

/** The other end of the connection, in the test's hands. */
class FakeSocket implements Socket {
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  sent: unknown[] = [];
  closed = false;

  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }

  close(): void {
    this.closed = true;
  }

  say(message: unknown): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }
}

let sockets: FakeSocket[];
let states: LiveState[];
let heard: LiveMessage[];
let gaps: [number, number][];
let refusals: number;
let now_s: number;
let live: Live;

const last = () => sockets.at(-1) as FakeSocket;
const samples = { type: "samples", at: "2026-11-23T21:30:00Z", servers: {} };

beforeEach(() => {
  vi.useFakeTimers();
  [sockets, states, heard, gaps, refusals, now_s] = [[], [], [], [], 0, 1000];
  live = new Live({
    connect: () => {
      const socket = new FakeSocket();
      sockets.push(socket);
      return socket;
    },
    events: {
      message: (message) => heard.push(message),
      state: (state) => states.push(state),
      gap: (from_s, to_s) => gaps.push([from_s, to_s]),
      refused: () => (refusals += 1),
    },
    now_s: () => now_s,
    random: () => 1,
  });
});

afterEach(() => {
  live.stop();
  vi.useRealTimers();
});

test("subscribes as soon as it is open, and again after a reconnect", () => {
  live.subscribe({ servers: "all", rate_s: 1 });
  live.start();
  expect(last().sent).toEqual([]);
  last().onopen?.();
  last().onclose?.({ code: 1006 });
  vi.advanceTimersByTime(500);
  last().onopen?.();
  expect(sockets.map((socket) => socket.sent[0])).toEqual([
    { type: "subscribe", servers: "all", rate_s: 1 },
    { type: "subscribe", servers: "all", rate_s: 1 },
  ]);
  expect(states).toEqual(["connecting", "open", "lost", "open"]);
});

test("watches one run, says so again after a reconnect, and stops when it is told to", () => {
  live.start();
  live.watch("a");
  last().onopen?.();
  live.watch("b");
  live.watch("b");
  last().onclose?.({ code: 1006 });
  vi.advanceTimersByTime(500);
  last().onopen?.();
  live.watch(null);
  expect(sockets.map((socket) => socket.sent)).toEqual([
    [{ type: "watch", run: "a" }, { type: "watch", run: "b" }],
    [{ type: "watch", run: "b" }, { type: "unwatch" }],
  ]);
});

test("asks for the gap between the last sample and the reconnect", () => {
  live.start();
  last().onopen?.();
  last().say(samples);
  now_s = 1010;
  last().say({ type: "pong", server_time: "" });
  last().onclose?.({ code: 1006 });
  now_s = 1030;
  vi.advanceTimersByTime(500);
  last().onopen?.();
  expect(gaps).toEqual([[1000, 1030]]);
});

test("asks for no gap at the first connection", () => {
  live.start();
  last().onopen?.();
  expect(gaps).toEqual([]);
});

test("asks for the gap when the console says that it left frames out", () => {
  live.start();
  last().onopen?.();
  last().say(samples);
  now_s = 1007;
  last().say({ type: "gap", frames: 6 });
  expect(gaps).toEqual([[1000, 1007]]);
});

test("waits twice as long after each failure, up to a bound", () => {
  live.start();
  const waits = [500, 1000, 2000, 4000, 8000, 15_000, 15_000];
  for (const wait of waits) {
    const before = sockets.length;
    last().onclose?.({ code: 1006 });
    vi.advanceTimersByTime(wait - 1);
    expect(sockets.length).toBe(before);
    vi.advanceTimersByTime(1);
    expect(sockets.length).toBe(before + 1);
  }
});

test("asks who we are when a connection cannot be opened again", () => {
  live.start();
  last().onclose?.({ code: 1006 });
  vi.advanceTimersByTime(500);
  expect(refusals).toBe(0);
  last().onclose?.({ code: 1006 });
  expect(refusals).toBe(1);
});

test("stops when the session has ended", () => {
  live.start();
  last().onopen?.();
  last().onclose?.({ code: 4401 });
  vi.advanceTimersByTime(60_000);
  expect(sockets.length).toBe(1);
  expect(refusals).toBe(1);
  expect(live.state).toBe("closed");
});

test("takes silence for a dead connection, and pings to be answered", () => {
  live.start();
  last().onopen?.();
  vi.advanceTimersByTime(PING_MS);
  expect(last().sent).toContainEqual({ type: "ping" });
  vi.advanceTimersByTime(SILENCE_MS);
  expect(sockets[0]?.closed).toBe(true);
  expect(sockets.length).toBe(2);
});

test("keeps a connection that answers", () => {
  live.start();
  last().onopen?.();
  for (let round = 0; round < 10; round += 1) {
    vi.advanceTimersByTime(PING_MS);
    last().say({ type: "pong", server_time: "" });
  }
  expect(sockets.length).toBe(1);
});

test("comes back spread over the time that a stopping console names", () => {
  live.start();
  last().onopen?.();
  last().say({ type: "reconnect", spread_s: 3 });
  vi.advanceTimersByTime(3_499);
  expect(sockets.length).toBe(1);
  vi.advanceTimersByTime(1);
  expect(sockets.length).toBe(2);
});

test("comes back at once when asked to", () => {
  live.start();
  last().onopen?.();
  last().onclose?.({ code: 1006 });
  live.retry();
  expect(sockets.length).toBe(2);
  vi.advanceTimersByTime(60_000 - SILENCE_MS);
  expect(sockets.length).toBe(2);
});

test("drops what is no message", () => {
  live.start();
  last().onopen?.();
  last().onmessage?.({ data: "{" });
  last().onmessage?.({ data: "7" });
  last().onmessage?.({ data: new ArrayBuffer(1) });
  expect(heard).toEqual([]);
});
