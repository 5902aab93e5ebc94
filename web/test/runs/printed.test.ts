import { expect, test } from "vitest";
import type { Outputs } from "../../src/runs/calls";
import { is_cut, more_from, printed } from "../../src/runs/printed";

const KIB = 1024;

function group(bytes: number, sent_bytes: number | null): Outputs {
  return {
    status: "success",
    exit_code: 0,
    cause: null,
    sentence: null,
    has_output: true,
    stdout_bytes: bytes,
    stderr_bytes: 0,
    stdout: sent_bytes === null ? null : "x".repeat(sent_bytes),
    stderr: sent_bytes === null ? null : "",
    stdout_sent_bytes: sent_bytes ?? 0,
    stderr_sent_bytes: 0,
    tasks: [{ id: "t1", server_id: "s1", server_name: "web1", detail: null }],
  };
}

test("a group that came whole asks for nothing more", () => {
  expect(more_from(group(12, 12))).toBeNull();
  expect(more_from(group(0, 0))).toBeNull();
});

test("a group that came without its text is not taken for one that printed nothing", () => {
  const late = group(12, null);
  expect(more_from(late)).toBe("t1");
  expect(printed(late, new Map())).toBeNull();
  const fetched = new Map([["t1", { stdout: "up 3 days\n", stderr: "", stdout_sent_bytes: 12, stderr_sent_bytes: 0 }]]);
  expect(printed(late, fetched)?.stdout).toBe("up 3 days\n");
});

test("a group of which the beginning came asks for as much as there is to be had at once", () => {
  expect(more_from(group(20 * KIB, 16 * KIB))).toBe("t1");
  expect(more_from(group(900 * KIB, 64 * KIB))).toBeNull();
});

test("a text that goes on behind what is here says so", () => {
  const long = group(900 * KIB, 16 * KIB);
  const here = printed(long, new Map());
  expect(here && is_cut(long, here)).toBe(true);
});
