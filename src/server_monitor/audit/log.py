"""Appends to the audit log in the caller's transaction: the change and its record are made together or not at all."""

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import chain, tree
from server_monitor.audit.chain import AuditTarget, Change, Circumstances, Draft, Event
from server_monitor.audit.damage import DAMAGE, reported
from server_monitor.db.driver import on_sqlite, spelled
from server_monitor.db.engine import at_commit
from server_monitor.db.ids import new_id
from server_monitor.db.tables import audit_head, audit_nodes, audit_records
from server_monitor.errors import AuditUnavailable
from server_monitor.telemetry import metrics
from server_monitor.telemetry.logs import request_context
from server_monitor.telemetry.redact import redact, redact_text

USER_AGENT_LIMIT = 256
_HEAD_TEXT, _ = spelled(select(audit_head.c.size, audit_head.c.frontier))
_RECORD_TEXT, _ = spelled(insert(audit_records))
_NODE_TEXT, _ = spelled(insert(audit_nodes))


async def append(conn: AsyncConnection, *events: Event) -> None:
    """Record what the transaction of `conn` does; the records are written as its last statements.

    When they cannot be written, leaving the transaction raises AuditUnavailable, and nothing has happened.
    Raises Invalid for an event that the format cannot hold.
    """
    circumstances = _circumstances(conn)
    at_commit(conn, _write, *(chain.draft(_redacted(event), circumstances, new_id()) for event in events))


async def _write(conn: AsyncConnection, drafts: list[Draft]) -> None:
    """Give the records their places in the log. Everybody who writes waits here for everybody else, so be quick."""
    extend = _extend_sqlite if conn.dialect.name == "sqlite" else _extend_postgres
    try:
        await extend(conn, drafts)
    except DAMAGE as error:
        raise AuditUnavailable("The audit record could not be written, so nothing was changed.") from error
    for action, count in Counter([draft.event.action for draft in drafts]).items():
        metrics.audit_records.labels(action).inc(count)


async def _extend_sqlite(conn: AsyncConnection, drafts: list[Draft]) -> None:
    """All of it in one turn of the driver's thread: a statement alone costs more than a record."""

    def extend(plain: sqlite3.Connection) -> None:
        size, frontier = plain.execute(_HEAD_TEXT).fetchone()
        grown = _grown(size, frontier, drafts, chain.timestamp)
        plain.executemany(_RECORD_TEXT, grown.records)
        plain.executemany(_NODE_TEXT, grown.nodes)
        plain.execute("UPDATE audit_head SET size = ?, frontier = ?", (grown.size, grown.frontier))

    await on_sqlite(conn, extend)


async def _extend_postgres(conn: AsyncConnection, drafts: list[Draft]) -> None:
    head = (await conn.execute(select(audit_head.c.size, audit_head.c.frontier).with_for_update())).one()
    grown = _grown(head.size, head.frontier, drafts, lambda at: at)
    await conn.execute(insert(audit_records), grown.records)
    if grown.nodes:
        await conn.execute(insert(audit_nodes), grown.nodes)
    await conn.execute(update(audit_head).values(size=grown.size, frontier=grown.frontier))


@dataclass(frozen=True, slots=True)
class _Grown:
    """The log after an append: what is new in it."""

    records: list[dict[str, Any]]
    nodes: list[dict[str, Any]]
    size: int
    frontier: bytes


def _grown(size: int, frontier: bytes, drafts: list[Draft], stored: Callable[[datetime], Any]) -> _Grown:
    """`stored` makes of an instant what the database takes."""
    roots = tree.split(frontier)
    records = []
    nodes: list[dict[str, Any]] = []

    def completed(level: int, index: int, node: bytes) -> None:
        nodes.append({"level": level, "idx": index, "hash": node})

    for draft in drafts:
        at = datetime.now(UTC)
        body = draft.sealed(size, at, BOOT_ID, time.monotonic_ns() // 1000)
        records.append(_row(draft, body, size, stored(at)))
        roots = tree.grow(roots, size, tree.leaf_hash(body), completed)
        size += 1
    return _Grown(records, nodes, size, b"".join(roots))


async def size(conn: AsyncConnection) -> int:
    """How many records there are. It grows with every change of state, so it also tells that something changed.

    Raises Unavailable when the log's head is damaged.
    """
    with reported():
        return int((await conn.execute(select(audit_head.c.size))).scalar_one())


async def actions_since(conn: AsyncConnection, seq: int) -> set[str]:
    """Which kinds of action have been recorded from `seq` on."""
    found = await conn.execute(select(audit_records.c.action).where(audit_records.c.seq >= seq).distinct())
    return set(found.scalars())


def _row(draft: Draft, body: bytes, seq: int, at: Any) -> dict[str, Any]:
    """The stored row: the body, and the search columns derived from it."""
    event, target = draft.event, draft.event.target
    return {
        "seq": seq,
        "body": body,
        "id": draft.id,
        "ts": at,
        "action": event.action,
        "actor_id": _cleaned(event.actor.id),
        "actor_name": chain.clean_text(event.actor.name)[:128],
        "target_type": target.type if target else None,
        "target_id": _cleaned(target.id if target else None),
        "outcome": None if event.phase == "intent" else event.outcome,
        "ip": _cleaned(draft.ip),
        "request_id": draft.request_id,
    }


def _cleaned(text: str | None) -> str | None:
    """As the body has it, so that the verifier finds the column equal to it."""
    return None if text is None else chain.clean_text(text)


def _redacted(event: Event) -> Event:
    return Event(
        event.action,
        event.actor,
        _redacted_target(event.target),
        event.outcome,
        event.reason,
        event.phase,
        [_redacted_change(change) for change in event.change],
        redact(event.meta),
        event.parent_seq,
    )


def _redacted_target(target: AuditTarget | None) -> AuditTarget | None:
    return target if target is None or target.name is None else replace(target, name=redact_text(target.name))


def _redacted_change(change: Change) -> Change:
    """A value is masked as well when the path names it as one: `labels.db_password`."""
    name = change.path.rpartition(".")[2]
    old, new = (value if value == chain.SECRET else redact({name: value})[name] for value in (change.old, change.new))
    return Change(change.path, old, new)


def _circumstances(conn: AsyncConnection) -> Circumstances:
    return Circumstances(
        node=conn.sync_connection.get_execution_options().get("audit_node", "local"),  # type: ignore[union-attr]
        source=_source(),
        request=_request(),
    )


def _source() -> Mapping[str, Any]:
    context = request_context.get()
    if context is None:
        return {"via": "system"}
    agent = _agent(context.user_agent) if context.user_agent else None
    return {"via": context.via, "ip": context.ip, "port": context.port, "ua": agent}


@lru_cache(maxsize=256)
def _agent(given: str) -> str:
    """Kept, because nearly every record names one of a few."""
    return redact_text(given)[:USER_AGENT_LIMIT]


def _request() -> Mapping[str, Any]:
    context = request_context.get()
    if context is None:
        return {}
    return {"id": context.request_id, "method": context.method, "route": context.route}


def _read_boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


BOOT_ID = _read_boot_id()  # Cannot change while this process lives.
