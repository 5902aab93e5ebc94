"""The audit log in a real browser, which computes the proofs itself."""

from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.browser.visitor import Visitor
from tests.support.console import PASSWORD, ConsoleProcess

pytestmark = pytest.mark.browser


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
        assert "action=user.*" in page.url

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
        await page.get_by_role("button", name="Verify again").click()
        await expect(page.get_by_text("The key is the same as at your last visit.")).to_be_visible()
        assert await visitor.accessibility_findings() == []

        await page.get_by_role("link", name="Archive and holds").click()
        await expect(page.get_by_role("heading", name="Holds", exact=True)).to_be_visible()
        await expect(page.get_by_role("button", name="Place hold")).to_have_count(0)
        await expect(page.get_by_role("button", name="Archive now")).to_have_count(0)
        assert await visitor.accessibility_findings() == []
    finally:
        await console.kill()
