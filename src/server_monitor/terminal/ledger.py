"""What the audit log says of a recording: the heads in `terminal.*` records, from the database or the archive."""

import asyncio
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import sealing
from server_monitor.audit.archive import Archive
from server_monitor.audit.retention import State
from server_monitor.audit.sealing import Row as SegmentRow
from server_monitor.audit.segment import open_segment
from server_monitor.audit.verify import Unreadable
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_records
from server_monitor.errors import NotFound, Unavailable
from server_monitor.terminal.chain import Logged

TARGET: Final = "terminal_session"
BEGUN: Final = "terminal.connect"
ENDED: Final = "terminal.disconnect"
ACTIONS: Final = (BEGUN, "terminal.head", ENDED)
_HEAD_BYTES: Final = 32


async def logged(db: Database, session_id: str, from_at: datetime, to_at: datetime | None) -> Sequence[Logged]:
    """Every head that the log holds of this session, which ran between these times.

    What has been pruned from the database is looked for in the archive. Raises Unavailable.
    """
    async with db.reading() as conn:
        bodies = await _bodies(conn, session_id)
        pruned = [
            row for row in await sealing.listing(conn) if row.state is State.PRUNED and _may_hold(row, from_at, to_at)
        ]
    found = _heads(map(orjson.loads, bodies))
    for row in pruned:
        found += _heads(await _archived(row, session_id))
    return found


async def _bodies(conn: AsyncConnection, session_id: str) -> Sequence[bytes]:
    c = audit_records.c
    wanted = select(c.body).where(c.target_type == TARGET, c.target_id == session_id, c.action.in_(ACTIONS))
    return (await conn.execute(wanted.order_by(c.seq))).scalars().all()


def _may_hold(row: SegmentRow, from_at: datetime, to_at: datetime | None) -> bool:
    return row.newest_at >= from_at and (to_at is None or row.oldest_at <= to_at)


async def _archived(row: SegmentRow, session_id: str) -> list[Mapping[str, Any]]:
    """The records of this session in a segment of the archive."""
    try:
        stored = await Archive(row.place).get(row.key, row.version)
        return await asyncio.to_thread(_records_of, stored.data, row.key, session_id)
    except (NotFound, Unreadable) as error:
        raise Unavailable(f"The audit log of that time is in the archive and cannot be read there: {error}") from error


def _records_of(data: bytes, key: str, session_id: str) -> list[Mapping[str, Any]]:
    mark = session_id.encode()
    bodies = (body for rows in open_segment(key, lambda: io.BytesIO(data)).records() for _, body in rows)
    records = (orjson.loads(body) for body in bodies if mark in body)
    return [
        record
        for record in records
        if record["action"] in ACTIONS and record.get("target") and record["target"]["id"] == session_id
    ]


def _heads(records: Iterable[Mapping[str, Any]]) -> list[Logged]:
    """What does not say a head, such as the refusal of a terminal, is none."""
    found = []
    for record in records:
        meta = record.get("meta", {})
        chunks, head = meta.get("chunks"), meta.get("head")
        if type(chunks) is int and type(head) is str and len(head) == 2 * _HEAD_BYTES:
            found.append(Logged(chunks, bytes.fromhex(head), is_last=record["action"] == ENDED))
    return found
