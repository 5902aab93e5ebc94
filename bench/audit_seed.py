"""Fills an audit log with records that are all different and all in the tree, at disk speed.

Runs as a process of its own, on the console's own settings, while no console runs:

    DATA_DIR=… python -m bench.audit_seed --records 50000
"""

import argparse
import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from server_monitor.audit import chain, tree
from server_monitor.audit.chain import AuditActor, AuditTarget, Circumstances, Event
from server_monitor.cli.output import workplace
from server_monitor.db.ids import new_id

AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0 Safari/537.36"
USERS = [(new_id(), f"user{number}") for number in range(50)]
AT_ONCE = 10_000
_RECORD = (
    "INSERT INTO audit_records (seq, body, id, ts, action, actor_id, actor_name, target_type, target_id, outcome, ip,"
    " request_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def seed(path: Path, node: str, count: int, began: datetime | None = None) -> None:
    """Append `count` records to the log in the SQLite file at `path`, the first from `began`, or now."""
    with closing(sqlite3.connect(path)) as conn:
        size, frontier = conn.execute("SELECT size, frontier FROM audit_head").fetchone()
        roots = tree.split(frontier)
        nodes: list[tuple[int, int, bytes]] = []
        began = began or datetime.now(UTC)
        for first in range(size, size + count, AT_ONCE):
            rows = list(_rows(node, began, first, min(first + AT_ONCE, size + count)))
            for row in rows:
                roots = tree.grow(roots, row[0], tree.leaf_hash(row[1]), lambda *node: nodes.append(node))
            conn.executemany(_RECORD, rows)
        conn.executemany("INSERT INTO audit_nodes (level, idx, hash) VALUES (?, ?, ?)", nodes)
        conn.execute("UPDATE audit_head SET size = ?, frontier = ?", (size + count, b"".join(roots)))
        conn.commit()
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _rows(node: str, began: datetime, first: int, end: int) -> Iterator[tuple[Any, ...]]:
    for seq in range(first, end):
        user_id, name = USERS[seq % len(USERS)]
        target, request, record = new_id(), new_id(), new_id()
        ip = f"10.0.{seq % 7}.{seq % 250}"
        at = began + timedelta(microseconds=seq)
        event = Event(
            "server.update",
            AuditActor("user", user_id, name, ("admin",)),
            AuditTarget("server", target, f"web{seq}"),
            meta={"labels": {"env": "prod"}, "note": "changed by the benchmark", "number": seq},
        )
        source = {"via": "web", "ip": ip, "port": 40000 + seq % 20000, "ua": AGENT}
        circumstances = Circumstances(node, source, {"id": request, "method": "PATCH", "route": "/api/servers/{id}"})
        body = chain.draft(event, circumstances, record).sealed(seq, at, "bench", time.monotonic_ns() // 1000)
        yield (
            *(seq, body, record, chain.timestamp(at), event.action, user_id, name, "server", target, "success"),
            *(ip, request),
        )


async def _place() -> tuple[Path, str]:
    async with workplace() as place:
        return Path(place.settings.database.removeprefix("sqlite:///")), place.db.node


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, required=True)
    given = parser.parse_args()
    seed(*asyncio.run(_place()), given.records)


if __name__ == "__main__":
    main()
