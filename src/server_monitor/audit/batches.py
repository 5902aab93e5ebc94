"""Reads the records of a page and makes bytes of them, chunk by chunk, beside the event loop.

What is in memory does not grow with the page. A few records at a time are read and made into something else, so that
they are still in the processor's cache and never all there at once; what was made of them is put together to a chunk.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit.cells import Stored, as_bytes
from server_monitor.audit.chain import META_LIMIT_BYTES
from server_monitor.db.driver import on_sqlite, spelled
from server_monitor.db.tables import audit_records

AT_ONCE = 50  # records
AT_ONCE_BYTES = META_LIMIT_BYTES

Chunk = tuple[int, bytes]
"""(how many records, what was made of them)"""


@dataclass(frozen=True, slots=True)
class Shape:
    """What to make of records, and how large a chunk may be; a single record is never cut."""

    make: Callable[[Sequence[Stored]], bytes]
    separator: bytes  # between records, and so before each chunk but the first
    most: int  # records
    most_bytes: int


async def chunks(conn: AsyncConnection, records: Select[int, bytes], shape: Shape) -> AsyncGenerator[Chunk, None]:
    """The records, in the transaction of `conn`."""
    source = _from_sqlite if conn.dialect.name == "sqlite" else _from_postgres
    async with aclosing(source(conn, records, shape)) as made:
        async for chunk in made:
            yield chunk


async def _from_sqlite(conn: AsyncConnection, records: Select[int, bytes], shape: Shape) -> AsyncGenerator[Chunk, None]:
    text, values = spelled(records)
    cursor = await on_sqlite(conn, lambda plain: plain.execute(text, values))
    made = _made(cursor, shape)
    try:
        while (chunk := await on_sqlite(conn, lambda _: next(made, None))) is not None:
            yield chunk
    finally:
        await on_sqlite(conn, lambda _: cursor.close())


async def _from_postgres(
    conn: AsyncConnection, records: Select[int, bytes], shape: Shape
) -> AsyncGenerator[Chunk, None]:
    """Its driver wants to know how many rows to fetch before it sees one: so many that the largest of them fit."""
    bodies = records.with_only_columns(func.length(audit_records.c.body).label("size_bytes")).order_by(None).subquery()
    largest_bytes = (await conn.execute(select(func.max(bodies.c.size_bytes)))).scalar() or 0
    at_once = max(1, min(shape.most, shape.most_bytes // (largest_bytes + 1)))
    result = await conn.stream(records, execution_options={"yield_per": at_once})
    is_first = True
    async for batch in result.partitions(at_once):
        for chunk in await asyncio.to_thread(list, _made(batch, shape, is_first=is_first)):
            yield chunk
        is_first = False


def _made(rows: Iterable[Stored], shape: Shape, *, is_first: bool = True) -> Iterator[Chunk]:
    pieces = [] if is_first else [b""]
    count = size_bytes = 0
    for few in _few(rows):
        piece = shape.make(few)
        if count and (count + len(few) > shape.most or size_bytes + len(piece) > shape.most_bytes):
            yield count, shape.separator.join(pieces)
            pieces, count, size_bytes = [b""], 0, 0
        pieces.append(piece)
        count += len(few)
        size_bytes += len(piece) + len(shape.separator)
    if count:
        yield count, shape.separator.join(pieces)


def _few(rows: Iterable[Stored]) -> Iterator[list[Stored]]:
    few: list[Stored] = []
    size_bytes = 0
    for row in rows:
        few.append(row)
        size_bytes += len(as_bytes(row[1]))
        if len(few) == AT_ONCE or size_bytes > AT_ONCE_BYTES:
            yield few
            few, size_bytes = [], 0
    if few:
        yield few
