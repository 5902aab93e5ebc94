/** Which rows of a long list are on the screen: the first, one past the last, and the space above and below. */
export function visible_rows(total: number, row: number, scrolled: number, height: number, extra = 8) {
  const first = Math.max(0, Math.min(total, Math.floor(scrolled / row)) - extra);
  const end = Math.min(total, Math.ceil((scrolled + height) / row) + extra);
  return { first, end: Math.max(first, end), above: first * row, below: Math.max(0, total - Math.max(first, end)) * row };
}
