// What a browser needs to check the audit log by itself: records in their canonical form, RFC 6962 trees, signed
// notes (C2SP). Nothing here trusts the console; it only computes.

export type Bytes = Uint8Array<ArrayBuffer>;

const text = new TextEncoder();

/** Whether this browser computes hashes here: only over HTTPS or on the machine itself. */
export function can_compute(): boolean {
  return globalThis.crypto?.subtle !== undefined;
}

/** The one way to write a record (RFC 8785 without fractions): the bytes that were hashed when it was made. */
export function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const fields = Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1));
  return `{${fields.map(([name, inner]) => `${JSON.stringify(name)}:${canonical(inner)}`).join(",")}}`;
}

export function leaf_hash(record: Bytes): Promise<Bytes> {
  return sha256(Uint8Array.of(0), record);
}

export function record_hash(record: unknown): Promise<Bytes> {
  return leaf_hash(text.encode(canonical(record)));
}

function node_hash(left: Bytes, right: Bytes): Promise<Bytes> {
  return sha256(Uint8Array.of(1), left, right);
}

/** Does the proof lead from this leaf to the root of the tree? RFC 9162, section 2.1.3.2. */
export async function is_included(
  leaf: Bytes,
  index: number,
  size: number,
  proof: readonly Bytes[],
  root: Bytes,
): Promise<boolean> {
  if (!(index >= 0 && index < size)) return false;
  let position = index;
  let last = size - 1;
  let found = leaf;
  for (const sibling of proof) {
    if (last === 0) return false;
    if (is_odd(position) || position === last) {
      found = await node_hash(sibling, found);
      while (position !== 0 && !is_odd(position)) {
        position = half(position);
        last = half(last);
      }
    } else {
      found = await node_hash(found, sibling);
    }
    position = half(position);
    last = half(last);
  }
  return last === 0 && same(found, root);
}

/** Does the tree of `new_size` begin with that of `old_size`? RFC 9162, section 2.1.4.2. */
export async function is_consistent(
  old_size: number,
  new_size: number,
  proof: readonly Bytes[],
  old_root: Bytes,
  new_root: Bytes,
): Promise<boolean> {
  if (!(old_size >= 0 && old_size <= new_size)) return false;
  if (old_size === new_size) return proof.length === 0 && same(old_root, new_root);
  if (old_size === 0) return proof.length === 0;
  const path = is_power_of_two(old_size) ? [old_root, ...proof] : [...proof];
  const first = path.shift();
  if (!first) return false;
  let position = old_size - 1;
  let last = new_size - 1;
  while (is_odd(position)) {
    position = half(position);
    last = half(last);
  }
  let old_found = first;
  let new_found = first;
  for (const sibling of path) {
    if (last === 0) return false;
    if (is_odd(position) || position === last) {
      old_found = await node_hash(sibling, old_found);
      new_found = await node_hash(sibling, new_found);
      while (position !== 0 && !is_odd(position)) {
        position = half(position);
        last = half(last);
      }
    } else {
      new_found = await node_hash(new_found, sibling);
    }
    position = half(position);
    last = half(last);
  }
  return last === 0 && same(old_found, old_root) && same(new_found, new_root);
}

export interface Note {
  /** What is signed: the first three lines. */
  text: string;
  origin: string;
  size: number;
  root: Bytes;
  signatures: readonly { name: string; key_id: string; signature: Bytes }[];
}

/** A checkpoint taken apart, or null when it is none. */
export function read_note(note: string): Note | null {
  const end = note.indexOf("\n\n");
  if (end < 0) return null;
  const [origin, size = "", root = "", ...more] = note.slice(0, end).split("\n");
  const hash = from_base64(root);
  if (!origin || more.length > 0 || !/^(0|[1-9]\d{0,15})$/.test(size) || hash?.length !== 32) return null;
  const signatures = [];
  for (const line of note.slice(end + 2).trimEnd().split("\n")) {
    const [, name, encoded = ""] = /^— (\S+) (\S+)$/.exec(line) ?? [];
    const bytes = from_base64(encoded);
    if (!name || !bytes || bytes.length < 5) return null;
    signatures.push({ name, key_id: hex(bytes.slice(0, 4)), signature: bytes.slice(4) });
  }
  return { text: note.slice(0, end + 1), origin, size: Number(size), root: hash, signatures };
}

/** Did the key sign the note? Null when this browser knows no Ed25519. */
export async function is_signed(note: Note, vkey: string): Promise<boolean | null> {
  const [name, key_id, encoded] = split_key(vkey);
  const bytes = from_base64(encoded);
  if (bytes?.length !== 33 || bytes[0] !== 1) return false;
  const named = await sha256(text.encode(`${name}\n`), bytes);
  if (hex(named.slice(0, 4)) !== key_id) return false;
  const mine = note.signatures.find((signature) => signature.name === name && signature.key_id === key_id);
  if (!mine) return false;
  try {
    const key = await crypto.subtle.importKey("raw", bytes.slice(1), "Ed25519", false, ["verify"]);
    return await crypto.subtle.verify("Ed25519", key, mine.signature, text.encode(note.text));
  } catch {
    return null;
  }
}

/** Name, key id and key; the key's base64 may hold further plus signs. */
function split_key(vkey: string): [name: string, key_id: string, key: string] {
  const [name = "", key_id = "", ...rest] = vkey.split("+");
  return [name, key_id, rest.join("+")];
}

export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function from_hex(written: string): Bytes {
  return Uint8Array.from(written.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

export function from_base64(written: string): Bytes | null {
  try {
    return Uint8Array.from(atob(written), (character) => character.charCodeAt(0));
  } catch {
    return null;
  }
}

export function same(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, index) => byte === other[index]);
}

async function sha256(...parts: readonly Bytes[]): Promise<Bytes> {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", whole));
}

// A log may have more records than the 32 bits that JavaScript's own shifts know.
const half = (n: number) => Math.floor(n / 2);
const is_odd = (n: number) => n % 2 === 1;

function is_power_of_two(n: number): boolean {
  let rest = n;
  while (rest > 1 && !is_odd(rest)) rest = half(rest);
  return rest === 1;
}
