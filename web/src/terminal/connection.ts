// The socket of one session: the ticket first, then bytes both ways; come back after a drop, and go on where it broke off.
//
// The console counts the bytes of the shell's output from the beginning of the session. The page says how many of them
// it has (`have`), the console answers from where it goes on (`from`), and the page tells how far it has drawn (`ack`),
// so that a shell that prints faster than the page draws is paused.

import { ApiError } from "../api";
import type { Ticket } from "./calls";

export type LinkState = "connecting" | "open" | "lost" | "over";

export interface Ready {
  type: "ready";
  id: string;
  cols: number;
  rows: number;
  from: number;
  /** What was drawn is void: the console no longer has all that this page misses. */
  reset: boolean;
  /** To be written before anything else, after a reset: what the shell had set the terminal to. */
  modes?: string;
}

export type Said =
  | { type: "warning"; reason: "idle" | "time"; seconds_left: number }
  | { type: "guard"; line: string; rule: string; sentence: string }
  | { type: "watched"; by: string[] }
  | { type: "resized"; cols: number; rows: number }
  | { type: "closed"; reason: string; sentence?: string; exit_status?: number | null };

/** What `Connection` needs of a WebSocket, so that tests can be the other end. */
export interface Socket {
  onopen: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number }) => void) | null;
  send(data: string | Uint8Array<ArrayBuffer>): void;
  close(): void;
}

export interface ConnectionEvents {
  state(state: LinkState): void;
  ready(ready: Ready): void;
  /** `end`: position behind the last of these bytes, to be told back when they are drawn. */
  output(bytes: Uint8Array, end: number): void;
  said(message: Said): void;
  /** There is no way back into the session: the console refused another ticket. */
  refused(failure: unknown): void;
}

export interface ConnectionOptions {
  connect: (path: string) => Socket;
  /** Another ticket for the same session, to come back with. */
  ticket: () => Promise<Ticket>;
  events: ConnectionEvents;
  random?: () => number;
}

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 5_000;
/** The console keeps a session for a minute without its browser; a console that restarts takes a while to answer. */
const TRIES_MAX = 40;
const SILENT_OPEN_MS = 15_000;
const ACK_BYTES = 128 * 1024;
const ACK_MS = 200;
/** The session was taken over by another window; the person may not go on. */
const REPLACED = 4409;
const NOT_PERMITTED = 1008;
/** Why a socket was closed before it began, where another ticket or a moment later may do. */
const PASSING = new Set(["ticket", "unavailable"]);
/** A paste of a megabyte goes in pieces: the console refuses large frames. */
export const FRAME_BYTES = 16 * 1024;

export class Connection {
  state: LinkState = "connecting";
  #options: ConnectionOptions;
  #socket: Socket | null = null;
  #received = 0;
  #drawn = 0;
  #acked = 0;
  #tries = 0;
  #waiting: ReturnType<typeof setTimeout> | undefined;
  #opening: ReturnType<typeof setTimeout> | undefined;
  #acking: ReturnType<typeof setTimeout> | undefined;

  constructor(options: ConnectionOptions) {
    this.#options = options;
  }

  /** Begin with the ticket that came with the session. */
  start(ticket: Ticket): void {
    this.#connect(ticket);
  }

