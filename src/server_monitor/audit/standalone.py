#!/usr/bin/env python3
"""Checks an audit log of server-monitor with nothing but Python (3.9 or newer). It travels in bundles as verify.py.

    python3 verify.py BUNDLE.tar.gz --public-key KEY.txt [--checkpoint CHECKPOINT.txt] [--csv EXPORT.csv]

BUNDLE may also be the folder it was unpacked into, or a segment of an archive; without it, the folder of this file.
KEY.txt holds the line that the operator gave you earlier, by another way than this bundle: a key that lies beside a
log proves nothing. CHECKPOINT.txt is any checkpoint that you kept from an earlier day. With EXPORT.csv, as it was
downloaded (or --jsonl), every line of it has to be a record of the bundle, byte for byte.

Exit code 0: intact. 1: broken, or not proven. 3: the files cannot be read, no key was given, or nothing shows that no
line of the export is missing.

This file and the console's own verifier were written apart from each other and are held to the same test vectors. It
is the one place where we compute Ed25519 (RFC 8032) by ourselves: nothing can be installed on an auditor's machine. It
only verifies, so there is no secret whose use could be observed.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import json
import os
import re
import sys
import tarfile
import unicodedata
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

RECORD_LIMIT = 8 * 1024 * 1024
MEMBER_LIMIT = RECORD_LIMIT + 4 * 1024 * 1024
FINDINGS_SHOWN = 20
UNSIGNED_SPAN_S = 3600


class Unreadable(Exception):  # noqa: N818
    """The input is not what it should be; str() says why."""


# --- Ed25519, RFC 8032, section 5.1 and appendix A -------------------------------------------------------------------

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)
Point = tuple[int, int, int, int]


def point_add(a: Point, b: Point) -> Point:
    m, n = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    c, d = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = n - m, d - c, d + c, n + m
    return e * f % P, g * h % P, f * g % P, e * h % P


def point_times(factor: int, point: Point) -> Point:
    product: Point = (0, 1, 1, 0)
    while factor:
        if factor & 1:
            product = point_add(product, point)
        point = point_add(point, point)
        factor >>= 1
    return product


def point_of(encoded: bytes) -> Point | None:
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    squared = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(squared, (P + 3) // 8, P)
    if (x * x - squared) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - squared) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def encoded_point(point: Point) -> bytes:
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE = point_of(BASE_Y.to_bytes(32, "little"))


def has_signed(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Did the owner of this key sign this message?"""
    if len(public_key) != 32 or len(signature) != 64 or BASE is None:
        return False
    key = point_of(public_key)
    scalar = int.from_bytes(signature[32:], "little")
    if key is None or scalar >= ORDER:
        return False
    digest = hashlib.sha512(signature[:32] + public_key + message).digest()
    factor = int.from_bytes(digest, "little") % ORDER
    x, y, z, t = key
    expected = point_add(point_times(scalar, BASE), point_times(factor, (P - x, y, z, P - t)))
    return encoded_point(expected) == signature[:32]


# --- signed notes, c2sp.org/signed-note and c2sp.org/tlog-checkpoint -------------------------------------------------


class Key(NamedTuple):
    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n\x01" + self.public_key).digest()[:4]


class Note(NamedTuple):
    origin: str
    size: int
    root: bytes
    text: str
    signatures: list[tuple[str, bytes, bytes]]


def is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(c.isspace() for c in name)


