"""Reads a log for the verifier from where it lies: a live database, an archive, a bundle. Nothing there is changed.

Everything read here is handed on as it is found: a column of the wrong type, a note that is none and a frontier of 31
bytes are for the verifier to judge. Only what cannot be read at all is refused here.
"""

import asyncio
import hashlib
import heapq
import io
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import asyncpg
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from server_monitor.audit import note, reading, stated, tree
from server_monitor.audit.archive import Archive
from server_monitor.audit.nodes import Kept
from server_monitor.audit.note import Verifier
from server_monitor.audit.reading import COLUMNS, RECORD_LIMIT_BYTES
from server_monitor.audit.segment import Segment, open_segment, split_notes
from server_monitor.audit.verify import (
    Aspect,
    Finding,
    Part,
    Row,
    StoredNote,
    Unreadable,
    claimed_size,
)
from server_monitor.errors import Invalid, NotFound, Unavailable

BATCH_ROWS = 500
CONNECT_TIMEOUT_S = 15.0
STATEMENT_TIMEOUT_S = 120.0
NOTES_LIMIT_BYTES = 64 * 1024 * 1024
EPOCHS = 1000  # far more than a log is ever continued after a rollback
ANCHORS = 50  # the newest checkpoints that were stored in an archive
LIVE = "the database"
_SEGMENT = re.compile(r"(?:.*/)?([0-9]{12,18})-([0-9]{12,18})-[0-9a-f]{16}(?:-[0-9]+)?\.tar\.gz").fullmatch
_AGAIN = re.compile(r"(.*)-([0-9]+)\.tar\.gz").fullmatch
_ANCHOR = re.compile(r".*/checkpoints/([0-9]{12,18})-[0-9a-f]{16}\.txt").fullmatch
_QUIET = re.compile(r".*/checkpoints/quiet/[0-9]{8}T[0-9]{2}-[0-9]{12,18}-[0-9a-f]{16}\.txt").fullmatch
# In the order in which the records complete them.
_NODES = "SELECT level, idx, hash FROM audit_nodes ORDER BY (idx + 1) << level, level"
_HOLDS = "SELECT id, CAST(filters AS text) FROM audit_holds WHERE released_at IS NULL"
_ARCHIVED = b'{"action":"audit.archive",'


@dataclass(frozen=True, slots=True)
class Log:
    """A log opened for one pass over it. It says of itself that it holds the records [first_seq, end_seq).

    `epoch` is how often it says that it began.
    """

    parts: Iterable[Part | Finding]
    notes: Iterator[StoredNote]
    first_seq: int
    end_seq: int
    epoch: int
    outside: Sequence[StoredNote] = ()
    objects: "_Objects | None" = None  # of an archive
    kept: Kept | None = None  # of a database

    @property
    def records(self) -> int:
        return self.end_seq - self.first_seq


@contextmanager
def opened(database_url: str, archives: Sequence[str]) -> Iterator[Log]:
    """The log in this database, in these archives, or in both together. Raises Unavailable."""
    with ExitStack() as exits:
        if not database_url:
            yield alone(exits.enter_context(archive(*archives)))
        elif not archives:
            yield exits.enter_context(database(database_url))
        else:
            # In this order: what is archived meanwhile is still in the database.
            archived = exits.enter_context(archive(*archives))
            live = exits.enter_context(database(database_url))
            if live.first_seq > archived.end_seq:  # Unless it was pruned meanwhile as well, or is missing.
                archived = exits.enter_context(archive(*archives))
            yield joined(archived, live)


def joined(archived: Log, live: Log) -> Log:
    """An archive and the database that went on from it, as one log: what the database pruned is in the archive."""
    rest = (replace(part, is_prunable=False) if isinstance(part, Part) else part for part in live.parts)
    parts = chain(archived.parts, rest)
    return Log(
        archived.objects.watched(parts) if archived.objects else parts,
        heapq.merge(archived.notes, live.notes, key=claimed_size),
        archived.first_seq,
        live.end_seq,
        max(archived.epoch, live.epoch),
        archived.outside,
        kept=live.kept,
    )


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
        return Log([changed], _notes(reader), 0, 0, 1)
    columns = ", ".join(ts if column == "ts" else column for column in COLUMNS)
    part = Part(
        LIVE,
        min_index,
        _split(prefix),
        reader.rows(f"SELECT seq, {body}, {columns} FROM audit_records ORDER BY seq"),  # noqa: S608  # Our own names.
        end_seq=size,
        frontier=_split(frontier),
    )
    return Log(_with_holds(part, reader), _notes(reader), min_index, size, epoch, kept=Kept(min_index, _nodes(reader)))


