"""Verifying a million records on one core: from the live database, and from a bundle of it."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.harness import Figure, Measured, Options, Result, at_most, column, in_turn, main, say

RECORDS = 1_000_000
QUICK_RECORDS = 20_000
BATCH = 1000  # records for each checkpoint


def measure(options: Options) -> Result:
    records = QUICK_RECORDS if options.quick else RECORDS
    with TemporaryDirectory(prefix="server-monitor-bench-") as folder:
        place = Path(folder)
        say(f"writing {records:,} records")
        asyncio.run(_write(place, records))
        sides: dict[str, Callable[[], Measured]] = {
            "database": lambda: _judge_database(place),
            "bundle": lambda: _judge_bundle(place),
        }
        measured = in_turn(sides, options.rounds)
        size_bytes = (place / "log.sqlite3").stat().st_size
    whole = f"{records:,} records"
    goal = at_most(20.0 * records / RECORDS)
    return Result(
        "audit_verify",
        "Verifying the audit log",
        [
            Figure(f"{whole}, database", "CPU s", column(measured["database"], "cpu_s"), goal),
            Figure(f"{whole}, database", "s", column(measured["database"], "wall_s")),
            Figure(f"{whole}, bundle", "CPU s", column(measured["bundle"], "cpu_s"), goal),
            Figure("memory while reading the database, above before", "MiB", column(measured["database"], "more_mib")),
        ],
        [
            f"One process, one thread; a checkpoint for each {BATCH:,} records, each signature checked.",
            f"The database is {size_bytes / 1024**2:.0f} MiB; each record is parsed, compared and hashed.",
        ],
    )


async def _write(place: Path, records: int) -> None:
    from server_monitor.audit import bundle, checkpoints, log
    from server_monitor.audit.chain import AuditActor, AuditTarget, Event
    from server_monitor.db import migrate
    from server_monitor.db.engine import Database
    from server_monitor.db.ids import new_id
    from server_monitor.telemetry.logs import RequestContext, request_context

    actor = AuditActor("user", new_id(), "ada", ("admin",), session=new_id())
    request_context.set(RequestContext(new_id(), "api", ip="192.0.2.7", port=50123, user_agent="Mozilla/5.0 (X11)"))
    signer = checkpoints.load_signer(place, "bench")
    db = await Database.open(f"sqlite:///{place / 'log.sqlite3'}", node="bench")
    try:
        await migrate.upgrade(db)
        for first in range(0, records, BATCH):
            many = range(first, min(first + BATCH, records))
            async with db.transaction() as conn:
                server = AuditTarget("server", new_id(), "web01")
                await log.append(conn, *[Event("server.update", actor, server, meta={"n": n}) for n in many])
            async with db.transaction() as conn:
                await checkpoints.make(conn, signer, "grown", datetime.now(UTC))
        with (place / "log.tar.gz").open("wb") as file:
            async with bundle.started(db, signer, actor=actor) as made:
                async for chunk in made.chunks():
                    file.write(chunk)
                made.delivered()
    finally:
        await db.close()


def _judge_database(place: Path) -> Measured:
    from server_monitor.audit import sources

    with sources.database(f"sqlite:///{place / 'log.sqlite3'}") as opened:
        return _judged(opened, place)


def _judge_bundle(place: Path) -> Measured:
    from server_monitor.audit import sources

    return _judged(sources.bundle(place / "log.tar.gz"), place)


def _judged(opened, place: Path) -> Measured:  # type: ignore[no-untyped-def]
    from server_monitor.audit import checkpoints
    from server_monitor.audit.verify import verify

    key = checkpoints.load_signer(place, "bench").verifier(1)
    before_mib, cpu_s, wall_s = _memory_mib(), time.process_time(), time.monotonic()
    report = verify(opened.parts, opened.notes, trusted=[key], now=datetime.now(UTC))
    measured = {
        "cpu_s": time.process_time() - cpu_s,
        "wall_s": time.monotonic() - wall_s,
        "more_mib": _memory_mib() - before_mib,
    }
    if not report.is_intact:
        raise RuntimeError(f"the log that was just written is not intact: {report.findings}")
    return measured


def _memory_mib() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss) / 1024**2


if __name__ == "__main__":
    raise SystemExit(main(measure))
