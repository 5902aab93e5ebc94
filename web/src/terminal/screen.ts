// One drawn terminal: xterm.js with what we add and what we take away. Loaded when the first terminal or replay opens.

import "@xterm/xterm/css/xterm.css";
import "./adopted_style";
import { FitAddon } from "@xterm/addon-fit";
import { SearchAddon } from "@xterm/addon-search";
import { SerializeAddon } from "@xterm/addon-serialize";
import { Unicode11Addon } from "@xterm/addon-unicode11";
import { WebLinksAddon } from "@xterm/addon-web-links";
import { Terminal, type ITheme } from "@xterm/xterm";
import { link, type Link } from "./links";
import { swallow_questions, when_typed } from "./quiet";
import { SCROLLBAR_PX } from "./sizes";

export interface Looks {
  theme: ITheme;
  size_px: number;
  least_contrast: number;
  is_spoken: boolean;
}

export interface ScreenOptions {
  looks: Looks;
  scrollback: number;
  /** What somebody typed, pasted or pointed at; null where nothing can be typed. */
  type: ((data: string) => void) | null;
  /** Bytes of an old mouse protocol, one in each character. */
  point?: (data: string) => void;
  /** A key before the terminal gets it; false keeps it from the terminal. */
  key?: (event: KeyboardEvent) => boolean;
  ask_link: (target: Link) => void;
}

export interface Found {
  /** Which of the hits is shown, from 0; -1 when there are too many to count. */
  index: number;
  count: number;
}

/** What xterm.js does not show in its interface; it throws where a later version has it no more. */
interface Inside {
  _core: {
    _inputHandler: { _parser: { currentState: number } };
    _charsetService: { charset: unknown };
    buffer: { scrollTop: number; scrollBottom: number };
  };
}

/** With a colour for each hit, and another for the one that is shown. */
const MARKS = {
  matchBackground: "#7a5c00",
  matchOverviewRuler: "#c9a227",
  activeMatchBackground: "#c05a00",
  activeMatchColorOverviewRuler: "#ff9d3c",
};

export class Screen {
  readonly terminal: Terminal;
  #host: HTMLElement;
  #fit = new FitAddon();
  #search = new SearchAddon();
  #serialize = new SerializeAddon();

  constructor(host: HTMLElement, options: ScreenOptions) {
    this.#host = host;
    this.terminal = new Terminal({
      // Widths of characters and marks on what was found are not in its stable interface yet.
      allowProposedApi: true,
      altClickMovesCursor: false,
      cursorBlink: options.type !== null && !matchMedia("(prefers-reduced-motion: reduce)").matches,
      cursorInactiveStyle: options.type ? "outline" : "none",
      disableStdin: options.type === null,
      overviewRuler: { width: SCROLLBAR_PX },
      fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--mono"),
      linkHandler: { activate: (_, text) => this.#ask(text, options) },
      lineHeight: 1.15,
      logLevel: "off",
      macOptionIsMeta: true,
      rightClickSelectsWord: true,
      scrollback: options.scrollback,
      ...named(options.looks),
    });
    const terminal = this.terminal;
    terminal.loadAddon(this.#fit);
    terminal.loadAddon(this.#search);
    terminal.loadAddon(this.#serialize);
    terminal.loadAddon(new WebLinksAddon((_, text) => this.#ask(text, options)));
    // Shells and editors count the width of each code point, as this table does; clusters would be drawn one off.
    terminal.loadAddon(new Unicode11Addon());
    terminal.unicode.activeVersion = "11";
    swallow_questions(terminal);
    if (options.type) when_typed(terminal, options.type);
    if (options.type && options.point) terminal.onBinary(options.point);
    if (options.key) terminal.attachCustomKeyEventHandler(options.key);
    terminal.open(host);
    this.look(options.looks);
  }

  look(looks: Looks): void {
    Object.assign(this.terminal.options, named(looks));
    // What is no whole row or column is paper too.
    this.#host.style.backgroundColor = looks.theme.background ?? "";
  }

  /** Take as many columns and rows as there is room for; false where the place is not drawn. */
  fit(): boolean {
    const room = this.#fit.proposeDimensions();
    if (!room || !Number.isFinite(room.cols) || !Number.isFinite(room.rows)) return false;
    if (this.terminal.element?.offsetParent === null) return false;
    this.#fit.fit();
    return true;
  }

  /** Draw, and tell when it is drawn. */
  write(data: Uint8Array | string): Promise<void> {
    return new Promise((resolve) => this.terminal.write(data, resolve));
  }

  find(text: string, forward: boolean, is_new: boolean): void {
    const options = { decorations: MARKS, incremental: is_new };
    if (forward) this.#search.findNext(text, options);
    else this.#search.findPrevious(text, options);
  }

  when_found(tell: (found: Found) => void): () => void {
    const listening = this.#search.onDidChangeResults(({ resultIndex, resultCount }) => tell({ index: resultIndex, count: resultCount }));
    return () => listening.dispose();
  }

  stop_finding(): void {
    this.#search.clearDecorations();
    this.terminal.clearSelection();
  }

  /** What is on the screen and above it, as output that would draw it again. */
  snapshot(): string {
    return this.#serialize.serialize();
  }

  /** Whether a snapshot would hold all of its state: no sequence is half read, no region or character set is chosen. */
  is_plain(): boolean {
    const { _inputHandler, _charsetService, buffer } = (this.terminal as unknown as Inside)._core;
    const is_whole = _inputHandler._parser.currentState === 0;
    const scrolls_all = buffer.scrollTop === 0 && buffer.scrollBottom === this.terminal.rows - 1;
    return is_whole && scrolls_all && _charsetService.charset === undefined;
  }

  /** All that can be scrolled to, as text. */
  text(): string {
    const buffer = this.terminal.buffer.active;
    const lines: string[] = [];
    for (let y = 0; y < buffer.length; y += 1) {
      const line = buffer.getLine(y);
      const text = line?.translateToString(true) ?? "";
      if (line?.isWrapped && lines.length > 0) lines[lines.length - 1] += text;
      else lines.push(text);
    }
    return `${lines.join("\n").trimEnd()}\n`;
  }

  dispose(): void {
    this.terminal.dispose();
  }

  #ask(text: string, options: ScreenOptions): void {
    const target = link(text);
    if (target) options.ask_link(target);
  }
}

function named({ theme, size_px, least_contrast, is_spoken }: Looks) {
  return { theme, fontSize: size_px, minimumContrastRatio: least_contrast, screenReaderMode: is_spoken };
}
