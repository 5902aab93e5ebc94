"""The whole log as one stream: what was pruned out of the segments in the archive, what was not out of the database.

Both lie in one snapshot of the database, which says where each segment is and which bytes it has; a segment that is not
what was archived is refused. One segment at a time is in memory.
"""

import asyncio
import hashlib
import io
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from types import MappingProxyType

import orjson
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import cells, checkpoints, export, intents, note, reading, sealing
from server_monitor.audit.archive import Archive
from server_monitor.audit.cells import Stored
from server_monitor.audit.chain import AuditActor, AuditTarget
from server_monitor.audit.checkpoints import Signer
from server_monitor.audit.pages import DESCENDING, Wanted
from server_monitor.audit.sealing import Row
from server_monitor.audit.search import Filters
from server_monitor.audit.segment import open_segment
from server_monitor.audit.verify import Unreadable
from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id
from server_monitor.db.tables import audit_head, audit_records
from server_monitor.errors import NotFound, Unavailable

BATCH = 500  # records
SPARSE = 1000  # records between two checkpoints of a segment that are worth carrying along

_FORMATTERS = MappingProxyType(
    {export.CSV: cells.csv_rows, export.JSON: cells.json_items, export.JSONL: cells.json_lines}
)


class Pruned:
    """What the archive holds of the records that the database has pruned; `url` says where when it is not where it was.

    Make it with `look`.
    """

    def __init__(self, segments: Sequence[Row], end_seq: int, url: str | None) -> None:
        self.end_seq = end_seq
        self._segments = segments
        self._url = url
        self._archives: dict[str, Archive] = {}

    @classmethod
    async def look(cls, conn: AsyncConnection, url: str | None = None) -> "Pruned":
        """Raises Unavailable when no segment is known for some of it."""
        min_index = (await conn.execute(select(audit_head.c.min_index))).scalar_one()
        segments = [row for row in await sealing.listing(conn) if row.first_seq < min_index]
        reached = 0
        for row in segments:
            if row.first_seq > reached:
                break
            reached = row.end_seq
        if reached < min_index:
            raise Unavailable(
                f"Records from {reached} on were pruned, and no segment of the archive is known for them."
            )
        return cls(segments, min_index, url)

    @property
    def places(self) -> list[str]:
        """The archives that it reads."""
        return sorted({self._url or row.place for row in self._segments})

    async def records(self, filters: Filters, *, newest_first: bool = False) -> AsyncGenerator[list[Stored], None]:
        """What the filters choose, batch by batch. Raises Unavailable."""
        for row in reversed(self._segments) if newest_first else self._segments:
            data = await self._fetch(row)
            chosen = await asyncio.to_thread(_chosen, data, row, self.end_seq, filters)
            if newest_first:
                chosen.reverse()
            for batch in _batched(chosen):
                yield batch

    async def notes(self) -> AsyncGenerator[str, None]:
        """Signed checkpoints of it: the last of each segment, and so many before that a change can be located."""
        for row in self._segments:
            data = await self._fetch(row)
            for text in await asyncio.to_thread(_sparse_notes, data, row):
                if note.read(text)[0].size < self.end_seq:
                    yield text

    async def _fetch(self, row: Row) -> bytes:
        place = self._url or row.place
        archive = self._archives.setdefault(place, Archive(place))
        try:
            data = (await archive.get(row.key, None if self._url else row.version)).data
        except NotFound:
            raise Unavailable(f"{row.key} is not in the archive {place}.") from None
        if hashlib.sha256(data).digest() != row.sha256:
            raise Unavailable(f"{row.key} in the archive {place} is not what was archived; run `audit verify`.")
        return data


def _chosen(data: bytes, row: Row, end_seq: int, filters: Filters) -> list[Stored]:
    seqs = range(row.first_seq, min(row.end_seq, end_seq))
    is_everything = filters == Filters()
    return [
        (seq, body)
        for seq, body in zip(seqs, _bodies(data, row), strict=False)
        if is_everything or _is_chosen(body, filters)
    ]


def _bodies(data: bytes, row: Row) -> Iterator[bytes]:
    try:
        for rows in open_segment(row.key, lambda: io.BytesIO(data)).records():
            for _, body in rows:
                yield body
    except Unreadable as error:
        raise Unavailable(f"{row.key} in the archive cannot be read: {error}.") from error


