"""A real Chromium in front of a real console, new for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.browser.visitor import Fleet, Visitor, fleet_of, launched, visiting
from tests.support.sshd import Sshds


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    async with launched() as browser:
        yield browser


@pytest.fixture
async def visitor(chromium: Browser) -> AsyncIterator[Visitor]:
    """Somebody at a browser. The test fails when a page broke the policy or threw an error, whatever else it saw."""
    async with visiting(chromium) as one:
        yield one


@pytest.fixture
async def fleet(tmp_path: Path, sshds: Sshds) -> AsyncIterator[Fleet]:
    async with fleet_of(tmp_path, sshds) as one:
        yield one
