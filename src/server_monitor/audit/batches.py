"""Reads the records of a page and makes bytes of them, batch by batch, beside the event loop.

What is in memory does not grow with the page: at most two batches of records and what is made of them.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit.cells import Stored
from server_monitor.db.driver import on_sqlite, spelled
from server_monitor.db.tables import audit_records

Make = Callable[[Sequence[Stored]], bytes]


Made = AsyncGenerator[tuple[int, bytes], None]
"""(how many records, what was made of them), for one batch after the other."""


def made(conn: AsyncConnection, records: Select[int, bytes], make: Make, most: int, most_bytes: int) -> Made:
    """A batch has at most `most` records, and at most `most_bytes` unless it is a single record."""
    source = _from_sqlite if conn.dialect.name == "sqlite" else _from_postgres
    return source(conn, records, make, most, most_bytes)


async def _from_sqlite(
    conn: AsyncConnection, records: Select[int, bytes], make: Make, most: int, most_bytes: int
) -> Made:
    text, values = spelled(records)
    cursor = await on_sqlite(conn, lambda plain: plain.execute(text, values))
    chunks = ((len(batch), make(batch)) for batch in _batches(cursor, most, most_bytes))
    try:
        while (following := await on_sqlite(conn, lambda _: next(chunks, None))) is not None:
            yield following
    finally:
        await on_sqlite(conn, lambda _: cursor.close())


def _batches(rows: Iterable[Stored], most: int, most_bytes: int) -> Iterator[list[Stored]]:
    batch: list[Stored] = []
    size_bytes = 0
    for row in rows:
        size_bytes += len(row[1]) + 1
        if batch and (len(batch) == most or size_bytes > most_bytes):
            yield batch
            batch, size_bytes = [], len(row[1]) + 1
        batch.append(row)
    if batch:
        yield batch


async def _from_postgres(
    conn: AsyncConnection, records: Select[int, bytes], make: Make, most: int, most_bytes: int
) -> Made:
    """Its driver wants to know how many rows to fetch before it sees one: so many that the largest of them fit."""
    bodies = records.with_only_columns(func.length(audit_records.c.body).label("size_bytes")).order_by(None).subquery()
    largest_bytes = (await conn.execute(select(func.max(bodies.c.size_bytes)))).scalar() or 1
    at_once = max(1, min(most, most_bytes // (largest_bytes + 1)))
    result = await conn.stream(records, execution_options={"yield_per": at_once})
    async for batch in result.partitions(at_once):
        yield len(batch), await asyncio.to_thread(make, batch)
