"""The whole log is verified beside a running console, which shows how far it is and what came out."""

import asyncio
import sqlite3
from contextlib import closing
from typing import Any

from tests.support.console import Browser, ConsoleProcess
from tests.support.patience import PATIENCE_S

PATH = "/api/audit/verify"


async def verdict(browser: Browser) -> dict[str, Any]:
    """The next one."""
    started = await browser.send("POST", PATH)
    assert started.status_code == 202, started.text
    return await ended(browser)


async def ended(browser: Browser) -> dict[str, Any]:
    """The verdict of the one under way."""
    async with asyncio.timeout(PATIENCE_S):
        while (said := (await browser.get(PATH)).json())["running"] is not None:  # noqa: ASYNC110  # Another process.
            await asyncio.sleep(0.05)
    last: dict[str, Any] = said["last"]
    return last


async def archive(console: ConsoleProcess) -> None:
    """It is refused while the console looks, once it has started, whether anything is due."""
    async with asyncio.timeout(PATIENCE_S):
        while (await console.run("audit", "archive", "--now"))[0] != 0:
            pass


async def test_every_record_is_judged_and_the_verdict_is_kept(console: ConsoleProcess, browser: Browser) -> None:
    assert (await browser.get(PATH)).json() == {"running": None, "last": None}

    said = await verdict(browser)

    assert (said["outcome"], said["by"]) == ("success", "ada")
    assert (said["integrity"], said["completeness"], said["authenticity"]) == ("intact", "intact", "intact")
    assert said["records"] == said["size"] == said["signed_size"] > 0
    assert said["duration_ms"] > 0
    records = (await browser.get("/api/audit-logs?action=audit.verify")).json()["items"]
    assert [record["outcome"] for record in records] == ["success", None]
    assert [record["username"] for record in records] == ["ada", "ada"]
    code, out, err = await console.run("audit", "verify")
    assert code == 0, (out, err)


async def test_the_archive_is_part_of_it(console: ConsoleProcess, browser: Browser) -> None:
    await archive(console)
    assert (await verdict(browser))["outcome"] == "success"
    (segment,) = (console.data_dir / "archive").rglob("0*-0*.tar.gz")
    segment.write_bytes(segment.read_bytes()[:100])

    said = await verdict(browser)

    assert (said["outcome"], said["integrity"]) == ("failure", "broken")
    assert said["first_bad"]["first"] == 0


async def test_one_at_a_time(browser: Browser) -> None:
    begun, refused = 0, 0
    async with asyncio.timeout(PATIENCE_S):
        while not refused:  # until one asks while another is under way
            answers = await asyncio.gather(*(browser.send("POST", PATH) for _ in range(5)))
            statuses = [answer.status_code for answer in answers]
            assert set(statuses) <= {202, 409}
            begun, refused = begun + statuses.count(202), statuses.count(409)
    await ended(browser)

    records = (await browser.get("/api/audit-logs?action=audit.verify")).json()["items"]
    assert [record["outcome"] for record in records] == ["success", None] * begun, "each began after the one before"


async def test_a_changed_record_is_named(console: ConsoleProcess, browser: Browser) -> None:
    with closing(sqlite3.connect(console.data_dir / "server-monitor.sqlite3", timeout=PATIENCE_S)) as conn:
        conn.execute("DROP TRIGGER audit_records_are_never_changed")
        conn.execute("UPDATE audit_records SET actor_name = 'eve' WHERE seq = 1")
        conn.commit()

    said = await verdict(browser)

    assert (said["outcome"], said["integrity"]) == ("failure", "broken")
    assert said["first_bad"] == {"first": 1, "last": 1}
    assert "actor_name" in said["findings"][0]["message"]


async def test_an_archive_that_is_gone_is_not_called_broken(console: ConsoleProcess, browser: Browser) -> None:
    await archive(console)
    (console.data_dir / "archive").rename(console.data_dir / "elsewhere")

    said = await verdict(browser)

    assert said["outcome"] == "error"
    assert "There is no archive" in said["why"]


async def test_a_killed_console_leaves_no_verdict_open(console: ConsoleProcess, browser: Browser) -> None:
    assert (await browser.send("POST", PATH)).status_code == 202
    await console.kill()
    await console.start()
    browser.client.base_url = console.url

    last = (await browser.get(PATH)).json()["last"]

    assert last["outcome"] in {"failure", "success"}
    records = (await browser.get("/api/audit-logs?action=audit.verify")).json()["items"]
    assert len(records) == 2
