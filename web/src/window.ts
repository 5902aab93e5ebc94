/**
 * Which rows of a long list exist: those on the screen and some more, in whole chunks, so that most steps of a scroll
 * change nothing. The first row, one past the last, and the space above and below.
 */
export function visible_rows(total: number, row: number, scrolled: number, height: number, chunk = 8) {
  const first = Math.max(0, Math.floor(Math.min(total, scrolled / row) / chunk - 1) * chunk);
  const end = Math.min(total, Math.ceil((scrolled + height) / row / chunk + 1) * chunk);
  return { first, end: Math.max(first, end), above: first * row, below: Math.max(0, total - Math.max(first, end)) * row };
}

/** How far to scroll until a row that begins at `top` lies between `from` and `to`; 0 where it does. */
export function way_to_row(top: number, row: number, from: number, to: number): number {
  if (top < from) return top - from;
  return Math.max(0, top + row - to);
}
