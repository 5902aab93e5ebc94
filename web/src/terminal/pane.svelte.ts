// One session on the screen: its shell, what the console says of it, and what it waits for from a person.

import { ApiError } from "../api";
import { seconds } from "../format";
import { t } from "../messages";
import { part } from "../part";
import * as calls from "./calls";
import type { Session, Ticket } from "./calls";
import { browser_socket, Connection, type Ready, type Said } from "./connection";
import { bar_key, with_held, type BarKey, type Held } from "./keyboard";
import type { Link } from "./links";
import { looks } from "./looks.svelte";
import { asks, pasted, without_enter, type Pasted } from "./paste";
import type { Screen } from "./screen";
import { CLEAN } from "./sequences";
import { act, type Deed } from "./shortcuts";

const SCROLLBACK = 10_000;
const RESIZE_MS = 80;

export type State =
  | { kind: "starting" }
  | { kind: "reason" }
  | { kind: "open" }
  | { kind: "lost" }
  | { kind: "ended"; reason: string; exit_status: number | null; sentence: string | null }
  | { kind: "failed"; failure: unknown };

export type Question =
  | { kind: "paste"; paste: Pasted }
  | { kind: "link"; target: Link }
  | { kind: "guard"; line: string; rule: string; sentence: string };

let last_key = 0;

export class Pane {
  readonly key = `pane-${(last_key += 1)}`;
  readonly server_id: string;
  readonly server_name: string;
  /** Where it is drawn. It moves with its pane from page to page, and the shell goes on. */
  readonly host = document.createElement("div");

  state = $state.raw<State>({ kind: "starting" });
  session_id = $state<string | null>(null);
  /** Since when the shell runs, Unix seconds. */
  started_at_s = $state<number | null>(null);
  warning = $state.raw<{ reason: "idle" | "time"; ends_at_s: number } | null>(null);
  watched_by = $state.raw<readonly string[]>([]);
  question = $state.raw<Question | null>(null);
  held = $state.raw<ReadonlySet<Held>>(new Set());
  finding = $state(false);
  has_news = $state(false);
  is_shown = false;
  screen = $state.raw<Screen | null>(null);

  #connection: Connection | null = null;
  #deed: (deed: Deed) => void;
  #encoder = new TextEncoder();
  #resizing: ReturnType<typeof setTimeout> | undefined;
  #is_begun = false;
  #is_gone = false;

  constructor(server: { id: string; name: string }, deed: (deed: Deed) => void, session: Session | null = null) {
    this.server_id = server.id;
    this.server_name = server.name;
    this.session_id = session?.id ?? null;
    this.started_at_s = seconds(session?.started_at);
    this.#deed = deed;
    this.host.className = "terminal-host";
  }

  get is_live(): boolean {
    return ["starting", "open", "lost"].includes(this.state.kind);
  }

