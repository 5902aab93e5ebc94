import { expect, test } from "vitest";
import { LINE_MAX, Terminal, harmless, lines_of, plain_lines, visible } from "../../src/runs/terminal";

const ESC = "\u001b";

test("text is lines, and the last line feed makes no empty one", () => {
  expect(plain_lines("a\nb\n")).toEqual(["a", "b"]);
  expect(plain_lines("a\n\nb")).toEqual(["a", "", "b"]);
  expect(plain_lines("")).toEqual([]);
});

test("colours become classes of ours and end with a reset", () => {
  const [line] = lines_of(`${ESC}[1;31mbad${ESC}[0m fine`);
  expect(line?.pieces).toEqual([
    { text: "bad", look: "bold fg-1" },
    { text: " fine", look: "" },
  ]);
  expect(lines_of(`${ESC}[93;44mx`)[0]?.pieces[0]?.look).toBe("fg-3 bg-4");
  expect(lines_of(`${ESC}[38;5;9mx`)[0]?.pieces[0]?.look).toBe("fg-1");
  expect(lines_of(`${ESC}[38;2;1;2;31mx`)[0]?.pieces[0]?.look).toBe("");
});

test("hidden text is shown", () => {
  expect(lines_of(`${ESC}[8msecret`)[0]?.pieces).toEqual([{ text: "secret", look: "" }]);
});

test.each([
  ["clears the screen", `a${ESC}[2J${ESC}[Hb`, ["ab"]],
  ["moves up and overwrites", `rm -rf /\n${ESC}[1A${ESC}[2Kls`, ["rm -rf /", "ls"]],
  ["sets the title", `a${ESC}]0;owned\u0007b`, ["ab"]],
  ["writes to the clipboard", `a${ESC}]52;c;cm0K${ESC}\\b`, ["ab"]],
  ["makes a link", `${ESC}]8;;https://evil.example${ESC}\\here${ESC}]8;;${ESC}\\`, ["here"]],
  ["asks the terminal who it is", `a${ESC}[cb${ESC}Zc`, ["abc"]],
  ["is 8-bit", "a\u009b31mb\u009d0;t\u009cc", ["abc"]],
  ["is a device control string", `a${ESC}Pq#0;2;0${ESC}\\b`, ["ab"]],
  ["chooses another character set", `${ESC}(0lqk${ESC}(B`, ["lqk"]],
])("a sequence that %s does nothing", (_, text, lines) => {
  expect(plain_lines(text)).toEqual(lines);
});

test("a string without end takes at most the rest of its line", () => {
  expect(plain_lines(`a${ESC}]0;never ended\nstill here`)).toEqual(["a", "still here"]);
});

test("an escape before something that is no sequence is shown, and what follows it too", () => {
  expect(plain_lines(`a${ESC}\nb`)).toEqual(["a␛", "b"]);
  expect(plain_lines(`${ESC}[31\nb`)).toEqual(["", "b"]);
});

test("a carriage return ends the line instead of overwriting it, and before a line feed it is part of that", () => {
  expect(plain_lines("one\r\ntwo\r\n")).toEqual(["one", "two"]);
  expect(plain_lines("rm -rf /\rls      ")).toEqual(["rm -rf /␍", "ls      "]);
});

test("control, bidi and zero-width characters are signs", () => {
  expect(plain_lines("a\u0000b\bc\u007f")).toEqual(["a␀b␈c␡"]);
  expect(plain_lines("user\u202egnp.exe")).toEqual(["user‹202E›gnp.exe"]);
  expect(plain_lines("pay\u200bload\ufeff")).toEqual(["pay‹200B›load‹FEFF›"]);
  expect(plain_lines("\u{e0041}")).toEqual(["‹E0041›"]);
  expect(harmless(`a\nb${ESC}[0m`)).toBe("a b␛[0m");
});

test("nothing that was printed is a control character afterwards", () => {
  const all = Array.from({ length: 0x2100 }, (_, code) => String.fromCharCode(code)).join("");
  for (const line of plain_lines(all)) expect(line).not.toMatch(/[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e]/);
});

test("it does not matter where a text is cut", () => {
  const text = `a${ESC}[1;32mok${ESC}]0;t${ESC}\\b\u001b[0m\r\n${visible("\u0001")}x\ry${ESC}(Bz\n`;
  const whole = lines_of(text);
  for (let cut = 1; cut < text.length; cut += 1) {
    const terminal = new Terminal();
    terminal.feed(text.slice(0, cut));
    terminal.feed(text.slice(cut));
    expect(terminal.lines.slice(0, -1)).toEqual(whole);
  }
});

test("only the last lines are kept, and how many were dropped is known", () => {
  const terminal = new Terminal(3);
  for (let number = 0; number < 10; number += 1) terminal.feed(`${number}\n`);
  expect(terminal.lines.map(({ pieces }) => pieces[0]?.text)).toEqual(["8", "9", undefined]);
  expect(terminal.dropped).toBe(8);
  expect(terminal.lines[0]?.number).toBe(8);
});

test("a line without end is broken", () => {
  const lines = plain_lines("x".repeat(LINE_MAX * 2 + 5));
  expect(lines.map((line) => line.length)).toEqual([LINE_MAX, LINE_MAX, 5]);
});

test("a megabyte of escapes takes no more than its share of time and memory", () => {
  const terminal = new Terminal(100);
  terminal.feed(`${ESC}[31m${ESC}[${"1;".repeat(100)}m`.repeat(4_000));
  terminal.feed(`${ESC}]`.repeat(200_000));
  expect(terminal.lines.length).toBeLessThanOrEqual(100);
});
