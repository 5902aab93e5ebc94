// What a browser can check by itself, quickly: a list of findings and one verdict over them, the worst of them.

import { ApiError } from "../api";
import { ago, seconds } from "../format";
import { t } from "../messages";
import * as calls from "./calls";
import type { Checkpoint } from "./calls";
import * as proofs from "./proofs";
import type { Bytes, Note } from "./proofs";
import { last_seen, remember, type Seen } from "./remembered";

/** `open`: it could not be checked, which is neither good nor bad. */
export type Tone = "good" | "warn" | "open" | "bad";

export interface Finding {
  about: string;
  tone: Tone;
  says: string;
}

export interface Verdict {
  tone: Tone;
  findings: readonly Finding[];
  checkpoint: Checkpoint;
  origin: string;
  vkey: string;
  /** The checkpoint of an earlier visit, where the newest has not been shown to continue it: it stays the evidence. */
  kept: Seen | null;
}

const SAMPLES = 5;
const DAY_S = 86_400;
const NOT_FOUND = 404;
const words = t.audit.proof;

/** Check what can be checked here. The newest checkpoint takes the place of an earlier one only when it continues it. */
export async function verify(user_id: string): Promise<Verdict> {
  const [checkpoint, { origin, vkey }] = await Promise.all([calls.checkpoint(), calls.key()]);
  const seen = last_seen(user_id);
  const found = (findings: readonly Finding[], kept = seen) => ({ tone: worst(findings), findings, checkpoint, origin, vkey, kept });
  if (!proofs.can_compute()) return found([{ about: words.signature, tone: "open", says: words.unable }]);
  const note = proofs.read_note(checkpoint.note);
  const signature = await judge_signature(note, checkpoint, vkey);
  if (!note || signature.tone === "bad") return found([signature]);
  const history = await judge_history(seen, note);
  const findings = [signature, judge_key(seen, vkey), history, await judge_newest(note), judge_anchor(checkpoint)];
  if (history.tone !== "good" || worst(findings) === "bad") return found(findings);
  const is_kept = remember(user_id, { note: checkpoint.note, vkey, at: new Date().toISOString() });
  return found(is_kept ? findings : [...findings, { about: words.memory, tone: "warn", says: words.memory_none }], null);
}

/** Let go of the earlier checkpoint, as somebody who has kept it elsewhere says. */
export function begin_anew(user_id: string, { checkpoint, vkey }: Verdict): void {
  remember(user_id, { note: checkpoint.note, vkey, at: new Date().toISOString() });
}

async function judge_signature(note: Note | null, checkpoint: Checkpoint, vkey: string): Promise<Finding> {
  const about = words.signature;
  const root = proofs.from_base64(checkpoint.root);
  if (!note || !root || note.size !== checkpoint.size || !proofs.same(note.root, root)) {
    return { about, tone: "bad", says: words.root_differs };
  }
  const signed = await proofs.is_signed(note, vkey);
  if (signed === null) return { about, tone: "open", says: words.signature_unable };
  return signed ? { about, tone: "good", says: words.signed } : { about, tone: "bad", says: words.forged };
}

function judge_key(seen: Seen | null, vkey: string): Finding {
  const about = words.key;
  if (!seen) return { about, tone: "warn", says: words.key_first };
  return seen.vkey === vkey ? { about, tone: "good", says: words.key_same } : { about, tone: "bad", says: words.key_changed };
}

async function judge_history(seen: Seen | null, note: Note): Promise<Finding> {
  const about = words.history;
  const old = seen && proofs.read_note(seen.note);
  if (!seen || !old) return { about, tone: "good", says: words.history_first };
  const when = ago(seconds(seen.at) ?? 0, Date.now() / 1000);
  if (old.origin !== note.origin) return { about, tone: "bad", says: words.history_origin };
  if (old.size > note.size) return { about, tone: "bad", says: words.history_shorter };
  let path: Bytes[] | null;
  try {
    path = old.size === note.size || old.size === 0 ? [] : decoded((await calls.consistency(old.size, note.size)).proof);
  } catch (refusal) {
    const is_pruned = refusal instanceof ApiError && refusal.status === NOT_FOUND;
    return { about, tone: "open", says: is_pruned ? words.history_pruned(when) : words.history_unable };
  }
  if (!path || !(await proofs.is_consistent(old.size, note.size, path, old.root, note.root))) {
    return { about, tone: "bad", says: words.history_differs };
  }
  const added = note.size - old.size;
  return { about, tone: "good", says: added === 0 ? words.history_same(when) : words.history_extends(added, when) };
}

async function judge_newest(note: Note): Promise<Finding> {
  const about = words.newest;
  const first = Math.max(0, note.size - SAMPLES);
  const sampled = Array.from({ length: note.size - first }, (_, index) => first + index);
  if (sampled.length === 0) return { about, tone: "warn", says: words.newest_none };
  const tried = await Promise.allSettled(sampled.map((seq) => prove(seq)));
  const wrong = tried.findIndex((one) => one.status === "fulfilled" && one.value.tone === "bad");
  if (wrong >= 0) return { about, tone: "bad", says: words.newest_bad(first + wrong) };
  if (tried.some((one) => one.status === "rejected")) return { about, tone: "open", says: words.newest_unable };
  return { about, tone: "good", says: words.newest_good(sampled.length) };
}

function judge_anchor(checkpoint: Checkpoint): Finding {
  const about = words.anchor;
  const at_s = seconds(checkpoint.anchored_at);
  if (at_s === null) return { about, tone: "warn", says: words.anchor_none };
  const now_s = Date.now() / 1000;
  if (now_s - at_s > DAY_S) return { about, tone: "warn", says: words.anchor_old(ago(at_s, now_s)) };
  return { about, tone: "good", says: words.anchor_good(ago(at_s, now_s)) };
}

export interface Proven {
  tone: Tone;
  says: string;
}

/** Whether one record is in the log, from its own content. `listed` is the hash that a list gave. */
export async function prove(seq: number, listed?: string): Promise<Proven> {
  if (!proofs.can_compute()) return { tone: "open", says: t.audit.record.unable };
  const [{ record }, answer, { vkey }] = await Promise.all([calls.record(seq), calls.proof(seq), calls.key()]);
  const leaf = await proofs.record_hash(record);
  if (listed !== undefined && proofs.hex(leaf) !== listed) return { tone: "bad", says: t.audit.record.hash_differs };
  const note = proofs.read_note(answer.checkpoint.note);
  const path = decoded(answer.proof);
  const signed = note && (await proofs.is_signed(note, vkey));
  if (!note || !path || signed === false || !(await proofs.is_included(leaf, seq, note.size, path, note.root))) {
    return { tone: "bad", says: t.audit.record.refuted };
  }
  if (signed === null) return { tone: "open", says: words.signature_unable };
  return { tone: "good", says: t.audit.record.proven(note.size) };
}

function decoded(written: readonly string[]): Bytes[] | null {
  const path = written.map(proofs.from_base64);
  return path.every((node): node is Bytes => node?.length === 32) ? path : null;
}

function worst(findings: readonly Finding[]): Tone {
  const order: readonly Tone[] = ["bad", "open", "warn"];
  return order.find((tone) => findings.some((finding) => finding.tone === tone)) ?? "good";
}
