"""A disk that is full is said on every page, and the pages go on."""

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.browser.visitor import Visitor
from tests.support.console import PASSWORD, ConsoleProcess
from tests.support.disk import fill

pytestmark = pytest.mark.browser


async def test_a_banner_says_that_nothing_can_be_changed_until_there_is_room(
    small_disk: Path, console_on_it: ConsoleProcess, visitor: Visitor
) -> None:
    page = visitor.page
    given = PASSWORD.encode()
    added = await console_on_it.run("user", "add", "ada", "--role", "admin", "--password-stdin", stdin=given)
    assert added[0] == 0, added
    await page.goto(f"{console_on_it.url}/login?next=/audit/archive")
    await page.get_by_label("User name").fill("ada")
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("heading", name="Segments")).to_be_visible()
    banner = page.get_by_role("alert").filter(has_text="The disk of the console is")
    await expect(banner).to_have_count(0)

    filler = await asyncio.to_thread(fill, small_disk)
    for number in range(400):
        await page.get_by_role("button", name="Archive now").click()
        if number % 20 == 19 and await banner.count():
            break
    await expect(banner).to_be_visible()
    assert await visitor.accessibility_findings() == []
    await page.get_by_role("link", name="Log", exact=True).click()
    await expect(page.get_by_role("table", name="Records of the audit log")).to_contain_text("ada")

    filler.unlink()
    await expect(banner).to_have_count(0)
