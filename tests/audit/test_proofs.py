"""Proofs and checkpoints of the live log hold against the records as an outsider would hash them."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from server_monitor.audit import checkpoints, log, note, proofs, tree
from server_monitor.audit.chain import Event
from server_monitor.audit.checkpoints import Made
from server_monitor.auth.actor import Actor, audited
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_nodes, audit_records
from server_monitor.errors import NotFound

NOW = datetime(2026, 1, 2, tzinfo=UTC)


async def fill(db: Database, actor: Actor, count: int) -> list[bytes]:
    """`count` records; returns their leaf hashes."""
    async with db.transaction() as conn:
        await log.append(conn, *[Event("server.create", audited(actor), meta={"n": n}) for n in range(count)])
    async with db.reading() as conn:
        bodies = (await conn.execute(select(audit_records.c.body).order_by(audit_records.c.seq))).scalars()
        return [tree.leaf_hash(body) for body in bodies]


@pytest.mark.parametrize("are_nodes_stored", [True, False])
async def test_records_of_a_long_log_are_proven(db: Database, admin: Actor, are_nodes_stored: bool) -> None:
    leaves = await fill(db, admin, 700)
    if not are_nodes_stored:  # as in a log that began before nodes were stored
        async with db.transaction() as conn:
            await conn.execute(delete(audit_nodes))

    async with db.reading() as conn:
        for size in (1, 2, 256, 511, 700):
            root = await proofs.root_at(conn, size)
            for seq in {0, size // 2, size - 1}:
                proof = await proofs.inclusion(conn, seq, size)
                assert tree.is_included(leaves[seq], seq, size, proof, root)
        old, new = await proofs.root_at(conn, 300), await proofs.root_at(conn, 700)
        assert tree.is_consistent(300, old, 700, new, await proofs.consistency(conn, 300, 700))


@pytest.mark.parametrize(("seq", "size"), [(5, 5), (0, 6), (-1, 3)])
async def test_what_is_not_in_the_log_has_no_proof(db: Database, admin: Actor, seq: int, size: int) -> None:
    await fill(db, admin, 5)
    async with db.reading() as conn:
        with pytest.raises(NotFound):
            await proofs.inclusion(conn, seq, size)


async def test_a_checkpoint_signs_the_log_as_it_stands(db: Database, admin: Actor, tmp_path: Path) -> None:
    await fill(db, admin, 300)
    signer = checkpoints.load_signer(tmp_path, "node-1")

    async with db.transaction() as conn:
        made = await checkpoints.make(conn, signer, "grown", NOW)

    opened = note.open_note(made.note, [signer.verifier(1)])
    async with db.reading() as conn:
        assert (opened.size, opened.root) == (300, await proofs.root_at(conn, 300))
        assert await checkpoints.newest(conn) == made
        assert await checkpoints.covering(conn, 300) == made
        assert await checkpoints.covering(conn, 301) is None
    assert opened.origin == "node-1/server-monitor/audit/1"


def test_the_signing_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    first, again = (checkpoints.load_signer(tmp_path, "n") for _ in range(2))

    assert first.verifier(1) == again.verifier(1)
    assert stat.S_IMODE((tmp_path / "audit" / "signing_key").stat().st_mode) == 0o600


def made(size: int, age: timedelta) -> Made:
    return Made(size, tree.EMPTY_ROOT, "", NOW - age, "grown", None)


@pytest.mark.parametrize(
    ("newest", "size", "actions", "why"),
    [
        (None, 0, [], "start"),
        (made(5, timedelta(seconds=59)), 6, ["server.create"], None),
        (made(5, timedelta(seconds=60)), 6, ["server.create"], "grown"),
        (made(5, timedelta(0)), 1005, ["server.create"], "grown"),
        (made(5, timedelta(0)), 6, ["user.create"], "critical"),
        (made(5, timedelta(minutes=59)), 5, [], None),
        (made(5, timedelta(hours=1)), 5, [], "quiet"),
    ],
)
def test_a_checkpoint_is_due_for_a_reason(newest: Made | None, size: int, actions: list[str], why: str | None) -> None:
    assert checkpoints.why_due(newest, size, actions, NOW) == why
