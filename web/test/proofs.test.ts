import { describe, expect, it } from "vitest";
import * as proofs from "../src/audit/proofs";
import type { Bytes } from "../src/audit/proofs";

// Leaves and roots that implementations of Certificate Transparency share; the same as in tests/audit/test_tree.py.
const SHARED_LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
const SHARED_ROOTS: Record<number, string> = {
  1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
  2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
  8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
};

async function node(left: Bytes, right: Bytes): Promise<Bytes> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", Uint8Array.of(1, ...left, ...right)));
}

function split_point(count: number): number {
  let k = 1;
  while (k * 2 < count) k *= 2;
  return k;
}

/** RFC 6962, section 2.1, word for word. */
async function root(leaves: readonly Bytes[]): Promise<Bytes> {
  if (leaves.length === 1) return leaves[0] as Bytes;
  const k = split_point(leaves.length);
  return node(await root(leaves.slice(0, k)), await root(leaves.slice(k)));
}

/** RFC 6962, section 2.1.1: PATH(m, D[n]). */
async function path(index: number, leaves: readonly Bytes[]): Promise<Bytes[]> {
  if (leaves.length === 1) return [];
  const k = split_point(leaves.length);
  return index < k
    ? [...(await path(index, leaves.slice(0, k))), await root(leaves.slice(k))]
    : [...(await path(index - k, leaves.slice(k))), await root(leaves.slice(0, k))];
}

/** RFC 6962, section 2.1.2: SUBPROOF(m, D[n], b). */
async function subproof(m: number, leaves: readonly Bytes[], whole: boolean): Promise<Bytes[]> {
  if (m === leaves.length) return whole ? [] : [await root(leaves)];
  const k = split_point(leaves.length);
  return m <= k
    ? [...(await subproof(m, leaves.slice(0, k), whole)), await root(leaves.slice(k))]
    : [...(await subproof(m - k, leaves.slice(k), false)), await root(leaves.slice(0, k))];
}

const leaves_of = (size: number) =>
  Promise.all(Array.from({ length: size }, (_, n) => proofs.leaf_hash(new TextEncoder().encode(`record ${n}`))));

function flipped(bytes: Bytes): Bytes {
  const other = bytes.slice();
  other[0] = (other[0] ?? 0) ^ 1;
  return other;
}

describe("trees", () => {
  it.each(Object.entries(SHARED_ROOTS))("has the root that others compute for %s leaves", async (size, expected) => {
    const leaves = await Promise.all(SHARED_LEAVES.slice(0, Number(size)).map((leaf) => proofs.leaf_hash(proofs.from_hex(leaf))));
    expect(proofs.hex(await root(leaves))).toBe(expected);
    for (const [index, leaf] of leaves.entries()) {
      expect(await proofs.is_included(leaf, index, leaves.length, await path(index, leaves), proofs.from_hex(expected))).toBe(true);
    }
  });

  it("proves every leaf and no other", async () => {
    for (const size of [1, 2, 3, 7, 8, 13, 21]) {
      const leaves = await leaves_of(size);
      const whole = await root(leaves);
      for (let index = 0; index < size; index++) {
        const leaf = leaves[index] as Bytes;
        const proof = await path(index, leaves);
        expect(await proofs.is_included(leaf, index, size, proof, whole)).toBe(true);
        expect(await proofs.is_included(flipped(leaf), index, size, proof, whole)).toBe(false);
        expect(await proofs.is_included(leaf, index, size, proof, flipped(whole))).toBe(false);
        expect(await proofs.is_included(leaf, index, size, [...proof, whole], whole)).toBe(false);
        expect(await proofs.is_included(leaf, size, size, proof, whole)).toBe(false);
        if (index > 0) expect(await proofs.is_included(leaf, index - 1, size, proof, whole)).toBe(false);
        if (proof[0]) {
          expect(await proofs.is_included(leaf, index, size, proof.slice(1), whole)).toBe(false);
          expect(await proofs.is_included(leaf, index, size, [flipped(proof[0]), ...proof.slice(1)], whole)).toBe(false);
        }
      }
    }
  });

  it("proves that a longer log begins with a shorter one, and with no other", async () => {
    for (const new_size of [2, 3, 8, 13, 21]) {
      const leaves = await leaves_of(new_size);
      const new_root = await root(leaves);
      for (let old_size = 1; old_size < new_size; old_size++) {
        const old_root = await root(leaves.slice(0, old_size));
        const proof = await subproof(old_size, leaves, true);
        expect(await proofs.is_consistent(old_size, new_size, proof, old_root, new_root)).toBe(true);
        expect(await proofs.is_consistent(old_size, new_size, proof, flipped(old_root), new_root)).toBe(false);
        expect(await proofs.is_consistent(old_size, new_size, proof, old_root, flipped(new_root))).toBe(false);
        expect(await proofs.is_consistent(old_size, new_size, proof.slice(1), old_root, new_root)).toBe(false);
        expect(await proofs.is_consistent(new_size, old_size, proof, new_root, old_root)).toBe(false);
      }
      expect(await proofs.is_consistent(new_size, new_size, [], new_root, new_root)).toBe(true);
      expect(await proofs.is_consistent(new_size, new_size, [], flipped(new_root), new_root)).toBe(false);
    }
  });
});

