"""Somebody at a browser: what they do again and again, and what their browser complains of."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Locator, Page, StorageState, async_playwright, expect
from playwright.async_api import TimeoutError as TimedOut

from tests.support.console import ADMIN, PASSWORD, ConsoleProcess
from tests.support.patience import PATIENCE_S
from tests.support.sshd import Sshd, Sshds, ssh_agent

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
STATIC = Path(__file__).parents[2] / "src" / "server_monitor" / "static" / "index.html"
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
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
        await self.page.goto(f"{url}/setup")
        await self.page.goto(f"{url}/setup#token={token}")  # In the same tab: only what is behind the # changes.
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


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """A Chromium without a window."""
    _require(Path(CHROMIUM), "Debian's Chromium is needed: apt install chromium")
    _require(STATIC, "The UI is not built: make web")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*SWITCHES], timeout=PATIENCE_S * 1000
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def visiting(browser: Browser, state: StorageState | None = None) -> AsyncIterator[Visitor]:
    """Somebody at a browser of their own, logged in when `state` says so.

    Fails when a page broke the policy or threw an error, whatever else was seen.
    """
    context = await browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB", storage_state=state)
    expect.set_options(timeout=PATIENCE_S * 1000)
    one = await watch(context)
    try:
        yield one
    finally:
        await context.close()
    assert one.complaints == []


@asynccontextmanager
async def fleet_of(
    directory: Path,
    sshds: Sshds,
    environment: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> AsyncIterator[Fleet]:
    """A console on an empty data directory, and two real hosts that accept a key of its agent.

    The console may have settings of its own, and the hosts lines of sshd_config.
    """
    first = sshds.start(options=options)
    second = sshds.start(options=options, authorized_keys=[first.login_public_key])
    async with AsyncExitStack() as stack:
        agent = stack.enter_context(ssh_agent(directory, first.directory / "login_key"))
        console = ConsoleProcess(directory / "data", {"SSH_AUTH_SOCK": agent, **(environment or {})})
        await console.start()
        try:
            yield Fleet(console, (first, second))
        finally:
            if console.is_running:
                await console.kill()


def _axe() -> str:
    _require(AXE, "axe-core is not installed: npm ci --ignore-scripts in web/")
    return AXE.read_text()


def _require(path: Path, remedy: str) -> None:
    if path.exists():
        return
    if os.environ.get("CI"):
        pytest.fail(remedy)
    pytest.skip(remedy)
