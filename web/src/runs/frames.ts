// Pieces of a stream as `framed=true` carries them: before each stands a line with where it begins and how long it is.
// A piece that begins behind the end of the one before says how many bytes between them are gone. Pure.

export interface Piece {
  at: number;
  bytes: Uint8Array;
}

const NEW_LINE = 0x0a;

export class Frames {
  #line = "";
  #at = 0;
  #left = 0;

  /** What has come of pieces, however they were cut on their way: one of them may come as several. */
  *feed(bytes: Uint8Array): Generator<Piece> {
    while (bytes.length > 0) {
      if (this.#left === 0) {
        const end = bytes.indexOf(NEW_LINE);
        this.#line += String.fromCharCode(...bytes.subarray(0, end < 0 ? bytes.length : end));
        bytes = bytes.subarray(end < 0 ? bytes.length : end + 1);
        if (end >= 0) this.#begin();
        continue;
      }
      const piece = { at: this.#at, bytes: bytes.subarray(0, this.#left) };
      bytes = bytes.subarray(piece.bytes.length);
      this.#at += piece.bytes.length;
      this.#left -= piece.bytes.length;
      yield piece;
    }
  }

  #begin(): void {
    const [at = 0, length = 0] = this.#line.split(" ").map(Number);
    this.#at = at;
    this.#left = length;
    this.#line = "";
  }
}
