"""The format of the audit log: everything an outsider needs to check it. Pure; no clock, no database.

A record is one JSON object in canonical form (JCS, RFC 8785, restricted to ASCII keys, strings, integers within 2^53,
booleans, null, arrays and objects; no floats), for example::

    {"action":"server.create","actor":{"id":"0193…","name":"ada","type":"user"},"id":"0193…","node":"0193…",
     "outcome":"success","phase":"single","seq":7,"target":{"id":"0193…","name":"web01","type":"server"},
     "ts":"2026-11-23T10:00:00.000000Z","ts_src":{"boot_id":"…","mono_us":123},"v":1}

Its bytes are stored once and never re-serialised: what is hashed is exactly what is stored. The records are the leaves
of the tree of `audit/tree.py`.
"""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from server_monitor.errors import Invalid

VERSION = 1
SECRET = "[secret]"  # noqa: S105  # What stands in a record where the value is a secret.
META_LIMIT_BYTES = 64 * 1024
TEXT_LIMIT = 4096
_SAFE_INTEGER = 2**53 - 1
_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
_PLAIN = frozenset({str, int, bool, type(None)})

# The catalogue is closed: an action that is not here cannot be recorded.
ACTIONS = frozenset(
    {
        "audit.archive",
        "audit.cleanup",
        "audit.export",
        "audit.export_finished",
        "audit.hold",
        "audit.repair",
        "audit.verify",
        "auth.login",
        "auth.login_failed",
        "auth.logout",
        "file.download",
        "file.upload",
        "group.create",
        "group.delete",
        "group.grant",
        "group.members",
        "group.update",
        "host_key.changed",
        "host_key.trust",
        "key.rotate",
        "recording.alarm",
        "recording.archive",
        "recording.export",
        "recording.prune",
        "recording.search",
        "recording.verify",
        "recording.view",
        "server.create",
        "server.delete",
        "server.import",
        "server.update",
        "session.end",
        "settings.setup",
        "ssh_key.create",
        "ssh_key.delete",
        "snippet.create",
        "snippet.delete",
        "snippet.update",
        "system.clock_step",
        "system.start",
        "system.stop",
        "task.approve",
        "task.cancel",
        "task.create",
        "task.denied",
        "task.expire",
        "task.fail",
        "task.finish",
        "task.recover",
        "task.reject",
        "task.start",
        "task.timeout",
        "terminal.attach",
        "terminal.connect",
        "terminal.disconnect",
        "terminal.head",
        "terminal.recover",
        "terminal.stop",
        "token.create",
        "token.revoke",
        "user.create",
        "user.delete",
        "user.disable",
        "user.enable",
        "user.password",
        "user.update",
    }
)
PHASES = frozenset({"intent", "outcome", "single"})
OUTCOMES = frozenset({"success", "failure", "denied", "error", "unknown"})


@dataclass(frozen=True, slots=True)
class AuditActor:
    """Who acted, in plain strings, so that the record outlives the account. `type` is an ActorKind."""

    type: str
    id: str | None
    name: str
    roles: Sequence[str] = ()
    session: str | None = None
    token_id: str | None = None


@dataclass(frozen=True, slots=True)
class AuditTarget:
    """What was acted upon."""

    type: str
    id: str
    name: str | None = None
    group_ids: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One value that was changed. Pass SECRET for both sides of a secret."""

    path: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Event:
    """What happened, as the domain function that did it says it."""

    action: str
    actor: AuditActor
    target: AuditTarget | None = None
    outcome: str | None = "success"
    reason: str | None = None  # a stable code of at most 64 characters
    phase: str = "single"
    change: Sequence[Change] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    parent_seq: int | None = None  # an outcome's intent


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Where and through which request it happened; the same for all records of one append."""

    node: str
    source: Mapping[str, Any] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)


def canonical(value: Mapping[str, Any]) -> bytes:
    """The one byte string of this object. Raises Invalid for what the format cannot hold."""
    return _encoded(value) if _is_plain(value) else _cleaned(value)


def _encoded(value: Mapping[str, Any]) -> bytes:
    """The same of what is known to be plain."""
    try:
        encoded = orjson.dumps(value, option=_CANONICAL)
    except orjson.JSONEncodeError:  # What it refuses is cleaned, or refused with a reason.
        return _cleaned(value)
    # Such text has one form only, and nothing in it that had to be replaced.
    return encoded if encoded.isascii() and b"\\u0000" not in encoded else _cleaned(value)


