// The servers and their newest values. Values arrive for all servers every second, so they live in plain
// maps; one counter, raised at most once a frame, tells the few rows on the screen to read them again.

import * as api from "./api";
import { seconds } from "./format";
import { Live, browser_socket, type LiveState, type Subscription } from "./live";
import type { Values } from "./rows";
import type { News } from "./runs/states";
import { session } from "./session.svelte";
import type { LiveMessage, Server } from "./types";

const SPARK_POINTS = 60;
const REFETCH_PAUSE_MS = 250;

type StatusMessage = Extract<LiveMessage, { type: "status" }>;
type RunListener = (news: readonly News[]) => void;
type SampleListener = (at_s: number, values: Readonly<Record<string, number>>) => void;

class Fleet {
  servers = $state.raw<Server[]>([]);
  loaded = $state(false);
  failure = $state.raw<unknown>(null);
  live = $state<LiveState>("closed");
  /** Raised when values changed. Read it where values are read. */
  beat = $state(0);
  /** Raised when the console says that something changed, or may have while nobody listened. */
  changes = $state(0);
  /** Raised when runs have begun, moved on or ended. */
  run_changes = $state(0);
  /** When the newest sample was taken, Unix seconds by the console's clock. */
  sampled_at_s = $state(0);
  by_id = $derived(new Map(this.servers.map((server) => [server.id, server])));
  stale = $derived(this.live === "lost");

