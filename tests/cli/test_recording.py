"""`server-monitor recording`, beside a running console."""

import asyncio
import json
from datetime import UTC, datetime

import pytest
from sqlalchemy import update

from server_monitor.db.ids import new_id
from server_monitor.db.tables import terminal_sessions
from tests.support.console import ConsoleProcess
from tests.support.patience import PATIENCE_S
from tests.support.recordings import contents, stage_beside, write


async def test_recordings_are_listed_verified_and_exported_beside_a_running_console(console: ConsoleProcess) -> None:
    async with stage_beside(console.data_dir) as stage:
        first, second = await stage.play(b"$ uptime\r\n"), await stage.play(b"$ whoami\r\n", is_over=False)

    code, out, _ = await console.run("recording", "list", "--json")
    assert code == 0
    assert [one["id"] for one in json.loads(out)["items"]] == [second.id, first.id]
    code, out, _ = await console.run("recording", "list", "--user", "olga", "--limit", "1")
    assert (code, out.split("\t")[0]) == (0, second.id)
    assert (await console.run("recording", "list", "--server", "nowhere"))[1] == ""

    code, out, _ = await console.run("recording", "verify", first.id, "--json")
    assert (code, json.loads(out)["verdict"]) == (0, "intact")

    target = console.data_dir.parent / "out.cast"
    for session, words in ((first, "uptime"), (second, "whoami")):
        code, out, err = await console.run("recording", "export", session.id, "--format", "v2")
        assert (code, json.loads(out.split("\n")[0])["version"], words in out) == (0, 2, True)
        assert "bytes written" in err
        code, out, _ = await console.run("recording", "export", session.id, "-o", str(target), "--json")
        assert (code, json.loads(out)["bytes"]) == (0, len(contents(target)))

    code, out, _ = await console.run("audit", "export", "--format", "jsonl")
    records = [json.loads(line) for line in out.splitlines()]
    assert {record["source"]["via"] for record in records if record["action"] == "recording.export"} == {"cli"}


async def test_a_damaged_recording_fails_the_command(console: ConsoleProcess) -> None:
    async with stage_beside(console.data_dir) as stage:
        session = await stage.play(b"good", b"bad")
    write(session.path, contents(session.path)[:-1] + b"\0")

    code, out, err = await console.run("recording", "verify", session.id)
    assert (code, out.splitlines()[0].split()) == (1, ["verdict", "damaged"])
    assert "not what was recorded" in err
    code, out, err = await console.run("recording", "export", session.id, "--format", "text")
    assert (code, "good" in out, "damaged" in err) == (1, True, True)


async def test_a_recording_that_is_in_the_archive_only_is_not_called_damaged(console: ConsoleProcess) -> None:
    async with stage_beside(console.data_dir) as stage:
        session = await stage.play(b"good")
        assert (await stage.library.verify_closed(session.id)).verdict == "intact"
        async with stage.db.transaction() as conn:
            archived = update(terminal_sessions).values(recording="archived", archived_at=datetime.now(UTC))
            await conn.execute(archived.where(terminal_sessions.c.id == session.id))
    session.path.unlink()

    code, out, err = await console.run("recording", "verify", session.id)

    assert (code, out) == (3, "")
    assert "in the archive" in err


async def test_a_recording_without_its_end_fails_the_export_and_what_there_is_is_written(
    console: ConsoleProcess,
) -> None:
    async with stage_beside(console.data_dir) as stage:
        session = await stage.play(b"good", b"bad")
        assert (await stage.library.verify_closed(session.id)).verdict == "intact"
    write(session.path, contents(session.path)[:-1])

    code, out, err = await console.run("recording", "export", session.id, "--format", "text")
    assert (code, "good" in out, "[damaged: " in out, "damaged" in err) == (1, True, True, True)
    code, out, _ = await console.run("recording", "list", "--json")
    assert [one["recording"] for one in json.loads(out)["items"]] == ["damaged"]


@pytest.mark.parametrize("arguments", [("verify",), ("export",), ("export", "--format", "text")])
async def test_what_is_not_there_fails(console: ConsoleProcess, arguments: tuple[str, ...]) -> None:
    code, out, err = await console.run("recording", *arguments, new_id())
    assert (code, out, "There is no" in err) == (1, "", True)


async def test_wrong_usage_is_three(console: ConsoleProcess) -> None:
    assert (await console.run("recording", "export", new_id(), "--json"))[0] == 3
    assert (await console.run("recording", "export", new_id(), "--format", "v1"))[0] == 3


async def test_a_running_console_verifies_what_has_ended(console: ConsoleProcess) -> None:
    async with stage_beside(console.data_dir) as stage:
        session = await stage.play(b"x")
        async with asyncio.timeout(PATIENCE_S):
            while (state := await stage.state(session.id)) == "unverified":  # noqa: ASYNC110  # Another process.
                await asyncio.sleep(0.1)
    assert state == "verified"
