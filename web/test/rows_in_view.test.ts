// Of a long list only the rows on the screen exist, and the keyboard's way from one to the next.

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Pane } from "../src/pane";
import { RowCursor } from "../src/row_cursor.svelte";
import { RowsInView } from "../src/rows_in_view.svelte";
import { visible_rows, way_to_row } from "../src/window";

/** A page of 800 pixels whose rows begin 200 pixels down, in the test's hands. */
class FakePane implements Pane {
  margins_rem = { above: 6, below: 3 };
  top_px = -200;
  narrow = false;
  is_watched = false;
  #scrolled: () => void = () => undefined;
  #resized: () => void = () => undefined;

  position_px = () => this.top_px;
  size = () => ({ height_px: 800, rem_px: 16, narrow: this.narrow });

  scroll_by(px: number): void {
    if (px !== 0) this.scroll_to(this.top_px + px);
  }

  scroll_to(px: number): void {
    this.top_px = px;
    this.#scrolled();
  }

  turn(narrow: boolean): void {
    this.narrow = narrow;
    this.#resized();
  }

  watch(scrolled: () => void, resized: () => void): () => void {
    this.#scrolled = scrolled;
    this.#resized = resized;
    this.is_watched = true;
    return () => (this.is_watched = false);
  }
}

let items: string[];
let pane: FakePane;
let view: RowsInView<string>;
let focused: string[];

beforeEach(() => {
  items = Array.from({ length: 1_000 }, (_, index) => `r${index}`);
  pane = new FakePane();
  view = new RowsInView({ items: () => items, row_rem: 2, narrow_row_rem: 4 });
  focused = [];
  vi.stubGlobal("document", { getElementById: (id: string) => ({ focus: () => focused.push(id) }) });
});

afterEach(() => vi.unstubAllGlobals());

test.each([
  { total: 1_000, scrolled: 0, shown: { first: 0, end: 40, above: 0, below: 960 * 32 } },
  { total: 1_000, scrolled: 3_200, shown: { first: 88, end: 136, above: 88 * 32, below: 864 * 32 } },
  { total: 10, scrolled: 0, shown: { first: 0, end: 10, above: 0, below: 0 } },
  { total: 10, scrolled: 30_000, shown: { first: 0, end: 10, above: 0, below: 0 } },
  { total: 0, scrolled: 0, shown: { first: 0, end: 0, above: 0, below: 0 } },
])("of $total rows, $scrolled pixels further down, those on the screen exist and a chunk around them", ({ total, scrolled, shown }) => {
  expect(visible_rows(total, 32, scrolled, 800)).toEqual(shown);
});

test.each([
  { top: 50, way: -50, why: "is above" },
  { top: 100, way: 0, why: "is seen" },
  { top: 468, way: 0, why: "just fits" },
  { top: 500, way: 32, why: "is below" },
])("a row that $why is $way pixels away", ({ top, way }) => {
  expect(way_to_row(top, 32, 100, 500)).toBe(way);
});

test("the rows follow what scrolls them, and the space keeps the place of the others", () => {
  view.watch(pane);
  expect([view.rows[0], view.above_px, view.at_top]).toEqual(["r0", 0, true]);
  pane.scroll_to(3_200);
  expect([view.rows[0], view.rows.length, view.at_top]).toEqual(["r88", 48, false]);
  expect(view.above_px + view.rows.length * view.row_px + view.below_px).toBe(1_000 * 32);
});

test("rows are higher where the screen is narrow", () => {
  view.watch(pane);
  expect([view.row_px, view.end]).toEqual([32, 40]);
  pane.turn(true);
  expect([view.narrow, view.row_px, view.end]).toEqual([true, 64, 24]);
});

test("a list that is short enough exists whole", () => {
  const whole = new RowsInView({ items: () => items, row_rem: 2, whole: 1_000 });
  whole.watch(pane);
  expect([whole.rows.length, whole.above_px, whole.below_px]).toEqual([1_000, 0, 0]);
});

test("what is not watched any more is at its beginning again", () => {
  const stop = view.watch(pane);
  pane.scroll_to(3_200);
  stop();
  expect([pane.is_watched, view.at_top, view.first]).toEqual([false, true, 0]);
});

function cursor_at(id: string | null, moved?: (item: string) => void): RowCursor<string> {
  view.watch(pane);
  const cursor = new RowCursor({ view, name: "row", id_of: (item) => item, moved });
  cursor.at = id;
  return cursor;
}

test.each([
  { at: null, by: 1, to: "r0" },
  { at: null, by: 0, to: "r0" },
  { at: null, by: -1, to: "r0" },
  { at: "r7", by: 1, to: "r8" },
  { at: "r7", by: -12, to: "r0" },
  { at: "r7", by: Infinity, to: "r999" },
  { at: "r999", by: 1, to: "r999" },
  { at: "gone", by: 1, to: "r0" },
])("from $at, $by further is $to", async ({ at, by, to }) => {
  const moved: string[] = [];
  const cursor = cursor_at(at, (item) => moved.push(item));
  cursor.move(by);
  await cursor.focus(to);
  expect([cursor.at, moved]).toEqual([to, [to]]);
  expect(new Set(focused)).toEqual(new Set([`row-${to}`]));
});

test("the row that the keyboard goes to is on the screen, clear of the head", () => {
  const cursor = cursor_at("r0");
  cursor.move(500);
  expect(view.rows).toContain("r500");
  expect(pane.top_px).toBe(501 * 32 + 3 * 16 - 800);
  cursor.move(-Infinity);
  expect(pane.top_px).toBe(-6 * 16);
});

test("an empty list has no row to go to", () => {
  items = [];
  const cursor = cursor_at(null);
  cursor.move(1);
  expect([cursor.at, focused]).toEqual([null, []]);
});

test("keys move the cursor, unless they are for something else", () => {
  const cursor = cursor_at("r0");
  const press = (key: string, more: Partial<KeyboardEvent> = {}) => {
    let is_taken = false;
    cursor.press({ key, preventDefault: () => (is_taken = true), ...more } as KeyboardEvent);
    return is_taken;
  };
  expect(["j", "ArrowDown", "k", "End"].map((key) => press(key))).toEqual([true, true, true, true]);
  expect(cursor.at).toBe("r999");
  expect([press("x"), press("Home", { ctrlKey: true })]).toEqual([false, false]);
  expect(cursor.at).toBe("r999");
});

test("the cursor goes where the focus goes, and Tab stops at it, or at the first row there is", () => {
  const cursor = cursor_at(null);
  const stops = () => [...view.rows.keys()].map((index) => view.first + index).filter((index) => cursor.tabindex(index) === 0);
  expect(stops()).toEqual([0]);
  cursor.follow({ target: { id: "row-r5" } } as unknown as FocusEvent);
  expect([cursor.at, stops()]).toEqual(["r5", [5]]);
  cursor.follow({ target: { id: "elsewhere" } } as unknown as FocusEvent);
  expect(cursor.at).toBe("r5");
  pane.scroll_to(3_200);
  expect(stops()).toEqual([88]);
});
