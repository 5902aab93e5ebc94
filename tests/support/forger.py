"""A log to attack, and an attacker who owns the database: the guards of the tables are in nobody's way."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from server_monitor.audit import checkpoints, log
from server_monitor.audit.chain import AuditActor, AuditTarget, Event
from server_monitor.audit.checkpoints import Signer
from server_monitor.db.engine import Database

ACTOR = AuditActor("user", "0193f1c2-7a00-7000-8000-000000000001", "ada", ("admin",))


async def fill(db: Database, signer: Signer, counts: Sequence[int]) -> list[str]:
    """Append so many records and sign them, for each count; returns the notes."""
    notes = []
    for count in counts:
        async with db.transaction() as conn:
            await log.append(conn, *[_event(number) for number in range(count)])
        async with db.transaction() as conn:
            notes.append((await checkpoints.make(conn, signer, "grown", datetime.now(UTC))).note)
    return notes


def _event(number: int) -> Event:
    target = AuditTarget("server", f"s{number}", f"web {number}")
    return Event("server.create", ACTOR, target, meta={"number": number})


class Forger:
    """Runs any statement on any database, `?` for a value."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.is_sqlite = url.startswith("sqlite:///")

    @property
    def path(self) -> Path:
        return Path(self._url.removeprefix("sqlite:///"))

    async def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        if self.is_sqlite:
            return self._on_sqlite(statement, values)
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute("SET session_replication_role = replica")
            rows = await connection.fetch(_numbered(statement), *values)
        finally:
            await connection.close()
        return [tuple(row) for row in rows]

    def _on_sqlite(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as connection:
            triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
            for name, _ in triggers:
                connection.execute(f"DROP TRIGGER {name}")
            rows = connection.execute(statement, values).fetchall()
            for _, text in triggers:
                connection.execute(text)
            connection.commit()
        return rows


def _numbered(statement: str) -> str:
    first, *rest = statement.split("?")
    return first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))
