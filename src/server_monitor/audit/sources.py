"""Reads a log for the verifier from where it lies: a live database, and without changing anything there.

Everything read here is handed on as it is found: a column of the wrong type, a note that is none and a frontier of 31
bytes are for the verifier to judge. Only what cannot be read at all is refused here.
"""

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from server_monitor.audit import note, tree
from server_monitor.audit.note import Verifier
from server_monitor.audit.segment import open_segment, split_notes
from server_monitor.audit.verify import COLUMNS, RECORD_LIMIT_BYTES, Aspect, Finding, Part, Row, StoredNote, Unreadable
from server_monitor.errors import Invalid, Unavailable

BATCH_ROWS = 500
CONNECT_TIMEOUT_S = 15.0
STATEMENT_TIMEOUT_S = 120.0
NOTES_LIMIT_BYTES = 64 * 1024 * 1024
EPOCHS = 1000  # far more than a log is ever continued after a rollback
LIVE = "the database"


@dataclass(frozen=True, slots=True)
class Log:
    """A log opened for one pass over it. `epoch` is what it says about itself."""

    part: Part | Finding
    notes: Iterator[StoredNote]
    size: int
    epoch: int


class _Reader(Protocol):
    """One consistent snapshot of a database."""

    def rows(self, statement: str) -> Iterator[Sequence[Row]]: ...


@contextmanager
def database(url: str) -> Iterator[Log]:
    """The log in this database as it stands now, while others go on writing.

    Raises Unavailable when there is no such database, or no log in it.
    """
    opened = _sqlite(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else _postgres(url)
    with opened as (reader, body, ts):
        try:
            yield _log(reader, body, ts)
        except Unreadable as error:
            raise Unavailable(f"The audit log cannot be read: {error}.") from error


def _log(reader: _Reader, body: str, ts: str) -> Log:
    heads = [
        row for rows in reader.rows("SELECT size, frontier, min_index, prefix, epoch FROM audit_head") for row in rows
    ]
    if len(heads) != 1:
        raise Unavailable("There is no audit log in this database.")
    size, frontier, min_index, prefix, epoch = heads[0]
    if not all(type(number) is int and number >= 0 for number in (size, min_index, epoch)) or min_index > size:
        changed = Finding(Aspect.INTEGRITY, "head_wrong", "The head of the log was changed: its numbers make no sense.")
        return Log(changed, _notes(reader), 0, 1)
    columns = ", ".join(ts if column == "ts" else column for column in COLUMNS)
    part = Part(
        LIVE,
        min_index,
        _split(prefix),
        reader.rows(f"SELECT seq, {body}, {columns} FROM audit_records ORDER BY seq"),  # noqa: S608  # Our own names.
        end_seq=size,
        frontier=_split(frontier),
    )
    return Log(part, _notes(reader), size, epoch)


def _notes(reader: _Reader) -> Iterator[StoredNote]:
    statement = f"SELECT size, root, substr(note, 1, {note.SIZE_LIMIT_BYTES + 1}) FROM audit_checkpoints ORDER BY size"  # noqa: S608  # Our own number.
    for rows in reader.rows(statement):
        for size, root, text in rows:
            yield StoredNote(text if type(text) is str else "", size, root, LIVE)


def _split(frontier: Any) -> Sequence[bytes]:
    """A stored frontier taken apart; what is none becomes one that fits nowhere."""
    if frontier is None:
        return ()
    return tree.split(frontier) if type(frontier) is bytes else (b"",)


# --- SQLite ---


@contextmanager
def _sqlite(path: str) -> Iterator[tuple[_Reader, str, str]]:
    file = Path(path).absolute()
    if not file.is_file():
        raise Unavailable(f"There is no database {file}.")
    with closing(_open_file(file)) as connection:
        yield (
            _SqliteReader(connection),
            f"CASE WHEN typeof(body) = 'blob' AND length(body) <= {RECORD_LIMIT_BYTES} THEN body END",
            "ts",
        )


def _open_file(file: Path) -> sqlite3.Connection:
    """Opened so that it cannot be changed, in one snapshot. A copy on read-only media has nobody who writes."""
    failure: sqlite3.Error | None = None
    for how in ("mode=ro", "mode=ro&immutable=1"):
        if "immutable" in how and file.with_name(file.name + "-wal").exists():
            break
        connection = sqlite3.connect(f"{file.as_uri()}?{how}", uri=True, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("BEGIN")
            connection.execute("SELECT size FROM audit_head").fetchall()
        except sqlite3.Error as error:
            connection.close()
            failure = error
        else:
            return connection
    raise Unavailable(f"{file} cannot be read as a database with an audit log: {failure}.")


class _SqliteReader:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, statement: str) -> Iterator[Sequence[Row]]:
        batch: list[Row] = []
        given = 0
        try:
            for row in self._connection.execute(statement):
                batch.append(row)
                if len(batch) == BATCH_ROWS:
                    yield batch
                    given += len(batch)
                    batch = []
        except (sqlite3.Error, OverflowError, MemoryError) as error:
            yield batch
            raise Unreadable(str(error)) from error
        yield batch


# --- PostgreSQL ---


@contextmanager
def _postgres(url: str) -> Iterator[tuple[_Reader, str, str]]:
    with asyncio.Runner() as runner:
        try:
            connection = runner.run(
                asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S, command_timeout=STATEMENT_TIMEOUT_S)
            )
        except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Unavailable(f"The database cannot be reached: {error}") from error
        try:
            transaction = connection.transaction(isolation="repeatable_read", readonly=True)
            runner.run(transaction.start())
            yield (
                _PostgresReader(connection, runner),
                f"CASE WHEN octet_length(body) <= {RECORD_LIMIT_BYTES} THEN body END",
                """to_char(ts AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""",
            )
        finally:
            runner.run(connection.close(timeout=CONNECT_TIMEOUT_S))


