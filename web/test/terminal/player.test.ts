import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Cast } from "../../src/terminal/cast";
import { Paper } from "../../src/terminal/paper";
import { Player } from "../../src/terminal/player.svelte";

const made: Paper[] = [];

function paper(): Paper {
  const one = new Paper({ cols: 40, rows: 10, scrollback: 200 });
  made.push(one);
  return one;
}

function cast_of(events: [number, string, string][], cols = 40, rows = 10): Cast {
  const cast = new Cast();
  cast.feed(`${JSON.stringify({ version: 3, term: { cols, rows } })}\n${events.map((event) => JSON.stringify(event)).join("\n")}\n`);
  cast.end();
  return cast;
}

/** What somebody who looks at it sees: each cell with its colours and marks, the cursor, the size, and which screen. */
function seen({ terminal }: Paper) {
  const { active } = terminal.buffer;
  const rows = Array.from({ length: terminal.rows }, (_, y) => {
    const line = active.getLine(active.baseY + y);
    return Array.from({ length: terminal.cols }, (_, x) => {
      const cell = line?.getCell(x);
      const marks = [cell?.isBold(), cell?.isUnderline(), cell?.isInverse(), cell?.isInvisible()].map(Boolean).map(Number).join("");
      return `${cell?.getChars() || " "} ${cell?.getFgColorMode()}:${cell?.getFgColor()} ${cell?.getBgColor()} ${marks}`;
    });
  });
  return { rows, cols: terminal.cols, x: active.cursorX, y: active.cursorY, type: active.type };
}

async function looks_at(cast: Cast, at_s: number) {
  const fresh = paper();
  await new Player(cast, fresh, Infinity).seek(at_s);
  return seen(fresh);
}

/** The same sequence of numbers from 0 to 1 for the same seed (mulberry32). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const PIECES = [
  "hello world\r\n",
  "\x1b[31mred\x1b[0m ",
  "\x1b[1;4mmarked",
  "\x1b[?1049h\x1b[H\x1b[2J",
  "\x1b[?1049l",
  "\x1b[2;8r",
  "\x1b[r",
  "\x1b(0lqqk\x1b(B",
  "\x1b(0lqqk",
  "\x1b[5;5Hhere",
  "\x1b[K",
  "日本語 grün\r\n",
  "\x1b[38;2;1;2;3mtrue\x1b[m",
  "\n\n\n",
  "\x1b[",
  "3A",
  "\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\",
  "\x1b[?25l",
  "x".repeat(90),
];

function noise(seed: number): Cast {
  const next = random(seed);
  const events: [number, string, string][] = [];
  for (let index = 0; index < 150; index += 1) {
    if (next() < 0.04) events.push([0.1, "r", `${20 + Math.floor(next() * 60)}x${5 + Math.floor(next() * 20)}`]);
    else events.push([Math.round(next() * 10) / 10, "o", PIECES[Math.floor(next() * PIECES.length)] as string]);
  }
  return cast_of(events);
}

beforeEach(() => {
  vi.useRealTimers();
});

afterEach(() => {
  for (const one of made.splice(0)) one.dispose();
  vi.useRealTimers();
});

test.each([1, 2, 3, 28, 40, 58])("wherever one goes from, the screen is as it was at that second (%i)", async (seed) => {
  const cast = noise(seed);
  const next = random(seed + 1000);
  const shown = paper();
  const player = new Player(cast, shown, 300);
  await player.seek(cast.duration_s);
  for (let tries = 0; tries < 12; tries += 1) {
    const at_s = next() * cast.duration_s;
    await player.seek(at_s);
    expect(seen(shown)).toEqual(await looks_at(cast, at_s));
  }
});

test("only the last of many wishes is drawn", async () => {
  const cast = cast_of(Array.from({ length: 50 }, (_, index) => [1, "o", `${index}\r\n`]));
  const shown = paper();
  const player = new Player(cast, shown);
  await Promise.all([40, 3, 20, 7].map((at_s) => player.seek(at_s)));

  expect(player.position_s).toBe(7);
  expect(shown.text().trim().split("\n").at(-1)).toBe("6");
});

test("a size that changes is taken over before what follows", async () => {
  const cast = cast_of([[0, "o", "a"], [1, "r", "60x12"], [1, "o", "\x1b[12;60Hz"]]);
  const shown = paper();
  const player = new Player(cast, shown);
  await player.seek(2);

  expect([shown.terminal.cols, shown.terminal.rows]).toEqual([60, 12]);
  expect(shown.terminal.buffer.active.getLine(11)?.translateToString().at(59)).toBe("z");
  await player.seek(0.5);
  expect([shown.terminal.cols, shown.terminal.rows]).toEqual([40, 10]);
});

test("idle time is passed over, and the end stops", async () => {
  const cast = cast_of([[0.2, "o", "first"], [600, "o", " second"]]);
  const shown = paper();
  const player = new Player(cast, shown);
  player.speed = 8;
  player.play();
  await vi.waitFor(() => expect(player.playing).toBe(false), { timeout: 5_000 });

  expect(player.position_s).toBe(600.2);
  await vi.waitFor(() => expect(shown.text()).toBe("first second\n"));
});

test("one output at a time, both ways", async () => {
  const cast = cast_of([[1, "o", "a"], [1, "o", "b"], [1, "o", "c"]]);
  const shown = paper();
  const player = new Player(cast, shown);
  await player.step(1);
  await player.step(1);
  expect(shown.text()).toBe("ab\n");
  await player.step(-1);
  expect(shown.text()).toBe("a\n");
  await player.step(-1);
  expect(shown.text()).toBe("\n");
});
