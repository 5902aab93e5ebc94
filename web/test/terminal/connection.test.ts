import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ApiError } from "../../src/api";
import { Connection, FRAME_BYTES, type LinkState, type Ready, type Said, type Socket } from "../../src/terminal/connection";

/** The other end of the connection, in the test's hands. */
class FakeSocket implements Socket {
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  said: Record<string, unknown>[] = [];
  typed: Uint8Array[] = [];
  closed = false;

  constructor(readonly path: string) {}

  send(data: string | Uint8Array): void {
    if (typeof data === "string") this.said.push(JSON.parse(data) as Record<string, unknown>);
    else this.typed.push(data);
  }

  close(): void {
    this.closed = true;
  }

  begin(from: number, reset = false): void {
    this.onopen?.();
    this.say({ type: "ready", id: "S", cols: 80, rows: 24, from, reset, modes: "" });
  }

  say(message: unknown): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  print(length: number): void {
    this.onmessage?.({ data: new ArrayBuffer(length) });
  }

  drop(code = 1006): void {
    this.onclose?.({ code });
  }
}

let sockets: FakeSocket[];
let states: LinkState[];
let readies: Ready[];
let said: Said[];
let ends: number[];
let refusals: unknown[];
let tickets: (() => Promise<{ ticket: string; path: string }>)[];
let connection: Connection;

const last = () => sockets.at(-1) as FakeSocket;
const acks = () => last().said.filter(({ type }) => type === "ack").map(({ bytes }) => bytes);

beforeEach(() => {
  vi.useFakeTimers();
  [sockets, states, readies, said, ends, refusals, tickets] = [[], [], [], [], [], [], []];
  let count = 1;
  connection = new Connection({
    connect: (path) => {
      const socket = new FakeSocket(path);
      sockets.push(socket);
      return socket;
    },
    ticket: () => tickets.shift()?.() ?? Promise.resolve({ ticket: `T${(count += 1)}`, path: "/ws/terminal/S" }),
    events: {
      state: (state) => states.push(state),
      ready: (ready) => readies.push(ready),
      output: (_, end) => ends.push(end),
      said: (message) => said.push(message),
      refused: (failure) => refusals.push(failure),
    },
    random: () => 1,
  });
  connection.start({ ticket: "T1", path: "/ws/terminal/S" });
});

afterEach(() => {
  connection.stop();
  vi.useRealTimers();
});

test("the ticket goes first and in no address", () => {
  last().begin(0);

  expect(last().path).toBe("/ws/terminal/S");
  expect(last().said[0]).toEqual({ type: "ticket", ticket: "T1", have: 0 });
  expect(states).toEqual(["open"]);
});

test("after a drop it comes back with another ticket and says what it has", async () => {
  last().begin(0);
  last().print(300);
  last().drop();
  await vi.runOnlyPendingTimersAsync();
  last().onopen?.();

  expect(states).toEqual(["open", "lost"]);
  expect(last().said).toEqual([{ type: "ticket", ticket: "T2", have: 300 }]);
  last().begin(300);
  last().print(10);
  expect(ends).toEqual([300, 310]);
});

test("what is drawn is told, in one message for many", async () => {
  last().begin(0);
  last().print(100);
  connection.drawn(40);
  connection.drawn(100);
  await vi.advanceTimersByTimeAsync(300);

  expect(acks()).toEqual([100]);
});

test("much is told at once", () => {
  last().begin(0);
  last().print(200_000);
  connection.drawn(200_000);

  expect(acks()).toEqual([200_000]);
});

test("what was drawn late, of an earlier connection, tells nothing that was not sent", async () => {
  last().begin(0);
  last().print(1_000);
  last().drop();
  await vi.runOnlyPendingTimersAsync();
  last().begin(1_000);
  connection.drawn(1_000);
  await vi.advanceTimersByTimeAsync(300);

  expect(acks()).toEqual([]);
});

test("nothing is typed into a connection that is gone, nor later", async () => {
  last().begin(0);
  last().drop();
  connection.type(new Uint8Array([1, 2, 3]));
  await vi.runOnlyPendingTimersAsync();
  last().begin(0);

  expect(sockets.flatMap(({ typed }) => typed)).toEqual([]);
});

test("a large paste goes in frames", () => {
  last().begin(0);
  connection.type(new Uint8Array(2 * FRAME_BYTES + 1));

  expect(last().typed.map(({ length }) => length)).toEqual([FRAME_BYTES, FRAME_BYTES, 1]);
});

test("an end that is told is the end", async () => {
  last().begin(0);
  last().say({ type: "closed", reason: "exited", exit_status: 0 });
  await vi.runAllTimersAsync();

  expect(said).toEqual([{ type: "closed", reason: "exited", exit_status: 0 }]);
  expect(states).toEqual(["open", "over"]);
  expect(sockets).toHaveLength(1);
});

test("a session that was taken over by another window is left to it", async () => {
  last().begin(0);
  last().drop(4409);
  await vi.runAllTimersAsync();

  expect(said).toEqual([{ type: "closed", reason: "taken_over" }]);
  expect(sockets).toHaveLength(1);
});

test("a refused ticket ends the tries, a console that does not answer does not", async () => {
  const refused = new ApiError({ title: "Conflict", status: 409, detail: "over", code: "conflict" });
  const silent = new ApiError({ title: "Unreachable", status: 0, detail: "", code: "console_unreachable" });
  tickets.push(() => Promise.reject(silent), () => Promise.reject(silent), () => Promise.reject(refused));
  last().begin(0);
  last().drop();
  await vi.runAllTimersAsync();

  expect(tickets).toEqual([]);
  expect(refusals).toEqual([refused]);
  expect(states).toEqual(["open", "lost", "over"]);
});

test("a socket that opens and says nothing is tried anew", async () => {
  last().onopen?.();
  await vi.advanceTimersByTimeAsync(15_000);
  await vi.advanceTimersByTimeAsync(1_000);

  expect(sockets.length).toBe(2);
  expect(sockets[0]?.closed).toBe(true);
});

test("a ticket that was too old is followed by another", async () => {
  last().onopen?.();
  last().say({ type: "closed", reason: "ticket", sentence: "…" });
  await vi.runOnlyPendingTimersAsync();
  last().begin(0);

  expect(said).toEqual([]);
  expect(states).toEqual(["lost", "open"]);
});

test("garbage is ignored", () => {
  last().begin(0);
  for (const data of ["", "{", "null", "[]", '{"no":"type"}', 7]) last().onmessage?.({ data });

  expect(said).toEqual([]);
});

test("the guard's answer goes to the console", () => {
  last().begin(0);
  connection.decide(false);
  connection.decide(true);

  expect(last().said.slice(1)).toEqual([{ type: "drop" }, { type: "continue" }]);
});
