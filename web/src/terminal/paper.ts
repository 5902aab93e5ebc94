// What a terminal's output makes, drawn or not: the emulator, and snapshots of it.

import { SerializeAddon } from "@xterm/addon-serialize";
import { Unicode11Addon } from "@xterm/addon-unicode11";
import { Terminal, type ITerminalInitOnlyOptions, type ITerminalOptions } from "@xterm/xterm";
import { swallow_questions } from "./quiet";
import { CLEAN } from "./sequences";

/** What a program saved to come back to: ESC 7 and 8, and with the other screen. */
interface Saved {
  savedX: number;
  savedY: number;
  savedCharset: unknown;
  savedCurAttrData: { clone(): Saved["savedCurAttrData"] };
}

/** What xterm.js does not show in its interface; it throws where a later version has it no more. */
interface Inside {
  _core: {
    _inputHandler: { _parser: { currentState: number } };
    _charsetService: { charset: unknown };
    _oscLinkService: { _dataByLinkId: ReadonlyMap<number, unknown> };
    buffers: { normal: Saved };
    buffer: { scrollTop: number; scrollBottom: number };
  };
}

export interface Snapshot {
  cols: number;
  rows: number;
  /** Output that draws again what is on the screen and above it. */
  text: string;
  saved: Saved | null;
}

export class Paper {
  readonly terminal: Terminal;
  #serialize = new SerializeAddon();

  constructor(options: ITerminalOptions & ITerminalInitOnlyOptions) {
    // Widths of characters and marks on what was found are not in its stable interface yet.
    this.terminal = new Terminal({ ...options, allowProposedApi: true, logLevel: "off" });
    this.terminal.loadAddon(this.#serialize);
    // Shells and editors count the width of each code point, as this table does; clusters would be drawn one off.
    this.terminal.loadAddon(new Unicode11Addon());
    this.terminal.unicode.activeVersion = "11";
    swallow_questions(this.terminal);
  }

  /** Draw, and tell when it is drawn. */
  write(data: Uint8Array | string): Promise<void> {
    return new Promise((resolve) => this.terminal.write(data, resolve));
  }

  snapshot(): Snapshot {
    const { savedX, savedY, savedCharset, savedCurAttrData } = this.#inside.buffers.normal;
    const { cols, rows } = this.terminal;
    return { cols, rows, text: this.#serialize.serialize(), saved: { savedX, savedY, savedCharset, savedCurAttrData: savedCurAttrData.clone() } };
  }

  async restore({ cols, rows, text, saved }: Snapshot): Promise<void> {
    // In this order: buffers that are made anew at another size keep something of it.
    this.terminal.resize(cols, rows);
    await this.write(CLEAN + text);
    if (saved) Object.assign(this.#inside.buffers.normal, { ...saved, savedCurAttrData: saved.savedCurAttrData.clone() });
  }

  /**
   * Whether a snapshot would hold all of its state: no sequence is half read, no character set, region or other screen is
   * chosen, the cursor is in a column, and no link is anywhere.
   */
  is_plain(): boolean {
    const { _inputHandler, _charsetService, _oscLinkService, buffer } = this.#inside;
    return (
      _inputHandler._parser.currentState === 0 &&
      _charsetService.charset === undefined &&
      _oscLinkService._dataByLinkId.size === 0 &&
      buffer.scrollTop === 0 &&
      buffer.scrollBottom === this.terminal.rows - 1 &&
      this.terminal.buffer.active.type === "normal" &&
      this.terminal.buffer.active.cursorX < this.terminal.cols
    );
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

  get #inside(): Inside["_core"] {
    return (this.terminal as unknown as Inside)._core;
  }

  dispose(): void {
    this.terminal.dispose();
  }
}
