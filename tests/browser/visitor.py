"""Somebody at a browser: what they do again and again, and what their browser complains of."""

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Locator, Page
from playwright.async_api import TimeoutError as TimedOut

from tests.support.console import ADMIN, PASSWORD, ConsoleProcess
from tests.support.patience import PATIENCE_S
from tests.support.sshd import Sshd

AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"

# The policy's own event: the console shows a violation only once, this tells of each.
_REPORT = """
addEventListener("securitypolicyviolation", (event) => {
  tell(`${event.violatedDirective} refused ${event.blockedURI || event.sample} in ${event.sourceFile}`);
});
"""


# Whatever fades in has less contrast than it is going to have.
_STILL = """
Promise.all(document.getAnimations()
  .filter((one) => Number.isFinite(one.effect.getComputedTiming().endTime))
  .map((one) => one.finished.catch(() => null))).then(() => null)
"""


@dataclass(frozen=True, slots=True)
class Fleet:
    """A console that may log in to some hosts through its agent, once their keys are approved."""

    console: ConsoleProcess
    hosts: tuple[Sshd, ...]

    def ssh_config(self) -> str:
        """What somebody would paste: the hosts as `web-1`, `web-2` …"""
        return "\n".join(
            f"Host web-{number}\n  HostName {host.host}\n  Port {host.port}\n  User {host.username}\n"
            for number, host in enumerate(self.hosts, 1)
        )


@dataclass(slots=True)
class Visitor:
    """`complaints` are violations of the Content-Security-Policy and errors of the page's scripts."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    async def set_up(self, url: str, token: str | None) -> None:
        """Make the first admin; ends on the fleet."""
        await self.page.goto(f"{url}/setup#token={token}")
        await self.page.get_by_label("User name").fill(ADMIN)
        await self.page.get_by_label("Password", exact=True).fill(PASSWORD)
        await self.page.get_by_role("button", name="Create administrator").click()
        await self.row("this machine").wait_for()

    async def log_in(self, password: str = PASSWORD) -> None:
        await self.page.get_by_label("User name").fill(ADMIN)
        await self.page.get_by_label("Password", exact=True).fill(password)
        await self.page.get_by_role("button", name="Log in").click()

    async def import_servers(self, text: str) -> None:
        """Paste an inventory and import it; ends on the host keys to approve."""
        await self.page.get_by_role("button", name="Import", exact=True).click()
        await self.page.get_by_label("Hosts", exact=True).fill(text)
        await self.page.get_by_role("button", name="Import 2 servers").click()
        await self.page.get_by_role("heading", name="Approve host keys").wait_for()

    async def wait_for_keys(self) -> None:
        """Both hosts have shown their key."""
        for name in ("web-1", "web-2"):
            await self.page.get_by_role("checkbox", name=f"Approve the key of {name}").wait_for()

    async def approve_all(self) -> None:
        await self.wait_for_keys()
        await self.page.get_by_role("checkbox", name="Select all").check()
        await self.page.get_by_role("button", name="Approve 2 selected").click()
        await self.page.get_by_role("dialog").wait_for(state="detached")

    def row(self, text: str) -> Locator:
        """The row of the fleet table that holds this text."""
        return self.page.get_by_role("row").filter(has_text=text)

    async def wait_until_live(self, name: str) -> None:
        """The server is online and its CPU is a number."""
        row = self.row(name).filter(has_text="Online")
        await row.locator("td.c-cpu .number").filter(has_text="%").wait_for()

    async def press_both(self, first: str, second: str, leads_to: Locator) -> None:
        """Two keys that count when they come within a second: again, when this machine is too busy for that."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await self.page.keyboard.press(first)
                await self.page.keyboard.press(second)
                with suppress(TimedOut):
                    return await leads_to.wait_for(timeout=5_000)

    async def accessibility_findings(self) -> list[str]:
        """What axe finds wrong with the page as it is now, once nothing on it fades or moves any more."""
        await self.page.evaluate(_STILL)
        await self.page.evaluate(_axe())
        found: list[dict[str, Any]] = await self.page.evaluate(
            "axe.run(document, {resultTypes: ['violations']}).then((result) => result.violations)"
        )
        return [f"{one['id']}: {one['help']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


async def watch(context: BrowserContext) -> Visitor:
    context.set_default_timeout(PATIENCE_S * 1000)
    page = await context.new_page()
    visitor = Visitor(page)

    def tell(text: str) -> None:
        visitor.complaints.append(text)

    await context.expose_function("tell", tell)
    await context.add_init_script(_REPORT)
    page.on("pageerror", lambda error: tell(str(error)))
    return visitor


def _axe() -> str:
    if not AXE.exists():
        remedy = "axe-core is not installed: npm ci --ignore-scripts in web/"
        if os.environ.get("CI"):
            pytest.fail(remedy)
        pytest.skip(remedy)
    return AXE.read_text()
