"""The recordings of DATA_DIR: begun, shown, verified against the audit log, and what is done when one is not as it was.

Whoever sees what was on a screen leaves a record, committed before the first byte. A recording that is gone or was
changed raises an alarm: a record `recording.alarm`, once, and a state of the session that every list shows.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditActor, AuditTarget
from server_monitor.audit.chain import Event as Record
from server_monitor.auth.actor import Actor, Permission, allows, audited
from server_monitor.db.engine import Database
from server_monitor.db.ids import MENTIONED, is_id
from server_monitor.db.tables import terminal_sessions
from server_monitor.errors import Denied, Gone, NotFound, Unavailable
from server_monitor.telemetry import metrics
from server_monitor.telemetry.logs import logger
from server_monitor.terminal import casting, ledger, recording
from server_monitor.terminal.chain import Check, Finding, Opening, Verdict
from server_monitor.terminal.events import MARKER, Event
from server_monitor.terminal.keys import Keyring
from server_monitor.terminal.recording import Damaged, Progress, Recorder
from server_monitor.terminal.sessions import may_see_own

SYSTEM: Final = AuditActor("system", None, "system:recordings")
WRITERS: Final = 4  # threads that wait for the disk, apart from those of the rest of the console
PIECE_BYTES: Final = 64 * 1024
SAID: Final = 5  # findings that a record keeps
ARCHIVED_ONLY: Final = "The recording is in the archive only; its record in the audit log says where."

_T = terminal_sessions
_OUTCOMES = {Verdict.INTACT: "success", Verdict.UNPROVEN: "unknown"}
_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found. The numbers are those of the file's whole chunks."""

    verdict: Verdict
    findings: tuple[Finding, ...]
    chunks: int = 0
    head: bytes = b""
    size_bytes: int = 0

    @property
    def is_alarming(self) -> bool:
        return self.verdict in {Verdict.DAMAGED, Verdict.MISSING}


