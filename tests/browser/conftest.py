"""A real Chromium in front of a real console."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright, expect

from tests.browser.visitor import Fleet, Visitor, watch
from tests.support.console import ConsoleProcess
from tests.support.patience import PATIENCE_S
from tests.support.sshd import Sshds, ssh_agent

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


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
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


@pytest.fixture
async def visitor(chromium: Browser) -> AsyncIterator[Visitor]:
    """Somebody at a browser. The test fails when a page broke the policy or threw an error, whatever else it saw."""
    context = await chromium.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB")
    expect.set_options(timeout=PATIENCE_S * 1000)
    one = await watch(context)
    try:
        yield one
    finally:
        await context.close()
    assert one.complaints == []


@pytest.fixture
async def fleet(tmp_path: Path, sshds: Sshds) -> AsyncIterator[Fleet]:
    """A running console on an empty data directory, and two real hosts that accept a key of its agent."""
    first = sshds.start()
    second = sshds.start(authorized_keys=[first.login_public_key])
    async with AsyncExitStack() as stack:
        socket = stack.enter_context(ssh_agent(tmp_path, first.directory / "login_key"))
        console = ConsoleProcess(tmp_path / "data", {"SSH_AUTH_SOCK": socket})
        await console.start()
        try:
            yield Fleet(console, (first, second))
        finally:
            if console.is_running:
                await console.kill()


def _require(path: Path, remedy: str) -> None:
    if path.exists():
        return
    if os.environ.get("CI"):
        pytest.fail(remedy)
    pytest.skip(remedy)
