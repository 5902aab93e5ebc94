"""A disk that is full stops changes and nothing else, and everything goes on when there is room again."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx2

from tests.support.console import Browser, ConsoleProcess
from tests.support.disk import fill
from tests.support.patience import PATIENCE_S

ENOUGH = 400  # changes that outgrow whatever room is left in files that exist


async def failing_checks(browser: Browser, status: int) -> set[str]:
    """What /api/ready names as failing once it answers with this status."""
    async with asyncio.timeout(PATIENCE_S):
        while (ready := await browser.get("/api/ready")).status_code != status:  # noqa: ASYNC110  # Another process.
            await asyncio.sleep(0.1)
    return {name for name, check in ready.json()["checks"].items() if check["status"] != "ok"}


async def change_until_refused(browser: Browser, name: str = "g") -> httpx2.Response:
    for number in range(ENOUGH):
        answer = await browser.send("POST", "/api/groups", {"name": f"{name}{number}", "description": "x" * 1000})
        if answer.status_code != 201:
            return answer
    raise AssertionError("the disk is not full")


async def test_a_full_disk_stops_changes_and_nothing_else(small_disk: Path, console_on_it: ConsoleProcess) -> None:
    assert console_on_it.setup_token is not None
    async with httpx2.AsyncClient(base_url=console_on_it.url, timeout=PATIENCE_S) as client:
        browser = Browser(client)
        await browser.set_up(console_on_it.setup_token)
        assert (await browser.get("/api/ready")).status_code == 200
        filler = await asyncio.to_thread(fill, small_disk)
        async with asyncio.timeout(PATIENCE_S):
            while "disk_reserve_released" not in console_on_it.log:  # noqa: ASYNC110  # Another process.
                await asyncio.sleep(0.05)
        assert (await browser.send("POST", "/api/groups", {"name": "from the reserve"})).status_code == 201
        more = await asyncio.to_thread(fill, small_disk, "more")

        refused = await change_until_refused(browser)
        assert (refused.status_code, refused.json()["code"]) == (503, "audit_unavailable")
        assert refused.headers["Retry-After"]
        for path in ("/api/health", "/api/servers", "/api/groups", "/api/audit-logs", "/api/audit/checkpoint"):
            assert (await browser.get(path)).status_code == 200, path
        failing = await failing_checks(browser, 503)
        assert "disk" in failing
        assert failing <= {"audit", "database", "disk"}
        assert (await change_until_refused(browser, "late")).status_code == 503
        shown = {group["name"] for group in (await browser.get("/api/groups")).json()["items"]}
        assert json.loads(refused.request.content)["name"] not in shown, "what was refused did not happen"

        filler.unlink()
        more.unlink()
        assert await failing_checks(browser, 200) == set()
        assert (await browser.send("POST", "/api/groups", {"name": "after"})).status_code == 201
        assert console_on_it.is_running

    assert await console_on_it.stop() == 0
    with closing(sqlite3.connect(console_on_it.data_dir / "server-monitor.sqlite3", timeout=PATIENCE_S)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    code, out, said = await console_on_it.run("audit", "verify")
    assert code == 0, out + said
