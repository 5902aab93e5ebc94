// A list that is read page after page from its newest end, where new ones come in while somebody reads it.

import type { List } from "./types";

export type Source<T> = (page: { limit: number; cursor: string | null }, signal: AbortSignal) => Promise<List<T>>;

interface Options<T> {
  id_of: (item: T) => string | number;
  page_size: number;
  /** What tells of changes may miss some, so the list is looked at this often. */
  look_ms: number;
  /** Does somebody look at the newest? Then new ones appear by themselves. */
  at_top: () => boolean;
  /** Which of them still change, and how to ask for one that is further down than the newest page. */
  changing?: { is: (item: T) => boolean; ask: (item: T, signal: AbortSignal) => Promise<T> };
}

/** Of those that change further down, so many are asked for at a time. */
const ASKED_SINGLY = 5;

export class Paged<T> {
  items = $state.raw<readonly T[]>([]);
  /** New ones that wait above what somebody reads. */
  waiting = $state.raw<readonly T[]>([]);
  /** Has there been any answer? */
  loaded = $state(false);
  busy = $state(false);
  /** While there is one, what is shown is stale. */
  failure = $state.raw<unknown>(null);
  has_more = $derived.by(() => this.#next !== null);
  may_load_more = $derived.by(() => this.has_more && this.#begun && !this.busy && this.failure === null);

  #options: Options<T>;
  #source: Source<T> | null = null;
  /** Do the items come from the source, and not from the one before? */
  #begun = $state(false);
  #next = $state<string | null>(null);
  #reading = new AbortController();
  #asking = new AbortController();
  #timer: ReturnType<typeof setInterval> | undefined;
  #looking = false;
  #look_again = false;
  #failed: (() => Promise<void>) | null = null;

  constructor(options: Options<T>) {
    this.#options = options;
  }

  /** Show what this source has, and keep it true, until the returned function is called or another one is read. */
  read(source: Source<T>): () => void {
    this.#stop();
    const reading = (this.#reading = new AbortController());
    this.#source = source;
    this.#begun = false;
    this.waiting = [];
    this.failure = null;
    this.#timer = setInterval(() => void this.look(), this.#options.look_ms);
    void this.#begin();
    return () => {
      if (this.#reading === reading) this.#stop();
    };
  }

  /** The page after the last one, if it may be asked for. */
  async load_more(): Promise<void> {
    if (!this.may_load_more) return;
    const cursor = this.#next;
    await this.#ask(async (source, signal) => {
      const page = await source({ limit: 2 * this.#options.page_size, cursor }, signal);
      signal.throwIfAborted();
      this.items = [...this.items, ...page.items];
      this.#next = page.next ?? null;
    }, () => this.load_more());
  }

  /** The newest page again. A look that is asked for during another one follows it. */
  async look(): Promise<void> {
    this.#look_again = this.#looking;
    if (this.#looking) return;
    this.#looking = true;
    try {
      do {
        this.#look_again = false;
        await this.#look();
      } while (this.#look_again);
    } finally {
      this.#looking = false;
    }
  }

  show_newer(): void {
    this.items = [...this.waiting, ...this.items];
    this.waiting = [];
  }

  /** Do again what has failed. */
  async retry(): Promise<void> {
    this.failure = null;
    await this.#failed?.();
  }

  #stop(): void {
    clearInterval(this.#timer);
    this.#reading.abort();
    this.#asking.abort();
    this.busy = false;
  }

  async #begin(): Promise<void> {
    await this.#ask(async (source, signal) => {
      const page = await source({ limit: this.#options.page_size, cursor: null }, signal);
      signal.throwIfAborted();
      this.items = page.items;
      this.waiting = [];
      this.#next = page.next ?? null;
      this.#begun = this.loaded = true;
    }, () => this.#begin());
  }

  /** One question at a time: the next one ends the one before, so that no late answer gets among the items. */
  async #ask(question: (source: Source<T>, signal: AbortSignal) => Promise<void>, again: () => Promise<void>): Promise<void> {
    this.#asking.abort();
    const asking = (this.#asking = new AbortController());
    if (!this.#source) return;
    this.busy = true;
    try {
      await question(this.#source, asking.signal);
      this.failure = null;
    } catch (refusal) {
      if (!asking.signal.aborted) this.#fail(refusal, again);
    } finally {
      if (this.#asking === asking) this.busy = false;
    }
  }

  async #look(): Promise<void> {
    if (!this.#source || this.busy || document.hidden) return;
    // The items are still those of another source: it would be wrong to put anything among them.
    if (!this.#begun) return this.#begin();
    const { signal } = this.#reading;
    try {
      const page = await this.#source({ limit: this.#options.page_size, cursor: null }, signal);
      signal.throwIfAborted();
      if (this.#is_gap(page.items)) return await this.#begin();
      this.#take(page.items);
      await this.#ask_singly(page.items, signal);
      signal.throwIfAborted();
      this.failure = null;
    } catch (refusal) {
      if (!signal.aborted) this.#fail(refusal, () => this.look());
    }
  }

  #fail(refusal: unknown, again: () => Promise<void>): void {
    this.failure = refusal;
    this.#failed = again;
  }

  /** A whole page of new ones: there may be more between them and what is known. */
  #is_gap(newest: readonly T[]): boolean {
    return this.items.length > 0 && newest.length > 0 && this.#unknown(newest).length === newest.length;
  }

  #unknown(newest: readonly T[]): readonly T[] {
    const known = new Set([...this.items, ...this.waiting].map(this.#options.id_of));
    return newest.filter((item) => !known.has(this.#options.id_of(item)));
  }

  #take(newest: readonly T[]): void {
    this.waiting = [...this.#unknown(newest), ...this.waiting];
    if (this.#options.changing) this.#put(newest);
    if (this.waiting.length > 0 && this.#options.at_top()) this.show_newer();
  }

  /** In their places. */
  #put(changed: readonly T[]): void {
    const { id_of } = this.#options;
    const now = new Map(changed.map((item) => [id_of(item), item]));
    const put = (item: T) => now.get(id_of(item)) ?? item;
    this.items = this.items.map(put);
    this.waiting = this.waiting.map(put);
  }

  async #ask_singly(newest: readonly T[], signal: AbortSignal): Promise<void> {
    const { changing, id_of } = this.#options;
    if (!changing) return;
    const told = new Set(newest.map(id_of));
    const wanted = this.items.filter((item) => changing.is(item) && !told.has(id_of(item))).slice(0, ASKED_SINGLY);
    const answers = await Promise.allSettled(wanted.map((item) => changing.ask(item, signal)));
    signal.throwIfAborted();
    // What cannot be had any more stays as it was last seen.
    const had = answers.flatMap((answer) => (answer.status === "fulfilled" ? [answer.value] : []));
    if (had.length > 0) this.#put(had);
  }
}