  /** Begin, or try again now, with another ticket. */
  async resume(): Promise<void> {
    clearTimeout(this.#waiting);
    this.#tries += 1;
    try {
      const ticket = await this.#options.ticket();
      if (this.state !== "over") this.#connect(ticket);
    } catch (failure) {
      if (this.state === "over") return;
      if (is_final(failure) || this.#tries >= TRIES_MAX) this.#give_up(failure);
      else this.#wait();
    }
  }

  /** End the session itself; false when the console cannot be told now. */
  end(): boolean {
    if (this.state !== "open") return false;
    this.#say({ type: "close" });
    return true;
  }

  /** Leave it: the console keeps the shell for a while. */
  stop(): void {
    clearTimeout(this.#waiting);
    this.#forget();
    this.#become("over");
  }

  type(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.state !== "open") return;
    for (let at = 0; at < bytes.length; at += FRAME_BYTES) this.#socket?.send(bytes.subarray(at, at + FRAME_BYTES));
  }

  resize(cols: number, rows: number): void {
    this.#say({ type: "resize", cols, rows });
  }

  /** The answer to a guard's question. */
  decide(is_sent: boolean): void {
    this.#say({ type: is_sent ? "continue" : "drop" });
  }

  /** All bytes before this position are drawn. What was on its way when a connection broke may be told later than more. */
  drawn(end: number): void {
    this.#drawn = Math.max(this.#drawn, end);
    if (this.#drawn - this.#acked >= ACK_BYTES) this.#ack();
    else this.#acking ??= setTimeout(() => this.#ack(), ACK_MS);
  }

  #ack(): void {
    clearTimeout(this.#acking);
    this.#acking = undefined;
    if (this.#drawn === this.#acked || this.state !== "open") return;
    this.#acked = this.#drawn;
    this.#say({ type: "ack", bytes: this.#drawn });
  }

  #connect({ ticket, path }: Ticket): void {
    this.#forget();
    const socket = this.#options.connect(path);
    this.#socket = socket;
    this.#opening = setTimeout(() => this.#closed(0), SILENT_OPEN_MS);
    socket.onopen = () => socket.send(JSON.stringify({ type: "ticket", ticket, have: this.#received }));
    socket.onmessage = (event) => this.#heard(event.data);
    socket.onclose = ({ code }) => this.#closed(code);
  }

  #heard(data: unknown): void {
    if (data instanceof ArrayBuffer) {
      this.#received += data.byteLength;
      this.#options.events.output(new Uint8Array(data), this.#received);
      return;
    }
    const message = parse(data);
    if (message?.type === "ready") this.#begin(message);
    else if (message?.type === "closed" && this.state !== "open" && PASSING.has(message.reason)) this.#closed(0);
    else if (message) {
      // Told before anything else happens, so that the end has its reason.
      this.#options.events.said(message);
      if (message.type === "closed") this.stop();
    }
  }

  #begin(ready: Ready): void {
    clearTimeout(this.#opening);
    this.#tries = 0;
    this.#received = ready.from;
    this.#drawn = this.#acked = ready.from;
    this.#options.events.ready(ready);
    this.#become("open");
  }

  #closed(code: number): void {
    this.#forget();
    if (this.state === "over") return;
    const was_open = this.state === "open";
    if (code === REPLACED || (code === NOT_PERMITTED && was_open)) {
      this.#options.events.said({ type: "closed", reason: code === REPLACED ? "taken_over" : "not_permitted" });
      this.stop();
      return;
    }
    this.#become("lost");
    this.#wait();
  }

  #wait(): void {
    const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#tries);
    const random = this.#options.random ?? Math.random;
    this.#waiting = setTimeout(() => void this.resume(), longest / 2 + (longest / 2) * random());
  }

  #give_up(failure: unknown): void {
    this.#forget();
    this.#become("over");
    this.#options.events.refused(failure);
  }

  #say(message: object): void {
    if (this.state === "open") this.#socket?.send(JSON.stringify(message));
  }

  #forget(): void {
    clearTimeout(this.#opening);
    clearTimeout(this.#acking);
    this.#acking = undefined;
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #become(state: LinkState): void {
    if (state === this.state) return;
    this.state = state;
    this.#options.events.state(state);
  }
}

/** An answer that will not change by asking again. */
function is_final(failure: unknown): boolean {
  return failure instanceof ApiError && failure.status >= 400 && failure.status < 500 && failure.status !== 429;
}

function parse(data: unknown): Ready | Said | null {
  if (typeof data !== "string") return null;
  try {
    const value: unknown = JSON.parse(data);
    return typeof value === "object" && value !== null && "type" in value ? (value as Ready | Said) : null;
  } catch {
    return null;
  }
}

export function browser_socket(path: string): Socket {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}${path}`);
  socket.binaryType = "arraybuffer";
  return socket as unknown as Socket;
}
