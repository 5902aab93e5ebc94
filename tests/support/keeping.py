"""A log with records, and a housekeeping of it. As a program: one run, to be killed in the middle."""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from server_monitor.audit import checkpoints, log, sources, verify
from server_monitor.audit.archive import Archive
from server_monitor.audit.chain import AuditActor, AuditTarget, Event
from server_monitor.audit.checkpoints import Signer
from server_monitor.audit.housekeeping import Housekeeping, Rules
from server_monitor.audit.keeper import Keeper
from server_monitor.audit.verify import Report
from server_monitor.db.engine import Database

ADA = AuditActor("user", "00000000-0000-7000-8000-000000000001", "ada")
NODE = "test-node"
SEGMENT = 300


async def fill(db: Database, count: int, target: str = "web01") -> None:
    async with db.transaction() as conn:
        for _ in range(count):
            await log.append(conn, Event("server.update", ADA, AuditTarget("server", target, target)))


def signer_of(data_dir: Path) -> Signer:
    data_dir.mkdir(exist_ok=True)
    return checkpoints.load_signer(data_dir, NODE)


def housekeeping(  # Each is a choice of the operator.
    db: Database,
    data_dir: Path,
    url: str = "",
    *,
    days: int = 90,
    is_on: bool = True,
    demands_anchor: bool = False,
    lock_days: int = 0,
) -> Housekeeping:
    every = timedelta(hours=24)
    rules = Rules(days, is_on, every, demands_anchor, not url, lock_days, segment_records=SEGMENT)
    place = url or (data_dir / "archive").as_uri()
    return Housekeeping(db, signer_of(data_dir), Archive(place), rules, data_dir)


async def sign(db: Database, data_dir: Path) -> checkpoints.Made:
    return await Keeper(db, signer_of(data_dir)).sign("grown")


def later(days: float = 100) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def judged(url: str, signer: Signer) -> Report:
    """What an auditor with the public key says of the database."""
    with sources.database(url) as found:
        return verify.verify(
            found.parts, found.notes, trusted=[signer.verifier(1)], kept=found.kept, now=datetime.now(UTC)
        )


async def one_run(url: str, data_dir: Path) -> None:
    db = await Database.open(url, node=NODE)
    try:
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        await housekeeping(db, data_dir).once(later())
    finally:
        await db.close()


if __name__ == "__main__":
    asyncio.run(one_run(sys.argv[1], Path(sys.argv[2])))
