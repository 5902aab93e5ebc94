// Which row of a long list the keyboard is at, and its way from row to row.

import { tick } from "svelte";
import type { RowsInView } from "./rows_in_view.svelte";

const STEPS: Readonly<Record<string, number>> = {
  ArrowDown: 1,
  ArrowUp: -1,
  j: 1,
  k: -1,
  PageDown: 12,
  PageUp: -12,
  Home: -Infinity,
  End: Infinity,
};

interface Options<T> {
  view: RowsInView<T>;
  /** The link of a row has the id `name-id`. */
  name: string;
  id_of: (item: T) => string;
  moved?: (item: T) => void;
}

export class RowCursor<T> {
  /** The id of the row; it stays where it is while the focus is elsewhere. */
  at = $state<string | null>(null);
  index = $derived.by(() => (this.at === null ? -1 : this.#options.view.items.findIndex((item) => this.#options.id_of(item) === this.at)));
  #options: Options<T>;

  constructor(options: Options<T>) {
    this.#options = options;
  }

  link_id(item: T): string {
    return `${this.#options.name}-${this.#options.id_of(item)}`;
  }

  /** Tab stops at one row only: the cursor's, or the first that exists. */
  tabindex(index: number): 0 | -1 {
    const { first, end } = this.#options.view;
    const stop = this.index >= first && this.index < end ? this.index : first;
    return index === stop ? 0 : -1;
  }

  /** The focus to the row so many further; 0 takes the cursor's row or the first. */
  move(by: number): void {
    const { view, id_of, moved } = this.#options;
    const from = this.index >= 0 ? this.index : by > 0 ? -1 : 0;
    const index = Math.min(view.items.length - 1, Math.max(0, from + by));
    const item = view.items[index];
    if (item === undefined) return;
    this.at = id_of(item);
    view.reveal(index);
    void this.focus(this.at);
    moved?.(item);
  }

  async focus(id: string): Promise<void> {
    await tick();
    document.getElementById(`${this.#options.name}-${id}`)?.focus({ preventScroll: true });
  }

  /** For `onkeydown` around the rows. */
  press = (event: KeyboardEvent): void => {
    const by = STEPS[event.key];
    if (by === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.move(by);
  };

  /** For `onfocusin` around the rows. */
  follow = (event: FocusEvent): void => {
    const { id } = event.target as Element;
    const prefix = `${this.#options.name}-`;
    if (id.startsWith(prefix)) this.at = id.slice(prefix.length);
  };
}
