// One drawn terminal: xterm.js with what we add and what we take away. Loaded when the first terminal or replay opens.

import "@xterm/xterm/css/xterm.css";
import "./adopted_style";
import { FitAddon } from "@xterm/addon-fit";
import { SearchAddon } from "@xterm/addon-search";
import { WebLinksAddon } from "@xterm/addon-web-links";
import type { ITheme } from "@xterm/xterm";
import { link, type Link } from "./links";
import { Paper } from "./paper";
import { when_typed } from "./quiet";
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
  /** Whether what is typed goes anywhere now; always, where something can be typed. */
  is_live?: () => boolean;
  /** A key before the terminal gets it; false keeps it from the terminal. */
  key?: (event: KeyboardEvent) => boolean;
  ask_link: (target: Link) => void;
}

export interface Found {
  /** Which of the hits is shown, from 0; -1 when there are too many to count. */
  index: number;
  count: number;
}

/** With a colour for each hit, and another for the one that is shown. */
const MARKS = {
  matchBackground: "#7a5c00",
  matchOverviewRuler: "#c9a227",
  activeMatchBackground: "#c05a00",
  activeMatchColorOverviewRuler: "#ff9d3c",
};

export class Screen extends Paper {
  #host: HTMLElement;
  #fit = new FitAddon();
  #search = new SearchAddon();

  constructor(host: HTMLElement, options: ScreenOptions) {
    super({
      altClickMovesCursor: false,
      cursorBlink: options.type !== null && !matchMedia("(prefers-reduced-motion: reduce)").matches,
      cursorInactiveStyle: options.type ? "outline" : "none",
      disableStdin: options.type === null,
      fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--mono"),
      linkHandler: { activate: (_, text) => ask(text, options) },
      lineHeight: 1.15,
      macOptionIsMeta: true,
      overviewRuler: { width: SCROLLBAR_PX },
      rightClickSelectsWord: true,
      scrollback: options.scrollback,
      ...named(options.looks),
    });
    this.#host = host;
    const terminal = this.terminal;
    terminal.loadAddon(this.#fit);
    terminal.loadAddon(this.#search);
    terminal.loadAddon(new WebLinksAddon((_, text) => ask(text, options)));
    if (options.type) when_typed(terminal, options.type);
    if (options.type && options.point) terminal.onBinary(options.point);
    terminal.attachCustomKeyEventHandler((event) => (options.key?.(event) ?? true) && !leaves(event, options));
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
}

/** xterm.js takes Tab even where nothing is typed, and nobody could leave such a screen by the keyboard. */
function leaves(event: KeyboardEvent, { type, is_live }: ScreenOptions): boolean {
  const is_typed = type !== null && (is_live?.() ?? true);
  return event.key === "Tab" && !is_typed;
}

function ask(text: string, options: ScreenOptions): void {
  const target = link(text);
  if (target) options.ask_link(target);
}

function named({ theme, size_px, least_contrast, is_spoken }: Looks) {
  return { theme, fontSize: size_px, minimumContrastRatio: least_contrast, screenReaderMode: is_spoken };
}