class Library:
    """One directory of recordings and the database that has their sessions."""

    def __init__(self, db: Database, directory: Path, keyring: Keyring) -> None:
        self._db = db
        self._directory = directory
        self._keyring = keyring
        self._writers = ThreadPoolExecutor(WRITERS, "recording")

    def close(self) -> None:
        """Recorders have ended. A thread that a dead disk holds is not waited for."""
        self._writers.shutdown(wait=False)

    def path(self, session_id: str) -> Path:
        """Where the recording is: by the month in which its session was asked for, which the id says."""
        at = datetime.fromtimestamp(int(session_id[:8] + session_id[9:13], 16) / 1000, UTC)
        return self._directory / f"{at:%Y-%m}" / f"{session_id}.rec"

    async def begin(self, opening: Opening) -> Recorder:
        """Begin a recording. Raises RecordingFailed."""
        key = self._keyring.make(opening.session_id)
        return await Recorder.begin(self.path(opening.session_id), key, opening, self._writers)

    async def settle(self, session_id: str) -> Progress | None:
        """Close what a dead console left; None when nothing of it is there. Raises Unavailable."""
        return await asyncio.to_thread(recording.settle, self.path(session_id), self._keyring, session_id)

    async def row(self, session_id: str, *, actor: Actor) -> Row[Any]:
        """The session whose recording this actor may see. Raises NotFound and Denied."""
        async with self._db.reading() as conn:
            return await readable(conn, session_id, actor=actor)

    # --- shown ---

    async def show(self, session_id: str, form: str, action: str, *, actor: Actor) -> "Shown":
        """The recording, to be read; `action` (`recording.view` or `recording.export`) is recorded when this returns.

        Raises NotFound, Denied, Gone when it is missing, archived or no recording, and Unavailable.
        """
        row = await self.row(session_id, actor=actor)
        path = self.path(session_id)
        try:
            opening = await asyncio.to_thread(recording.opening_of, path, self._keyring, session_id)
        except NotFound:
            raise await self._why_gone(row) from None
        except Damaged:
            finding = Finding("not_a_recording", "The file does not begin as a recording does.", 0)
            await self.note(row, Verification(Verdict.DAMAGED, (finding,)))
            raise Gone("The recording is damaged and cannot be read.") from None
        is_damaged = await self._is_of_another_size(row)
        meta = {**about(row), "format": form}
        async with self._db.transaction() as conn:
            await log.append(conn, Record(action, audited(actor), target(row), meta=meta))
        return Shown(self, row, form, opening, is_known_damaged=is_damaged)

    async def _is_of_another_size(self, row: Row[Any]) -> bool:
        """Is a recording that was closed known to be damaged, or found so because its file has grown or shrunk?"""
        if row.recording == "damaged":
            return True
        if not _is_closed(row):
            return False
        try:
            size_bytes = (await asyncio.to_thread(self.path(row.id).stat)).st_size
        except FileNotFoundError:
            raise await self._why_gone(row) from None
        return size_bytes != row.recording_bytes and (await self.verify_row(row)).is_alarming

    def parts(self, session_id: str, first: int = 1) -> Iterator[recording.Part]:
        """What was recorded, chunk by chunk. Blocks; raises as `recording.read` does."""
        return recording.read(self.path(session_id), self._keyring, session_id, first)

    async def _why_gone(self, row: Row[Any]) -> Exception:
        if row.recording == "archived":
            return Gone(ARCHIVED_ONLY)
        if row.started_at is None:
            return NotFound("recording", row.id)
        if row.owner != self._db.node:
            return _elsewhere(row)
        finding = Finding("missing", "The file of the recording is not there.")
        await self.note(row, Verification(Verdict.MISSING, (finding,)))
        return Gone("The recording is missing. An alarm was raised.")

    # --- verified ---

    async def verify(self, session_id: str, *, actor: Actor) -> Verification:
        """Hold a recording against the audit log. Appends `recording.verify`.

        Raises NotFound, Denied, Gone when it is archived, and Unavailable.
        """
        row = await self.row(session_id, actor=actor)
        if row.started_at is None:
            raise NotFound("recording", session_id)
        return await self.verify_row(row, audited(actor))

    async def verify_closed(self, session_id: str) -> Verification:
        """The same, by the console itself, for a session that has just ended. Raises NotFound and Unavailable."""
        async with self._db.reading() as conn:
            row = (await conn.execute(select(_T).where(_T.c.id == session_id))).one_or_none()
        if row is None:
            raise NotFound("terminal session", session_id)
        return await self.verify_row(row)

    async def verify_row(self, row: Row[Any], who: AuditActor = SYSTEM) -> Verification:
        """The same, for whoever may."""
        path = self.path(row.id)
        if row.recording == "archived" and not path.exists():
            raise Gone(ARCHIVED_ONLY)
        # In this order: the log says nothing that was not in the file before.
        known = await ledger.logged(self._db, row.id, row.created_at, row.finished_at)
        against = Check(row.id, known, is_over=row.status != "active")
        try:
            found = await asyncio.to_thread(recording.check, path, self._keyring, against)
        except NotFound:
            if row.owner != self._db.node:
                raise _elsewhere(row) from None
            against.find("missing", "The file of the recording is not there.")
            verification = Verification(Verdict.MISSING, tuple(against.findings))
        else:
            findings = tuple(against.findings)
            verification = Verification(against.verdict, findings, found.chunks, found.head, found.size_bytes)
        await self.note(row, verification, who)
        return verification

    async def note(self, row: Row[Any], found: Verification, who: AuditActor | None = None) -> None:
        """Keep what was found. Appends `recording.alarm` when it is news and bad, and `recording.verify` for `who`."""
        # Whoever closed a session may have found its recording missing, and left it to be verified.
        is_news = found.is_alarming and (row.recording != found.verdict or row.verified_at is None)
        if who is None and not is_news:
            return
        meta = {**about(row), **_said(found)}
        async with self._db.transaction() as conn:
            await _keep_verdict(conn, row, found)
            if who is not None:
                outcome = _OUTCOMES.get(found.verdict, "failure")
                await log.append(conn, Record("recording.verify", who, target(row), outcome, meta=meta))
            if is_news:
                await log.append(
                    conn, Record("recording.alarm", SYSTEM, target(row), "failure", found.verdict.value, meta=meta)
                )
        if is_news:
            metrics.recording_alarms.inc()
            _log.error("recording_alarm", session_id=row.id, verdict=found.verdict.value)


async def readable(conn: AsyncConnection, session_id: str, *, actor: Actor) -> Row[Any]:
    """The session of a recording that the actor may see. Raises NotFound, and Denied to who only opened it."""
    found = None
    if is_id(session_id):
        found = (await conn.execute(select(_T).where(_T.c.id == session_id))).one_or_none()
    if found is not None and allows(actor, Permission.RECORDING_READ, found.groups):
        return found
    if found is not None and actor.id is not None and found.user_id == actor.id and may_see_own(actor):
        raise Denied(f"This takes the permission {Permission.RECORDING_READ.value} for the server.")
    raise NotFound("terminal session", session_id[:MENTIONED])