def _cleaned(value: Mapping[str, Any]) -> bytes:
    return json.dumps(_clean(value, ""), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class Draft:
    """A record that lacks only its place and time in the log: canonical bytes before and after its `seq`."""

    event: Event
    id: str
    ip: str | None
    request_id: str | None
    before: bytes
    after: bytes

    def sealed(self, seq: int, at: datetime, boot_id: str, monotonic_us: int) -> bytes:
        """The record's canonical bytes. Keys sort so that these come after the others: ts, ts_src, v."""
        clock = _encoded({"boot_id": boot_id, "mono_us": monotonic_us})
        tail = b'"ts":"%s","ts_src":%s,"v":%d}' % (timestamp(at).encode(), clock, VERSION)
        return b'%s,"seq":%d%s,%s' % (self.before, seq, self.after, tail)


def draft(event: Event, circumstances: Circumstances, record_id: str) -> Draft:
    """The record of `event`, checked. Absent parts are left out. Raises Invalid for what the format cannot hold."""
    if event.action not in ACTIONS or event.phase not in PHASES:
        raise Invalid.one("action", f"{event.action!r} ({event.phase}) is not in the catalogue of audit/chain.py")
    if event.phase != "intent" and event.outcome not in OUTCOMES:
        raise Invalid.one("outcome", f"{event.outcome!r} is not one of {sorted(OUTCOMES)}")
    before = {
        "action": event.action,
        "actor": _actor(event.actor),
        "id": record_id,
        "node": circumstances.node,
        "outcome": None if event.phase == "intent" else event.outcome,
        "phase": event.phase,
        **_present(
            cause=None if event.parent_seq is None else {"parent_seq": event.parent_seq},
            change={"paths": [{"p": c.path, "old": c.old, "new": c.new} for c in event.change]}
            if event.change
            else None,
            meta=event.meta,
            reason=event.reason,
            request=_present(**circumstances.request),
        ),
    }
    after = _present(source=_present(**circumstances.source), target=_target(event.target))
    is_plain = _is_plain(event.meta) and all(_is_plain((c.old, c.new)) for c in event.change)
    encoded = _encoded(before) if is_plain else _cleaned(before)
    if len(encoded) > META_LIMIT_BYTES:
        _require_bounded(event.meta)
    return Draft(
        event,
        record_id,
        circumstances.source.get("ip"),
        circumstances.request.get("id"),
        before=encoded[:-1],
        after=b"," + _encoded(after)[1:-1] if after else b"",
    )


def timestamp(at: datetime) -> str:
    """RFC 3339 UTC with microseconds and Z."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def _actor(actor: AuditActor) -> dict[str, Any]:
    return _present(
        type=actor.type,
        name=actor.name,
        id=actor.id,
        session=actor.session,
        token_id=actor.token_id,
        roles=list(actor.roles) or None,
    )


def _target(target: AuditTarget | None) -> dict[str, Any] | None:
    if target is None:
        return None
    return _present(type=target.type, id=target.id, name=target.name, group_ids=list(target.group_ids) or None)


def _present(**fields: Any) -> dict[str, Any]:
    """The fields that say something."""
    return {name: value for name, value in fields.items() if value is not None and value != {}}


def _require_bounded(meta: Mapping[str, Any]) -> None:
    size_bytes = len(canonical(meta))
    if size_bytes > META_LIMIT_BYTES:
        raise Invalid.one(
            "meta", f"an audit record's own fields take {size_bytes} bytes; {META_LIMIT_BYTES} is the most"
        )


def _clean(value: Any, path: str) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) > _SAFE_INTEGER:
            raise Invalid.one(path, "an integer in a record lies within 2^53")
        return value
    if isinstance(value, Mapping):
        return {_key(key, path): _clean(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item, path) for item in value]
    raise Invalid.one(path, f"a record cannot hold a {type(value).__name__}")


def _is_plain(value: Any) -> bool:
    """Does it hold nothing but texts, integers, truth values, None, and lists and dictionaries of those?"""
    kind = type(value)
    if kind is not dict and kind is not list and kind is not tuple:
        return kind in _PLAIN
    parts = value.values() if kind is dict else value
    return all(type(part) in _PLAIN or _is_plain(part) for part in parts)


def _key(key: Any, path: str) -> str:
    if not isinstance(key, str) or not key.isascii():
        raise Invalid.one(path, "the keys of a record are ASCII text")
    return key


def clean_text(text: str) -> str:
    """NFC, with what JSON or a database cannot carry (lone surrogates, NUL) replaced by U+FFFD."""
    if text.isascii() and "\x00" not in text:
        return text
    carried = "".join("\ufffd" if c == "\x00" or "\ud800" <= c <= "\udfff" else c for c in text)
    return unicodedata.normalize("NFC", carried)