def _notes(reader: _Reader) -> Iterator[StoredNote]:
    statement = f"SELECT size, root, substr(note, 1, {note.SIZE_LIMIT_BYTES + 1}) FROM audit_checkpoints ORDER BY size"  # noqa: S608  # Our own number.
    for rows in reader.rows(statement):
        for size, root, text in rows:
            yield StoredNote(text if type(text) is str else "", size, root, LIVE)


def _with_holds(part: Part, reader: _Reader) -> Iterator[Part | Finding]:
    """The part, and behind it the holds that its records state and the table has not so."""
    said: list[tuple[int, bytes]] = []
    is_whole = False

    def noting() -> Iterator[Sequence[Row]]:
        nonlocal is_whole
        for batch in part.batches:
            said.extend((row[0], row[1]) for row in batch if type(row[1]) is bytes and row[1].startswith(stated.MAY_BE))
            yield batch
        is_whole = True

    yield replace(part, batches=noting())
    if not is_whole:
        return
    try:
        kept = {identity: stated.filters_of(text) for rows in reader.rows(_HOLDS) for identity, text in rows}
    except Unreadable as error:
        yield Finding(Aspect.INTEGRITY, "holds_unreadable", f"The holds cannot be read: {error}.")
        return
    for hold in stated.changed(stated.stated(said), kept):
        words = (
            f"The hold {hold.name!r} was changed in the database by hand: record {hold.seq} states it, and none says "
            f"that it was removed."
        )
        yield Finding(Aspect.INTEGRITY, "hold_changed", words)


def _nodes(reader: _Reader) -> Iterator[Sequence[Row]]:
    """Where they cannot be read any further stands one that fits nowhere."""
    try:
        yield from reader.rows(_NODES)
    except Unreadable:
        yield [(None, None, None)]


def _split(frontier: Any) -> Sequence[bytes]:
    """A stored frontier taken apart; what is none becomes one that fits nowhere."""
    if frontier is None:
        return ()
    return tree.split(frontier) if type(frontier) is bytes else (b"",)


# --- SQLite ---

# These say nothing about what is stored; the second byte of an error's code tells more than is needed here.
_OUT_OF_REACH_CODES = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
}


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
        given = 0
        try:
            cursor = self._connection.execute(statement)
            while batch := cursor.fetchmany(BATCH_ROWS):
                yield batch
                given += len(batch)
        except (sqlite3.Error, OverflowError, MemoryError):
            yield from self._rest(statement, given)

    def _rest(self, statement: str, given: int) -> Iterator[Sequence[Row]]:
        """The rows up to the one that cannot be read, one at a time, and what is wrong with that."""
        try:
            for row in islice(self._connection.execute(statement), given, None):
                yield (row,)
        except (sqlite3.Error, OverflowError, MemoryError) as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _OUT_OF_REACH_CODES:
                raise Unavailable(f"The database cannot be read: {error}.") from error
            raise Unreadable(str(error)) from error


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


# These say nothing about what is stored.
_OUT_OF_REACH = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
)


class _PostgresReader:
    def __init__(self, connection: Any, runner: asyncio.Runner) -> None:
        self._connection = connection
        self._runner = runner

    def rows(self, statement: str) -> Iterator[Sequence[Row]]:
        try:
            cursor = self._runner.run(_cursor(self._connection, statement))
            while batch := self._runner.run(cursor.fetch(BATCH_ROWS)):
                yield batch
        except _OUT_OF_REACH as error:
            raise Unavailable(f"The database stopped answering: {str(error) or type(error).__name__}.") from error
        except asyncpg.PostgresError as error:
            raise Unreadable(str(error)) from error


async def _cursor(connection: Any, statement: str) -> Any:
    return await connection.cursor(statement)


# --- an archive ---


@dataclass(frozen=True, slots=True)
class _Object:
    """A segment in one of the archives, as its name says."""

    first_seq: int
    end_seq: int
    name: str
    store: int


