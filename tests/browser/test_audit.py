"""The audit log in a real browser, which computes the proofs itself."""

import asyncio
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from playwright.async_api import Page, Route, expect

from tests.browser.visitor import Visitor
from tests.support.console import PASSWORD, ConsoleProcess
from tests.support.patience import PATIENCE_S
from tests.support.ports import unused_port

pytestmark = pytest.mark.browser


async def saved(page: Page, folder: Path, button: str) -> Path:
    async with page.expect_download() as started:
        await page.get_by_role("button", name=button).click()
    download = await started.value
    path = folder / download.suggested_filename
    await download.save_as(path)
    return path


def verified(bundle: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """As on a machine that has nothing but Python and what was downloaded."""
    with tarfile.open(bundle) as archive:
        archive.extract("verify.py", bundle.parent, filter="data")
    command = [sys.executable, "-I", "-S", bundle.parent / "verify.py", bundle, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


async def test_an_auditor_reads_verifies_and_exports_and_changes_nothing(tmp_path: Path, visitor: Visitor) -> None:
    page = visitor.page
    console = ConsoleProcess(tmp_path / "data")
    await console.start()
    try:
        for name, role in {"ada": "admin", "eve": "auditor"}.items():
            added = await console.run("user", "add", name, "--role", role, "--password-stdin", stdin=PASSWORD.encode())
            assert added[0] == 0, added
        await page.goto(f"{console.url}/login?next=/audit")
        await page.get_by_label("User name").fill("eve")
        await page.get_by_label("Password", exact=True).fill(PASSWORD)
        await page.get_by_role("button", name="Log in").click()

        records = page.get_by_role("table", name="Records of the audit log")
        await expect(records).to_contain_text("eve logged in")
        await page.get_by_label("Action").select_option("user.*")
        await expect(records).not_to_contain_text("eve logged in")
        await expect(page).to_have_url(re.compile(r"action=user\.\*"))

        await records.get_by_role("link", name="created user eve").click()
        await expect(page.get_by_text("The record is in the log, unchanged.")).to_be_visible()
        assert await visitor.accessibility_findings() == []

        await page.get_by_role("button", name="Export").click()
        async with page.expect_download() as started:
            await page.get_by_role("dialog").get_by_role("button", name="Export").click()
        exported = tmp_path / "exported.csv"
        await (await started.value).save_as(exported)
        assert exported.read_text().startswith("seq,time,user_id,username,action")
        assert "user.create" in exported.read_text()
        await page.keyboard.press("Escape")

        await page.get_by_role("link", name="Verify").click()
        await expect(page.get_by_text("The key below signed the newest checkpoint.")).to_be_visible()
        await expect(page.get_by_text("First visit")).to_be_visible()
        await page.get_by_role("button", name="Check again").click()
        await expect(page.get_by_text("The key is the same as at your last visit.")).to_be_visible()
        assert await visitor.accessibility_findings() == []

        await page.get_by_role("button", name="Verify", exact=True).click()
        await expect(page.get_by_role("heading", name="The log is intact")).to_be_visible()
        await expect(page.get_by_text("By eve")).to_be_visible()
        assert await visitor.accessibility_findings() == []
        key, bundle = [await saved(page, tmp_path, f"Download {what}") for what in ("public key", "bundle")]
        proven = await asyncio.to_thread(verified, bundle, "--public-key", key, "--csv", exported)
        assert proven.returncode == 0, proven
        assert "proven" in proven.stdout

        await page.get_by_role("link", name="Archive and holds").click()
        await expect(page.get_by_role("heading", name="Holds", exact=True)).to_be_visible()
        await expect(page.get_by_role("button", name="Place hold")).to_have_count(0)
        await expect(page.get_by_role("button", name="Archive now")).to_have_count(0)
        assert await visitor.accessibility_findings() == []
    finally:
        await console.kill()


async def test_records_stay_in_view_when_the_next_ones_cannot_be_had(tmp_path: Path, visitor: Visitor) -> None:
    """Filters that cannot be answered leave what was there, marked and with the reason; "Try again" answers them."""
    page = visitor.page
    console = ConsoleProcess(tmp_path / "data")
    await console.start()
    try:
        await visitor.set_up(console.url, console.setup_token)
        await page.goto(f"{console.url}/audit")
        records = page.get_by_role("table", name="Records of the audit log")
        await expect(records).to_contain_text("The console started")

        await page.route("**/api/audit-logs?*", fail)
        await page.get_by_label("Action").select_option("user.*")
        await expect(page.get_by_role("alert")).to_contain_text("The console is not ready.")
        await expect(records).to_contain_text("The console started")

        await page.unroute("**/api/audit-logs?*")
        await page.get_by_role("button", name="Try again").click()
        await expect(records).not_to_contain_text("The console started")
        await expect(page.get_by_role("alert")).to_have_count(0)
        await page.keyboard.press("j")
        await expect(records.get_by_role("link").first).to_be_focused()
    finally:
        await console.kill()


async def test_a_browser_keeps_the_evidence_that_it_has(tmp_path: Path, visitor: Visitor) -> None:
    """An error is not "verified", and what contradicts the log does not take the place of what shows it."""
    page = visitor.page
    console = ConsoleProcess(tmp_path / "data")
    port = unused_port()
    await console.start(port=port)
    try:
        await visitor.set_up(console.url, console.setup_token)
        database = console.data_dir / "server-monitor.sqlite3"
        await page.goto("about:blank")
        await console.stop()
        older = database.read_bytes()
        await console.start(port=port)
        url = f"{console.url}/audit/proof"
        await page.goto(url)
        await expect(page.get_by_text("First visit")).to_be_visible()
        kept = await remembered(page)

        added = await console.run("user", "add", "eve", "--role", "viewer", "--password-stdin", stdin=PASSWORD.encode())
        assert added[0] == 0, added
        await until_signed(page, console.url, json.loads(kept)["note"])
        await page.route("**/api/audit/consistency*", fail)
        await expect_outcome(page, url, "Could not be checked")
        assert await remembered(page) == kept
        await expect(page.get_by_role("button", name="Download the earlier checkpoint")).to_be_visible()
        await page.unroute("**/api/audit/consistency*")

        await expect_outcome(page, url, "Nothing contradicts the log")
        newest = await remembered(page)
        assert newest != kept

        await page.goto("about:blank")
        await console.stop()
        database.write_bytes(older)
        await console.start(port=port)
        for _ in range(2):
            await expect_outcome(page, url, "Something does not fit together")
            await expect(page.get_by_text("Records were cut off.")).to_be_visible()
            assert await remembered(page) == newest
        note = await saved(page, tmp_path, "Download the earlier checkpoint")
        assert note.read_text() == json.loads(newest)["note"]
    finally:
        await console.kill()


async def fail(route: Route) -> None:
    problem = {"title": "x", "status": 503, "detail": "The console is not ready.", "code": "unavailable"}
    await route.fulfill(status=503, json=problem)


async def expect_outcome(page: Page, url: str, words: str) -> None:
    await page.goto(url)
    await expect(page.get_by_role("heading", name=words)).to_be_visible()


async def until_signed(page: Page, url: str, earlier: str) -> None:
    """Wait for a checkpoint other than this one: what is new counts once it has been signed, a moment later."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await page.request.get(f"{url}/api/audit/checkpoint")
            if (await answer.json())["note"] != earlier:
                return


async def remembered(page: Page) -> str:
    return str(await page.evaluate("Object.entries(localStorage).find(([name]) => name.includes('checkpoint'))[1]"))