class _PostgresReader:
    def __init__(self, connection: Any, runner: asyncio.Runner) -> None:
        self._connection = connection
        self._runner = runner

    def rows(self, statement: str) -> Iterator[Sequence[Row]]:
        try:
            cursor = self._runner.run(_cursor(self._connection, statement))
            while batch := self._runner.run(cursor.fetch(BATCH_ROWS)):
                yield batch
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Unreadable(str(error)) from error


async def _cursor(connection: Any, statement: str) -> Any:
    return await connection.cursor(statement)


# --- a bundle ---


def bundle(path: Path) -> Log:
    """The log in a bundle, or in one segment of an archive. Raises Unavailable when it is neither."""
    if not path.is_file():
        raise Unavailable(f"There is no file {path}.")
    try:
        segment = open_segment(path.name, lambda: path.open("rb"))
    except (Unreadable, OSError) as error:
        raise Unavailable(f"{path} cannot be read as a bundle: {error}.") from error
    said = segment.manifest
    return Log(segment.part(is_prunable=True), segment.notes(), said.end_seq - said.first_seq, 1)


# --- keys and checkpoints that somebody kept ---


def pinned_keys(path: Path) -> list[Verifier]:
    """The keys in a file: one line each, as `audit key` prints them; lines that begin with # say what they are.

    Raises Invalid or Unavailable.
    """
    lines = [line.strip() for line in _text(path).splitlines()]
    keys = [Verifier.parse(line) for line in lines if line and not line.startswith("#")]
    if not keys:
        raise Invalid.one("public key", f"{path} holds no key; save the line that `server-monitor audit key` prints")
    return keys


def local_keys(data_dir: Path, epoch: int) -> list[Verifier]:
    """The public side of this installation's signing key under each name it has signed with; none when it has none."""
    try:
        node = (data_dir / "instance_id").read_text().strip()
        encoded = (data_dir / "audit" / "signing_key").read_text().strip()
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(encoded))
    except (OSError, ValueError):
        return []
    epochs = range(1, min(epoch, EPOCHS) + 1)
    return [note.verifier_of(f"{node}/server-monitor/audit/{number}", key) for number in epochs]


def kept_checkpoints(path: Path) -> list[StoredNote]:
    """The signed notes in a file, one after the other. Raises Invalid or Unavailable."""
    notes = split_notes(_text(path))
    for text in notes:
        note.read(text)
    if not notes:
        raise Invalid.one("checkpoint", f"{path} holds none; save what `server-monitor audit checkpoint` prints")
    return [StoredNote(text, place=path.name, is_outside=True) for text in notes]


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(NOTES_LIMIT_BYTES).decode()
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise Unavailable(f"{path} is not text.") from error
