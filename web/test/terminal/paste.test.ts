import { expect, test } from "vitest";
import { asks, pasted, without_enter } from "../../src/terminal/paste";

test("one line is pasted without a question", () => {
  expect(asks(pasted("systemctl status nginx"))).toBe(false);
});

test.each([
  ["two lines", "a\nb"],
  ["two lines of Windows", "a\r\nb"],
  ["one line with its line feed", "rm -rf /tmp/x\n"],
  ["a return", "rm -rf /tmp/x\r"],
  ["an escape", "a\x1b[201~b"],
])("%s ask first", (_, text) => {
  expect(asks(pasted(text))).toBe(true);
});

test("nothing that is pasted can end the bracket around it and begin to type", () => {
  const { text, removed } = pasted("ls\x1b[201~\rid\r\x1b[200~\x9b201~\x03");

  expect(text).toBe("ls[201~\nid\n[200~201~");
  expect(removed).toBe(4);
});

test("tabs and letters of any language are text", () => {
  expect(pasted("\tgrün 日本 🐧")).toEqual({ text: "\tgrün 日本 🐧", lines: 1, removed: 0, ends_line: false });
});

test("lines are counted as they are seen", () => {
  expect(pasted("a\nb\nc\n").lines).toBe(3);
  expect(pasted("\n\n").lines).toBe(0);
});

test("without its Enter the last line waits at the prompt", () => {
  expect(without_enter("a\nb\n\n")).toBe("a\nb");
});
