"""A log to attack, and an attacker who owns the database: the guards of the tables are in nobody's way."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import orjson

from server_monitor.audit import checkpoints, log, note, segment, tree
from server_monitor.audit.chain import AuditActor, AuditTarget, Event
from server_monitor.audit.checkpoints import Signer
from server_monitor.audit.note import Checkpoint
from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id

ORIGIN = "test-node/server-monitor/audit/1"  # of what a console named test-node signs
ACTOR = AuditActor("user", "0193f1c2-7a00-7000-8000-000000000001", "ada", ("admin",))


async def fill(db: Database, signer: Signer, counts: Sequence[int]) -> list[str]:
    """Append so many records and sign them, for each count; returns the notes."""
    notes = []
    for count in counts:
        async with db.transaction() as conn:
            await log.append(conn, *[event(number) for number in range(count)])
        notes.append(await sign(db, signer))
    return notes


async def append(db: Database, *events: Event) -> None:
    async with db.transaction() as conn:
        await log.append(conn, *events)


async def sign(db: Database, signer: Signer) -> str:
    async with db.transaction() as conn:
        return (await checkpoints.make(conn, signer, "grown", datetime.now(UTC))).note


def event(number: int) -> Event:
    target = AuditTarget("server", f"s{number}", f"web {number}")
    return Event("server.create", ACTOR, target, meta={"number": number})


def frontier_of(bodies: Sequence[bytes], size: int) -> tuple[bytes, ...]:
    frontier: tuple[bytes, ...] = ()
    for index in range(size):
        frontier = tree.grow(frontier, index, tree.leaf_hash(bodies[index]))
    return frontier


def renumbered(body: bytes, seq: int) -> bytes:
    """The same record with another number inside, in canonical form."""
    return orjson.dumps(orjson.loads(body) | {"seq": seq}, option=orjson.OPT_SORT_KEYS)


class Forger:
    """Runs any statement on any database, `?` for a value."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite:///")

    @property
    def path(self) -> Path:
        return Path(self.url.removeprefix("sqlite:///"))

    async def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return (await self.run_many(statement, [values]))[0]

    async def run_many(self, statement: str, many: Sequence[Sequence[Any]]) -> list[list[tuple[Any, ...]]]:
        """The statement once for each of `many`, with what each returned."""
        if self.is_sqlite:
            return self._on_sqlite(statement, many)
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute("SET session_replication_role = replica")
            async with connection.transaction():
                return [[tuple(row) for row in await connection.fetch(_numbered(statement), *one)] for one in many]
        finally:
            await connection.close()

    async def bodies(self) -> list[bytes]:
        return [body for (body,) in await self.run("SELECT body FROM audit_records ORDER BY seq")]

    async def records(self) -> dict[int, bytes]:
        """Each body by its place."""
        return dict((await self.run_many("SELECT seq, body FROM audit_records ORDER BY seq", [()]))[0])  # type: ignore[arg-type]

    async def first(self) -> int:
        """The first record that has not been pruned."""
        return int((await self.run("SELECT min_index FROM audit_head"))[0][0])

    async def frontier(self, size: int | None = None) -> tuple[int, tuple[bytes, ...]]:
        """(size, frontier) of the tree of the first `size` records, or of all, as the records are now."""
        [(reached, prefix)] = await self.run("SELECT min_index, prefix FROM audit_head")
        frontier = tree.split(prefix or b"")
        for body in (await self.bodies())[: None if size is None else size - reached]:
            frontier, reached = tree.grow(frontier, reached, tree.leaf_hash(body)), reached + 1
        return reached, frontier

    async def fix_head(self) -> None:
        """Make the head fit the records, as whoever wrote them would."""
        size, frontier = await self.frontier()
        await self.run("UPDATE audit_head SET size = ?, frontier = ?", size, b"".join(frontier))
        await self.fix_nodes()

    async def fix_nodes(self) -> None:
        """Make the inner nodes fit the records that there are."""
        [(reached, prefix)] = await self.run("SELECT min_index, prefix FROM audit_head")
        frontier, nodes = tree.split(prefix or b""), list[tuple[int, int, bytes]]()
        for size, body in enumerate(await self.bodies(), reached):
            frontier = tree.grow(frontier, size, tree.leaf_hash(body), lambda *node: nodes.append(node))
        await self.run("DELETE FROM audit_nodes WHERE (idx + 1) << level > ?", reached)
        if nodes:
            await self.run_many("INSERT INTO audit_nodes (level, idx, hash) VALUES (?, ?, ?)", nodes)

    async def rewrite(self, change: Callable[[bytes], bytes], signer: Signer) -> None:
        """Change every record, and sign the whole history anew."""
        bodies = {seq: change(body) for seq, body in (await self.records()).items()}
        changed = [(body, orjson.loads(body)["actor"]["name"], seq) for seq, body in bodies.items()]
        await self.run_many("UPDATE audit_records SET body = ?, actor_name = ? WHERE seq = ?", changed)
        await self.fix_head()
        first = await self.first()
        for (size,) in await self.run("SELECT size FROM audit_checkpoints WHERE size >= ?", first):
            root = tree.root((await self.frontier(size))[1])
            signed = note.sign(Checkpoint(signer.origin(1), size, root), {signer.origin(1): signer.key})
            await self.run("UPDATE audit_checkpoints SET root = ?, note = ? WHERE size = ?", root, signed, size)

    async def prune(self, below: int) -> None:
        """Delete the first records, as if they were archived; some may have been before."""
        _, frontier = await self.frontier(below)
        await self.run("DELETE FROM audit_records WHERE seq < ?", below)
        await self.run("UPDATE audit_head SET min_index = ?, prefix = ?", below, b"".join(frontier))

    async def add_checkpoint(self, size: int, root: bytes, text: str) -> None:
        now = datetime.now(UTC)
        made_at = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if self.is_sqlite else now
        await self.run(
            "INSERT INTO audit_checkpoints (id, size, root, note, made_at, why) VALUES (?, ?, ?, ?, ?, ?)",
            new_id(),
            size,
            root,
            text,
            made_at,
            "grown",
        )

    async def bundle(self) -> bytes:
        """What the console would give out if it believed its database."""
        size, frontier, min_index, prefix = (
            await self.run("SELECT size, frontier, min_index, prefix FROM audit_head")
        )[0]
        manifest = segment.Manifest(ORIGIN, min_index, size, tree.split(prefix or b""), tree.root(tree.split(frontier)))
        notes = [text for (text,) in await self.run("SELECT note FROM audit_checkpoints ORDER BY size")]
        return b"".join(segment.pack(manifest, notes, await self.bodies()))

    def _on_sqlite(self, statement: str, many: Sequence[Sequence[Any]]) -> list[list[tuple[Any, ...]]]:
        with closing(sqlite3.connect(self.path)) as connection:
            triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
            for name, _ in triggers:
                connection.execute(f"DROP TRIGGER {name}")
            rows = [connection.execute(statement, values).fetchall() for values in many]
            for _, text in triggers:
                connection.execute(text)
            connection.commit()
        return rows


def _numbered(statement: str) -> str:
    first, *rest = statement.split("?")
    return first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))