@contextmanager
def archive(*urls: str) -> Iterator[Log]:
    """The log in an archive: every segment, and the newest checkpoints that were stored beside them.

    Several URLs are one archive that was moved: a segment may lie in more than one of them. A URL may also be the path
    of a directory. Raises Unavailable.
    """
    places = [_place(url) for url in urls]
    with asyncio.Runner() as runner:
        stores = [Archive(place) for place in places]
        names = [runner.run(_names(store)) for store in stores]
        yield _archived(names, lambda name, store: runner.run(stores[store].get(name)).data)


def _place(url: str) -> str:
    place = url if "://" in url else Path(url).absolute().as_uri()
    if place.startswith("file:") and not Path(unquote(urlsplit(place).path)).is_dir():
        raise Unavailable(f"There is no archive {url}.")
    return place


def alone(archived: Log) -> Log:
    """An archive without the database that goes on from it: where it ends nothing says whether that is the end.

    The checkpoints that lie beside the segments go on longer in every archive of a log that is alive, and whoever takes
    segments away can take those too: they say nothing of how far it has to reach. Raises Unavailable when there is
    nothing in it.
    """
    if not archived.end_seq:
        raise Unavailable("There is no segment in this archive.")
    open_ended = (replace(part, may_go_on=True) if isinstance(part, Part) else part for part in archived.parts)
    parts = archived.objects.watched(open_ended) if archived.objects else open_ended
    return replace(archived, parts=parts, outside=[replace(kept, is_outside=False) for kept in archived.outside])


async def _names(store: Archive) -> list[str]:
    return [name async for name in store.keys()]  # noqa: SIM118  # Not a mapping.


class _Objects:
    """Everything that lies in the archives, held against what the log says was put there (`audit.archive`).

    A segment that never was right is put again under a further name, `…-2.tar.gz`; the last of those is read, and the
    log says which of them was verified. What it does not speak of does not belong there.
    """

    def __init__(self, names: Sequence[Sequence[str]], get: Callable[[str, int], bytes]) -> None:
        self._get = get
        self._digests: dict[tuple[str, int], str] = {}  # of the objects that were read
        self._recorded: dict[str, set[str]] = {}  # the last part of a name: SHA-256
        self.read: list[_Object] = []
        self._passed_over: list[tuple[str, str, int]] = []  # name, the name that is read instead, store
        self._strangers: list[str] = []
        for store, listed in enumerate(names):
            newest = _newest_attempts(listed)
            for name in listed:
                match = _SEGMENT(name)
                if match is None:
                    if not _ANCHOR(name) and not _QUIET(name):
                        self._strangers.append(name)
                elif newest[_first_attempt(name)] == name:
                    self.read.append(_Object(int(match[1]), int(match[2]), name, store))
                else:
                    self._passed_over.append((name, newest[_first_attempt(name)], store))
        self.read.sort(key=lambda one: (one.first_seq, one.end_seq, one.name, one.store))

    def fetch(self, name: str, store: int) -> bytes:
        """Raises Unavailable and NotFound."""
        data = self._get(name, store)
        if (name, store) not in self._digests:
            self._digests[name, store] = hashlib.sha256(data).hexdigest()
        return data

    def watched(self, parts: Iterable[Part | Finding]) -> Iterator[Part | Finding]:
        """The same parts, and behind them what is wrong with the objects."""
        for part in parts:
            yield replace(part, batches=self._seen(part.batches)) if isinstance(part, Part) else part
        yield from self._findings()

    def _seen(self, batches: Iterable[Sequence[Row]]) -> Iterator[Sequence[Row]]:
        for batch in batches:
            for row in batch:
                if isinstance(row[1], bytes) and row[1].startswith(_ARCHIVED):
                    self._note(row[1])
            yield batch

    def _note(self, body: bytes) -> None:
        """A record that says what was put into the archive."""
        if reading.read(body) is None:
            return
        record = orjson.loads(body)
        name, meta = record.get("target", {}).get("name"), record.get("meta")
        digest = meta.get("sha256") if isinstance(meta, dict) else None
        if record["outcome"] == "success" and isinstance(name, str) and isinstance(digest, str):
            self._recorded.setdefault(_last_part(name), set()).add(digest)

    def _is_recorded(self, name: str) -> bool:
        return _last_part(name) in self._recorded

    def _findings(self) -> Iterator[Finding]:
        for name in self._strangers:
            yield _odd(
                "object_unknown", f"{name} does not belong into the archive: it is no segment and no checkpoint."
            )
        for name, other, store in self._passed_over:
            yield from self._judge_passed_over(name, other, store)
        for (name, _), digest in self._digests.items():
            if digest not in self._recorded.get(_last_part(name), {digest}):
                words = f"{name} is not what was archived: the log says that it has another SHA-256."
                yield _odd("object_altered", words)

    def _judge_passed_over(self, name: str, other: str, store: int) -> Iterator[Finding]:
        if self._is_recorded(name):
            with suppress(NotFound):
                self.fetch(name, store)  # It is compared like those that were read.
            if not self._is_recorded(other):
                words = f"{other} does not belong into the archive: the log says that {name} was archived."
                yield _odd("object_extra", words)
        elif not self._is_recorded(other):
            words = f"{name} lies beside {other}, and nothing that was given says which of them was archived."
            yield Finding(Aspect.COMPLETENESS, "object_doubtful", words, is_doubt=True)


