// Where in a text the policy points: it counts bytes of UTF-8, a string counts UTF-16 units. Pure.

import type { Finding, Ruling, Verdict } from "./calls";

/** The index into `text` at each of these byte offsets; one inside a character counts as its beginning. */
export function indices(text: string, offsets: readonly number[]): number[] {
  const order = offsets.map((offset, place) => ({ offset, place })).sort((a, b) => a.offset - b.offset);
  const found = new Array<number>(offsets.length).fill(text.length);
  let byte = 0;
  let index = 0;
  for (const { offset, place } of order) {
    while (index < text.length) {
      const code = text.codePointAt(index) as number;
      const size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
      if (byte + size > offset) break;
      byte += size;
      index += code > 0xffff ? 2 : 1;
    }
    found[place] = index;
  }
  return found;
}

export interface Stretch {
  text: string;
  /** What the policy says of this stretch; null where it says nothing. */
  ruling: Ruling | null;
}

const WORST: readonly (Ruling | null)[] = [null, "allow", "needs_approval", "deny"];

/** The text in stretches, each with the worst that a finding says of it. Findings that allow are not marked. */
export function stretches(text: string, findings: readonly Pick<Finding, "span" | "verdict">[]): Stretch[] {
  const marked = findings.filter(({ span, verdict }) => span && span[1] > span[0] && verdict !== "allow");
  const ends = indices(text, marked.flatMap(({ span }) => span as [number, number]));
  const places = marked.map(({ verdict }, at) => ({ from: ends[2 * at] as number, to: ends[2 * at + 1] as number, verdict }));
  const cuts = [...new Set([0, text.length, ...ends])].sort((a, b) => a - b);
  return cuts.slice(1).map((to, at) => {
    const from = cuts[at] as number;
    const said = places.filter((place) => place.from <= from && place.to >= to).map(({ verdict }) => WORST.indexOf(verdict));
    return { text: text.slice(from, to), ruling: WORST[Math.max(0, ...said)] as Ruling | null };
  });
}

/** The findings of a verdict, worst first; one for the verdict itself where it names none. */
export function findings_of(verdict: Verdict): Finding[] {
  const found = [...(verdict.findings ?? [])].sort((a, b) => WORST.indexOf(b.verdict) - WORST.indexOf(a.verdict));
  if (found.length > 0 || !verdict.reason) return found;
  return [{ rule: verdict.rule ?? "", verdict: verdict.verdict, span: verdict.span, why: verdict.reason }];
}
