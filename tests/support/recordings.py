"""Recordings as a session makes them: a row, a file, and the records of the audit log."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import insert, select, update

from server_monitor.audit import log
from server_monitor.audit.chain import AuditActor, AuditTarget, Event
from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id
from server_monitor.db.tables import terminal_sessions
from server_monitor.terminal import recording
from server_monitor.terminal.chain import Opening
from server_monitor.terminal.events import OUTPUT
from server_monitor.terminal.keys import Keyring
from server_monitor.terminal.library import Library
from server_monitor.terminal.recording import Progress, Recorder
from tests.support.patience import PATIENCE_S

KEYRING = Keyring(SecretStr("a key of recordings for tests"))
OPERATOR = AuditActor("user", "00000000-0000-7000-8000-000000000002", "olga")


def opening(session_id: str, cols: int = 80, rows: int = 24) -> Opening:
    return Opening(session_id, datetime.now(UTC), cols, rows, server="web01", user="olga")


async def begun(path: Path, session_id: str, **options: object) -> Recorder:
    """A recorder of a file of this session."""
    return await Recorder.begin(path, KEYRING.make(session_id), opening(session_id), **options)


def shown(path: Path, session_id: str) -> bytes:
    """Everything that was shown in the session."""
    return b"".join(event.data for event in recording.events(path, KEYRING, session_id) if event.code == OUTPUT)


async def until(condition: Callable[[], bool]) -> None:
    """Return when it holds, with a deadline."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # What is waited for happens in a thread or another process.
            await asyncio.sleep(0.005)


def contents(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def settled(recorder: Recorder) -> Progress:
    """What is durable once the disk has all that was handed over up to now."""
    while recorder.failure is None and (recorder._pending or recorder._is_writing):
        recorder._flush()
        await asyncio.sleep(0.001)
    return recorder.progress


@dataclass(frozen=True, slots=True)
class Session:
    id: str
    path: Path
    progress: Progress


@dataclass(frozen=True, slots=True)
class Stage:
    """Makes sessions in one library."""

    db: Database
    library: Library

    async def play(
        self,
        *outputs: bytes,
        server_id: str = "00000000-0000-7000-8000-00000000000a",
        groups: Sequence[str] = (),
        ended_days_ago: float = 0,
        is_over: bool = True,
    ) -> Session:
        """A session in which these were printed, one chunk each, with all its records. Unless it is over it runs on."""
        session_id = new_id()
        recorder = await self.library.begin(opening(session_id))
        await self._insert(session_id, server_id, groups, ended_days_ago)
        await self._record(session_id, "terminal.connect", recorder.progress, phase="intent", outcome=None)
        for output in outputs:
            recorder.output(output)
            await settled(recorder)
            await self._record(session_id, "terminal.head", recorder.progress)
        if is_over:
            progress = await recorder.end(0)
            await self._record(session_id, "terminal.disconnect", progress, phase="outcome")
            await self._end(session_id, progress, ended_days_ago)
        return Session(session_id, self.library.path(session_id), recorder.progress)

    async def state(self, session_id: str) -> str:
        async with self.db.reading() as conn:
            found = select(terminal_sessions.c.recording).where(terminal_sessions.c.id == session_id)
            return str(await conn.scalar(found))

    async def _insert(self, session_id: str, server_id: str, groups: Sequence[str], days_ago: float) -> None:
        at = datetime.now(UTC) - timedelta(days=days_ago, minutes=5)
        async with self.db.transaction() as conn:
            await conn.execute(
                insert(terminal_sessions).values(
                    id=session_id,
                    user_id=OPERATOR.id,
                    user_name=OPERATOR.name,
                    server_id=server_id,
                    server_name="web01",
                    account="root",
                    groups=list(groups),
                    request_id="r",
                    status="active",
                    owner=self.db.node,
                    created_at=at,
                    started_at=at,
                    recording="open",
                )
            )

    async def _record(
        self,
        session_id: str,
        action: str,
        progress: Progress,
        *,
        phase: str = "single",
        outcome: str | None = "success",
    ) -> None:
        meta = {"chunks": progress.chunks, "head": progress.head.hex(), "bytes": progress.output_bytes}
        target = AuditTarget("terminal_session", session_id, "web01")
        async with self.db.transaction() as conn:
            await log.append(conn, Event(action, OPERATOR, target, outcome, phase=phase, meta=meta))

    async def _end(self, session_id: str, progress: Progress, days_ago: float) -> None:
        values = {
            "status": "closed",
            "cause": "exited",
            "finished_at": datetime.now(UTC) - timedelta(days=days_ago),
            "recording": "unverified",
            "recording_bytes": progress.size_bytes,
            "output_bytes": progress.output_bytes,
            "chunks": progress.chunks,
            "head": progress.head,
        }
        async with self.db.transaction() as conn:
            await conn.execute(update(terminal_sessions).where(terminal_sessions.c.id == session_id).values(**values))


@asynccontextmanager
async def stage_beside(data_dir: Path) -> AsyncIterator[Stage]:
    """Sessions in the library of a console that runs, or has run, on this directory with its own secrets."""
    node = contents(data_dir / "instance_id").decode().strip()
    db = await Database.open(f"sqlite:///{data_dir / 'server-monitor.sqlite3'}", node=node)
    key = SecretStr(contents(data_dir / "secrets" / "encryption_key").decode().strip())
    library = Library(db, data_dir / "recordings", Keyring(key))
    try:
        yield Stage(db, library)
    finally:
        library.close()
        await db.close()