def _elsewhere(row: Row[Any]) -> Unavailable:
    return Unavailable(f"The recording is in the data directory of another console, {row.owner}; ask that one.")


def target(row: Row[Any]) -> AuditTarget:
    return AuditTarget(ledger.TARGET, row.id, row.server_name, tuple(row.groups))


def about(row: Row[Any]) -> dict[str, Any]:
    """Of whose session a record speaks."""
    return {"server_id": row.server_id, "server": row.server_name, "account": row.account, "of": row.user_name}


def _said(found: Verification) -> dict[str, Any]:
    findings = [{"code": one.code, "chunk": one.chunk} for one in found.findings[:SAID]]
    return {"verdict": found.verdict.value, "chunks": found.chunks, "head": found.head.hex(), "findings": findings}


async def _keep_verdict(conn: AsyncConnection, row: Row[Any], found: Verification) -> None:
    values: dict[str, Any] = {"verified_at": datetime.now(UTC)}
    if found.is_alarming:
        values["recording"] = found.verdict.value
    elif row.recording in {"unverified", "damaged", "missing"}:
        values["recording"] = "verified" if found.verdict is Verdict.INTACT else "unverified"
    # Only what is still as it was read: somebody may have closed or archived it meanwhile.
    await conn.execute(update(_T).where(_T.c.id == row.id, _T.c.recording == row.recording).values(**values))


def _is_closed(row: Row[Any]) -> bool:
    """Does the row say with which chunk the recording ended? Of one that a dead console left it does not yet."""
    return bool(row.status != "active" and row.recording != "open")


class Shown:
    """A recording that somebody may read now, in one form."""

    def __init__(self, library: Library, row: Row[Any], form: str, opening: Opening, *, is_known_damaged: bool) -> None:
        self._library = library
        self._row = row
        self._form = form
        self._opening = opening
        self._is_known_damaged = is_known_damaged
        self._finding: Finding | None = None
        self._said: str | None = None  # of the damage, at the end of what is shown

    @property
    def is_damaged(self) -> bool:
        """Known before, or found while it was read."""
        return self._is_known_damaged or self._finding is not None

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """All of it, in pieces. Where it can be read no further it ends; a damaged one says so at its end."""
        making = self._made()
        turn = threading.Lock()  # Who leaves in the middle of a piece closes behind it.

        def make() -> bytes | None:
            with turn:
                return next(making, None)

        def close() -> None:
            with turn:
                making.close()

        try:
            while (piece := await asyncio.to_thread(make)) is not None:
                yield piece
        finally:
            await asyncio.to_thread(close)
        if self._finding is not None and not self._is_known_damaged:
            await self._library.note(self._row, Verification(Verdict.DAMAGED, (self._finding,)))

    def _made(self) -> Generator[bytes, None, None]:
        """In a thread."""
        gathered: list[bytes] = []
        size = 0
        for line in casting.exported(self._form, self._opening, self._events()):
            gathered.append(line)
            size += len(line)
            if size >= PIECE_BYTES:
                yield b"".join(gathered)
                gathered, size = [], 0
        if self._said is not None and self._form == casting.TEXT:
            gathered.append(f"[{self._said}]\n".encode())
        if gathered:
            yield b"".join(gathered)

    def _events(self) -> Iterator[Event]:
        at_us, last = 0, (0, b"")
        try:
            for part in self._library.parts(self._row.id):
                last = part.number, part.head
                for event in part.events:
                    at_us = event.at_us
                    yield event
        except (Damaged, NotFound, Unavailable) as error:
            damage = error if isinstance(error, Damaged) else Damaged(0)
            self._finding = Finding("does_not_open", f"Found while it was read: {damage}.", damage.chunk)
            self._said = _UNREADABLE
        else:
            self._finding = self._misses(*last)
            self._said = _DIFFERS if self.is_damaged else None
        if self._said is not None:
            yield Event(at_us, MARKER, self._said.encode())

    def _misses(self, chunks: int, head: bytes) -> Finding | None:
        """What is wrong with an end after so many chunks, for a recording that was closed."""
        row = self._row
        if not _is_closed(row) or (chunks, head if chunks else row.head) == (row.chunks, row.head):
            return None
        code = "too_short" if chunks < row.chunks else "extended" if chunks > row.chunks else "head_differs"
        return Finding(code, f"It ended with chunk {row.chunks}, and now ends otherwise, with chunk {chunks}.", chunks)


_UNREADABLE = "damaged: the recording cannot be read from here on"
_DIFFERS = "damaged: this is not what was recorded, or not all of it"
