"""Recordings are looked after: verified when they end, missed when they are gone, archived before they leave."""

import hashlib
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import update

from server_monitor.audit import holds
from server_monitor.audit.archive import Archive
from server_monitor.audit.keeper import Keeper
from server_monitor.auth.actor import Actor, ActorKind, Role
from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id
from server_monitor.db.tables import terminal_sessions
from server_monitor.errors import Conflict, Gone, Unavailable
from server_monitor.terminal.chain import Verdict
from server_monitor.terminal.keeping import Keeping
from server_monitor.terminal.library import Library
from tests.support.keeping import ADA, housekeeping, later, signer_of
from tests.support.recordings import OPERATOR, Stage, contents, write
from tests.terminal.test_library import records

AUDITOR = Actor(ActorKind.USER, new_id(), "aud", Role.AUDITOR)
NOW = datetime.now(UTC)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def keep(db: Database, library: Library, place: Path) -> Callable[..., Keeping]:
    def keeping(days: int = 30, **options: int) -> Keeping:
        return Keeping(db, library, Archive(place.as_uri()), days, **options)

    return keeping


def archived(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*") if path.is_file())


async def test_what_has_ended_is_verified_once(db: Database, stage: Stage, keep: Callable[..., Keeping]) -> None:
    ended = [await stage.play(b"x") for _ in range(3)]
    await stage.play(b"running", is_over=False)
    assert await keep().verify_ended() == 3
    assert await keep().verify_ended() == 0
    assert [await stage.state(session.id) for session in ended] == ["verified"] * 3
    assert len(await records(db, "recording.verify")) == 3


async def test_a_recording_that_was_missing_when_its_session_was_closed_raises_the_alarm(
    db: Database, stage: Stage, keep: Callable[..., Keeping]
) -> None:
    session = await stage.play(b"x")
    session.path.unlink()
    async with db.transaction() as conn:
        closed = update(terminal_sessions).where(terminal_sessions.c.id == session.id)
        await conn.execute(closed.values(recording="missing"))
    for _ in range(2):
        await keep().verify_ended()
    assert [record["reason"] for record in await records(db, "recording.alarm")] == ["missing"]


async def test_the_recordings_of_another_console_are_its_own_business(
    db: Database, stage: Stage, keep: Callable[..., Keeping]
) -> None:
    """Two consoles on one database: what is not on this disk is not missing."""
    session = await stage.play(b"x", ended_days_ago=31)
    session.path.unlink()
    async with db.transaction() as conn:
        of_another = update(terminal_sessions).where(terminal_sessions.c.id == session.id)
        await conn.execute(of_another.values(owner="another"))
    assert await keep().verify_ended() == 0
    assert (await keep().go_round(NOW)).alarms == 0
    for ask in (
        stage.library.show(session.id, "v3", "recording.view", actor=AUDITOR),
        stage.library.verify_closed(session.id),
    ):
        with pytest.raises(Unavailable, match="another console"):
            await ask
    assert await records(db, "recording.") == []


async def test_what_is_gone_or_of_another_size_raises_the_alarm(
    db: Database, stage: Stage, keep: Callable[..., Keeping]
) -> None:
    good, gone, longer = [await stage.play(b"x") for _ in range(3)]
    await keep().verify_ended()
    gone.path.unlink()
    write(longer.path, contents(longer.path) + b"more")
    assert (await keep().look()).alarms == 2
    assert (await keep().look()).alarms == 0
    states = [await stage.state(session.id) for session in (good, gone, longer)]
    assert states == ["verified", "missing", "damaged"]
    assert sorted(record["reason"] for record in await records(db, "recording.alarm")) == ["damaged", "missing"]


async def test_what_is_old_is_archived_read_back_and_only_then_deleted(
    db: Database, stage: Stage, keep: Callable[..., Keeping], place: Path
) -> None:
    old, new = await stage.play(b"old", ended_days_ago=31), await stage.play(b"new", ended_days_ago=29)
    data = contents(old.path)
    assert await keep().archive_old(NOW) == (1, 0)

    assert [path.read_bytes() for path in archived(place)] == [data]
    assert (old.path.exists(), new.path.exists()) == (False, True)
    assert await stage.state(old.id) == "archived"
    (put,) = await records(db, "recording.archive")
    (pruned,) = await records(db, "recording.prune")
    assert put["meta"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert put["meta"]["head"] == old.progress.head.hex()
    assert put["seq"] < pruned["seq"]
    assert place / put["meta"]["keys"][0] == archived(place)[0]
    for ask in (stage.library.show(old.id, "v3", "recording.view", actor=AUDITOR), stage.library.verify_closed(old.id)):
        with pytest.raises(Gone, match="archive"):
            await ask
    assert await records(db, "recording.alarm") == []


async def test_a_large_recording_is_archived_in_parts(stage: Stage, keep: Callable[..., Keeping], place: Path) -> None:
    old = await stage.play(os.urandom(50_000), ended_days_ago=31)
    data = contents(old.path)
    assert await keep(part_bytes=10_000).archive_old(NOW) == (1, 0)
    assert b"".join(path.read_bytes() for path in archived(place)) == data


async def test_what_is_put_back_from_the_archive_is_shown_and_stays(
    stage: Stage, library: Library, keep: Callable[..., Keeping], place: Path
) -> None:
    old = await stage.play(b"from long ago", ended_days_ago=31)
    await keep().archive_old(NOW)
    shutil.copyfile(archived(place)[0], old.path)
    put_back_at = datetime.now(UTC).timestamp() + 60  # NOW may be minutes ago, and file times are coarser than clocks
    os.utime(old.path, (put_back_at, put_back_at))
    await keep().archive_old(NOW)

    assert (await library.verify(old.id, actor=AUDITOR)).verdict is Verdict.INTACT
    shown = await library.show(old.id, "text", "recording.view", actor=AUDITOR)
    assert b"from long ago" in b"".join([piece async for piece in shown.pieces()])


async def test_a_file_that_a_crash_left_behind_its_record_goes(
    stage: Stage, keep: Callable[..., Keeping], place: Path
) -> None:
    old = await stage.play(b"x", ended_days_ago=31)
    await keep().archive_old(NOW)
    shutil.copyfile(archived(place)[0], old.path)
    os.utime(old.path, (NOW.timestamp() - 60, NOW.timestamp() - 60))
    await keep().archive_old(NOW)
    assert not old.path.exists()


async def test_kept_for_ever_is_kept(stage: Stage, keep: Callable[..., Keeping]) -> None:
    old = await stage.play(b"x", ended_days_ago=9_999)
    assert await keep(days=0).archive_old(NOW) == (0, 0)
    assert old.path.exists()


async def test_a_session_that_runs_stays(stage: Stage, keep: Callable[..., Keeping]) -> None:
    await stage.play(b"x", ended_days_ago=99, is_over=False)
    assert await keep().archive_old(NOW) == (0, 0)


@pytest.mark.parametrize(
    ("filters", "is_kept"),
    [
        ({}, True),
        ({"user_id": str(OPERATOR.id)}, True),
        ({"user_id": new_id()}, False),
        ({"target_type": "server", "target_id": "00000000-0000-7000-8000-00000000000a"}, True),
        ({"target_type": "server", "target_id": new_id()}, False),
        ({"action": "terminal.*"}, True),
        ({"action": "auth.login"}, False),
        ({"from": "2020-01-01", "to": "2020-12-31"}, False),
        ({"from": "2020-01-01"}, True),
        ({"user_id": str(OPERATOR.id), "ip": "10.0.0.1"}, True),
        ({"target_type": "user"}, False),
    ],
)
async def test_a_hold_keeps_what_it_names(
    db: Database, stage: Stage, keep: Callable[..., Keeping], filters: dict[str, str], is_kept: bool
) -> None:
    old = await stage.play(b"x", ended_days_ago=31)
    async with db.transaction() as conn:
        await holds.add(conn, "case", "a case", filters, actor=ADA)
    assert await keep().archive_old(NOW) == ((0, 1) if is_kept else (1, 0))
    assert old.path.exists() is is_kept


async def test_a_hold_that_was_released_keeps_nothing(db: Database, stage: Stage, keep: Callable[..., Keeping]) -> None:
    await stage.play(b"x", ended_days_ago=31)
    async with db.transaction() as conn:
        await holds.add(conn, "case", "a case", {}, actor=ADA)
        await holds.release(conn, "case", actor=ADA)
    assert await keep().archive_old(NOW) == (1, 0)


async def test_a_damaged_recording_is_evidence_and_stays(
    stage: Stage, keep: Callable[..., Keeping], place: Path
) -> None:
    old = await stage.play(b"x", ended_days_ago=31)
    write(old.path, contents(old.path)[:-1] + b"\0")
    assert await keep().archive_old(NOW) == (0, 0)
    assert old.path.exists()
    assert archived(place) == []
    assert await stage.state(old.id) == "damaged"


async def test_an_archive_that_has_something_else_keeps_this_one_from_being_pruned(
    stage: Stage, keep: Callable[..., Keeping], place: Path
) -> None:
    old = await stage.play(b"x", ended_days_ago=31)
    name = f"{old.id}-{old.progress.head.hex()[:16]}.rec"
    taken = place / "recordings" / old.path.parent.name / name
    taken.parent.mkdir(parents=True)
    write(taken, b"something else")
    other = await stage.play(b"y", ended_days_ago=31)
    with pytest.raises(Conflict, match="not what was put there"):
        await keep().archive_old(NOW)
    assert (old.path.exists(), other.path.exists()) == (True, False)


async def test_an_archive_that_is_away_stops_pruning(stage: Stage, keep: Callable[..., Keeping], place: Path) -> None:
    old = await stage.play(b"x", ended_days_ago=31)
    write(place, b"a file where the directory was")
    done = await keep().go_round(NOW)
    assert done.failure is not None
    assert old.path.exists()


async def test_a_clock_that_jumped_deletes_nothing(
    db: Database, tmp_path: Path, stage: Stage, keep: Callable[..., Keeping]
) -> None:
    old = await stage.play(b"x", ended_days_ago=31)
    keeper = Keeper(db, signer_of(tmp_path / "signer"))
    await keeper.watch_clock(datetime.now(UTC), 0.0)
    await keeper.watch_clock(datetime.now(UTC), 30 * 86_400.0)
    assert await keep().archive_old(datetime.now(UTC)) == (0, 0)
    assert old.path.exists()


async def test_heads_that_left_the_database_are_read_from_the_archive(
    db: Database, tmp_path: Path, stage: Stage, library: Library
) -> None:
    """The audit log is kept for ninety days in the database, and recordings for a year."""
    session = await stage.play(b"one", b"two")
    done = await housekeeping(db, tmp_path / "console").once(later(), everything=True)
    assert done.pruned > 0
    assert (await library.verify(session.id, actor=AUDITOR)).verdict is Verdict.INTACT

    data = contents(session.path)
    write(session.path, data[:-1] + bytes([data[-1] ^ 1]))
    assert (await library.verify(session.id, actor=AUDITOR)).verdict is Verdict.DAMAGED
