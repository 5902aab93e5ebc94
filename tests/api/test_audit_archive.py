"""The archive and its holds through the running console and its commands."""

import asyncio
from pathlib import Path

import pytest

from server_monitor.errors import Invalid
from server_monitor.settings import Settings
from tests.support.console import Browser, ConsoleProcess
from tests.support.patience import PATIENCE_S


async def test_an_admin_archives_now_and_holds_what_a_court_asks_for(console: ConsoleProcess, browser: Browser) -> None:
    held = await browser.send("POST", "/api/audit/holds", {"name": "case 7", "reason": "court", "filters": {}})
    wrong = await browser.send("POST", "/api/audit/holds", {"name": "", "reason": "x", "filters": {"from": "x"}})
    started = await browser.send("POST", "/api/audit/archive")

    assert held.status_code == 201
    assert {error["field"] for error in wrong.json()["errors"]} == {"name", "filters.from"}
    assert started.status_code == 202
    async with asyncio.timeout(PATIENCE_S):
        while True:
            said = (await browser.get("/api/audit/segments")).json()
            if said["items"] and not said["is_running"]:
                break
            await asyncio.sleep(0.05)  # Another process.
    assert said["is_local"] is True
    assert said["place"] == (console.data_dir / "archive").as_uri()
    assert said["next_run_at"] is not None
    assert said["first_seq"] == 0

    code, out, _ = await console.run("audit", "hold", "list")
    assert (code, out.split("\t")[:2]) == (0, ["case 7", "everything"])
    code, _, _ = await console.run("audit", "hold", "remove", "case 7")
    assert code == 0
    assert (await browser.get("/api/audit/holds")).json() == {"items": []}
    code, _, said_by_command = await console.run("audit", "archive", "--now")
    assert code == 0, said_by_command
    assert "1 segments archived and verified, 0 records deleted" in said_by_command


async def test_a_database_that_was_put_back_does_not_start(console: ConsoleProcess, tmp_path: Path) -> None:
    """Its log is shorter than what was signed and handed out."""
    await console.stop()
    database = console.data_dir / "server-monitor.sqlite3"
    older = database.read_bytes()
    anchored = ConsoleProcess(console.data_dir, {"AUDIT_ANCHOR_FILE": str(tmp_path / "anchors")})
    await anchored.start()
    async with asyncio.timeout(PATIENCE_S):
        while not (tmp_path / "anchors").exists():  # noqa: ASYNC110  # Another process.
            await asyncio.sleep(0.05)
    await anchored.stop()
    database.write_bytes(older)

    with pytest.raises(AssertionError, match="did not start"):
        await anchored.start()
    assert await anchored.stop() == 1
    assert "does not continue the checkpoint" in anchored.log


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AUDIT_RETENTION_DAYS", "-1"),
        ("AUDIT_RETENTION_DAYS", "ninety"),
        ("AUDIT_CLEANUP_INTERVAL_HOURS", "0"),
        ("AUDIT_ARCHIVE_URL", "ftp://host/dir"),
        ("AUDIT_ARCHIVE_URL", "s3://key:secret@bucket"),
        ("AUDIT_ARCHIVE_URL", "file://relative"),
        ("AUDIT_ARCHIVE_URL", "s3:///prefix"),
        ("AUDIT_ANCHOR_REQUIRED", "true"),
    ],
)
def test_a_setting_that_makes_no_sense_stops_the_start(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(Invalid) as caught:
        Settings.load(data_dir=tmp_path)
    assert variable in str(caught.value)
    assert "secret@" not in str(caught.value)
