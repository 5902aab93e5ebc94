"""How a record looks outside the database: a CSV row, a JSON item, or its own bytes. Pure.

The values come from the record's body, which its hash covers; the search columns only help to find it. A row::

    7,2026-11-23T10:00:00.000000Z,0193…,ada,server.create,server,0193…,success,192.0.2.7,"curl/8.5",req-1,"{}",9f86d0…

CSV follows RFC 4180. It is made for people, so a cell that a spreadsheet could take for a formula gets `'` in front
(OWASP, CSV injection), and what could drive a terminal or start a new line is written as `\\uXXXX`.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from msgspec import MsgspecError, Raw, Struct, json

Stored = tuple[int, Any]
"""(seq, body) of one record as it was found: bytes, or whatever somebody has put there in their place."""

Noticed = Callable[[int], None]
"""Told the number of each record that cannot be read."""


class Item(Struct, frozen=True, gc=False):
    """The columns, in their order. `meta_json` is JSON already."""

    seq: int
    time: str | None
    user_id: str | None
    username: str | None
    action: str | None
    target_type: str | None
    target_id: str | None
    outcome: str | None
    ip: str | None
    user_agent: str | None
    request_id: str | None
    meta_json: Raw
    hash: str


class _Actor(Struct, frozen=True, gc=False):
    name: str
    id: str | None = None


class _Target(Struct, frozen=True, gc=False):
    type: str | None = None
    id: str | None = None


class _Source(Struct, frozen=True, gc=False):
    ip: str | None = None
    ua: str | None = None


class _Request(Struct, frozen=True, gc=False):
    id: str | None = None


_EMPTY = Raw(b"{}")


class _Record(Struct, frozen=True, gc=False):
    """What a body has for the columns; the rest of it is passed over without being decoded."""

    ts: str
    actor: _Actor
    action: str
    outcome: str | None
    target: _Target = _Target()
    source: _Source = _Source()
    request: _Request = _Request()
    meta: Raw = _EMPTY


COLUMNS = Item.__struct_fields__
CSV_HEADER = (",".join(COLUMNS) + "\r\n").encode()
META_LIMIT = 1000  # characters

# Characters that neither show nor count where a spreadsheet looks for a formula: white space, quotes, zero width.
_PASSED_OVER = r"\s\x00\"'`´‘’‚‛“”„‟«»‹›′″＂＇\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"
# The signs in their full-width, small, superscript and mathematical forms too.
_FORMULA = re.compile(rf"[{_PASSED_OVER}]*[=+\-@\t\r\n\x00＝＋－＠﹦﹢﹣﹫⁺₊⁻₋⁼₌−]")
_QUOTED = re.compile(r'[",\s]')
# C0, DEL, C1; the characters that turn the direction of text; line and paragraph separators; halves of characters.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
# A user agent, which is always quoted, and on a line of its own nine plain words: a row of these needs no further care.
# Possessive and written out nine times, which takes half the time.
_AGENT = r"(?:[0-9A-Za-z_./~][0-9A-Za-z_.:/~()@+,;= -]*+)?+\n"
_WORD = r"(?:[0-9A-Za-z_.:/~][0-9A-Za-z_.:/~()@+-]*+)?+"
_HARMLESS = re.compile(_AGENT + ",".join([_WORD] * 9))


def csv_rows(records: Sequence[Stored], unread: Noticed | None = None) -> bytes:
    """The records as rows, each ended by CR LF."""
    return "".join([_csv_row(seq, body, unread) for seq, body in records]).encode()


def json_items(records: Sequence[Stored], unread: Noticed | None = None) -> bytes:
    """The records as JSON objects with commas between them."""
    items = _encode([item(seq, body, unread) for seq, body in records])[1:-1]
    if items.isascii() and b"\x7f" not in items:
        return items
    return _UNSEEN.sub(_written_out, items.decode()).encode()


def json_lines(records: Sequence[Stored], unread: Noticed | None = None) -> bytes:
    """The very bytes that were hashed, a record a line; in the place of one that cannot be read a line that says so."""
    return b"".join([_line(seq, body, unread) for seq, body in records])


def as_bytes(body: Any) -> bytes:
    """What stands where the bytes of a record should: the same, of text its bytes, of anything else none."""
    if type(body) is bytes:
        return body
    return body.encode("utf-8", "surrogateescape") if isinstance(body, str) else b""


def item(seq: int, body: Any, unread: Noticed | None = None) -> Item:
    """The record's columns. A body that is no record, which only tampering makes, leaves all but three empty."""
    record = _record(body)
    if record is None:
        if unread is not None:
            unread(seq)
        return Item(seq, *(None,) * 10, _UNREADABLE, _hash(as_bytes(body)))
    digest = _hash(body)
    actor, target, source = record.actor, record.target, record.source
    # A short body cannot hold a long meta.
    meta = record.meta if len(body) <= META_LIMIT else shortened(record.meta)
    return Item(
        seq,
        record.ts,
        actor.id,
        actor.name,
        record.action,
        target.type,
        target.id,
        record.outcome,
        source.ip,
        source.ua,
        record.request.id,
        meta,
        digest,
    )


