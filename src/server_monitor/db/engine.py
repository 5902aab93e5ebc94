"""The database: SQLite in one file by default, PostgreSQL by configuration. The same statements run on both.

SQLite has one writer. Everybody who wants to write queues for the one writing connection; whoever finishes while others
wait leaves its work in the open transaction, and one commit (one fsync) makes the whole queue durable. Readers have
connections of their own and never wait for the writer (WAL).
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, ExceptionContext, event, make_url, text
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as NoneFree
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from server_monitor.db.driver import on_sqlite
from server_monitor.errors import AuditUnavailable, Unavailable
from server_monitor.telemetry import metrics
from server_monitor.telemetry.logs import logger

log = logger(__name__)

BUSY_TIMEOUT_S = 5.0  # how long another process may hold SQLite's write lock before we say "unavailable"
TURN_TIMEOUT_S = 20.0  # how long a writer waits for those before it, and a reader for a free connection
READERS = 8
POSTGRES_POOL = 10

# SQLSTATEs of PostgreSQL that our statements are not to blame for: it is going away, coming up or out of something;
# and two transactions that were in each other's way, one of which may be tried again.
_SURROUNDINGS = ("08", "53", "57", "58")
_COLLISIONS = frozenset({"40001", "40P01", "55P03"})
_LOST = "The connection to the database was lost. Look whether the change was made before you repeat it."

WriteLast = Callable[[AsyncConnection, list[Any]], Awaitable[None]]
_LAST = "server_monitor.written_last"
_SAVEPOINT_DUE = "server_monitor.savepoint_due"


def at_commit(conn: AsyncConnection, write: WriteLast, *items: Any) -> None:
    """Have `write(conn, items)` run as the last thing before the commit, once for all transactions that share it.

    `items` are those of the transactions that succeeded, in the order of their calls. When `write` fails, none of them
    happens. A lock that everybody needs is then held for the shortest time, and taken once.
    """
    assert conn.sync_connection is not None
    conn.sync_connection.info.setdefault(_LAST, []).extend([(write, item) for item in items])


@dataclass(slots=True, eq=False)
class _Group:
    """Transactions that one commit will make durable together."""

    members: int = 0
    settled: bool = False
    commit: asyncio.Task[None] | None = None
    failure: BaseException | None = field(default=None, repr=False)
    last: list[tuple[WriteLast, Any]] = field(default_factory=list)


class Database:
    """Where the truth is. `node` names this console in what it writes to the audit log."""

    def __init__(self, reader: AsyncEngine, writer: AsyncEngine, node: str) -> None:
        self._reader = reader
        self._writer = writer
        self.dialect = writer.dialect.name
        self.node = node
        self._turn = asyncio.Lock()
        self._connection: AsyncConnection | None = None
        self._group: _Group | None = None

    @classmethod
    async def open(cls, url: str, *, node: str = "local") -> "Database":
        """Connect, and refuse settings that could lose acknowledged changes.

        Raises Unavailable when the database cannot be reached or is not set up for durability.
        """
        engines = _sqlite_engines(url, node) if url.startswith("sqlite") else _postgres_engines(url, node)
        database = cls(*engines, node)
        try:
            async with asyncio.timeout(15):
                await database._check_durability()
        except (DBAPIError, OSError, TimeoutError) as error:
            await database.close()
            raise Unavailable(f"The database cannot be opened: {_cause(error)}") from error
        except BaseException:
            await database.close()
            raise
        return database

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A consistent snapshot, for reading only. Raises Unavailable when the database is busy or gone."""
        try:
            async with _connected(self._reader) as conn, conn.begin():
                yield conn
        except DBAPIError as error:
            raise _unavailable_or(error) from error

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Changes that happen all or not at all, durable once the block has been left without an exception.

        Do not open one inside another, and do not wait for anything but the database inside: every writer queues here.
        Raises Unavailable when the database is locked, full or gone; then nothing was changed, unless PostgreSQL went
        away during the commit itself.
        """
        return self._grouped() if self.dialect == "sqlite" else self._alone()

    @asynccontextmanager
    async def migrating(self) -> AsyncIterator[AsyncConnection]:
        """One transaction for changing the schema, with nobody else writing.

        On SQLite foreign keys are off in it and checked before it ends: a table that has to be recreated would
        otherwise delete the rows that refer to it.
        """
        async with self._turn, self._writer.connect() as conn:
            if self.dialect == "sqlite":
                await _pragma(conn, "foreign_keys=OFF")
            try:
                async with conn.begin():
                    yield conn
                    if self.dialect == "sqlite":
                        await _require_no_orphans(conn)
            finally:
                if self.dialect == "sqlite":
                    await _pragma(conn, "foreign_keys=ON")

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
        await self._writer.dispose()
        await self._reader.dispose()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with _connected(self._writer) as conn, conn.begin():
                try:
                    yield conn
                finally:
                    last = _info(conn).pop(_LAST, [])
                await _write_last(conn, last)
        except DBAPIError as error:
            raise _unavailable_or(error) from error
        metrics.database_commits.inc()
        metrics.database_transactions.inc()

    @asynccontextmanager
    async def _grouped(self) -> AsyncIterator[AsyncConnection]:
        group: _Group | None = None
        await self._take_turn()
        try:
            group, conn = await self._join()
            try:
                yield conn
            except BaseException:
                await self._leave(conn)
                raise
            await self._stay(conn, group)
        except DBAPIError as error:
            raise _unavailable_or(error) from error
        finally:
            self._turn.release()
            if group is not None:
                # Shielded: a caller that gives up now must not leave the others' work uncommitted.
                group.commit = group.commit or asyncio.create_task(self._settle(group))
                await asyncio.shield(group.commit)
        if isinstance(group.failure, Unavailable):
            raise type(group.failure)(str(group.failure)) from group.failure
        if group.failure is not None:
            # A full disk shows at the commit; whoever had a record to write hears that it is the record that failed.
            kind = AuditUnavailable if group.last else Unavailable
            raise kind("The change could not be made durable; nothing was changed.") from group.failure

    async def _take_turn(self) -> None:
        try:
            async with asyncio.timeout(TURN_TIMEOUT_S):
                await self._turn.acquire()
        except TimeoutError:
            raise Unavailable("The database is busy; nothing was changed. Try again in a moment.") from None

    async def _join(self) -> tuple[_Group, AsyncConnection]:
        """The open group, or a new one with a transaction begun for it. The caller holds the turn."""
        if self._connection is not None and self._connection.invalidated:
            await self._abandon(Unavailable("The connection to the database was lost; nothing was changed."))
        if self._connection is None:
            self._connection = await self._writer.connect()
        if self._group is None:
            await self._connection.begin()
            self._group = _Group()
        _info(self._connection)[_SAVEPOINT_DUE] = True
        return self._group, self._connection

    async def _stay(self, conn: AsyncConnection, group: _Group) -> None:
        """Make this member's part one with the group's.

        The savepoint was set by the first statement (`_set_savepoint`), so a member that only has something written
        last costs no statement of its own.
        """
        # First of all: a member that is cancelled from here on happens with everything that belongs to it.
        info = _info(conn)
        group.last += info.pop(_LAST, [])
        group.members += 1
        if not info.pop(_SAVEPOINT_DUE, False):
            try:
                await on_sqlite(conn, lambda plain: plain.execute("RELEASE member"))
            except DBAPIError as error:
                await self._abandon(error)
                raise

    async def _leave(self, conn: AsyncConnection) -> None:
        """Undo this member's part alone."""
        info = _info(conn)
        info.pop(_LAST, None)
        if info.pop(_SAVEPOINT_DUE, False):
            return
        try:
            # Both at once: nothing that cancels a second time gets between them.
            await on_sqlite(
                conn, lambda plain: [plain.execute(f"{what} member") for what in ("ROLLBACK TO", "RELEASE")]
            )
        except (DBAPIError, PendingRollbackError) as error:
            # Some failures, a full disk among them, end the whole transaction and with it everybody's part.
            await self._abandon(error)

    async def _settle(self, group: _Group) -> None:
        """Commit the group.

        The turn is handed on in order, so everyone who waited when its first member finished has joined by now.
        """
        async with self._turn:
            if group.settled:
                return
            assert self._connection is not None
            transaction = self._connection.get_transaction()
            if transaction is None or self._connection.invalidated:
                await self._abandon(Unavailable("The connection to the database was lost; nothing was changed."))
                return
            try:
                await _write_last(self._connection, group.last)
                await transaction.commit()
            except (DBAPIError, Unavailable) as error:
                await self._abandon(error)
                return
            except BaseException as error:
                await self._abandon(error)
                raise
            group.settled = True
            self._group = None
            metrics.database_commits.inc()
            metrics.database_transactions.inc(group.members)

    async def _abandon(self, error: BaseException) -> None:
        """Give up the open group and its connection; each member learns that nothing was changed."""
        log.error("database_commit_failed", cause=_cause(error))
        if self._group is not None:
            self._group.settled = True
            self._group.failure = error
            self._group = None
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.close()  # which rolls back
        except DBAPIError:
            await connection.invalidate()

    async def _check_durability(self) -> None:
        async with self._writer.connect() as conn:
            if self.dialect == "sqlite":
                await _require(conn, "PRAGMA journal_mode", {"wal"})
                await _require(conn, "PRAGMA synchronous", {"2"})
                await _require(conn, "PRAGMA foreign_keys", {"1"})
                return
            await _require(conn, "SHOW fsync", {"on"})
            await _require(conn, "SHOW full_page_writes", {"on"})
            await _require(conn, "SHOW synchronous_commit", {"on", "local", "remote_write", "remote_apply"})


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection of the pool. When the pool can give none, that is never the fault of who asked."""
    try:
        conn = await engine.connect()
    except NoneFree as error:
        raise Unavailable("The database is busy: no connection was free for a while. Try again in a moment.") from error
    except (DBAPIError, OSError) as error:
        raise Unavailable("The database cannot be reached; nothing was changed. Try again in a moment.") from error
    try:
        yield conn
    finally:
        # Shielded, as in AsyncConnection's own exit: a caller that gives up now still returns what it took.
        await asyncio.shield(conn.close())


def _info(conn: AsyncConnection) -> dict[Any, Any]:
    """What the connection carries with it; nothing once it is lost.

    Others use the connection after its transaction: each takes away what is its own.
    """
    is_lost = conn.sync_connection is None or conn.invalidated or conn.closed
    return {} if is_lost else conn.sync_connection.info  # type: ignore[union-attr]


async def _write_last(conn: AsyncConnection, last: list[tuple[WriteLast, Any]]) -> None:
    by_writer: dict[WriteLast, list[Any]] = {}
    for write, item in last:
        by_writer.setdefault(write, []).append(item)
    for write, items in by_writer.items():
        await write(conn, items)


def _sqlite_engines(url: str, node: str) -> tuple[AsyncEngine, AsyncEngine]:
    path = Path(url.removeprefix("sqlite:///"))
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise Unavailable(f"The database cannot be opened: {path.parent} is not a directory that can be written.")
    async_url = f"sqlite+aiosqlite:///{path}"
    options: dict[str, Any] = {
        "connect_args": {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        "execution_options": {"audit_node": node},
    }
    writer = create_async_engine(async_url, pool_size=1, max_overflow=1, **options)
    reader = create_async_engine(
        async_url,
        pool_size=READERS,
        max_overflow=0,
        pool_timeout=TURN_TIMEOUT_S,
        pool_reset_on_return=None,  # `reading` has ended its transaction, or SQLAlchemy does when it closes.
        pool_use_lifo=True,  # As few connections as will do: each has a cache and a thread that keeps memory.
        **options,
    )
    event.listen(writer.sync_engine, "connect", _prepare_sqlite_writer)
    event.listen(reader.sync_engine, "connect", _prepare_sqlite_reader)
    event.listen(writer.sync_engine, "before_cursor_execute", _set_savepoint)
    event.listen(writer.sync_engine, "begin", lambda conn: conn.exec_driver_sql("BEGIN IMMEDIATE"))
    event.listen(reader.sync_engine, "begin", lambda conn: conn.exec_driver_sql("BEGIN"))
    return reader, writer


def _set_savepoint(conn: Connection, *_statement: Any) -> None:
    """Before the first statement of a member of a group: mark where to go back to if it fails."""
    if conn.info.pop(_SAVEPOINT_DUE, False):
        conn.exec_driver_sql("SAVEPOINT member")


def _prepare_sqlite_writer(connection: Any, _record: Any) -> None:
    # The driver's own implicit transactions are deferred, which fails when two of them read and then write.
    connection.isolation_level = None
    cursor = connection.cursor()
    # In this order: auto_vacuum only takes hold before the first page of a new file is written.
    for pragma in ("auto_vacuum=INCREMENTAL", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _prepare_sqlite_reader(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "query_only=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _postgres_engines(url: str, node: str) -> tuple[AsyncEngine, AsyncEngine]:
    async_url = make_url(url).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(
        async_url,
        pool_size=POSTGRES_POOL,
        max_overflow=POSTGRES_POOL,
        pool_timeout=TURN_TIMEOUT_S,
        pool_pre_ping=True,
        connect_args={"timeout": 10, "command_timeout": 60},
        execution_options={"audit_node": node},
    )
    event.listen(engine.sync_engine, "handle_error", _blame_the_network, retval=True)
    reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return reader, engine


def _blame_the_network(context: ExceptionContext) -> Exception | None:
    """asyncpg lets errors of the network and its own deadlines through as they are.

    Only here, inside a statement, can they be told from errors of the same class that our own code raises.
    """
    if not isinstance(context.original_exception, OSError):  # of which TimeoutError is one
        return None
    context.is_disconnect = True
    return Unavailable(_LOST)


async def _require(conn: AsyncConnection, question: str, good: set[str]) -> None:
    answer = str((await conn.execute(text(question))).scalar())
    if answer not in good:
        raise Unavailable(f"The database could lose acknowledged changes: {question} says {answer!r}.")


async def _pragma(conn: AsyncConnection, pragma: str) -> None:
    """Set a pragma outside of any transaction, where foreign_keys alone takes effect."""

    def execute(connection: Connection) -> None:
        cursor = connection.connection.cursor()
        cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    await conn.run_sync(execute)


async def _require_no_orphans(conn: AsyncConnection) -> None:
    orphans = (await conn.execute(text("PRAGMA foreign_key_check"))).all()
    if orphans:
        raise Unavailable(f"The migration would leave {len(orphans)} rows that refer to nothing; nothing was changed.")


def blames_surroundings(error: DBAPIError) -> bool:
    """Was the database in no state to take the statement, so that the same may be tried again later?"""
    return isinstance(_unavailable_or(error), Unavailable)


def _unavailable_or(error: DBAPIError) -> Exception:
    """Unavailable for what the database's surroundings cause; the error itself for what our statements cause."""
    cause = _cause(error)
    for sign in ("database is locked", "database or disk is full", "disk I/O error", "readonly database"):
        if sign in cause:
            return Unavailable(f"The database cannot take changes now: {sign}.")
    state = getattr(error.orig, "sqlstate", None) or ""
    if state in _COLLISIONS:
        return Unavailable("Somebody else was changing the same; nothing was changed. Try again in a moment.")
    if error.connection_invalidated or state.startswith(_SURROUNDINGS):
        return Unavailable(_LOST)
    return error


def _cause(error: BaseException) -> str:
    """What the driver said, without the statement and its parameters, which may hold secrets."""
    return str(error.orig) if isinstance(error, DBAPIError) else str(error)
