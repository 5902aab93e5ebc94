// What scrolls the rows of a long list past a reader: the page, or a box of their own.

const NARROW = "(max-width: 760px)";

/** Of what is seen at once: its height and that of a rem, and whether the screen is as narrow as a phone's. */
export interface Size {
  height_px: number;
  rem_px: number;
  narrow: boolean;
}

export interface Pane {
  /** Where its upper edge is, from the first row on; below 0 while the rows begin further down. */
  position_px(): number;
  size(): Size;
  scroll_by(px: number): void;
  /** What a row that somebody goes to keeps free at the upper and the lower end. */
  margins_rem: { above: number; below: number };
  /** Told when it was scrolled and when its size has changed, until the returned function is called. */
  watch(scrolled: () => void, resized: () => void): () => void;
}

/** The page, for rows that begin somewhere in it. Its head and the table's cover its upper end. */
export function page(rows: HTMLElement): Pane {
  return {
    position_px: () => -rows.getBoundingClientRect().top,
    size: () => size_of(innerHeight),
    scroll_by: (px) => scrollBy({ top: px }),
    margins_rem: { above: 6, below: 3 },
    watch(scrolled, resized) {
      const { signal, abort } = stopping();
      addEventListener("scroll", scrolled, { signal, passive: true });
      addEventListener("resize", resized, { signal });
      return abort;
    },
  };
}

/** A box that holds nothing but its rows. */
export function box(rows: HTMLElement): Pane {
  return {
    position_px: () => rows.scrollTop,
    size: () => size_of(rows.clientHeight),
    scroll_by: (px) => rows.scrollBy({ top: px }),
    margins_rem: { above: 0, below: 0 },
    watch(scrolled, resized) {
      const { signal, abort } = stopping();
      rows.addEventListener("scroll", scrolled, { signal, passive: true });
      const watching = new ResizeObserver(resized);
      watching.observe(rows);
      return () => {
        abort();
        watching.disconnect();
      };
    },
  };
}

function size_of(height_px: number): Size {
  const rem_px = parseFloat(getComputedStyle(document.documentElement).fontSize);
  return { height_px, rem_px, narrow: matchMedia(NARROW).matches };
}

function stopping(): { signal: AbortSignal; abort: () => void } {
  const leaving = new AbortController();
  return { signal: leaving.signal, abort: () => leaving.abort() };
}
