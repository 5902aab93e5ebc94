"""Deletes archived records from the database in batches so small that nobody who writes waits long for one.

Every batch is one transaction: the records go, `min_index` and the frontier of what has gone advance. A crash between
two batches leaves a log that is valid and merely begins later. That frontier is all that is left of them, so it is made
of the records that go, and compared with what was signed of them before the first goes.
"""

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import delete, insert, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import holds, proofs, tree
from server_monitor.audit.retention import State
from server_monitor.db.engine import Database
from server_monitor.db.tables import (
    audit_checkpoints,
    audit_head,
    audit_prune_ticket,
    audit_records,
    audit_segments,
)
from server_monitor.errors import Conflict, Unavailable

MOST_ROWS = 512
FEWEST_ROWS = 32
BATCH_TARGET_S = 0.020
REST_S = 0.010  # and at least as long as the batch took, so that half of the time belongs to others
_INCREMENTAL = 2  # how our files are made; one that was copied row by row may be of another kind, and keeps its size
PAGES = 64  # given back to the disk at once


@dataclass(frozen=True, slots=True)
class Stretch:
    """A segment to prune: the records before `end_seq`, whose tree has the root that was signed."""

    first_seq: int
    end_seq: int
    root: bytes


async def prune(db: Database, stretch: Stretch, allowed_under: Collection[str]) -> int:
    """Delete the segment's records; returns how many. The caller has verified that they are in the archive.

    `allowed_under` are the ids of the holds that were asked; Conflict is raised when others appear meanwhile.
    Raises Unavailable, and deletes nothing, when the records in the database are not those that were archived.
    """
    rows, gone = FEWEST_ROWS, 0
    async with db.reading() as conn:
        begin, frontier = await proofs.kept_frontier(conn)
        _require_root(await proofs.grown(conn, frontier, begin, stretch.end_seq), begin, stretch)
    while begin < stretch.end_seq:
        # Multiples of a power of two are where the tree has few nodes.
        end = min((begin // rows + 1) * rows, stretch.end_seq)
        async with db.transaction() as conn:
            began = time.monotonic()
            frontier = await _batch(conn, begin, end, allowed_under)
            if end == stretch.end_seq:
                _require_root(frontier, begin, stretch)
                await _close(conn, stretch)
        took_s = time.monotonic() - began
        gone, begin = gone + end - begin, end
        rows = min(rows * 2, MOST_ROWS) if took_s < BATCH_TARGET_S / 2 else rows
        rows = max(rows // 2, FEWEST_ROWS) if took_s > BATCH_TARGET_S else rows
        await asyncio.sleep(max(REST_S, took_s))
    return gone


async def give_back(db: Database) -> None:
    """Return the pages that pruning left empty to the disk, a slice at a time; also what a crash kept it from."""
    if db.dialect != "sqlite":
        return  # PostgreSQL's autovacuum does it.
    async with db.reading() as conn:
        empty = (await conn.execute(text("PRAGMA freelist_count"))).scalar_one()
        can_shrink = (await conn.execute(text("PRAGMA auto_vacuum"))).scalar_one() == _INCREMENTAL
    while empty and can_shrink:
        began = time.monotonic()
        async with db.transaction() as conn:
            raw = (await conn.get_raw_connection()).driver_connection
            assert raw is not None
            for _ in range(PAGES):  # The driver takes one step of this statement, and each step frees one page.
                await raw.execute_fetchall("PRAGMA incremental_vacuum(1)")
            empty = (await conn.execute(text("PRAGMA freelist_count"))).scalar_one()
        await asyncio.sleep(max(REST_S, time.monotonic() - began))


def _require_root(frontier: Sequence[bytes], begin: int, stretch: Stretch) -> None:
    """Raises Unavailable. The transaction that it is raised in is undone."""
    if tree.root(frontier) != stretch.root:
        raise Unavailable(
            f"Records {begin} to {stretch.end_seq - 1} in the database, after what is kept of those before, are not "
            "what was archived and signed. Nothing of them is deleted; see `audit verify`."
        )


async def _batch(conn: AsyncConnection, begin: int, end: int, allowed_under: Collection[str]) -> tuple[bytes, ...]:
    """Delete [begin, end); returns the frontier of all that has gone."""
    if not {hold.id for hold in await holds.active(conn)} <= set(allowed_under):
        raise Conflict("A hold was added while the audit log was being pruned; the next run asks again.")
    for lost in await holds.changed(conn):
        raise Unavailable(holds.lost_words(lost.name))
    reached, frontier = await proofs.kept_frontier(conn)
    if reached != begin:
        raise Conflict("Another process prunes the audit log.")
    frontier = await proofs.grown(conn, frontier, begin, end)
    await conn.execute(insert(audit_prune_ticket).values(one=1, below=end))
    await conn.execute(delete(audit_records).where(audit_records.c.seq >= begin, audit_records.c.seq < end))
    await conn.execute(delete(audit_checkpoints).where(audit_checkpoints.c.size < end))  # They are in the segment.
    await conn.execute(delete(audit_prune_ticket))
    moved = await conn.execute(
        update(audit_head).where(audit_head.c.min_index == begin).values(min_index=end, prefix=b"".join(frontier))
    )
    if moved.rowcount != 1:
        raise Conflict("Another process prunes the audit log.")
    return frontier


async def _close(conn: AsyncConnection, stretch: Stretch) -> None:
    await conn.execute(
        update(audit_segments)
        .where(audit_segments.c.first_seq == stretch.first_seq)
        .values(state=State.PRUNED, pruned_at=datetime.now(UTC))
    )
