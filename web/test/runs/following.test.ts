// Output is read as it comes, across cuts in the middle of a character, and from where it was when the connection broke.

import { afterEach, expect, test, vi } from "vitest";
import { Following } from "../../src/runs/following.svelte";

interface Answer {
  status: string;
  total?: number;
  chunks: Uint8Array[];
  breaks?: boolean;
}

const bytes = (text: string) => new TextEncoder().encode(text);

/** A piece behind its line, as the console sends it. */
function framed(at: number, data: Uint8Array | string): Uint8Array {
  const all = typeof data === "string" ? bytes(data) : data;
  return Uint8Array.of(...bytes(`${at} ${all.length}\n`), ...all);
}

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

/** A console that gives these answers one after the other; returns the offsets it was asked for. */
function console_with(answers: Answer[]): string[] {
  const offsets: string[] = [];
  vi.useFakeTimers();
  vi.stubGlobal("fetch", async (path: string) => {
    offsets.push(new URL(path, "http://console").searchParams.get("offset") ?? "0");
    const { status, total = 0, chunks, breaks } = answers.shift() as Answer;
    const left = [...chunks];
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        const chunk = left.shift();
        if (chunk) controller.enqueue(chunk);
        else if (breaks) controller.error(new TypeError("network"));
        else controller.close();
      },
    });
    return new Response(body, { headers: { "X-Task-Status": status, "X-Total-Bytes": String(total) } });
  });
  return offsets;
}

async function followed(): Promise<Following> {
  const one = new Following();
  const done = one.follow("t", "stdout", new AbortController().signal);
  await vi.runAllTimersAsync();
  await done;
  return one;
}

const text = (one: Following) => one.lines.map((line) => line.pieces.map((piece) => piece.text).join(""));

test("a character that was cut in two is whole again", async () => {
  const all = framed(0, "grün 😀\n");
  console_with([{ status: "success", chunks: [...all].map((byte) => Uint8Array.of(byte)) }]);
  const one = await followed();
  expect(text(one)).toEqual(["grün 😀"]);
  expect(one.state).toBe("done");
});

test("after a broken connection it goes on where it was, until the task is over", async () => {
  const euro = bytes("€");
  const offsets = console_with([
    { status: "running", chunks: [framed(0, "one\n"), framed(4, euro).slice(0, 5)], breaks: true },
    { status: "running", chunks: [framed(5, euro.slice(1)), framed(7, "\n")] },
    { status: "success", chunks: [framed(8, "two\n")] },
  ]);
  const one = await followed();
  expect(text(one)).toEqual(["one", "€", "two"]);
  expect(offsets).toEqual(["0", "5", "8"]);
});

test("of a long output only the end is fetched", async () => {
  const total = 5_000_000;
  const offsets = console_with([
    { status: "success", total, chunks: [framed(0, "not read")] },
    { status: "success", total, chunks: [framed(total - 1_048_576, "the end\n")] },
  ]);
  const one = await followed();
  expect(text(one)).toEqual(["the end"]);
  expect(one.skipped_bytes).toBe(total - 1_048_576);
  expect(offsets).toEqual(["0", String(one.skipped_bytes)]);
});

test("between the beginning and the end of what was too much stands how much is missing", async () => {
  const offsets = console_with([
    { status: "running", chunks: [framed(0, "one\ntw"), framed(3_145_734, "o\nthree\n")], breaks: true },
    { status: "success", chunks: [framed(3_145_742, "four\n")] },
  ]);
  const one = await followed();
  expect(text(one)).toEqual(["one", "tw", "3.0 MiB left out here: more came than is kept", "o", "three", "four"]);
  expect(one.lines[2]?.pieces[0]?.look).toBe("remark");
  expect(offsets).toEqual(["0", "3145742"]);
  expect(one.reached_bytes).toBe(3_145_747);
});

test("output that may not be seen ends the following with the reason", async () => {
  vi.useFakeTimers();
  vi.stubGlobal("fetch", async () => Response.json({ title: "No", status: 404, detail: "There is no such task.", code: "not_found" }, { status: 404 }));
  const one = await followed();
  expect(one.state).toBe("done");
  expect(one.failure).toMatchObject({ code: "not_found" });
});
