import { expect, test } from "vitest";
import { bar_key, with_held, type Held } from "../../src/terminal/keyboard";

const none = new Set<Held>();
const ctrl = new Set<Held>(["ctrl"]);
const alt = new Set<Held>(["alt"]);

test("arrows are what the program in the terminal asked for", () => {
  expect(bar_key("up", none, false)).toBe("\x1b[A");
  expect(bar_key("up", none, true)).toBe("\x1bOA");
});

test("held keys are in the sequence", () => {
  expect(bar_key("left", ctrl, true)).toBe("\x1b[1;5D");
  expect(bar_key("right", alt, false)).toBe("\x1b[1;3C");
  expect(bar_key("page_up", ctrl, false)).toBe("\x1b[5;5~");
  expect(bar_key("tab", alt, false)).toBe("\x1b\t");
});

test("Ctrl makes a letter a control character", () => {
  expect(with_held("c", ctrl)).toBe("\x03");
  expect(with_held("C", ctrl)).toBe("\x03");
  expect(with_held("[", ctrl)).toBe("\x1b");
  expect(with_held(" ", ctrl)).toBe("\0");
  expect(with_held("é", ctrl)).toBe("é");
});

test("Alt puts an escape before it", () => {
  expect(with_held("b", alt)).toBe("\x1bb");
  expect(with_held("b", new Set<Held>(["ctrl", "alt"]))).toBe("\x1b\x02");
});