describe("records", () => {
  it("writes a record as the console hashed it", () => {
    const record = { v: 1, seq: 7, meta: { "10": "ß\n\u2028\u0001\"", "2": null }, action: "a", list: [true, { b: 1, a: -2 }] };
    expect(proofs.canonical(JSON.parse(JSON.stringify(record)))).toBe(
      '{"action":"a","list":[true,{"a":-2,"b":1}],"meta":{"10":"ß\\n\u2028\\u0001\\"","2":null},"seq":7,"v":1}',
    );
  });
});

describe("notes", () => {
  const OTHER_KEY = "example.com/foo+530d903b+AaGwvNpOBTWdVmX4nD0mQDnpyBfCKM2Gk8eK1sDVLkFt";

  it("takes a checkpoint apart and refuses what is none", () => {
    const root = btoa(String.fromCharCode(...new Uint8Array(32)));
    const note = proofs.read_note(`log.example/audit/1\n1037\n${root}\n\n— log.example/audit/1 ${btoa("0123456789")}\n`);
    expect(note).toMatchObject({ origin: "log.example/audit/1", size: 1037, text: `log.example/audit/1\n1037\n${root}\n` });
    for (const bad of ["", "a\n1\n", `a\n01\n${root}\n\n— a ${btoa("0123456789")}\n`, `a\n1\nAAAA\n\n— a ${btoa("0123456789")}\n`, `a\n1\n${root}\n\nno signature\n`]) {
      expect(proofs.read_note(bad)).toBeNull();
    }
  });

  it("accepts the signature of the pinned key alone", async () => {
    const pair = (await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"])) as CryptoKeyPair;
    const key = Uint8Array.of(1, ...new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey)));
    const name = "log.example/audit/1";
    const id = new Uint8Array(await crypto.subtle.digest("SHA-256", Uint8Array.of(...new TextEncoder().encode(`${name}\n`), ...key))).slice(0, 4);
    const base64 = (bytes: Uint8Array) => btoa(String.fromCharCode(...bytes));
    const vkey = `${name}+${proofs.hex(id)}+${base64(key)}`;
    const text = `${name}\n3\n${base64(new Uint8Array(32))}\n`;
    const signature = new Uint8Array(await crypto.subtle.sign("Ed25519", pair.privateKey, new TextEncoder().encode(text)));
    const signed = `${text}\n— ${name} ${base64(Uint8Array.of(...id, ...signature))}\n`;

    const note = proofs.read_note(signed);
    const forged = proofs.read_note(signed.replace("\n3\n", "\n4\n"));

    expect(note && (await proofs.is_signed(note, vkey))).toBe(true);
    expect(forged && (await proofs.is_signed(forged, vkey))).toBe(false);
    expect(note && (await proofs.is_signed(note, OTHER_KEY))).toBe(false);
  });
});
