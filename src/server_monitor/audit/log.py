"""Appends to the audit log in the caller's transaction: the change and its record are made together or not at all."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import chain, tree
from server_monitor.audit.chain import Circumstances, Event
from server_monitor.db.ids import new_id
from server_monitor.db.tables import audit_head, audit_records
from server_monitor.errors import AuditUnavailable
from server_monitor.telemetry import metrics
from server_monitor.telemetry.logs import request_context
from server_monitor.telemetry.redact import redact, redact_text

USER_AGENT_LIMIT = 256


async def append(conn: AsyncConnection, *events: Event) -> int:
    """Record what the transaction of `conn` has done; returns the sequence number of the first record.

    Make it the last statement of the transaction: on PostgreSQL it takes the lock that all writers of the log share.
    Raises AuditUnavailable when the record cannot be written; leave the transaction then, and nothing has happened.
    """
    try:
        return await _append(conn, events)
    except DBAPIError as error:
        raise AuditUnavailable("The audit record could not be written, so nothing was changed.") from error


async def _append(conn: AsyncConnection, events: tuple[Event, ...]) -> int:
    head = (await conn.execute(select(audit_head.c.size, audit_head.c.frontier).with_for_update())).one()
    size: int = head.size
    frontier = tree.split(head.frontier)
    circumstances = _circumstances(conn)
    rows = []
    for event in events:
        record_id = new_id()
        body = chain.body(_redacted(event), circumstances, size, record_id)
        rows.append(_row(body, size, record_id, circumstances.at))
        frontier = tree.grow(frontier, size, tree.leaf_hash(body))
        size += 1
    await conn.execute(insert(audit_records), rows)
    await conn.execute(update(audit_head).values(size=size, frontier=b"".join(frontier)))
    for event in events:
        metrics.audit_records.labels(event.action).inc()
    return size - len(events)


async def size(conn: AsyncConnection) -> int:
    """How many records there are. It grows with every change of state, so it also tells that something changed."""
    count: int = (await conn.execute(select(audit_head.c.size))).scalar_one()
    return count


async def actions_since(conn: AsyncConnection, seq: int) -> set[str]:
    """Which kinds of action have been recorded from `seq` on."""
    found = await conn.execute(select(audit_records.c.action).where(audit_records.c.seq >= seq).distinct())
    return set(found.scalars())


def _row(body: bytes, seq: int, record_id: str, at: datetime) -> dict[str, Any]:
    """The stored row: the body, and the search columns derived from it."""
    record = orjson.loads(body)
    target = record.get("target", {})
    return {
        "seq": seq,
        "body": body,
        "id": record_id,
        "ts": at,
        "action": record["action"],
        "actor_id": record["actor"].get("id"),
        "actor_name": record["actor"]["name"][:128],
        "target_type": target.get("type"),
        "target_id": target.get("id"),
        "outcome": record["outcome"],
        "ip": record.get("source", {}).get("ip"),
        "request_id": record.get("request", {}).get("id"),
    }


def _redacted(event: Event) -> Event:
    return Event(
        event.action,
        event.actor,
        event.target,
        event.outcome,
        event.reason,
        event.phase,
        [chain.Change(c.path, redact(c.old), redact(c.new)) for c in event.change],
        redact(event.meta),
        event.parent_seq,
    )


def _circumstances(conn: AsyncConnection) -> Circumstances:
    return Circumstances(
        at=datetime.now(UTC),
        node=conn.sync_connection.get_execution_options().get("audit_node", "local"),  # type: ignore[union-attr]
        boot_id=_BOOT_ID,
        monotonic_us=time.monotonic_ns() // 1000,
        source=_source(),
        request=_request(),
    )


def _source() -> Mapping[str, Any]:
    context = request_context.get()
    if context is None:
        return {"via": "system"}
    agent = redact_text(context.user_agent)[:USER_AGENT_LIMIT] if context.user_agent else None
    return {"via": context.via, "ip": context.ip, "port": context.port, "ua": agent}


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


_BOOT_ID = _read_boot_id()  # Cannot change while this process lives.
