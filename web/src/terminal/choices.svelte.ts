// How somebody likes their terminals. Kept in this browser; it is no secret.

import { theme } from "../theme.svelte";
import { SCHEMES, type Scheme } from "./schemes";

export const SIZES_PX = [10, 11, 12, 13, 14, 15, 16, 18, 20, 24] as const;
const PLACE = "terminal";

interface Kept {
  scheme: Scheme;
  size_px: number;
  is_spoken: boolean;
}

const FIRST: Kept = { scheme: "auto", size_px: 13, is_spoken: false };

class Choices {
  #kept = $state.raw<Kept>(read());

  get scheme(): Scheme {
    return this.#kept.scheme;
  }
  set scheme(scheme: Scheme) {
    this.#keep({ scheme });
  }

  get size_px(): number {
    return this.#kept.size_px;
  }
  set size_px(size_px: number) {
    this.#keep({ size_px });
  }

  /** The screen is also there as text that a screen reader follows. */
  get is_spoken(): boolean {
    return this.#kept.is_spoken;
  }
  set is_spoken(is_spoken: boolean) {
    this.#keep({ is_spoken });
  }

  is_page_dark = $derived(theme.dark);

  /** One size up or down. */
  step_size(by: 1 | -1): void {
    const at = SIZES_PX.findIndex((size) => size >= this.size_px);
    this.size_px = SIZES_PX[Math.min(SIZES_PX.length - 1, Math.max(0, at + by))] ?? FIRST.size_px;
  }

  #keep(change: Partial<Kept>): void {
    this.#kept = { ...this.#kept, ...change };
    try {
      localStorage.setItem(PLACE, JSON.stringify(this.#kept));
    } catch {
      // Storage is switched off: the choice lasts as long as the page.
    }
  }
}

function read(): Kept {
  try {
    const kept = JSON.parse(localStorage.getItem(PLACE) ?? "{}") as Partial<Kept>;
    return {
      scheme: SCHEMES.find((scheme) => scheme === kept.scheme) ?? FIRST.scheme,
      size_px: SIZES_PX.find((size) => size === kept.size_px) ?? FIRST.size_px,
      is_spoken: kept.is_spoken === true,
    };
  } catch {
    return FIRST;
  }
}

export const choices = new Choices();
