"""Files copied by a console in a process of its own, to clients that leave and people who may not go on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from tests.flows.test_life_cycle import records
from tests.flows.test_terminal import add
from tests.support.console import PASSWORD, Browser, ConsoleProcess
from tests.support.patience import PATIENCE_S, until
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
            found = [one["seq"] for one in items if one["action"].startswith("file.") and one["outcome"] is not None]
            if len(found) >= count:
                return [(await browser.get(f"/api/audit-logs/{seq}")).json()["record"] for seq in found]
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


BIG_BYTES = 100_000_000  # more than all the buffers on the way hold


@pytest.fixture
async def olga(console: ConsoleProcess, browser: Browser) -> AsyncIterator[Browser]:
    """An operator who is logged in. The first admin is there already."""
    added = await console.run("user", "add", "olga", "--role", "operator", "--password-stdin", stdin=PASSWORD.encode())
    assert added[0] == 0, added
    async with httpx2.AsyncClient(base_url=console.url, timeout=PATIENCE_S) as client:
        page = Browser(client)
        await page.log_in("olga")
        yield page


async def test_a_download_ends_with_the_right_to_it(
    console: ConsoleProcess, browser: Browser, olga: Browser, sshd: Sshd
):
    """It is cut off while the client takes nothing, and what the client has is not the file."""
    server_id = await add(browser, sshd)
    with (sshd.home / "big").open("wb") as file:
        file.truncate(BIG_BYTES)
    async with olga.client.stream("GET", address(server_id, sshd.home / "big")) as answer:
        pieces = answer.aiter_raw(65_536)
        got = len(await anext(pieces))
        assert (await console.run("user", "disable", "olga"))[0] == 0
        found = await outcomes(browser, 1)
        with suppress(httpx2.RemoteProtocolError, httpx2.ReadError):
            async for piece in pieces:
                got += len(piece)

    assert got < BIG_BYTES
    assert [(one["outcome"], one["reason"]) for one in found] == [("failure", "logged_out")]


async def test_an_upload_ends_with_the_right_to_it(browser: Browser, olga: Browser, sshd: Sshd):
    """Nothing of it is left, and the answer says why."""
    server_id = await add(browser, sshd)

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 1_000_000
        assert (await browser.send("PATCH", f"/api/servers/{server_id}", {"capability": "run"})).is_success
        await outcomes(browser, 1)

    answer = await olga.put(address(server_id, sshd.home / "x"), endless())
    assert answer.status_code == 403
    assert "The server was" in answer.json()["detail"]
    found = await outcomes(browser, 1)
    assert [(one["outcome"], one["reason"]) for one in found] == [("failure", "server_unfit")]
    assert list(sshd.home.iterdir()) == []


def recorded(console: ConsoleProcess) -> list[tuple[object, object, object]]:
    """How the copies of a console that has stopped ended."""
    ended = [one for one in records(console) if str(one["action"]).startswith("file.") and one["outcome"] is not None]
    return [(one["action"], one["outcome"], one["reason"]) for one in ended]


async def test_a_console_that_stops_ends_an_upload(console: ConsoleProcess, browser: Browser, sshd: Sshd):
    """The client would go on; nothing of the file is left."""
    server_id = await add(browser, sshd)
    codes = []

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 1_000_000
        await until(lambda: list(sshd.home.iterdir()))
        codes.append(await console.stop())

    with suppress(httpx2.TransportError):
        await browser.put(address(server_id, sshd.home / "x"), endless())
    assert codes == [0], console.log
    assert list(sshd.home.iterdir()) == []
    assert recorded(console) == [("file.upload", "failure", "console_stopped")]


async def test_a_console_that_stops_ends_a_download_that_nobody_reads(
    console: ConsoleProcess, browser: Browser, sshd: Sshd
):
    """It does not wait for the client to take what is on its way."""
    server_id = await add(browser, sshd)
    with (sshd.home / "big").open("wb") as file:
        file.truncate(BIG_BYTES)
    async with browser.client.stream("GET", address(server_id, sshd.home / "big")) as answer:
        assert await anext(answer.aiter_raw(65_536))
        assert await console.stop() == 0, console.log
    assert recorded(console) == [("file.download", "failure", "console_stopped")]