def _odd(code: str, message: str) -> Finding:
    return Finding(Aspect.INTEGRITY, code, message)


def _last_part(name: str) -> str:
    """Of the name of an object: the same wherever a copy of the archive lies."""
    return name.rpartition("/")[2]


def _first_attempt(name: str) -> str:
    again = _AGAIN(name)
    return f"{again[1]}.tar.gz" if again and _SEGMENT(f"{again[1]}.tar.gz") else name


def _newest_attempts(names: Sequence[str]) -> dict[str, str]:
    """For each segment the last of the names that it was put under, by the first."""
    newest: dict[str, tuple[int, str]] = {}
    for name in names:
        again, first = _AGAIN(name), _first_attempt(name)
        attempt = int(again[2]) if again and first != name else 1
        newest[first] = max(newest.get(first, (0, "")), (attempt, name))
    return {first: name for first, (_, name) in newest.items()}


def _archived(names: Sequence[Sequence[str]], get: Callable[[str, int], bytes]) -> Log:
    # The records of a segment and the notes of the next are read in turn.
    objects = _Objects(names, lru_cache(maxsize=2)(get))
    kept = sorted(
        (int(match[1]), match.string, store)
        for store, listed in enumerate(names)
        for match in map(_ANCHOR, listed)
        if match
    )
    return Log(
        _segments(objects),
        _archived_notes(objects),
        objects.read[0].first_seq if objects.read else 0,
        max((one.end_seq for one in objects.read), default=0),
        EPOCHS,
        [_anchor(name, get(name, store)) for _, name, store in kept[-ANCHORS:]],
        objects,
    )


def _segments(objects: _Objects) -> Iterator[Part | Finding]:
    reached = 0
    before: _Object | None = None
    for one in objects.read:
        if one.end_seq <= reached and not _is_copy(one, before):
            message = f"{one.name} holds records that another segment holds: it does not belong into the archive."
            yield Finding(Aspect.INTEGRITY, "segment_extra", message, one.first_seq, one.end_seq - 1)
            continue
        reached, before = one.end_seq, one
        try:
            said = _segment(one, objects)
        except (Unreadable, NotFound) as error:
            message = f"{one.name} cannot be read: {error}."
            yield Finding(Aspect.INTEGRITY, "segment_unreadable", message, one.first_seq, one.end_seq - 1)
            continue
        if (said.manifest.first_seq, said.manifest.end_seq) != (one.first_seq, one.end_seq):
            message = f"{one.name} holds other records than its name says."
            yield Finding(Aspect.INTEGRITY, "segment_renamed", message, one.first_seq, one.end_seq - 1)
        yield said.part(is_prunable=False)


def _is_copy(one: _Object, before: _Object | None) -> bool:
    """Is this the segment before it, in another archive? It is read as well, and has to hold the same."""
    return before is not None and one.name == before.name and one.store != before.store


def _archived_notes(objects: _Objects) -> Iterator[StoredNote]:
    before: _Object | None = None
    for one in objects.read:
        if _is_copy(one, before):
            continue
        before = one
        try:
            yield from _segment(one, objects).notes()
        except (Unreadable, NotFound):
            continue  # It is found when its records are read.


def _segment(one: _Object, objects: _Objects) -> Segment:
    data = objects.fetch(one.name, one.store)
    return open_segment(one.name, lambda: io.BytesIO(data))


def _anchor(name: str, data: bytes) -> StoredNote:
    return StoredNote(data.decode(errors="replace"), place=name, is_outside=True)


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
    return Log([segment.part(is_prunable=True)], segment.notes(), said.first_seq, said.end_seq, EPOCHS)


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
