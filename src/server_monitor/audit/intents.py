"""What takes a while has two records: an intent before it begins, and an outcome when it has ended, however it did.

What a kill left without its outcome gets it at the next start.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson
from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log, reading
from server_monitor.audit.chain import AuditActor, AuditTarget, Event
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_records

# The action of an intent, and of its outcome.
OUTCOMES: Mapping[str, str] = MappingProxyType(
    {
        "audit.export": "audit.export_finished",
        "audit.verify": "audit.verify",
        "file.download": "file.download",
        "file.upload": "file.upload",
    }
)

_SYSTEM = AuditActor("system", None, "system", ("admin",))
_START_FIELD = 19  # of /proc/PID/stat, counted after the name of the program


async def begin(db: Database, action: str, actor: AuditActor, target: AuditTarget, meta: Mapping[str, Any]) -> None:
    """Record that it begins, durably. `target` is the deed itself: its outcome has the same."""
    async with db.transaction() as conn:
        await log.append(conn, Event(action, actor, target, None, phase="intent", meta={**meta, **_process()}))


async def end(
    db: Database,
    action: str,
    actor: AuditActor,
    target: AuditTarget,
    *,
    outcome: str,
    meta: Mapping[str, Any],
    reason: str | None = None,
) -> None:
    """Record how what `begin` recorded has ended."""
    c = audit_records.c
    intent = select(c.seq).where(c.target_type == target.type, c.target_id == target.id, c.action == action)
    async with db.transaction() as conn:
        parent = (await conn.execute(intent.order_by(c.seq).limit(1))).scalar()
        event = Event(OUTCOMES[action], actor, target, outcome, reason, phase="outcome", meta=meta, parent_seq=parent)
        await log.append(conn, event)


async def recover(conn: AsyncConnection, node: str, boot_id: str = log.BOOT_ID) -> int:
    """Record the failure of what console `node` did not live to finish; returns how many those were.

    What a process began that still runs is left alone; `boot_id` is that of the machine as it runs now.
    """
    ended = audit_records.alias()
    c = audit_records.c
    has_ended = exists().where(
        ended.c.target_type == c.target_type, ended.c.target_id == c.target_id, ended.c.outcome.is_not(None)
    )
    begun = select(c.seq, c.body).where(c.action.in_(OUTCOMES), c.outcome.is_(None), ~has_ended)
    events = []
    for seq, body in (await conn.execute(begun.order_by(c.seq))).all():
        record = _intent(body)
        if record is None:
            continue
        is_alive = record["ts_src"]["boot_id"] == boot_id and _is_alive(record["meta"])
        if record["node"] == node and not is_alive:
            events.append(_recovered(seq, record))
    await log.append(conn, *events)
    return len(events)


def _intent(body: Any) -> Mapping[str, Any] | None:
    """The record as `begin` writes it; None when it was damaged since: that is for `audit verify` to say."""
    if reading.read(body) is None:
        return None
    record: Mapping[str, Any] = orjson.loads(body)
    target, meta, clock = record.get("target"), record.get("meta"), record.get("ts_src")
    is_whole = (
        isinstance(meta, dict) and type(meta.get("pid")) is int and isinstance(clock, dict) and "boot_id" in clock
    )
    has_target = isinstance(target, dict) and {"type", "id"} <= set(target)
    return record if is_whole and has_target and "node" in record and record["action"] in OUTCOMES else None


def _recovered(seq: int, record: Mapping[str, Any]) -> Event:
    target = AuditTarget(record["target"]["type"], record["target"]["id"])
    return Event(
        OUTCOMES[record["action"]],
        _SYSTEM,
        target,
        outcome="failure",
        reason=f"{record['action'].removeprefix('audit.')}.recovered",
        phase="outcome",
        meta={"recovered": True},
        parent_seq=seq,
    )


def _process() -> dict[str, int]:
    """By which the next start knows whether this process still runs."""
    started = _started(os.getpid())
    return {"pid": os.getpid()} | ({} if started is None else {"pid_started": started})


def _is_alive(process: Mapping[str, Any]) -> bool:
    """Does the process that wrote this still run? Its number alone may be somebody else's by now."""
    pid = process["pid"]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _started(pid) == process.get("pid_started")


def _started(pid: int) -> int | None:
    """When this process started, in ticks since the machine did; None where the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[_START_FIELD])
    except (OSError, ValueError, IndexError):
        return None
