import { expect, test } from "vitest";
import { diff, shortened, type Change } from "../../src/runs/diff";

const side = (changes: readonly Change[], other: "gone" | "new") =>
  changes.filter(({ kind }) => kind === "same" || kind === other).map(({ text }) => text);

test("what is the same, gone and new", () => {
  expect(diff(["a", "b", "c"], ["a", "x", "c"])).toEqual([
    { kind: "same", text: "a" },
    { kind: "gone", text: "b" },
    { kind: "new", text: "x" },
    { kind: "same", text: "c" },
  ]);
  expect(diff([], [])).toEqual([]);
  expect(diff([], ["a"])).toEqual([{ kind: "new", text: "a" }]);
  expect(diff(["a"], [])).toEqual([{ kind: "gone", text: "a" }]);
});

test("both sides can be read from a difference, whatever they are, and it is the shortest", () => {
  let seed = 7;
  const next = (below: number) => (seed = (seed * 48_271) % 2_147_483_647) % below;
  for (let turn = 0; turn < 400; turn += 1) {
    const before = Array.from({ length: next(14) }, () => String(next(4)));
    const after = Array.from({ length: next(14) }, () => String(next(4)));
    const changes = diff(before, after);
    expect(side(changes, "gone")).toEqual(before);
    expect(side(changes, "new")).toEqual(after);
    expect(changes.filter(({ kind }) => kind === "same").length).toBe(longest_common(before, after));
  }
});

test("outputs that have nothing in common are still told apart in bounded time", () => {
  const before = Array.from({ length: 20_000 }, (_, line) => `a${line}`);
  const after = Array.from({ length: 20_000 }, (_, line) => `b${line}`);
  const changes = diff(before, after);
  expect(side(changes, "gone")).toEqual(before);
  expect(side(changes, "new")).toEqual(after);
});

test("far from any change only the number of lines is told", () => {
  const before = Array.from({ length: 20 }, (_, line) => String(line));
  const after = before.with(10, "x");
  const kinds = shortened(diff(before, after), 1).map((part) => (part.kind === "skipped" ? part.lines : part.text));
  expect(kinds).toEqual([9, "9", "10", "x", "11", 8]);
});

function longest_common(a: readonly string[], b: readonly string[]): number {
  const best = Array.from({ length: a.length + 1 }, () => new Array<number>(b.length + 1).fill(0));
  for (let i = 1; i <= a.length; i += 1)
    for (let j = 1; j <= b.length; j += 1)
      best[i]![j] = a[i - 1] === b[j - 1] ? best[i - 1]![j - 1]! + 1 : Math.max(best[i - 1]![j]!, best[i]![j - 1]!);
  return best[a.length]![b.length]!;
}
