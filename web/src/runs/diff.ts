// The lines in which one output differs from another. Pure.
//
// E. W. Myers, "An O(ND) Difference Algorithm and Its Variations", 1986; bounded, because N and D are what hosts printed.

export type Change = { kind: "same" | "gone" | "new"; text: string };
export type Part = Change | { kind: "skipped"; lines: number };

const DIFFERENCES_MAX = 600;
export const LINES_MAX = 5_000;

/** What leads from `before` to `after`. Beyond the bounds everything in the middle counts as different. */
export function diff(before: readonly string[], after: readonly string[]): Change[] {
  let start = 0;
  while (start < before.length && start < after.length && before[start] === after[start]) start += 1;
  let end = 0;
  while (end < before.length - start && end < after.length - start && before.at(-1 - end) === after.at(-1 - end)) end += 1;
  const changes: Change[] = [];
  for (const text of before.slice(0, start)) changes.push({ kind: "same", text });
  changes.push(...middle(before.slice(start, before.length - end), after.slice(start, after.length - end)));
  for (const text of before.slice(before.length - end)) changes.push({ kind: "same", text });
  return changes;
}

function middle(before: readonly string[], after: readonly string[]): Change[] {
  const walked = before.length + after.length > 2 * LINES_MAX ? null : walk(before, after);
  if (walked) return walked;
  return [
    ...before.map((text): Change => ({ kind: "gone", text })),
    ...after.map((text): Change => ({ kind: "new", text })),
  ];
}

/** The shortest way through the edit graph, or null when it is longer than we look. */
function walk(before: readonly string[], after: readonly string[]): Change[] | null {
  const most = Math.min(before.length + after.length, DIFFERENCES_MAX);
  const trail: Map<number, number>[] = [];
  let furthest = new Map<number, number>([[1, 0]]);
  for (let d = 0; d <= most; d += 1) {
    const reached = new Map<number, number>();
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && (furthest.get(k - 1) ?? -1) < (furthest.get(k + 1) ?? -1));
      let x = down ? (furthest.get(k + 1) ?? 0) : (furthest.get(k - 1) ?? 0) + 1;
      let y = x - k;
      while (x < before.length && y < after.length && before[x] === after[y]) {
        x += 1;
        y += 1;
      }
      reached.set(k, x);
      if (x >= before.length && y >= after.length) return trace([...trail, furthest], before, after);
    }
    trail.push(furthest);
    furthest = reached;
  }
  return null;
}

function trace(trail: readonly Map<number, number>[], before: readonly string[], after: readonly string[]): Change[] {
  const changes: Change[] = [];
  let x = before.length;
  let y = after.length;
  for (let d = trail.length - 1; d >= 0; d -= 1) {
    const furthest = trail[d] as Map<number, number>;
    const k = x - y;
    const down = k === -d || (k !== d && (furthest.get(k - 1) ?? -1) < (furthest.get(k + 1) ?? -1));
    const from_k = down ? k + 1 : k - 1;
    const from_x = d === 0 ? 0 : (furthest.get(from_k) ?? 0);
    const from_y = d === 0 ? 0 : from_x - from_k;
    while (x > from_x && y > from_y && x > 0 && y > 0 && before[x - 1] === after[y - 1]) {
      changes.push({ kind: "same", text: before[x - 1] as string });
      x -= 1;
      y -= 1;
    }
    if (d === 0) break;
    if (down) changes.push({ kind: "new", text: after[(y -= 1)] as string });
    else changes.push({ kind: "gone", text: before[(x -= 1)] as string });
  }
  return changes.reverse();
}

/** The changes with `context` lines around each; what lies between is only counted. */
export function shortened(changes: readonly Change[], context = 3): Part[] {
  const near = new Uint8Array(changes.length);
  changes.forEach(({ kind }, index) => {
    if (kind !== "same") near.fill(1, Math.max(0, index - context), index + context + 1);
  });
  const parts: Part[] = [];
  changes.forEach((change, index) => {
    const last = parts.at(-1);
    if (near[index]) parts.push(change);
    else if (last?.kind === "skipped") last.lines += 1;
    else parts.push({ kind: "skipped", lines: 1 });
  });
  return parts;
}