def whole_record(seq: int, body: Any) -> dict[str, Any]:
    """All of the record, and its hash."""
    record = {"unreadable": True} if _record(body) is None else orjson.loads(body)
    return {"seq": seq, "hash": _hash(as_bytes(body)), "record": record}


def _record(body: Any) -> _Record | None:
    if type(body) is not bytes:
        return None
    try:
        if not body.isascii():
            body.decode()  # What is passed over is not checked by the decoder.
        return _decode(body)
    except (MsgspecError, UnicodeDecodeError):
        return None


def _hash(body: bytes) -> str:
    return hashlib.sha256(b"\x00" + body).hexdigest()  # the leaf hash, as in `tree.leaf_hash`


def _line(seq: int, body: Any, unread: Noticed | None) -> bytes:
    if _record(body) is not None and b"\n" not in body:
        return bytes(body) + b"\n"
    if unread is not None:
        unread(seq)
    return orjson.dumps({"hash": _hash(as_bytes(body)), "seq": seq, "unreadable": True}) + b"\n"


def shortened(meta: Raw) -> Raw:
    """The JSON itself, or what stands for one of over 1,000 characters."""
    encoded = bytes(meta)
    text = encoded.decode()
    if len(text) <= META_LIMIT:
        return meta
    short = {
        "truncated": True,
        "original_length": len(text),
        "sha256": hashlib.sha256(encoded).hexdigest(),
        "preview": text[:META_LIMIT],
    }
    return Raw(orjson.dumps(short))


def guarded(text: str) -> str:
    """A CSV cell that shows this text and does nothing."""
    safe = _UNSEEN.sub(_written_out, text)
    if _FORMULA.match(text):
        safe = "'" + safe
    return '"' + safe.replace('"', '""') + '"' if _QUOTED.search(safe) else safe


def _csv_row(seq: int, body: Any, unread: Noticed | None) -> str:
    cells = item(seq, body, unread)
    words = (
        f"{cells.time or ''},{cells.user_id or ''},{cells.username or ''},{cells.action or ''},"
        f"{cells.target_type or ''},{cells.target_id or ''},{cells.outcome or ''},{cells.ip or ''}"
    )
    agent, request_id = cells.user_agent or "", cells.request_id or ""
    meta = str(cells.meta_json, "utf-8")
    if _HARMLESS.fullmatch(f"{agent}\n{words},{request_id}") and meta.isascii() and meta.isprintable():
        quoted = meta.replace('"', '""')
        return f'{seq},{words},"{agent}",{request_id},"{quoted}",{cells.hash}\r\n'
    texts = (
        *(cells.time, cells.user_id, cells.username, cells.action, cells.target_type, cells.target_id),
        *(cells.outcome, cells.ip, agent, request_id, meta, cells.hash),
    )
    return ",".join([str(seq), *(guarded(text or "") for text in texts)]) + "\r\n"


def _written_out(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


_UNREADABLE = Raw(b'{"unreadable":true}')
_decode = json.Decoder(_Record).decode
_encode = json.Encoder().encode