  /** The pane has its place on the page: draw, and open the shell the first time. */
  async show(): Promise<void> {
    this.is_shown = true;
    this.has_news = false;
    if (this.#is_begun) {
      this.fit();
      return;
    }
    this.#is_begun = true;
    try {
      const { Screen } = await part(() => import("./screen"));
      if (this.#is_gone) return;
      this.screen = new Screen(this.host, {
        looks: looks(),
        scrollback: SCROLLBACK,
        type: (data) => this.#typed(data),
        point: (data) => this.#connection?.type(Uint8Array.from(data, (character) => character.charCodeAt(0))),
        is_live: () => this.is_live,
        key: (event) => !act(event, this.#deed),
        ask_link: (target) => (this.question = { kind: "link", target }),
      });
      this.screen.fit();
      this.screen.terminal.textarea?.setAttribute("aria-label", t.terminal.screen(this.server_name));
      this.screen.terminal.onResize(() => this.#resized());
      // Before xterm.js takes it: what is pasted is cleaned, and somebody may have to look at it first.
      this.host.addEventListener("paste", (event) => this.#pasted(event), { capture: true });
    } catch (failure) {
      this.#is_begun = false;
      this.state = { kind: "failed", failure };
      return;
    }
    if (this.session_id) await this.#come_back();
    else await this.open(null);
  }

  hide(): void {
    this.is_shown = false;
  }

  fit(): void {
    this.screen?.fit();
  }

  focus(): void {
    this.screen?.terminal.focus();
  }

  /** Open the shell; without a reason where none is asked for. */
  async open(reason: string | null): Promise<void> {
    const screen = this.screen;
    if (!screen) return;
    this.state = { kind: "starting" };
    try {
      const { cols, rows } = screen.terminal;
      const opened = await calls.open({ server_id: this.server_id, cols, rows, reason });
      this.session_id = opened.id;
      this.#connect(opened);
    } catch (failure) {
      const is_asked = failure instanceof ApiError && failure.status === 422 && failure.field("reason") !== undefined;
      this.state = is_asked ? { kind: "reason" } : { kind: "failed", failure };
    }
  }

  /** After the end: another shell on the same server, on a clean screen. */
  async open_again(): Promise<void> {
    if (!this.screen) return this.show();
    this.#connection?.stop();
    this.session_id = this.started_at_s = this.warning = null;
    this.watched_by = [];
    this.screen?.terminal.write(CLEAN);
    await this.open(null);
    this.focus();
  }

  retry(): void {
    void this.#connection?.resume();
  }

  /** Close it for good. The shell ends, at once or when its minute without a browser is over; what happened stays recorded. */
  close(): void {
    this.#is_gone = true;
    this.#connection?.end();
    this.#connection?.stop();
    clearTimeout(this.#resizing);
    this.screen?.dispose();
    this.host.remove();
  }

  /** Leave the shell to itself: the page goes away, and may come back. */
  leave(): void {
    this.#is_gone = true;
    this.#connection?.stop();
    this.screen?.dispose();
  }

  hold(key: Held): void {
    const held = new Set(this.held);
    if (!held.delete(key)) held.add(key);
    this.held = held;
  }

  press(key: BarKey): void {
    const is_application = this.screen?.terminal.modes.applicationCursorKeysMode ?? false;
    this.#send(bar_key(key, this.held, is_application));
    this.held = new Set();
  }

  /** Put text at the prompt. Whoever reads it there presses Enter, or does not. */
  insert(text: string): void {
    this.screen?.terminal.paste(text);
    this.focus();
  }

  /**
   * Put a saved command at the prompt; never an Enter. False when it has several lines and the program takes each line
   * feed as one.
   */
  insert_command(command: string): boolean {
    const { text, lines } = pasted(without_enter(command));
    const is_bracketed = this.screen?.terminal.modes.bracketedPasteMode ?? false;
    if (lines > 1 && !is_bracketed) return false;
    this.insert(text);
    return true;
  }

  paste(text: string): void {
    const paste = pasted(text);
    if (asks(paste)) this.question = { kind: "paste", paste };
    else if (paste.text) this.insert(paste.text);
  }

  /** The answer to the guard's question; not sent is the default. */
  decide(is_sent: boolean): void {
    this.question = null;
    this.#connection?.decide(is_sent);
    this.focus();
  }

  dismiss(): void {
    if (this.question?.kind === "guard") this.decide(false);
    this.question = null;
    this.focus();
  }

  async #come_back(): Promise<void> {
    this.#connection = this.#connection_to(this.session_id as string);
    await this.#connection.resume();
  }

  #connect(opened: Ticket & { id: string }): void {
    this.#connection = this.#connection_to(opened.id);
    this.#connection.start(opened);
  }

  #connection_to(session_id: string): Connection {
    return new Connection({
      connect: browser_socket,
      ticket: () => calls.ticket(session_id, "attach"),
      events: {
        state: (state) => {
          if (state === "open") this.state = { kind: "open" };
          if (state === "lost") this.state = { kind: "lost" };
        },
        ready: (ready) => this.#ready(ready),
        output: (bytes, end) => this.#output(bytes, end),
        said: (message) => this.#said(message),
        refused: (failure) => void this.#refused(session_id, failure),
      },
    });
  }

  #ready(ready: Ready): void {
    const terminal = this.screen?.terminal;
    if (!terminal) return;
    if (ready.reset) terminal.write(CLEAN + (ready.modes ?? ""));
    this.started_at_s ??= Date.now() / 1000;
    this.warning = null;
    // After `ready` is dealt with the connection is open; a size that changed meanwhile is told then.
    if (ready.cols !== terminal.cols || ready.rows !== terminal.rows) queueMicrotask(() => this.#connection?.resize(terminal.cols, terminal.rows));
  }

  #output(bytes: Uint8Array, end: number): void {
    if (!this.is_shown) this.has_news = true;
    const connection = this.#connection;
    this.screen?.terminal.write(bytes, () => connection?.drawn(end));
  }

  #said(message: Said): void {
    if (message.type === "warning") this.warning = { reason: message.reason, ends_at_s: Date.now() / 1000 + message.seconds_left };
    else if (message.type === "watched") this.watched_by = message.by;
    else if (message.type === "guard") this.question = { ...message, kind: "guard" };
    else if (message.type === "closed") this.#ended(message.reason, message.exit_status ?? null, message.sentence);
  }

  #ended(reason: string, exit_status: number | null, sentence: string | null | undefined): void {
    this.state = { kind: "ended", reason, exit_status, sentence: sentence ?? null };
    this.warning = null;
    this.watched_by = [];
    if (this.question?.kind !== "link") this.question = null;
  }

  /** There is no way back: the session's row says how it ended. */
  async #refused(session_id: string, failure: unknown): Promise<void> {
    try {
      const session = await calls.session(session_id);
      if (session.status === "active") this.state = { kind: "failed", failure };
      else this.#ended(session.cause ?? session.status, null, session.sentence);
    } catch {
      this.state = { kind: "failed", failure };
    }
  }

  #resized(): void {
    clearTimeout(this.#resizing);
    this.#resizing = setTimeout(() => {
      const terminal = this.screen?.terminal;
      if (terminal) this.#connection?.resize(terminal.cols, terminal.rows);
    }, RESIZE_MS);
  }

  #typed(data: string): void {
    const is_one = [...data].length === 1;
    this.#send(is_one && this.held.size > 0 ? with_held(data, this.held) : data);
    if (is_one && this.held.size > 0) this.held = new Set();
  }

  #send(data: string): void {
    if (this.warning?.reason === "idle") this.warning = null;
    this.#connection?.type(this.#encoder.encode(data));
  }

  #pasted(event: ClipboardEvent): void {
    event.preventDefault();
    event.stopPropagation();
    this.paste(event.clipboardData?.getData("text/plain") ?? "");
  }
}
