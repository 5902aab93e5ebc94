"""One record, read back from its bytes with nothing taken on trust. Pure.

Most records are as this version writes them, and a typed decoder takes those in a third of the time. Whatever it does
not take goes the long way, which decides alone what a record is: a canonical object that has what every record has.
"""

import re
from typing import Annotated, Any, Literal

import msgspec
import orjson
from msgspec import Meta, Struct

from server_monitor.audit import chain
from server_monitor.errors import Invalid

COLUMNS = ("id", "ts", "action", "actor_id", "actor_name", "target_type", "target_id", "outcome", "ip", "request_id")
"""The search columns of a stored record, which follow from its body."""

RECORD_LIMIT_BYTES = 8 * 1024 * 1024
ACTOR_NAME_LIMIT = 128

Columns = tuple[str | None, ...]
Read = tuple[int, Columns, int]
"""(seq, COLUMNS, end of the records that it says were pruned)"""

_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
_Whole = Annotated[int, Meta(ge=-(2**53) + 1, le=2**53 - 1)]
_is_ts = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z").fullmatch


def read(body: Any) -> Read | None:
    """What the verifier needs of the record that these bytes are the one canonical form of; None when of none."""
    if type(body) is not bytes or len(body) > RECORD_LIMIT_BYTES:
        return None
    if body.isascii() and b"\\u0000" not in body:
        try:
            record = _decode_usual(body)
            if _encode(record) == body and _is_ts(record.ts):
                return _usual(record)
        except (msgspec.MsgspecError, orjson.JSONEncodeError, RecursionError):
            pass
    value = _value(body)
    return None if value is None else _any(value)


# --- as this version writes them ---


class _Actor(Struct, omit_defaults=True, gc=False):
    name: str
    type: str
    id: str | None = None
    roles: list[str] | None = None
    session: str | None = None
    token_id: str | None = None


class _Source(Struct, omit_defaults=True, gc=False):
    ip: str | None = None
    port: _Whole | None = None
    ua: str | None = None
    via: str | None = None


class _Request(Struct, omit_defaults=True, gc=False):
    id: str | None = None
    method: str | None = None
    route: str | None = None


class _Target(Struct, omit_defaults=True, gc=False):
    id: str
    type: str
    group_ids: list[str] | None = None
    name: str | None = None


class _Cause(Struct, gc=False):
    parent_seq: _Whole


class _Clock(Struct, gc=False):
    boot_id: str
    mono_us: _Whole


class _Record(Struct, omit_defaults=True, gc=False):
    action: str
    actor: _Actor
    id: str
    node: str
    outcome: str | None
    phase: Literal["intent", "outcome", "single"]
    seq: Annotated[int, Meta(ge=0, le=2**53 - 1)]
    ts: str
    ts_src: _Clock
    v: Literal[1]
    cause: _Cause | None = None
    change: dict[str, Any] | None = None
    meta: dict[str, Any] | None = None
    reason: str | None = None
    request: _Request | None = None
    source: _Source | None = None
    target: _Target | None = None


def _refuse_fraction(_: str) -> Any:
    raise ValueError("a record holds no fractions")


_decode_usual = msgspec.json.Decoder(_Record, float_hook=_refuse_fraction).decode
_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(float_hook=_refuse_fraction).decode


def _usual(record: _Record) -> Read:
    """Raises JSONEncodeError for an integer beyond 2^53."""
    meta, change = record.meta, record.change
    if meta is not None or change is not None:
        orjson.dumps((meta, change), option=_CANONICAL)
    actor, target, source, request = record.actor, record.target, record.source, record.request
    columns = (
        record.id,
        record.ts,
        record.action,
        actor.id,
        actor.name[:ACTOR_NAME_LIMIT],
        None if target is None else target.type,
        None if target is None else target.id,
        record.outcome,
        None if source is None else source.ip,
        None if request is None else request.id,
    )
    return record.seq, columns, _pruned_below(meta) if record.action == "audit.cleanup" else 0


# --- any ---


def _value(body: bytes) -> dict[str, Any] | None:
    """The object that these bytes are the canonical form of."""
    try:
        value = _decode(body)
        if type(value) is not dict or orjson.dumps(value, option=_CANONICAL) != body:
            return None
        # What only some strings and keys can have wrong: NUL, and text that is not in normal form C.
        if (not body.isascii() or b"\\u0000" in body) and chain.canonical(value) != body:
            return None
    except (ValueError, TypeError, RecursionError, Invalid, msgspec.MsgspecError):
        return None
    return value


def _any(value: dict[str, Any]) -> Read | None:
    """None when it has not what every record has."""
    try:
        actor, target = value["actor"], value.get("target", {})
        columns = (
            value["id"],
            value["ts"],
            value["action"],
            actor.get("id"),
            actor["name"][:ACTOR_NAME_LIMIT],
            target.get("type"),
            target.get("id"),
            value["outcome"],
            value.get("source", {}).get("ip"),
            value.get("request", {}).get("id"),
        )
        seq, version, phase = value["seq"], value["v"], value["phase"]
    except (KeyError, TypeError, AttributeError):
        return None
    are_texts = all(type(text) is str or text is None for text in columns) and type(phase) is str
    are_numbers = type(seq) is int and seq >= 0 and type(version) is int and version == chain.VERSION
    if not are_texts or not are_numbers or phase not in chain.PHASES:
        return None
    if columns[0] is None or columns[1] is None or columns[2] is None or columns[4] is None or not _is_ts(columns[1]):
        return None
    return seq, columns, _pruned_below(value.get("meta")) if columns[2] == "audit.cleanup" else 0


def _pruned_below(meta: Any) -> int:
    end = meta.get("end_seq") if isinstance(meta, dict) else None
    return end if type(end) is int else 0
