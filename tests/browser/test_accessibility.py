"""axe finds nothing, on any page, in either theme, on a desk or a phone."""

from typing import Literal

import pytest
from playwright.async_api import expect

from tests.browser.visitor import Fleet, Visitor

pytestmark = [pytest.mark.browser, pytest.mark.sshd, pytest.mark.long]


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_every_page_is_accessible(fleet: Fleet, visitor: Visitor, theme: Literal["light", "dark"]) -> None:
    console, page = fleet.console, visitor.page
    findings: list[str] = []

    async def examine(name: str) -> None:
        findings.extend(f"{name}: {found}" for found in await visitor.accessibility_findings())

    await page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    await page.goto(f"{console.url}/setup#token={console.setup_token}")
    await expect(page.get_by_role("heading")).to_be_visible()
    await examine("setup")
    await visitor.set_up(console.url, console.setup_token)
    await visitor.wait_until_live("this machine")
    await examine("fleet with one server")

    await visitor.import_servers(fleet.ssh_config())
    await visitor.wait_for_keys()
    await examine("approve host keys")
    await page.get_by_role("button", name="Later").click()
    await expect(page.get_by_role("button", name="Review 2 host keys")).to_be_visible()
    await examine("fleet with something to decide")

    for key, heading in {"a": "Add server", "i": "Import servers", "?": "Keyboard shortcuts"}.items():
        await page.locator("body").press(key)
        await expect(page.get_by_role("heading", name=heading)).to_be_visible()
        await examine(heading)
        await page.keyboard.press("Escape")
    await page.keyboard.press("Control+k")
    await expect(page.get_by_role("combobox", name="Find a server or an action")).to_be_focused()
    await examine("palette")
    await page.keyboard.press("Escape")

    for section in ("account", "tokens", "users", "groups", "keys"):
        await page.goto(f"{console.url}/settings/{section}")
        await expect(page.get_by_role("heading", level=2).first).to_be_visible()
        await examine(section)
    await page.goto(f"{console.url}/nowhere")
    await expect(page.get_by_role("heading")).to_be_visible()
    await examine("nowhere")

    await page.goto(console.url)
    await visitor.row("this machine").get_by_role("link").click()
    await expect(page.get_by_role("figure", name="CPU, chart").locator("strong").first).to_contain_text("%")
    await examine("server")
    await page.set_viewport_size({"width": 375, "height": 812})
    await examine("server on a phone")
    await page.goto(console.url)
    await visitor.row("web-1").wait_for()
    await examine("fleet on a phone")
    for path in ("/", "/settings/users"):
        await page.goto(console.url + path)
        await expect(page.get_by_role("main")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    await page.context.clear_cookies()
    await page.goto(console.url)
    await expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    await examine("login")
    assert not findings, "\n".join(findings)