def _is_chosen(body: bytes, filters: Filters) -> bool:
    found = reading.read(body)
    return found is not None and filters.match(dict(zip(reading.COLUMNS, found[1], strict=True)))


def _sparse_notes(data: bytes, row: Row) -> list[str]:
    texts = [stored.note for stored in open_segment(row.key, lambda: io.BytesIO(data)).notes()]
    kept, size = [], row.first_seq
    for text in texts[:-1]:
        reached = note.read(text)[0].size
        if reached >= size + SPARSE:
            kept.append(text)
            size = reached
    return kept + texts[-1:]


def _batched(records: Sequence[Stored]) -> Iterator[list[Stored]]:
    remaining = iter(records)
    while batch := list(islice(remaining, BATCH)):
        yield batch


@dataclass(slots=True)
class WholeExport:
    """An export of archive and database together, whose start is recorded.

    Read `chunks`, and say `delivered` once they have arrived.
    """

    wanted: Wanted
    conn: AsyncConnection
    pruned: Pruned
    snapshot: int
    checkpoint: str  # the signed note of a tree that holds every record of the export
    rows: int = 0
    unreadable: int = 0  # of them: only tampering makes such records
    size_bytes: int = 0
    was_delivered: bool = False
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The whole text, piece by piece."""
        form = self.wanted.format
        if begin := {export.CSV: cells.CSV_HEADER, export.JSON: b'{"items":['}.get(form):
            yield self._counted(begin)
        separator = b"," if form == export.JSON else b""
        async for batch in self._limited():
            chunk = await asyncio.to_thread(_FORMATTERS[form], batch, self._unread)
            chunk = chunk if self.rows == 0 else separator + chunk
            self.rows += len(batch)
            yield self._counted(chunk)
        if form == export.JSON:
            yield self._counted(b"]," + orjson.dumps(self._about())[1:])

    def delivered(self) -> None:
        self.was_delivered = True

    def _unread(self, _seq: int) -> None:
        self.unreadable += 1

    def _counted(self, chunk: bytes) -> bytes:
        self.size_bytes += len(chunk)
        self.digest.update(chunk)
        return chunk

    def _about(self) -> Mapping[str, object]:
        return {"count": self.rows, "next": None, "checkpoint": self.checkpoint}

    async def _limited(self) -> AsyncGenerator[list[Stored], None]:
        left = self.wanted.limit
        async for batch in self._records():
            if left is not None:
                batch = batch[:left]  # noqa: PLW2901
                left -= len(batch)
            if batch:
                yield batch
            if left == 0:
                return

    async def _records(self) -> AsyncGenerator[list[Stored], None]:
        filters, newest_first = self.wanted.filters, self.wanted.order == DESCENDING
        sources = [self.pruned.records(filters, newest_first=newest_first), self._live(newest_first=newest_first)]
        for source in reversed(sources) if newest_first else sources:
            async for batch in source:
                yield batch

    async def _live(self, *, newest_first: bool) -> AsyncGenerator[list[Stored], None]:
        seq = audit_records.c.seq
        within = seq >= self.pruned.end_seq, seq < self.snapshot, *self.wanted.filters.where()
        records = select(seq, audit_records.c.body).where(*within).order_by(seq.desc() if newest_first else seq)
        result = await self.conn.stream(records, execution_options={"yield_per": BATCH})
        async for rows in result.partitions(BATCH):
            yield [(row.seq, row.body) for row in rows]


@asynccontextmanager
async def started(
    db: Database, signer: Signer, wanted: Wanted, url: str | None, *, actor: AuditActor
) -> AsyncIterator[WholeExport]:
    """An export of everything, archived or not, that is recorded; leaving the block records how it ended.

    The caller has authorised `actor`. Appends `audit.export`, committed before this yields, and
    `audit.export_finished`.
    """
    async with db.reading() as conn:
        places = (await Pruned.look(conn, url)).places
    target = AuditTarget(export.TARGET, new_id())
    meta = {"format": wanted.format, "filters": wanted.filters.document(), "order": wanted.order, "limit": wanted.limit}
    await intents.begin(db, "audit.export", actor, target, {**meta, "archives": places})
    running: WholeExport | None = None
    try:
        async with db.transaction() as conn:
            made = await checkpoints.make(conn, signer, "critical", datetime.now(UTC))
        async with db.reading() as conn:
            running = WholeExport(wanted, conn, await Pruned.look(conn, url), made.size, made.note)
            yield running
    finally:
        await export.record_end(db, actor, target, running)
