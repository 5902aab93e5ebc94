// The rows of a long list that exist: those on the screen and some more.

import type { Pane, Size } from "./pane";
import { visible_rows, way_to_row } from "./window";

interface Options<T> {
  items: () => readonly T[];
  row_rem: number;
  /** On a screen as narrow as a phone's. */
  narrow_row_rem?: number;
  /** Rows come and go so many at a time. */
  chunk?: number;
  /** So many exist all at once: the browser's own search finds something only in what exists. */
  whole?: number;
}

/** Until a pane has been measured, as much as a large screen shows. */
const UNMEASURED: Size = { height_px: 1_200, rem_px: 16, narrow: false };

export class RowsInView<T> {
  #options: Options<T>;
  #pane: Pane | null = null;
  #position_px = $state(0);
  #size = $state.raw(UNMEASURED);

  narrow = $derived.by(() => this.#size.narrow);
  row_rem = $derived.by(() => (this.narrow ? (this.#options.narrow_row_rem ?? this.#options.row_rem) : this.#options.row_rem));
  row_px = $derived.by(() => this.row_rem * this.#size.rem_px);
  #shown = $derived.by(() => this.#show());
  first = $derived.by(() => this.#shown.first);
  end = $derived.by(() => this.#shown.end);
  /** The space of the rows that do not exist. */
  above_px = $derived.by(() => this.#shown.above);
  below_px = $derived.by(() => this.#shown.below);
  rows = $derived.by(() => this.items.slice(this.first, this.end));

  constructor(options: Options<T>) {
    this.#options = options;
  }

  get items(): readonly T[] {
    return this.#options.items();
  }

  /** Is the first row still to be seen, whole or in part? */
  get at_top(): boolean {
    return this.#position_px < this.row_px;
  }

  /** Show what this pane has on the screen, until the returned function is called. */
  watch(pane: Pane): () => void {
    this.#pane = pane;
    const stop = pane.watch(() => this.#scrolled(), () => this.#resized());
    this.#resized();
    // Fewer rows leave a pane that is shorter than it was scrolled.
    $effect(() => {
      void this.items.length;
      this.#scrolled();
    });
    return () => {
      stop();
      this.#pane = null;
      this.#position_px = 0;
    };
  }

  /** Scroll just so far that this row is seen. */
  reveal(index: number): void {
    if (!this.#pane) return;
    const { height_px, rem_px } = this.#size;
    const { above, below } = this.#pane.margins_rem;
    const upper_px = this.#pane.position_px();
    this.#pane.scroll_by(
      way_to_row(index * this.row_px, this.row_px, upper_px + above * rem_px, upper_px + height_px - below * rem_px),
    );
    this.#scrolled();
  }

  #show() {
    const total = this.items.length;
    if (total <= (this.#options.whole ?? 0)) return { first: 0, end: total, above: 0, below: 0 };
    return visible_rows(total, this.row_px, Math.max(0, this.#position_px), this.#size.height_px, this.#options.chunk);
  }

  #scrolled(): void {
    if (this.#pane) this.#position_px = this.#pane.position_px();
  }

  #resized(): void {
    if (this.#pane) this.#size = this.#pane.size();
    this.#scrolled();
  }
}
