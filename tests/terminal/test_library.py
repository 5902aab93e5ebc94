"""Recordings beside their sessions and the audit log, on both databases."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from server_monitor.auth.actor import Actor, ActorKind, GroupId, Role
from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id
from server_monitor.db.tables import audit_records, terminal_sessions
from server_monitor.errors import Denied, Gone, NotFound
from server_monitor.terminal.chain import Verdict
from server_monitor.terminal.library import Library
from tests.support.recordings import KEYRING, OPERATOR, Session, Stage, contents, write

AUDITOR = Actor(ActorKind.USER, new_id(), "aud", Role.AUDITOR)
OPENER = Actor(ActorKind.USER, OPERATOR.id, "olga", Role.OPERATOR)
STRANGER = Actor(ActorKind.USER, new_id(), "eve", Role.OPERATOR)


async def records(db: Database, prefix: str) -> Sequence[dict[str, Any]]:
    async with db.reading() as conn:
        bodies = await conn.scalars(select(audit_records.c.body).order_by(audit_records.c.seq))
        found = [json.loads(body) for body in bodies]
    return [record for record in found if record["action"].startswith(prefix)]


async def exported(library: Library, session: Session, form: str = "v3", actor: Actor = AUDITOR) -> bytes:
    shown = await library.show(session.id, form, "recording.export", actor=actor)
    return b"".join([piece async for piece in shown.pieces()])


async def test_what_was_shown_is_exported_and_recorded_before(db: Database, stage: Stage) -> None:
    session = await stage.play(b"$ uptime\r\n", b"up 3 days\r\n")
    shown = await stage.library.show(session.id, "v3", "recording.export", actor=AUDITOR)

    (record,) = await records(db, "recording.export")
    assert record["actor"]["name"] == "aud"
    assert record["target"]["id"] == session.id
    assert record["meta"]["format"] == "v3"
    text = b"".join([piece async for piece in shown.pieces()])
    assert b"up 3 days" in text
    assert json.loads(text.split(b"\n")[0])["title"] == "olga on web01"


async def test_when_nothing_can_be_recorded_nothing_is_shown(stage: Stage, library: Library) -> None:
    session = await stage.play(b"secret")
    async with stage.db.transaction() as conn:
        await conn.exec_driver_sql("DROP TABLE audit_nodes")
        await conn.exec_driver_sql("ALTER TABLE audit_head RENAME TO gone")
    with pytest.raises(Exception, match="audit"):
        await exported(library, session)


async def test_who_may_not_see_recordings_learns_nothing(stage: Stage, library: Library) -> None:
    session = await stage.play(b"x")
    with pytest.raises(NotFound):
        await exported(library, session, actor=STRANGER)
    with pytest.raises(Denied):
        await exported(library, session, actor=OPENER)
    for unknown in (new_id(), "x", "\0", "../../etc/passwd"):
        with pytest.raises(NotFound):
            await library.show(unknown, "v3", "recording.view", actor=AUDITOR)
    assert await records(stage.db, "recording.") == []


async def test_an_auditor_of_a_group_sees_the_recordings_of_its_servers(stage: Stage, library: Library) -> None:
    group = GroupId(new_id())
    theirs, others = await stage.play(b"theirs", groups=[group]), await stage.play(b"others")
    auditor = replace(STRANGER, role=None, group_roles={group: Role.AUDITOR})

    assert b"theirs" in await exported(library, theirs, actor=auditor)
    with pytest.raises(NotFound):
        await exported(library, others, actor=auditor)


async def test_a_session_that_runs_is_shown_up_to_now(stage: Stage, library: Library) -> None:
    session = await stage.play(b"still here", is_over=False)
    assert b"still here" in await exported(library, session)
    assert (await library.verify(session.id, actor=AUDITOR)).verdict is Verdict.INTACT
    assert await stage.state(session.id) == "open"


async def test_a_long_recording_comes_in_pieces(stage: Stage, library: Library) -> None:
    session = await stage.play(*(b"%d" % number * 20_000 for number in range(10)))
    shown = await library.show(session.id, "v2", "recording.export", actor=AUDITOR)
    sizes = [len(piece) async for piece in shown.pieces()]
    assert len(sizes) > 2
    assert max(sizes) < 256 * 1024


async def test_leaving_in_the_middle_closes_the_file(stage: Stage, library: Library) -> None:
    session = await stage.play(*(b"%d" % number * 20_000 for number in range(10)))
    pieces = (await library.show(session.id, "v3", "recording.view", actor=AUDITOR)).pieces()
    async for _ in pieces:
        break
    await pieces.aclose()


# --- verified ---


async def test_a_recording_as_it_was_is_intact(db: Database, stage: Stage, library: Library) -> None:
    session = await stage.play(b"one", b"two")
    found = await library.verify(session.id, actor=AUDITOR)

    assert (found.verdict, found.findings) == (Verdict.INTACT, ())
    assert (found.chunks, found.head) == (session.progress.chunks, session.progress.head)
    assert await stage.state(session.id) == "verified"
    (record,) = await records(db, "recording.")
    assert (record["action"], record["outcome"], record["meta"]["verdict"]) == ("recording.verify", "success", "intact")


async def test_a_changed_recording_raises_one_alarm(db: Database, stage: Stage, library: Library) -> None:
    session = await stage.play(b"one", b"two")
    data = bytearray(contents(session.path))
    data[-3] ^= 1
    write(session.path, bytes(data))
    for _ in range(2):
        found = await library.verify(session.id, actor=AUDITOR)
        assert found.verdict is Verdict.DAMAGED

    assert await stage.state(session.id) == "damaged"
    (alarm,) = await records(db, "recording.alarm")
    assert (alarm["reason"], alarm["target"]["id"], alarm["actor"]["name"]) == (
        "damaged",
        session.id,
        "system:recordings",
    )


async def test_a_recording_put_back_is_verified_again(stage: Stage, library: Library) -> None:
    session = await stage.play(b"one")
    data = contents(session.path)
    session.path.unlink()
    assert (await library.verify(session.id, actor=AUDITOR)).verdict is Verdict.MISSING
    assert await stage.state(session.id) == "missing"
    write(session.path, data)
    assert (await library.verify(session.id, actor=AUDITOR)).verdict is Verdict.INTACT
    assert await stage.state(session.id) == "verified"


async def test_a_missing_recording_raises_the_alarm_when_it_is_asked_for(db: Database, stage: Stage) -> None:
    session = await stage.play(b"one")
    session.path.unlink()
    with pytest.raises(Gone, match="missing"):
        await exported(stage.library, session)
    assert [record["reason"] for record in await records(db, "recording.alarm")] == ["missing"]
    assert await records(db, "recording.export") == []


@pytest.mark.parametrize("form", ["v2", "v3", "text"])
async def test_an_export_ends_where_the_damage_begins_and_says_so(db: Database, stage: Stage, form: str) -> None:
    session = await stage.play(b"good\r\n", b"bad\r\n", b"more\r\n")
    data = bytearray(contents(session.path))
    data[data.index(b"\n") + 140] ^= 1
    write(session.path, bytes(data))
    text = await exported(stage.library, session, form)

    assert b"damaged: the recording cannot be read from here on" in text
    assert b"more" not in text
    assert [record["reason"] for record in await records(db, "recording.alarm")] == ["damaged"]


def without_end(data: bytes, chunks: int) -> bytes:
    """A recording without its last so many chunks, each cut off whole."""
    ends = [data.index(b"\n") + 1]
    while ends[-1] < len(data):
        ends.append(ends[-1] + 4 + int.from_bytes(data[ends[-1] : ends[-1] + 4], "big"))
    return data[: ends[-1 - chunks]]


@pytest.mark.parametrize("form", ["v2", "v3", "text"])
@pytest.mark.parametrize("padding", [0, 1], ids=["shorter", "of the same size"])
async def test_a_recording_whose_end_was_cut_off_says_so_and_raises_the_alarm_where_it_is_shown(
    db: Database, stage: Stage, form: str, padding: int
) -> None:
    session = await stage.play(b"kept\r\n", b"cut off\r\n", b"this too\r\n")
    await stage.library.verify(session.id, actor=AUDITOR)
    whole = contents(session.path)
    rest = without_end(whole, 3)  # with the chunk of the exit status
    write(session.path, rest + b"\0" * (len(whole) - len(rest)) * padding)

    text = await exported(stage.library, session, form)
    assert b"kept" in text
    assert b"damaged: this is not what was recorded, or not all of it" in text
    assert await stage.state(session.id) == "damaged"
    assert b"damaged: " in await exported(stage.library, session, form)
    assert [record["reason"] for record in await records(db, "recording.alarm")] == ["damaged"]


async def test_what_was_put_behind_a_recording_is_noticed_where_it_is_shown(db: Database, stage: Stage) -> None:
    session = await stage.play(b"all\r\n")
    write(session.path, contents(session.path) + b"more")
    shown = await stage.library.show(session.id, "v3", "recording.view", actor=AUDITOR)

    assert shown.is_damaged  # before the first byte
    assert b"damaged: " in b"".join([piece async for piece in shown.pieces()])
    assert [record["reason"] for record in await records(db, "recording.alarm")] == ["damaged"]


async def test_a_file_that_is_no_recording_is_not_shown(stage: Stage, library: Library) -> None:
    session = await stage.play(b"x")
    write(session.path, b"something else\n")
    with pytest.raises(Gone, match="damaged"):
        await exported(library, session)
    assert await stage.state(session.id) == "damaged"


async def test_the_recording_of_another_session_is_noticed(stage: Stage, library: Library) -> None:
    session, other = await stage.play(b"mine"), await stage.play(b"theirs")
    write(session.path, contents(other.path))
    found = await library.verify(session.id, actor=AUDITOR)
    assert "wrong_session" in {finding.code for finding in found.findings}


async def test_a_recording_that_the_log_does_not_know_is_not_proven(stage: Stage, library: Library) -> None:
    session = await stage.play(b"x")
    async with stage.db.transaction() as conn:
        # As a pruned log is: with the guard that its triggers are taken off.
        await _unguarded(conn)
        await conn.execute(delete(audit_records).where(audit_records.c.target_id == session.id))
    found = await library.verify(session.id, actor=AUDITOR)
    assert found.verdict is Verdict.UNPROVEN
    assert await stage.state(session.id) == "unverified"


async def _unguarded(conn: Any) -> None:
    if conn.dialect.name == "sqlite":
        triggers = await conn.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in triggers.all():
            await conn.exec_driver_sql(f"DROP TRIGGER {name}")
    else:
        await conn.exec_driver_sql("ALTER TABLE audit_records DISABLE TRIGGER ALL")


async def test_what_a_dead_console_left_is_closed_and_verifies(stage: Stage, library: Library) -> None:
    session = await stage.play(b"kept", is_over=False)
    write(session.path, contents(session.path) + b"\0\0\1\0half of a chunk")
    found = await library.settle(session.id)

    assert found is not None
    assert (found.chunks, found.output_bytes) == (1, 4)
    await stage._record(session.id, "terminal.disconnect", found, phase="outcome", outcome="unknown")
    await stage._end(session.id, found, 0)
    assert (await library.verify_closed(session.id)).verdict is Verdict.INTACT


async def test_a_session_without_a_shell_has_no_recording(stage: Stage, library: Library) -> None:
    session = await stage.play(b"x")
    async with stage.db.transaction() as conn:
        never = update(terminal_sessions).where(terminal_sessions.c.id == session.id)
        await conn.execute(never.values(started_at=None))
    session.path.unlink()
    with pytest.raises(NotFound):
        await exported(library, session)
    with pytest.raises(NotFound):
        await library.verify(session.id, actor=AUDITOR)
    assert await records(stage.db, "recording.") == []


def test_the_month_of_a_recording_follows_from_its_id(library: Library) -> None:
    assert library.path(new_id()).parent.name == f"{datetime.now(UTC):%Y-%m}"


def test_a_key_belongs_to_one_session() -> None:
    key = KEYRING.make("a")
    assert KEYRING.open("a", key.wrapped, key.wrapped_by).key == key.key
    with pytest.raises(Exception):  # noqa: B017, PT011  # It is envelope's own.
        KEYRING.open("b", key.wrapped, key.wrapped_by)