  #values = new Map<string, Values>();
  #sparks = new Map<string, number[]>();
  #listeners = new Map<string, Set<SampleListener>>();
  #gap_listeners = new Set<(from_s: number, to_s: number) => void>();
  #run: { id: string; hear: RunListener } | null = null;
  /** The run of which the console has said that it tells, on the connection there is now. */
  #told_run = $state<string | null>(null);
  #listening = new AbortController();
  #frame = 0;
  #newest_at_s = 0;
  #statuses = new Map<string, StatusMessage>();
  #refetch: ReturnType<typeof setTimeout> | undefined;
  #detail: string | null = null;
  #connection = new Live({
    connect: browser_socket,
    events: {
      message: (message) => this.#hear(message),
      state: (state) => this.#turn(state),
      gap: (from_s, to_s) => this.#tell_gap(from_s, to_s),
      refused: () => void api.verify().catch(() => undefined),
    },
  });

  start(): void {
    const { signal } = (this.#listening = new AbortController());
    addEventListener("online", () => this.#connection.retry(), { signal });
    document.addEventListener("visibilitychange", () => this.#look(), { signal });
    this.#connection.subscribe(this.#wanted());
    this.#connection.start();
    void this.load();
  }

  stop(): void {
    this.#listening.abort();
    this.#connection.stop();
    this.servers = [];
    this.loaded = false;
    this.failure = null;
    this.sampled_at_s = this.#newest_at_s = 0;
    this.#values.clear();
    this.#sparks.clear();
  }

  retry(): void {
    this.#connection.retry();
  }

  async load(): Promise<void> {
    try {
      const servers = await api.servers();
      for (const server of servers) this.#take_latest(server);
      this.servers = servers;
      this.failure = null;
      this.loaded = true;
    } catch (failure) {
      if (!this.loaded) this.failure = failure;
    }
  }

  /** Put one server's new state into the list without waiting for the next fetch. */
  replace(server: Server): void {
    const known = this.servers.some((other) => other.id === server.id);
    this.servers = known
      ? this.servers.map((other) => (other.id === server.id ? { ...other, ...server } : other))
      : [...this.servers, server];
  }

  /** Take one server out of the list. */
  drop(server_id: string): void {
    this.servers = this.servers.filter((server) => server.id !== server_id);
  }

  values(server_id: string): Values | undefined {
    return this.#values.get(server_id);
  }

  /** CPU of the last minute or so, oldest first. */
  spark(server_id: string): readonly number[] {
    return this.#sparks.get(server_id) ?? [];
  }

  /** Every series of one server, once a second, until the returned function is called. */
  watch(server_id: string, hear: SampleListener, gap: (from_s: number, to_s: number) => void): () => void {
    const listeners = this.#listeners.get(server_id) ?? new Set();
    this.#listeners.set(server_id, listeners.add(hear));
    this.#gap_listeners.add(gap);
    this.#detail = server_id;
    this.#connection.subscribe(this.#wanted());
    return () => {
      listeners.delete(hear);
      this.#gap_listeners.delete(gap);
      if (this.#detail === server_id) this.#detail = null;
      this.#connection.subscribe(this.#wanted());
      // What happened to the others meanwhile was not asked for.
      this.#reload_soon();
    };
  }

  /** What the tasks of one run do, as it happens, until the returned function is called. */
  watch_run(run_id: string, hear: RunListener): () => void {
    const listener = (this.#run = { id: run_id, hear });
    this.#connection.watch(run_id);
    return () => {
      if (this.#run !== listener) return;
      this.#run = null;
      this.#connection.watch(null);
    };
  }

  /** Does the console tell what the tasks of this run do? Until it does, and while it cannot, one has to ask. */
  is_told(run_id: string): boolean {
    return this.live === "open" && this.#told_run === run_id;
  }

  /** A page that nobody sees asks for nothing, so the hosts go back to their idle rhythm. */
  #wanted(): Subscription {
    if (document.hidden) return { servers: [], rate_s: 10 };
    return { servers: this.#detail ? [this.#detail] : "all", rate_s: 1 };
  }

  #look(): void {
    this.#connection.subscribe(this.#wanted());
    if (document.hidden) return;
    this.#connection.retry();
    if (this.sampled_at_s > 0) this.#tell_gap(this.sampled_at_s, Date.now() / 1000);
  }

  #turn(state: LiveState): void {
    this.live = state;
    this.#told_run = null;
  }

  #tell_gap(from_s: number, to_s: number): void {
    this.changes += 1;
    this.run_changes += 1;
    this.#reload_soon();
    for (const tell of this.#gap_listeners) tell(from_s, to_s);
  }

  #hear(message: LiveMessage): void {
    if (message.type === "samples") this.#sample(seconds(message.at) ?? 0, message.servers);
    else if (message.type === "watching") this.#told_run = message.run;
    else if (message.type === "task") {
      if (message.run === this.#run?.id) this.#run.hear(message.tasks);
    } else if (message.type === "changed" && message.about === "runs") this.run_changes += 1;
    else if (message.type === "changed") {
      this.changes += 1;
      this.#reload_soon();
    } else if (message.type === "status") {
      this.#statuses.set(message.server, message);
      this.#draw_soon();
    }
  }

  #sample(at_s: number, servers: Readonly<Record<string, Readonly<Record<string, number>>>>): void {
    for (const [server_id, values] of Object.entries(servers)) {
      this.#values.set(server_id, { ...this.#values.get(server_id), ...values });
      this.#extend_spark(server_id, values.cpu_percent);
      for (const hear of this.#listeners.get(server_id) ?? []) hear(at_s, values);
    }
    this.#sampled(at_s);
  }

  #sampled(at_s: number): void {
    this.#newest_at_s = Math.max(this.#newest_at_s, at_s);
    this.#draw_soon();
  }

  #draw_soon(): void {
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#apply_statuses();
      if (this.#newest_at_s > this.sampled_at_s) {
        this.sampled_at_s = this.#newest_at_s;
        this.beat += 1;
      }
    });
  }

  #extend_spark(server_id: string, value: number | undefined): void {
    if (value === undefined) return;
    const spark = this.#sparks.get(server_id) ?? [];
    spark.push(value);
    if (spark.length > SPARK_POINTS) spark.shift();
    this.#sparks.set(server_id, spark);
  }

  /** A thousand servers come online within seconds: their states are applied together. */
  #apply_statuses(): void {
    if (this.#statuses.size === 0) return;
    const news = this.#statuses;
    this.#statuses = new Map();
    if ([...news.keys()].some((server_id) => !this.by_id.has(server_id))) this.#reload_soon();
    this.servers = this.servers.map((server) => {
      const message = news.get(server.id);
      return message ? with_status(server, message) : server;
    });
  }

  #take_latest(server: Server): void {
    if (!server.latest || this.#values.has(server.id)) return;
    const { at, ...values } = server.latest;
    this.#values.set(server.id, values);
    const at_s = seconds(at) ?? 0;
    if (at_s > this.sampled_at_s) this.sampled_at_s = at_s;
  }

  #reload_soon(): void {
    clearTimeout(this.#refetch);
    this.#refetch = setTimeout(() => {
      if (session.user) void this.load();
    }, REFETCH_PAUSE_MS);
  }
}

function with_status(server: Server, message: StatusMessage): Server {
  const { status, reason, sentence, remedy, at } = message;
  return {
    ...server,
    status,
    status_detail: null,
    status_reason: reason,
    status_at: at ?? new Date().toISOString(),
    reason: reason && sentence ? { code: reason, sentence, remedy: remedy ?? "" } : null,
  };
}

export const fleet = new Fleet();
