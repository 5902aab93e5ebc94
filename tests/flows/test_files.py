"""Files copied by a console in a process of its own, to clients that leave and people who may not go on."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from tests.flows.test_terminal import add
from tests.support.console import Browser, ConsoleProcess
from tests.support.patience import PATIENCE_S
from tests.support.sshd import Sshd, Sshds

pytestmark = pytest.mark.sshd


@pytest.fixture
def sshd(sshds: Sshds) -> Sshd:
    return sshds.start(options={"Subsystem": "sftp internal-sftp"})


def address(server_id: str, path: Path) -> str:
    return f"/api/servers/{server_id}/files/content?path={quote(str(path), safe='')}"


async def outcomes(browser: Browser, count: int) -> list[dict[str, Any]]:
    """How the copies ended, the newest first, when so many have."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            items = (await browser.get("/api/audit-logs?limit=200")).json()["items"]
            found = [one for one in items if one["action"].startswith("file.") and one["outcome"] is not None]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("size_bytes", [10, 300_000, 5_000_000])
async def test_a_client_that_leaves_with_all_its_bytes_has_got_the_file(
    console: ConsoleProcess, browser: Browser, sshd: Sshd, size_bytes: int
):
    """It hangs up at the length that was announced, as they all do."""
    server_id = await add(browser, sshd)
    (sshd.home / "x").write_bytes(b"x" * size_bytes)
    for count in range(1, 5):
        async with (
            httpx2.AsyncClient(base_url=console.url, cookies=browser.client.cookies, timeout=PATIENCE_S) as client,
            client.stream("GET", address(server_id, sshd.home / "x")) as answer,
        ):
            left = int(answer.headers["content-length"])
            async for piece in answer.aiter_raw():
                left -= len(piece)
                if left == 0:
                    break
        found = await outcomes(browser, count)
        assert [one["outcome"] for one in found] == ["success"] * count
