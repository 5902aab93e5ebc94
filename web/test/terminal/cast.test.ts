import { expect, test } from "vitest";
import { Cast, first_after } from "../../src/terminal/cast";
import { Lines } from "../../src/terminal/finding";

const HEAD = '{"version":3,"term":{"cols":100,"rows":30},"timestamp":1764096000,"title":"ada on web-1"}\n';

function read(...lines: string[]): Cast {
  const cast = new Cast();
  cast.feed(HEAD + lines.join("\n"));
  cast.end();
  return cast;
}

test("intervals become times", () => {
  const cast = read('[0.5,"o","a"]', '[1.25,"r","120x40"]', '[0,"m","no-echo"]', '[2,"x","0"]');

  expect(cast.header).toEqual({ cols: 100, rows: 30, started_at_s: 1764096000 });
  expect(cast.events).toEqual([
    { at_s: 0.5, kind: "output", text: "a" },
    { at_s: 1.75, kind: "resize", cols: 120, rows: 40 },
    { at_s: 1.75, kind: "mark", label: "no-echo" },
    { at_s: 3.75, kind: "exit", status: "0" },
  ]);
  expect(cast.duration_s).toBe(3.75);
});

test("it is the same wherever the answer is cut", () => {
  const text = `${HEAD}[0.5,"o","grün\\u001b[0m"]\n[1,"o","b"]\n`;
  const whole = new Cast();
  whole.feed(text);
  whole.end();
  const cut = new Cast();
  for (const character of text) cut.feed(character);
  cut.end();

  expect(cut.events).toEqual(whole.events);
});

test("what a hostile recording says of sizes and times is not believed", () => {
  const cast = read('[0,"r","1000000x1000000"]', '[-5,"o","back"]', '["1","o","x"]', "[1,\"o\"]", "not json", '[0,"r","x"]');

  expect(cast.events).toEqual([
    { at_s: 0, kind: "resize", cols: 80, rows: 24 },
    { at_s: 0, kind: "resize", cols: 80, rows: 24 },
  ]);
  expect(cast.unread).toBe(4);
});

test("an instant is found among the events", () => {
  const cast = read('[1,"o","a"]', '[1,"o","b"]', '[0,"o","c"]', '[1,"o","d"]');

  expect([0, 1, 1.5, 2, 9].map((at_s) => first_after(cast.events, at_s))).toEqual([0, 1, 1, 3, 4]);
});

function found(lines: Lines, wanted: string) {
  lines.want(wanted);
  while (lines.work(() => false));
  return lines.hits;
}

test("a text is found at the second it was shown", () => {
  const cast = read(
    '[1,"o","$ "]',
    '[1,"o","system"]',
    '[1,"o","ctl status\\r\\n"]',
    '[1,"o","\\u001b[32mactive\\u001b[0m (running)\\r\\n"]',
    '[5,"o","$ "]',
    '[1,"o","SYSTEMCTL"]',
  );
  const lines = new Lines(cast.events);

  expect(found(lines, "systemctl")).toEqual([
    { at_s: 3, text: "$ systemctl status" },
    { at_s: 10, text: "$ SYSTEMCTL" },
  ]);
  expect(found(lines, "active (running)")).toEqual([{ at_s: 4, text: "active (running)" }]);
  expect(found(lines, "  ")).toEqual([]);
});

test("what a full-screen program draws in several places is several lines", () => {
  const lines = new Lines(read('[1,"o","\\u001b[?1049h\\u001b[1;1Hfirst\\u001b[5;1Hsecond"]').events);

  expect(found(lines, "second")).toEqual([{ at_s: 1, text: "second" }]);
});

test("a long recording is read in slices, and what was read is found meanwhile", () => {
  const lines = new Lines(read('[1,"o","needle one\\r\\n"]', '[1,"o","needle"]', '[1,"o"," two\\r\\n"]', '[1,"o","needle three"]').events);
  const steps = [];
  lines.want("needle");
  for (let has_more = true; has_more; ) {
    let checks = 0;
    has_more = lines.work(() => (checks += 1) > 1);
    steps.push(lines.hits.length);
  }

  expect(steps[0]).toBe(0);
  expect(new Set(steps)).toEqual(new Set([0, 1, 2, 3]));
  expect(lines.hits).toEqual([
    { at_s: 1, text: "needle one" },
    { at_s: 2, text: "needle two" },
    { at_s: 4, text: "needle three" },
  ]);
});

test("who looks for something else in the middle finds all of it", () => {
  const lines = new Lines(read('[1,"o","first a\\r\\n"]', '[1,"o","second a\\r\\n"]', '[1,"o","third"]').events);
  let checks = 0;
  lines.want("a");
  lines.work(() => (checks += 1) > 3);

  expect(found(lines, "third")).toEqual([{ at_s: 3, text: "third" }]);
  expect(found(lines, "first")).toEqual([{ at_s: 1, text: "first a" }]);
});
