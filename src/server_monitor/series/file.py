"""The history's own SQLite file: its tables and every statement on it.

Plain `sqlite3` on purpose: this is the console's hottest path, the file is no part of the relational database, and
nothing here needs a second dialect. `synchronous=NORMAL` in WAL mode writes without waiting for the disk: a killed
process loses nothing it committed, a power cut may lose the seconds since the last checkpoint of the WAL, and neither
damages the file. For history that is the right trade; the audit log makes the other one.
"""

import contextlib
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from server_monitor.errors import Unavailable
from server_monitor.series.tiers import Names, Tier

_APPLICATION_ID = 0x534D4849  # "SMHI"
_FORMAT = 2
_BUSY_TIMEOUT_S = 5.0
_CACHE_KIB = 2048

_SCHEMA = """
create table servers (id integer primary key, server_id text not null unique);
create table layouts (id integer primary key, names text not null unique);  -- a JSON list of series, in order
-- Samples that are in no block yet, a row for each flush and shard, see head.py.
create table log (id integer primary key, shard integer not null, data blob not null);
-- The newest sample of each server when the log was last emptied: one row, like those of the log.
create table newest (id integer primary key, data blob not null);
create table blocks (
    id integer primary key,
    server integer not null,
    tier integer not null,
    period integer not null,   -- its start divided by the tier's period
    settled integer not null,  -- 1: merged, and rolled up into the next tier
    rows integer not null,
    layout integer not null,
    data blob not null
);
create index blocks_by_server on blocks (server, tier, period);
create index blocks_by_age on blocks (tier, settled, period);
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of `blocks`. `server` is the file's own short id of a server."""

    server: int
    tier: Tier
    period: int
    settled: bool
    rows: int
    layout: int
    data: bytes


@dataclass(frozen=True, slots=True)
class TierSize:
    blocks: int
    rows: int
    data_bytes: int
    servers: int
    oldest_period: int | None


def open_file(path: Path) -> sqlite3.Connection:
    """The writing connection, the tables made. Raises Unavailable, naming file and remedy, when that cannot be."""
    try:
        conn = _connect(path)
        _prepare(conn, path)
    except sqlite3.Error as error:
        raise Unavailable(
            f"The history file {path} cannot be used: {error}. Move it away (with its -wal and -shm files) and start "
            "again: a new one is made, and only history is lost."
        ) from error
    return conn


def open_reader(path: Path) -> sqlite3.Connection:
    conn = _connect(path)
    conn.execute("pragma query_only = on")
    return conn


def _connect(path: Path) -> sqlite3.Connection:
    # Connections are handed between the threads of asyncio.to_thread, never used by two at once.
    conn = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    conn.execute(f"pragma cache_size = -{_CACHE_KIB}")
    return conn


def _prepare(conn: sqlite3.Connection, path: Path) -> None:
    owner, version = _pragma(conn, "application_id"), _pragma(conn, "user_version")
    tables = conn.execute("select count(*) from sqlite_schema").fetchone()[0]
    if owner != _APPLICATION_ID and (owner or version or tables):
        raise Unavailable(
            f"{path} is a database, and not a history of server-monitor. Move it away and start again: "
            "a new one is made."
        )
    if tables and version < _FORMAT:
        raise Unavailable(
            f"The history file {path} was written before the first release (format {version}, this is {_FORMAT}). "
            "Move it away and start again: a new one is made."
        )
    if version > _FORMAT:
        raise Unavailable(
            f"The history file {path} was written by a newer server-monitor (format {version}, this one "
            f"knows {_FORMAT}). "
            "Start that version, or move the file away to begin a new history."
        )
    if not tables:
        conn.execute("pragma auto_vacuum = incremental")
        conn.executescript(
            f"begin; {_SCHEMA} pragma application_id = {_APPLICATION_ID}; pragma user_version = {_FORMAT}; commit;"
        )
    conn.execute("pragma journal_mode = wal")
    conn.execute("pragma synchronous = normal")


def _pragma(conn: sqlite3.Connection, name: str) -> int:
    return int(conn.execute(f"pragma {name}").fetchone()[0])


@contextlib.contextmanager
def transaction(conn: sqlite3.Connection) -> Iterator[None]:
    conn.execute("begin immediate")
    try:
        yield
        conn.execute("commit")
    except BaseException:
        # A full disk may have rolled it back already.
        if conn.in_transaction:
            conn.execute("rollback")
        raise


@contextlib.contextmanager
def snapshot(conn: sqlite3.Connection) -> Iterator[None]:
    """Everything read inside is of one moment, which is now."""
    conn.execute("begin")
    conn.execute("select 1 from sqlite_schema limit 1").fetchone()
    try:
        yield
    finally:
        conn.execute("commit")


def servers(conn: sqlite3.Connection) -> dict[str, int]:
    return dict(conn.execute("select server_id, id from servers"))


def add_server(conn: sqlite3.Connection, server_id: str) -> int:
    return conn.execute("insert into servers (server_id) values (?) returning id", (server_id,)).fetchone()[0]  # type: ignore[no-any-return]