def unbase64(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        raise Unreadable("something that should be base64 is not") from None


def parse_key(line: str) -> Key:
    name, _, rest = line.strip().partition("+")
    key_id, _, encoded = rest.partition("+")
    raw = unbase64(encoded)
    key = Key(name, raw[1:])
    if not is_name(name) or raw[:1] != b"\x01" or len(raw) != 33 or key.key_id.hex() != key_id:
        raise Unreadable("the public key is not a line of the form name+id+key; copy the whole line again")
    return key


def parse_note(text: str) -> Note:
    body, blank, rest = text.rpartition("\n\n")
    lines = body.split("\n")
    if not blank or not rest.endswith("\n") or len(lines) != 3 or len(text) > 64 * 1024:
        raise Unreadable("a checkpoint is not a signed note")
    origin, size, root = lines
    if not is_name(origin) or not re.fullmatch("0|[1-9][0-9]{0,18}", size):
        raise Unreadable("a checkpoint is malformed")
    hashed = unbase64(root)
    signatures = [parse_signature(line) for line in rest[:-1].split("\n")]
    if len(hashed) != 32 or base64.b64encode(hashed).decode() != root:
        raise Unreadable("a checkpoint is malformed")
    return Note(origin, int(size), hashed, body + "\n", signatures)


def parse_signature(line: str) -> tuple[str, bytes, bytes]:
    name, _, encoded = line[2:].partition(" ")
    raw = unbase64(encoded)
    if line[:2] != "\N{EM DASH} " or not is_name(name) or len(raw) <= 4:
        raise Unreadable("a checkpoint has a malformed signature")
    return name, raw[:4], raw[4:]


def split_notes(text: str) -> list[str]:
    """Notes that were written one after the other."""
    notes = [""]
    was_signature = False
    for line in text.split("\n")[:-1]:
        is_signature = line.startswith("\N{EM DASH} ")
        if was_signature and not is_signature:
            notes.append("")
        if notes[-1] or line.strip():
            notes[-1] += line + "\n"
        was_signature = is_signature
    return [note for note in notes if note]


# --- records: RFC 8785 restricted, RFC 6962 ---------------------------------------------------------------------------


def number(digits: str) -> int:
    if len(digits) > 17 or abs(int(digits)) > 2**53 - 1:
        raise ValueError
    return int(digits)


def refuse(_: str) -> Any:
    raise ValueError


decode = json.JSONDecoder(parse_int=number, parse_float=refuse, parse_constant=refuse).decode
encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
TS = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{6}Z")


def is_clean(value: Any) -> bool:
    """Strings in normal form C without NUL or halves of pairs; keys in ASCII."""
    if isinstance(value, str):
        return "\0" not in value and unicodedata.normalize("NFC", value) == value
    if isinstance(value, dict):
        return all(key.isascii() and is_clean(item) for key, item in value.items())
    return not isinstance(value, list) or all(is_clean(item) for item in value)


def read_record(body: bytes) -> dict[str, Any] | None:
    """The record that these bytes are the one canonical form of, if they are."""
    try:
        value = decode(body.decode())
        if not isinstance(value, dict) or encode(value).encode() != body:
            return None
        if (b"\\u0000" in body or not body.isascii()) and not is_clean(value):
            return None
        return value if is_formed(value) else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def is_formed(value: dict[str, Any]) -> bool:
    actor, target = value["actor"], value.get("target", {})
    texts = [value["id"], value["ts"], value["action"], actor["name"]]
    perhaps = [actor.get("id"), target.get("type"), target.get("id"), value["outcome"]]
    perhaps += [value.get("source", {}).get("ip"), value.get("request", {}).get("id")]
    return (
        type(value["v"]) is int
        and value["v"] == 1
        and value["phase"] in ("intent", "outcome", "single")
        and all(isinstance(text, str) for text in texts)
        and all(text is None or isinstance(text, str) for text in perhaps)
        and TS.fullmatch(value["ts"]) is not None
    )


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def ones(value: int) -> int:
    return bin(value).count("1")  # noqa: FURB161  # Python 3.9 has no bit_count.


def tree_root(frontier: list[bytes]) -> bytes:
    if not frontier:
        return hashlib.sha256(b"").digest()
    whole = frontier[-1]
    for left in reversed(frontier[:-1]):
        whole = node_hash(left, whole)
    return whole


# --- the files --------------------------------------------------------------------------------------------------------


def members(path: str) -> Iterator[tuple[str, bytes]]:
    """Every file of a bundle with its bytes, in the order of their names."""
    if os.path.isdir(path):
        names = [os.path.join(folder, name) for folder in ("checkpoints", "records") for name in listing(path, folder)]
        for name in ["manifest.json", *names]:
            with open(os.path.join(path, name), "rb") as file:
                yield name.replace(os.sep, "/"), file.read(MEMBER_LIMIT)
        return
    with gzip.open(path, "rb") as plain, tarfile.open(fileobj=plain, mode="r|") as archive:
        for entry in archive:
            if not entry.isreg() or entry.size > MEMBER_LIMIT:
                raise Unreadable("the file holds something that does not belong into it")
            content = archive.extractfile(entry)
            yield entry.name, b"" if content is None else content.read()
        while rest := plain.read(1 << 16):
            if rest.strip(b"\0"):
                raise Unreadable("something follows the end of the file")


def listing(path: str, folder: str) -> list[str]:
    where = os.path.join(path, folder)
    return sorted(os.listdir(where)) if os.path.isdir(where) else []


# --- an export --------------------------------------------------------------------------------------------------------

CSV_HEADER = (
    b"seq,time,user_id,username,action,target_type,target_id,outcome,ip,user_agent,request_id,meta_json,hash\r\n"
)
META_LIMIT = 1000
PASSED_OVER = (
    r"\s\x00\"'`\u00b4\u2018-\u201f\u00ab\u00bb\u2039\u203a\u2032\u2033\uff02\uff07"
    r"\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"
)
SIGNS = r"=+\-@\t\r\n\x00\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u207a\u208a\u207b\u208b\u207c\u208c\u2212"
FORMULA = re.compile(f"[{PASSED_OVER}]*[{SIGNS}]")
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
AGENT = r"(?:[0-9A-Za-z_./~][0-9A-Za-z_.:/~()@+,;= -]*)?\n"
WORD = r"(?:[0-9A-Za-z_.:/~][0-9A-Za-z_.:/~()@+-]*)?"
PLAIN = re.compile(AGENT + ",".join([WORD] * 9))


def csv_row(seq: int, value: dict[str, Any], body: bytes) -> bytes:
    """The record as the line of a CSV export."""
    actor, target, source = value["actor"], value.get("target", {}), value.get("source", {})
    words = [value["ts"], actor.get("id"), actor["name"], value["action"], target.get("type"), target.get("id")]
    words += [value["outcome"], source.get("ip")]
    agent, request_id, meta = source.get("ua") or "", value.get("request", {}).get("id") or "", meta_json(value)
    leaf = hashlib.sha256(b"\x00" + body).hexdigest()
    texts = [word or "" for word in words]
    if PLAIN.fullmatch(agent + "\n" + ",".join([*texts, request_id])) and meta.isascii() and meta.isprintable():
        quoted = meta.replace('"', '""')
        return f'{seq},{",".join(texts)},"{agent}",{request_id},"{quoted}",{leaf}\r\n'.encode()
    return (",".join([str(seq), *map(cell, [*texts, agent, request_id, meta, leaf])]) + "\r\n").encode()


def meta_json(value: dict[str, Any]) -> str:
    text = encode(value.get("meta", {}))
    if len(text) <= META_LIMIT:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    short = {"truncated": True, "original_length": len(text), "sha256": digest, "preview": text[:META_LIMIT]}
    return json.dumps(short, separators=(",", ":"), ensure_ascii=False)


def cell(text: str) -> str:
    safe = UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    safe = "'" + safe if FORMULA.match(text) else safe
    return '"' + safe.replace('"', '""') + '"' if re.search(r'[",\s]', safe) else safe


class Export:
    """The lines of an export by the number of their record, each to be met by it."""

    def __init__(self, data: bytes, *, is_csv: bool) -> None:
        self.is_csv = is_csv
        self.wrong: tuple[int, str] | None = None
        self.count = 0
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.begun: dict[str, dict[str, Any]] = {}  # exports that have not ended: what was asked for
        self.exported: str | None = None  # what the log says that the file is, all of it
        self.lines: dict[int, tuple[int, bytes]] = {}  # record: number of its line, digest of that
        self.gaps: list[str] = []
        if is_csv and not data.startswith(CSV_HEADER):
            self.is_wrong(1, "is not that of an export; give the file as it was downloaded")
            return
        first = 2 if is_csv else 1
        rest = data[len(CSV_HEADER) :] if is_csv else data
        lines = rest.split(b"\n")
        ended = [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
        last = step = 0
        for place, line in enumerate(ended, first):
            seq = self.seq_of(line)
            if seq is None:
                self.is_wrong(place, "is not a whole line of an export")
                break
            if place == first + 1:
                step = -1 if seq < last else 1
            if place > first and (seq - last) * step <= 0:
                self.is_wrong(place, f"has record {seq} out of order, or again")
                break
            self.lines[seq] = (place, hashlib.sha256(line).digest())
            last = seq
        seqs = sorted(self.lines)
        self.count = len(seqs)
        for before, after in zip(seqs, seqs[1:]):  # noqa: B905, RUF007  # As Python 3.9 has them.
            if after > before + 1:
                self.gaps.append(f"{before + 1} to {after - 1}" if after > before + 2 else str(before + 1))

    def seq_of(self, line: bytes) -> int | None:
        if not self.is_csv:
            value = read_record(line[:-1]) if line.endswith(b"\n") else None
            return value.get("seq") if value is not None and type(value.get("seq")) is int else None
        digits = line.partition(b",")[0]
        return int(digits) if line.endswith(b"\r\n") and digits.isdigit() and len(digits) < 17 else None

    def meet(self, seq: int, value: dict[str, Any] | None, body: bytes) -> None:
        place, digest = self.lines.pop(seq, (0, b""))
        if not place:
            return
        made = body + b"\n" if not self.is_csv else b"" if value is None else csv_row(seq, value, body)
        if hashlib.sha256(made).digest() != digest:
            self.is_wrong(place, f"is not what record {seq} says")

    def look(self, seq: int, value: dict[str, Any]) -> None:
        """A record may say that this very file was exported, and what was asked for."""
        meta, target = value.get("meta", {}), value.get("target", {}).get("id")
        if value["action"] == "audit.export" and isinstance(meta, dict) and target is not None:
            self.begun[target] = meta
        elif value["action"] == "audit.export_finished" and isinstance(meta, dict):
            asked = self.begun.pop(target, None)
            if value["outcome"] == "success" and meta.get("sha256") == self.sha256:
                by = f"exactly what {value['actor']['name']} exported, as record {seq} says ({value['ts']}; "
                self.exported = by + words_of(asked) + ")"

    def is_wrong(self, place: int, words: str) -> None:
        if self.wrong is None or place < self.wrong[0]:
            self.wrong = place, words

    def end(self) -> None:
        for seq, (place, _) in self.lines.items():
            self.is_wrong(place, f"has record {seq}, which the bundle has not")


def words_of(asked: dict[str, Any] | None) -> str:
    """What was asked for of an export."""
    if asked is None:
        return "what it was asked for is not in this bundle: take one with the archive"
    given = asked.get("filters")
    filters = [f"{name}={text}" for name, text in given.items()] if isinstance(given, dict) else []
    limit = asked.get("limit")
    bound = "" if limit is None else f", at most {limit} records"
    return ("filters " + " ".join(filters) if filters else "no filter") + bound


class Claim(NamedTuple):
    """A root that the first `size` records of the log `origin` have to have."""

    size: int
    root: bytes
    origin: str
    is_trusted: bool
    is_outside: bool


class Verification:
    """What is found while the records go by, once, in order."""

    def __init__(self, keys: list[Key], export: Export | None = None) -> None:
        self.export = export
        self.keys = {(key.name, key.key_id): key for key in keys}
        self.broken: dict[str, list[str]] = {"integrity": [], "completeness": [], "authenticity": []}
        self.claims: list[Claim] = []
        self.first_seq = self.size = self.end_seq = self.pruned_below = 0
        self.frontier: list[bytes] | None = []
        self.good_size = 0
        self.proven_size: int | None = None
        self.outside_size: int | None = None
        self.is_off = False
        self.end_root = b""
        self.origin: str | None = None
        self.end_origins: set[str] = set()  # of the checkpoints that fit the end
        self.first_bad: str | None = None

    def wrong(self, verdict: str, words: str, where: str | None = None) -> None:
        self.broken[verdict].append(words)
        if where is not None and self.first_bad is None:
            self.first_bad = where

    def read(self, path: str) -> None:
        is_begun = False
        for name, data in members(path):
            if name == "manifest.json":
                self.manifest(data)
            elif name.startswith("checkpoints/"):
                for text in split_notes(data.decode()):
                    self.checkpoint(text, is_outside=False)
            elif name.startswith("records/"):
                is_begun = is_begun or self.begin()
                self.records(data)
            elif name not in ("README.txt", "verify.py", "vkeys.txt"):
                raise Unreadable(f"the bundle holds {name!r}, which does not belong into it")
        if not is_begun:
            self.begin()
        self.end()

    def manifest(self, data: bytes) -> None:
        said = decode(data.decode())
        if said["format"] != "server-monitor audit log" or said["version"] != 1:
            raise Unreadable("the bundle is of a version that this program does not know")
        first, end, origin = int(said["first_seq"]), int(said["end_seq"]), str(said["origin"])
        prefix, root = [unbase64(node) for node in said["prefix"]], unbase64(said["root"])
        known = {"format": said["format"], "version": 1, "origin": origin, "first_seq": first, "end_seq": end}
        known["prefix"] = [base64.b64encode(node).decode() for node in prefix]
        known["root"] = base64.b64encode(root).decode()
        if encode(known).encode() != data or not 0 <= first <= end or self.origin is not None:
            raise Unreadable("the manifest of the bundle is malformed")
        self.first_seq = self.size = self.good_size = first
        self.end_seq, self.origin, self.end_root = end, origin, root
        self.frontier = prefix
        if len(self.frontier) != ones(self.first_seq) or any(len(node) != 32 for node in self.frontier):
            self.wrong(
                "integrity", "What is said about the records before the first is malformed.", f"before {self.size}"
            )
            self.frontier = None

    def checkpoint(self, text: str, *, is_outside: bool) -> None:
        try:
            note = parse_note(text)
        except Unreadable as error:
            self.wrong("authenticity", f"{error}.")
            return
        self.claims.append(Claim(note.size, note.root, note.origin, self.is_trusted(note), is_outside))

    def is_trusted(self, note: Note) -> bool:
        known = [
            (self.keys.get((name, key_id)), signed) for name, key_id, signed in note.signatures if name == note.origin
        ]
        results = [has_signed(key.public_key, note.text.encode(), signed) for key, signed in known if key is not None]
        if self.keys and not results:
            self.wrong(
                "authenticity", f"The checkpoint of {note.size} records is signed by none of the keys you trust."
            )
        elif not all(results):
            self.wrong("authenticity", f"The signature on the checkpoint of {note.size} records is forged.")
        return bool(results) and all(results)

    def begin(self) -> bool:
        self.claims.sort(key=lambda claim: claim.size)
        while self.claims and self.claims[0].size < self.first_seq:
            self.claims.pop(0)
        self.claims.reverse()
        self.settle()
        return True

    def records(self, data: bytes) -> None:
        if not data.endswith(b"\n"):
            raise Unreadable("a file of records ends in the middle of one")
        for body in data[:-1].split(b"\n"):
            self.record(body)

    def record(self, body: bytes) -> None:
        value = read_record(body) if len(body) <= RECORD_LIMIT else None
        if value is None:
            self.wrong("integrity", f"Record {self.size} is not in canonical form.", str(self.size))
        else:
            self.place(value)
        if self.export is not None:
            self.export.meet(self.size, value, body)
            if value is not None:
                self.export.look(self.size, value)
        if self.frontier is not None:
            self.grow(self.frontier, body)
        self.size += 1
        if self.claims and self.claims[-1].size <= self.size:
            self.settle()

    def place(self, value: dict[str, Any]) -> None:
        seq = value.get("seq")
        if type(seq) is not int or seq < 0:
            self.wrong("integrity", f"Record {self.size} has no number.", str(self.size))
            return
        if seq > self.size:
            self.wrong("completeness", f"Records {self.size} to {seq - 1} are missing.", f"{self.size} to {seq - 1}")
        elif seq < self.size:
            self.wrong("integrity", f"Record {seq} stands after record {self.size - 1}.", str(seq))
        if seq != self.size:
            self.size, self.frontier = seq, None
        if value["action"] == "audit.cleanup":
            end = value.get("meta", {}).get("end_seq")
            self.pruned_below = max(self.pruned_below, end if type(end) is int else 0)

    def grow(self, frontier: list[bytes], body: bytes) -> None:
        node, size = hashlib.sha256(b"\x00" + body).digest(), self.size
        while size & 1:
            node, size = node_hash(frontier.pop(), node), size >> 1
        frontier.append(node)

    def settle(self) -> None:
        while self.claims and self.claims[-1].size <= self.size:
            claim = self.claims.pop()
            if self.frontier is None or claim.size != self.size:
                continue
            if tree_root(self.frontier) != claim.root:
                self.does_not_fit(claim)
                continue
            self.good_size = claim.size
            if claim.size == self.end_seq:
                self.end_origins.add(claim.origin)
            if claim.is_trusted:
                self.proven_size = claim.size
                self.outside_size = claim.size if claim.is_outside else self.outside_size

    def does_not_fit(self, claim: Claim) -> None:
        if self.is_off and not claim.is_outside:
            return
        self.is_off = True
        where = f"{min(self.good_size, claim.size - 1)} to {claim.size - 1}"
        words = (
            f"The records before {claim.size} are not those that a checkpoint speaks of: one of {where} was changed."
        )
        self.wrong("integrity", words, f"one of {where}")

    def end(self) -> None:
        if self.export is not None:
            self.export.end()
        if self.size < self.end_seq:
            self.wrong(
                "completeness", f"Records {self.size} to {self.end_seq - 1} are missing at the end.", str(self.size)
            )
        elif self.size > self.end_seq or (self.frontier is not None and tree_root(self.frontier) != self.end_root):
            self.wrong("integrity", "The records are not those that the manifest speaks of.")
        if self.end_origins and self.origin is not None and self.origin not in self.end_origins:
            of = min(self.end_origins)
            words = f"The manifest says that this is the log {self.origin[:200]}, and its checkpoint is of {of}."
            self.wrong("authenticity", words)
        if self.claims:
            size = self.claims[0].size
            self.wrong("completeness", f"The log is shorter than a checkpoint of {size} records.", str(self.size))
        if self.first_seq > self.pruned_below:
            words = f"Records before {self.first_seq} are gone, and no record says that they were pruned."
            self.wrong("completeness", words, f"{self.pruned_below} to {self.first_seq - 1}")

    def verdict(self, which: str) -> str:
        if self.broken[which]:
            return "BROKEN"
        is_proven = self.proven_size is not None and self.proven_size == self.size
        return "intact" if which != "authenticity" or is_proven else "not proven"


def text_of(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read(64 * 1024 * 1024)


def verify(path: str, keys: list[Key], checkpoints: list[str], export: Export | None = None) -> Verification:
    """Judge a bundle, and an export against it. Raises Unreadable."""
    verification = Verification(keys, export)
    for text in checkpoints:
        verification.checkpoint(text, is_outside=True)
    try:
        verification.read(path)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise Unreadable(f"{path} cannot be read: {error}") from error
    except Unreadable:
        raise
    except Exception as error:  # Whatever hostile bytes run into: they are no bundle.
        raise Unreadable(f"{path} is not a bundle of an audit log") from error
    return verification


def say(words: str) -> None:
    sys.stdout.write("".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in words) + "\n")


def print_report(verification: Verification) -> None:
    for verdict in ("integrity", "completeness", "authenticity"):
        say(f"{verdict:13} {verification.verdict(verdict)}")
    say(f"records       {verification.first_seq} to {verification.size - 1}")
    if verification.first_bad is not None:
        say(f"first bad     {verification.first_bad}")
    if verification.export is not None:
        print_export(verification, verification.export)
    for verdict, found in verification.broken.items():
        for words in found[:FINDINGS_SHOWN]:
            say(f"{verdict}: {words}")
        if len(found) > FINDINGS_SHOWN:
            say(f"{verdict}: and {len(found) - FINDINGS_SHOWN} more")
    if not verification.keys:
        say("warning: no --public-key was given; a key that comes with a log proves nothing, so who signed is unknown")
    if verification.outside_size is None:
        say("warning: no checkpoint that you kept was compared; an older or rewritten log would look the same")


def print_export(verification: Verification, export: Export) -> None:
    if export.wrong is not None or not is_proven(verification):
        say("export        NOT PROVEN")
    elif is_complete(verification):
        say("export        proven, and nothing is missing")
    else:
        say("export        every line is proven, NOT that none is missing")
    if export.wrong is not None:
        say(f"export: line {export.wrong[0]} {export.wrong[1]}")
    elif not export.count:
        say("export: it holds no record, so there is nothing to prove")
    elif export.exported is not None:
        say(f"export: {export.exported}")
    else:
        if export.gaps:
            more = " ..." if len(export.gaps) > FINDINGS_SHOWN else ""
            places = ", ".join(export.gaps[:FINDINGS_SHOWN])
            say(f"export: not in it: {places}{more}; a filter left them out, or somebody removed the lines")
        say("export: the log knows no export of exactly these bytes, so lines may have been removed, at the end too")


def is_proven(verification: Verification) -> bool:
    """Is the log intact, and every line of the export one of its records?"""
    export, verdicts = verification.export, {verification.verdict(which) for which in verification.broken}
    return verdicts == {"intact"} and (export is None or (export.wrong is None and export.count > 0))


def is_complete(verification: Verification) -> bool:
    """And is it shown that no line is missing?"""
    return is_proven(verification) and (verification.export is None or verification.export.exported is not None)


def export_in(csv: str | None, jsonl: str | None) -> Export | None:
    path = csv or jsonl
    if path is None:
        return None
    with open(path, "rb") as file:
        return Export(file.read(), is_csv=csv is not None)


def main() -> int:
    parser = argparse.ArgumentParser(description="Check an audit log of server-monitor.")
    parser.add_argument("bundle", nargs="?", default=os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--public-key", action="append", default=[], metavar="FILE")
    parser.add_argument("--checkpoint", action="append", default=[], metavar="FILE")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--csv", metavar="FILE", help="an export: every line has to be a record, and none missing")
    which.add_argument("--jsonl", metavar="FILE", help="the same, as JSON lines")
    try:
        given = parser.parse_args()
    except SystemExit as stop:
        return 3 if stop.code else 0
    try:
        lines = [line.strip() for path in given.public_key for line in text_of(path).splitlines()]
        keys = [parse_key(line) for line in lines if line and not line.startswith("#")]
        kept = [text for path in given.checkpoint for text in split_notes(text_of(path))]
        verification = verify(given.bundle, keys, kept, export_in(given.csv, given.jsonl))
    except (Unreadable, OSError, UnicodeDecodeError) as error:
        say(f"cannot be checked: {error}")
        return 3
    print_report(verification)
    if is_complete(verification):
        return 0
    export, verdicts = verification.export, {verification.verdict(which) for which in verification.broken}
    if verdicts == {"intact"} and export is not None and export.wrong is None:
        return 3
    return 1 if "BROKEN" in verdicts or keys else 3


if __name__ == "__main__":
    sys.exit(main())
