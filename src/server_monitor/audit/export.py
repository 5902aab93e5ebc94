"""Takes records out of the log: as CSV or JSON for people and programs, or as the very lines that were hashed.

An export is recorded before its first byte (`audit.export`), and after its last (`audit.export_finished`, with rows,
bytes and digest, or outcome `failure`). What a kill leaves open, the next start completes. The rows come from one
snapshot in batches, so memory does not grow with them, and writers go on meanwhile.
"""

import base64
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Protocol

import orjson
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import batches, cells, checkpoints, cursor, intents, pages
from server_monitor.audit.batches import Shape
from server_monitor.audit.cells import Noticed, Stored
from server_monitor.audit.chain import AuditActor, AuditTarget, timestamp
from server_monitor.audit.checkpoints import Signer
from server_monitor.audit.cursor import Place
from server_monitor.audit.pages import Page, Pruned, Wanted
from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id
from server_monitor.errors import TooMany

BATCH = 1000  # records
BATCH_BYTES = 1024 * 1024  # or fewer, where there are large ones
AT_ONCE = 4
TARGET = "audit_export"
RETRY_AFTER_S = 5

CSV = "csv"
JSON = "json"
JSONL = "jsonl"
MEDIA_TYPES: Mapping[str, str] = MappingProxyType(
    {CSV: "text/csv; charset=utf-8", JSON: "application/json", JSONL: "application/x-ndjson"}
)
_FORMATTERS: Mapping[str, Callable[[Sequence[Stored], Noticed], bytes]] = MappingProxyType(
    {CSV: cells.csv_rows, JSON: cells.json_items, JSONL: cells.json_lines}
)
_BEGINS: Mapping[str, bytes] = MappingProxyType({CSV: cells.CSV_HEADER, JSON: b'{"items":['})


class Turns:
    """Who does something long now, such as `an export`: each person once, and few at a time, so that it leaves room."""

    def __init__(self, at_once: int = AT_ONCE, what: str = "an export") -> None:
        self._at_once = at_once
        self._what = what
        self._users: set[str] = set()

    @contextmanager
    def taken_by(self, user: str) -> Iterator[None]:
        """One turn. Raises TooMany when this person, or too many others, have one."""
        if user in self._users:
            raise TooMany(f"You have {self._what} running; the next may start when it has ended.", RETRY_AFTER_S)
        if len(self._users) >= self._at_once:
            words = f"{self._at_once} people have {self._what} running; try again when one has ended."
            raise TooMany(words, RETRY_AFTER_S)
        self._users.add(user)
        try:
            yield
        finally:
            self._users.discard(user)


@dataclass(slots=True)
class Export:
    """An export whose start is recorded. Read `chunks`, and say `delivered` once they have arrived."""

    page: Page
    place: Place
    format: str
    checkpoint: str  # the signed note of a tree that holds every record of the export
    next: str | None
    conn: AsyncConnection
    pruned: Pruned | None = None  # what it may lack
    rows: int = 0
    unreadable: int = 0  # of them: only tampering makes such records
    size_bytes: int = 0
    was_delivered: bool = False
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    @property
    def headers(self) -> dict[str, str]:
        """What is known before the first byte."""
        return {
            "X-Row-Count": str(self.page.count),
            "X-Next-Cursor": self.next or "",
            "X-Snapshot-Size": str(self.place.snapshot),
            "X-Checkpoint": base64.b64encode(self.checkpoint.encode()).decode(),
            **_lacking(self.pruned),
        }

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The whole text, at most a thousand records at a time."""
        if begin := _BEGINS.get(self.format):
            yield self._counted(begin)
        formatter = _FORMATTERS[self.format]
        shape = Shape(
            lambda records: formatter(records, self._unread), b"," if self.format == JSON else b"", BATCH, BATCH_BYTES
        )
        async with aclosing(batches.chunks(self.conn, self.page.records, shape)) as made:
            async for count, chunk in made:
                self.rows += count
                yield self._counted(chunk)
        if self.format == JSON:
            rest = {"count": self.rows, "next": self.next, "checkpoint": self.checkpoint}
            yield self._counted(b"]," + orjson.dumps(rest)[1:])

    def delivered(self) -> None:
        self.was_delivered = True

    def _unread(self, _seq: int) -> None:
        self.unreadable += 1

    def _counted(self, chunk: bytes) -> bytes:
        self.size_bytes += len(chunk)
        self.digest.update(chunk)
        return chunk


@asynccontextmanager
async def started(
    db: Database, signer: Signer, secret: SecretStr, wanted: Wanted, *, actor: AuditActor
) -> AsyncIterator[Export]:
    """An export that is recorded; leaving the block records how it ended. The caller has authorised `actor`.

    Appends `audit.export`, committed before this yields, and `audit.export_finished`.
    """
    async with db.reading() as conn:
        place = await pages.first_place(conn, wanted, actor)
    target = AuditTarget(TARGET, new_id())
    await intents.begin(db, "audit.export", actor, target, _intent(wanted, place))
    export: Export | None = None
    try:
        note = await _checkpoint(db, signer, place.snapshot)
        async with db.reading() as conn:
            place = await pages.settled(conn, wanted, place)
            page = await pages.choose(conn, wanted, place)
            following = None if page.following is None else cursor.seal(page.following, secret)
            gone = await pages.pruned(conn, wanted.filters)
            export = Export(page, place, wanted.format, note, following, conn, gone)
            yield export
    finally:
        await record_end(db, actor, target, export)


class Sent(Protocol):
    """What was taken out of the log."""

    @property
    def rows(self) -> int: ...

    @property
    def unreadable(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def was_delivered(self) -> bool: ...

    @property
    def digest(self) -> "hashlib._Hash": ...


async def record_end(db: Database, actor: AuditActor, target: AuditTarget, sent: Sent | None) -> None:
    """Record how an export or a bundle ended; None when it did not come as far as its first byte."""
    meta: dict[str, object] = {"rows": 0, "bytes": 0}
    if sent is not None:
        meta = {"rows": sent.rows, "bytes": sent.size_bytes, "sha256": sent.digest.hexdigest()}
        meta |= {"unreadable": sent.unreadable} if sent.unreadable else {}
    is_success = sent is not None and sent.was_delivered
    outcome, reason = ("success", None) if is_success else ("failure", "export.cut_off")
    await intents.end(db, "audit.export", actor, target, outcome=outcome, meta=meta, reason=reason)


def filename(wanted: Wanted, node: str, now: datetime) -> str:
    """What a browser saves it as."""
    filters = wanted.filters
    since = f"{filters.from_at:%Y%m%d}" if filters.from_at else "start"
    until = f"{filters.to_at or now:%Y%m%d}"
    return f"audit-{node[:8]}-{since}-{until}.{wanted.format}"


def _lacking(gone: Pruned | None) -> dict[str, str]:
    if gone is None:
        return {}
    return {"X-First-Seq": str(gone.first_seq), "X-Pruned-Before": timestamp(gone.before)}


def _intent(wanted: Wanted, place: Place) -> dict[str, object]:
    return {
        "format": wanted.format,
        "filters": dict(place.filters),
        "order": wanted.order,
        "limit": wanted.limit,
        "snapshot": place.snapshot,
        "from_seq": place.next_seq,
    }


async def _checkpoint(db: Database, signer: Signer, size: int) -> str:
    """The note of a checkpoint that covers `size` records, made if there is none."""
    async with db.reading() as conn:
        made = await checkpoints.covering(conn, size)
    if made is None:
        async with db.transaction() as conn:
            made = await checkpoints.make(conn, signer, "critical", datetime.now(UTC))
    return made.note