def remove_server(conn: sqlite3.Connection, server: int) -> None:
    conn.execute("delete from servers where id = ?", (server,))


def layouts(conn: sqlite3.Connection) -> dict[int, Names]:
    return {id_: tuple(json.loads(names)) for id_, names in conn.execute("select id, names from layouts")}


def layout(conn: sqlite3.Connection, layout_id: int) -> Names | None:
    row = conn.execute("select names from layouts where id = ?", (layout_id,)).fetchone()
    return None if row is None else tuple(json.loads(row[0]))


def add_layout(conn: sqlite3.Connection, names: Names) -> int:
    text = json.dumps(names, ensure_ascii=False)
    return conn.execute("insert into layouts (names) values (?) returning id", (text,)).fetchone()[0]  # type: ignore[no-any-return]


def remove_unused_layouts(conn: sqlite3.Connection, but_for: Collection[int]) -> list[int]:
    rows = conn.execute(
        "delete from layouts where id not in (select layout from blocks) "
        "and id not in (select value from json_each(?)) returning id",
        (json.dumps(sorted(but_for)),),
    )
    return [row[0] for row in rows.fetchall()]


def log_append(conn: sqlite3.Connection, batches: Sequence[tuple[int, bytes]]) -> None:
    conn.executemany("insert into log (shard, data) values (?, ?)", batches)


def log_rows(conn: sqlite3.Connection) -> list[tuple[int, bytes]]:
    """(shard, batch) in the order in which they were appended."""
    return conn.execute("select shard, data from log order by id").fetchall()


def log_clear(conn: sqlite3.Connection) -> None:
    conn.execute("delete from log")


def newest(conn: sqlite3.Connection) -> bytes | None:
    row = conn.execute("select data from newest").fetchone()
    return None if row is None else row[0]


def replace_newest(conn: sqlite3.Connection, batch: bytes) -> None:
    conn.execute("insert or replace into newest (id, data) values (0, ?)", (batch,))


def add_blocks(conn: sqlite3.Connection, stored: Iterable[Stored]) -> None:
    conn.executemany(
        "insert into blocks (server, tier, period, settled, rows, layout, data) values (?, ?, ?, ?, ?, ?, ?)",
        ((b.server, b.tier, b.period, b.settled, b.rows, b.layout, b.data) for b in stored),
    )


def blocks_between(
    conn: sqlite3.Connection, server: int, tier: Tier, periods: tuple[int, int], *, loose_only: bool = False
) -> list[tuple[int, bool, int, bytes]]:
    """(id, settled, layout, data) of periods from first to last, in the order of time; settled before loose."""
    return conn.execute(
        "select id, settled, layout, data from blocks where server = ? and tier = ? and period between ? and ? "
        "and settled <= ? order by period, settled desc, id",
        (server, tier, *periods, 0 if loose_only else 1),
    ).fetchall()


def layouts_used(conn: sqlite3.Connection, server: int) -> list[int]:
    """Layouts of a server's blocks."""
    rows = conn.execute("select distinct layout from blocks where server = ?", (server,))
    return [row[0] for row in rows.fetchall()]


def over(conn: sqlite3.Connection, tier: Tier, before_period: int, limit: int) -> list[tuple[int, int]]:
    """(server, period) pairs whose period is over and which still have loose blocks, the oldest first."""
    return conn.execute(
        "select distinct server, period from blocks where tier = ? and settled = 0 and period < ? "
        "order by period, server limit ?",
        (tier, before_period, limit),
    ).fetchall()


def remove_blocks(conn: sqlite3.Connection, ids: Sequence[int]) -> None:
    conn.executemany("delete from blocks where id = ?", [(id_,) for id_ in ids])


def prune(conn: sqlite3.Connection, tier: Tier, before_period: int, limit: int) -> int:
    """Delete up to `limit` blocks of periods before that; the number deleted."""
    return conn.execute(
        "delete from blocks where id in "
        "(select id from blocks where tier = ? and settled in (0, 1) and period < ? limit ?)",
        (tier, before_period, limit),
    ).rowcount


def remove_blocks_of(conn: sqlite3.Connection, server: int, limit: int) -> int:
    return conn.execute(
        "delete from blocks where id in (select id from blocks where server = ? limit ?)", (server, limit)
    ).rowcount


def pages(conn: sqlite3.Connection) -> tuple[int, int, int]:
    """(pages in the file, pages of those that hold nothing, bytes of a page)"""
    return _pragma(conn, "page_count"), _pragma(conn, "freelist_count"), _pragma(conn, "page_size")


def give_back(conn: sqlite3.Connection, count: int) -> None:
    """Return up to `count` empty pages to the file system."""
    conn.execute(f"pragma incremental_vacuum({count})").fetchall()


def tier_size(conn: sqlite3.Connection, tier: Tier) -> TierSize:
    row = conn.execute(
        "select count(*), coalesce(sum(rows), 0), coalesce(sum(length(data)), 0), count(distinct server), min(period) "
        "from blocks where tier = ?",
        (tier,),
    ).fetchone()
    return TierSize(*row)
