// The live connection: subscribe, reconnect with back-off, tell how old the numbers are, ask for the gap.

import type { LiveMessage } from "./types";

export type LiveState = "connecting" | "open" | "lost" | "closed";

export interface Subscription {
  servers: "all" | readonly string[];
  rate_s: number;
}

/** What `Live` needs of a WebSocket, so that tests can be the other end. */
export interface Socket {
  onopen: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number }) => void) | null;
  send(text: string): void;
  close(): void;
}

export interface LiveEvents {
  message(message: LiveMessage): void;
  state(state: LiveState): void;
  /** After a reconnect: everything between these two instants (Unix seconds) may have been missed. */
  gap(from_s: number, to_s: number): void;
  /** The session ended, or a connection could not even be opened: ask the console who we are. */
  refused(): void;
}

export interface LiveOptions {
  connect: () => Socket;
  events: LiveEvents;
  now_s?: () => number;
  random?: () => number;
}

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
/** A ping goes out this often, and the console answers it: longer silence means the socket is dead. */
export const PING_MS = 15_000;
export const SILENCE_MS = 40_000;
const REFUSED = new Set([1008, 4401, 4403]);

export class Live {
  #connect: () => Socket;
  #events: LiveEvents;
  #now_s: () => number;
  #random: () => number;
  #socket: Socket | null = null;
  #subscription: Subscription | null = null;
  #watched: string | null = null;
  #attempts = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #silence: ReturnType<typeof setTimeout> | undefined;
  #pings: ReturnType<typeof setInterval> | undefined;
  #was_open = false;
  #state: LiveState = "closed";
  /** When the last message came, Unix seconds by the browser's clock; 0 before the first. */
  heard_at_s = 0;
  /** When the last sample came; what came after it may have been missed. */
  #sampled_at_s = 0;

  constructor(options: LiveOptions) {
    this.#connect = options.connect;
    this.#events = options.events;
    this.#now_s = options.now_s ?? (() => Date.now() / 1000);
    this.#random = options.random ?? Math.random;
  }

  get state(): LiveState {
    return this.#state;
  }

  start(): void {
    if (this.#state !== "closed") return;
    this.#open();
  }

  stop(): void {
    this.#forget();
    clearTimeout(this.#timer);
    this.#attempts = 0;
    this.#was_open = false;
    this.#become("closed");
  }

  /** Replaces the subscription; it is sent at once, and again after every reconnect. */
  subscribe(subscription: Subscription): void {
    this.#subscription = subscription;
    if (this.#state === "open") this.#send_subscription();
  }

  /** Ask to be told what the tasks of one run do; null: of none any more. */
  watch(run_id: string | null): void {
    if (run_id === this.#watched) return;
    this.#watched = run_id;
    if (this.#state === "open") this.#send_watch();
  }

  /** Try now instead of waiting: the network or the page came back. */
  retry(): void {
    if (this.#state !== "lost") return;
    clearTimeout(this.#timer);
    this.#open();
  }

  #open(): void {
    if (!this.#was_open) this.#become("connecting");
    const socket = this.#connect();
    this.#socket = socket;
    this.#watch_silence();
    socket.onopen = () => this.#opened();
    socket.onmessage = (event) => this.#heard(event.data);
    socket.onclose = (event) => this.#closed(event.code);
  }

  #opened(): void {
    this.#attempts = 0;
    const missed = this.#was_open;
    this.#was_open = true;
    this.#become("open");
    this.#send_subscription();
    if (this.#watched) this.#send_watch();
    this.#pings = setInterval(() => this.#socket?.send('{"type":"ping"}'), PING_MS);
    if (missed) this.#tell_gap();
  }

  #heard(data: unknown): void {
    if (typeof data !== "string") return;
    const message = parse(data);
    if (!message) return;
    this.heard_at_s = this.#now_s();
    this.#watch_silence();
    if (message.type === "gap") this.#tell_gap();
    if (message.type === "samples") this.#sampled_at_s = this.heard_at_s;
    this.#events.message(message);
    if (message.type === "reconnect") this.#come_back(message.spread_s ?? 0);
  }

  #tell_gap(): void {
    if (this.#sampled_at_s > 0) this.#events.gap(this.#sampled_at_s, this.#now_s());
  }

  /** The console is about to stop: all its browsers come back spread over this time. */
  #come_back(spread_s: number): void {
    this.#forget();
    this.#become("lost");
    this.#timer = setTimeout(() => this.#open(), FIRST_WAIT_MS + spread_s * 1000 * this.#random());
  }

  #closed(code: number): void {
    this.#forget();
    if (REFUSED.has(code)) this.#become("closed");
    if (REFUSED.has(code) || this.#attempts > 0) this.#events.refused();
    if (REFUSED.has(code)) return;
    this.#become("lost");
    this.#timer = setTimeout(() => this.#open(), this.#wait_ms());
  }

  /** Doubling with full jitter, so that a thousand browsers do not come back in the same instant. */
  #wait_ms(): number {
    const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#attempts);
    this.#attempts += 1;
    return longest / 2 + (longest / 2) * this.#random();
  }

  #watch_silence(): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#closed(1006), SILENCE_MS);
  }

  #send_subscription(): void {
    if (this.#subscription) this.#socket?.send(JSON.stringify({ type: "subscribe", ...this.#subscription }));
  }

  #send_watch(): void {
    this.#socket?.send(JSON.stringify(this.#watched ? { type: "watch", run: this.#watched } : { type: "unwatch" }));
  }

  #forget(): void {
    clearTimeout(this.#silence);
    clearInterval(this.#pings);
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #become(state: LiveState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.#events.state(state);
  }
}

function parse(text: string): LiveMessage | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && "type" in value ? (value as LiveMessage) : null;
  } catch {
    return null;
  }
}

export function browser_socket(): Socket {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  return new WebSocket(`${scheme}://${location.host}/ws/live`) as unknown as Socket;
}
