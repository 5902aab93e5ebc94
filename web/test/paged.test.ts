// A list that is read page after page while new ones come in: what is shown, what waits, and what a late answer may do.

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Paged, type Source } from "../src/paged.svelte";

interface Item {
  id: number;
  state: string;
}

const LOOK_MS = 5_000;

/** A console that has items with these numbers, newest first, and answers when the test lets it. */
class Shelf {
  items: Item[];
  asked: (string | null)[] = [];
  broken = false;
  #held: (() => void)[] | null = null;

  constructor(newest: number, oldest = 1) {
    this.items = [];
    for (let id = newest; id >= oldest; id -= 1) this.items.push({ id, state: "open" });
  }

  /** From now on answers are under way until they are let go. */
  hold(): void {
    this.#held = [];
  }

  async let_go(): Promise<void> {
    const held = this.#held ?? [];
    this.#held = null;
    for (const answer of held) answer();
    await settled();
  }

  source: Source<Item> = async ({ limit, cursor }) => {
    this.asked.push(cursor);
    const older = this.items.filter((item) => cursor === null || item.id < Number(cursor));
    const items = older.slice(0, limit).map((item) => ({ ...item }));
    const next = older.length > limit ? String(items.at(-1)?.id) : null;
    const is_broken = this.broken;
    if (this.#held) await new Promise<void>((resolve) => this.#held?.push(resolve));
    if (is_broken) throw new Error("no answer");
    return { items, next };
  };
}

const settled = () => vi.advanceTimersByTimeAsync(0);
const a_look = () => vi.advanceTimersByTimeAsync(LOOK_MS);

let at_top: boolean;
let asked_singly: number[];
let shelf: Shelf;
let list: Paged<Item>;
const ids = () => list.items.map(({ id }) => id);

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("document", { hidden: false });
  at_top = true;
  asked_singly = [];
  shelf = new Shelf(12);
  list = new Paged<Item>({
    id_of: ({ id }) => id,
    page_size: 4,
    look_ms: LOOK_MS,
    at_top: () => at_top,
    changing: {
      is: ({ state }) => state === "open",
      ask: async ({ id }) => {
        asked_singly.push(id);
        const found = shelf.items.find((item) => item.id === id);
        if (!found) throw new Error("gone");
        return { ...found };
      },
    },
  });
});

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

test("pages follow each other until there are no more", async () => {
  list.read(shelf.source);
  expect([list.busy, list.loaded]).toEqual([true, false]);
  await settled();
  expect(ids()).toEqual([12, 11, 10, 9]);
  await list.load_more();
  expect([ids().at(-1), list.has_more]).toEqual([1, false]);
  await list.load_more();
  expect(shelf.asked).toEqual([null, "9"]);
  expect(list.busy).toBe(false);
});

test("new ones appear by themselves for somebody who looks at the newest", async () => {
  list.read(shelf.source);
  await settled();
  shelf.items.unshift({ id: 13, state: "open" });
  await a_look();
  expect(ids()).toEqual([13, 12, 11, 10, 9]);
  expect(list.waiting).toEqual([]);
});

test("new ones wait for somebody who reads further down, and change while they wait", async () => {
  list.read(shelf.source);
  await settled();
  at_top = false;
  shelf.items.unshift({ id: 13, state: "open" });
  await a_look();
  shelf.items[0] = { id: 13, state: "done" };
  shelf.items.unshift({ id: 14, state: "open" });
  await a_look();
  expect(ids()).toEqual([12, 11, 10, 9]);
  expect(list.waiting).toEqual([
    { id: 14, state: "open" },
    { id: 13, state: "done" },
  ]);
  list.show_newer();
  expect(ids()).toEqual([14, 13, 12, 11, 10, 9]);
});

test("a page of nothing but new ones begins the list again, for there may be more below them", async () => {
  list.read(shelf.source);
  await settled();
  shelf.items = new Shelf(20).items;
  await a_look();
  expect(ids()).toEqual([20, 19, 18, 17]);
  await list.load_more();
  expect(ids().at(-1)).toBe(9);
});

test("what still changes is asked for by itself where the newest page does not tell of it", async () => {
  list.read(shelf.source);
  await settled();
  await list.load_more();
  shelf.items = shelf.items.filter(({ id }) => id !== 8);
  shelf.items.find(({ id }) => id === 7)!.state = "done";
  await a_look();
  expect(asked_singly).toEqual([8, 7, 6, 5, 4]);
  expect(list.items.filter(({ state }) => state === "done")).toEqual([{ id: 7, state: "done" }]);
  expect(ids()).toContain(8);
  expect(list.failure).toBeNull();
});

test("an answer for another source is dropped, and leaves nothing busy", async () => {
  list.read(shelf.source);
  await settled();
  shelf.hold();
  const look = list.look();
  const more = list.load_more();
  const other = new Shelf(103, 101);
  list.read(other.source);
  await settled();
  await shelf.let_go();
  await Promise.all([more, look]);
  expect(ids()).toEqual([103, 102, 101]);
  expect([list.busy, list.has_more, list.failure]).toEqual([false, false, null]);
});

test("a list that is not read any more asks for nothing and is not busy", async () => {
  const stop = list.read(shelf.source);
  await settled();
  shelf.hold();
  const more = list.load_more();
  stop();
  expect(list.busy).toBe(false);
  await shelf.let_go();
  await more;
  await a_look();
  expect(ids()).toEqual([12, 11, 10, 9]);
  expect(shelf.asked).toEqual([null, "9"]);
});

test("what cannot be read leaves the rows there are, and the next look mends it", async () => {
  list.read(shelf.source);
  await settled();
  shelf.broken = true;
  await a_look();
  expect(ids()).toEqual([12, 11, 10, 9]);
  expect(list.failure).toEqual(new Error("no answer"));
  shelf.broken = false;
  await a_look();
  expect(list.failure).toBeNull();
});

test("rows of another source stay as stale ones, and nothing is put among them", async () => {
  list.read(shelf.source);
  await settled();
  const even = new Shelf(12);
  even.items = even.items.filter(({ id }) => id % 2 === 0);
  even.broken = true;
  list.read(even.source);
  await settled();
  expect(ids()).toEqual([12, 11, 10, 9]);
  expect([list.busy, list.failure !== null]).toEqual([false, true]);
  await list.load_more();
  expect(even.asked).toEqual([null]);
  even.broken = false;
  await a_look();
  expect(ids()).toEqual([12, 10, 8, 6]);
  expect(list.failure).toBeNull();
});

test("a retry does again what has failed: an older page, without losing the ones there are", async () => {
  list.read(shelf.source);
  await settled();
  shelf.broken = true;
  await list.load_more();
  expect([list.failure !== null, list.busy]).toEqual([true, false]);
  await list.load_more();
  expect(shelf.asked).toEqual([null, "9"]);
  shelf.broken = false;
  await list.retry();
  expect(ids().at(-1)).toBe(1);
  expect(list.failure).toBeNull();
});

test("of the looks that are asked for during another one, one follows", async () => {
  list.read(shelf.source);
  await settled();
  shelf.hold();
  const first = list.look();
  void list.look();
  void list.look();
  shelf.items.unshift({ id: 13, state: "open" });
  await shelf.let_go();
  await first;
  expect(shelf.asked).toEqual([null, null, null]);
  expect(ids()[0]).toBe(13);
});

test("a page that nobody sees asks for nothing", async () => {
  list.read(shelf.source);
  await settled();
  vi.stubGlobal("document", { hidden: true });
  await a_look();
  await list.look();
  expect(shelf.asked).toEqual([null]);
});
