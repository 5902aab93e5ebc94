// A list from the console that a settings page shows and fetches again after a change.

import type { List } from "./types";

export class Listed<T> {
  items = $state.raw<readonly T[] | null>(null);
  failure = $state.raw<unknown>(null);
  #fetch: () => Promise<List<T>>;

  constructor(fetch: () => Promise<List<T>>) {
    this.#fetch = fetch;
    void this.load();
  }

  load = async (): Promise<void> => {
    try {
      this.items = (await this.#fetch()).items;
      this.failure = null;
    } catch (failure) {
      this.failure = failure;
    }
  };
}
