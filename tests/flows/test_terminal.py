"""Terminals of the whole console, in a process of its own: opened over HTTP, killed, stopped, and out of disk."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support.console import Browser, ConsoleProcess
from tests.support.disk import fill
from tests.support.patience import PATIENCE_S
from tests.support.sshd import Sshd
from tests.support.terminals import Screen

pytestmark = pytest.mark.sshd
# What no policy allows, and what would do nothing anywhere: there is no such device.
DENIED = "mkfs.ext4 /dev/no-such-device-DENY"


on_both_databases = pytest.mark.parametrize("environment", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    """Of the console; its database is SQLite unless the test says otherwise."""
    is_sqlite = getattr(request, "param", "sqlite") == "sqlite"
    return {} if is_sqlite else {"DATABASE_URL": request.getfixturevalue("postgres_url")}


@pytest.fixture
async def console(environment: dict[str, str], tmp_path: Path) -> AsyncIterator[ConsoleProcess]:
    process = ConsoleProcess(tmp_path / "data", environment)
    await process.start()
    try:
        yield process
    finally:
        if process.is_running:
            await process.kill()


async def add(browser: Browser, host: Sshd) -> str:
    """A server at capability terminal for this host, its key approved; its id."""
    login = {"type": "key", "private_key": host.private_key}
    body = {"name": f"host {host.port}", "host": host.host, "port": host.port, "username": host.username}
    answer = await browser.send("POST", "/api/servers", body | {"auth": login, "capability": "terminal"})
    assert answer.status_code == 201, answer.text
    server_id = str(answer.json()["id"])
    trusted = await browser.send("POST", f"/api/servers/{server_id}/host-key", {"fingerprint": host.fingerprint()})
    assert trusted.is_success, trusted.text
    return server_id


async def ask(browser: Browser, server_id: str, **more: object) -> dict[str, Any]:
    answer = await browser.send(
        "POST", "/api/terminal/sessions", {"server_id": server_id, "cols": 80, "rows": 24, **more}
    )
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


@asynccontextmanager
async def attached(browser: Browser, asked: dict[str, Any], session_id: str, have: int = 0) -> AsyncIterator[Screen]:
    base = str(browser.client.base_url).rstrip("/")
    cookie = "; ".join(f"{name}={value}" for name, value in browser.client.cookies.items())
    async with connect(
        base.replace("http", "ws", 1) + asked["path"],
        additional_headers={"Cookie": cookie, "Origin": base},
        compression=None,
        proxy=None,
    ) as connection:
        screen = Screen(connection, session_id)
        await screen.begin(asked["ticket"], have)
        yield screen


@asynccontextmanager
async def opened(browser: Browser, server_id: str) -> AsyncIterator[Screen]:
    asked = await ask(browser, server_id, reason="a test")
    async with attached(browser, asked, asked["id"]) as screen:
        await screen.frame("ready")
        await screen.run("true")
        yield screen


async def session(browser: Browser, session_id: str) -> dict[str, Any]:
    answer = await browser.get(f"/api/terminal/sessions/{session_id}")
    assert answer.is_success, answer.text
    return dict(answer.json())


async def settled(browser: Browser, session_id: str) -> dict[str, Any]:
    """The session once it is over and its recording has been looked at."""
    async with asyncio.timeout(PATIENCE_S):
        while (found := await session(browser, session_id))["recording"] in {"open", "unverified"}:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return found


async def warm(browser: Browser) -> None:
    """Have the policy asked once: the guard rail waits only so long for it, and the first time takes the longest."""
    assert (await browser.send("POST", "/api/policy/check", {"command": "true"})).is_success


async def actions(browser: Browser) -> list[str]:
    return [one["action"] for one in (await browser.get("/api/audit-logs?limit=200")).json()["items"]]


@on_both_databases
async def test_a_terminal_from_asking_to_its_verified_recording(browser: Browser, sshd: Sshd):
    server_id = await add(browser, sshd)
    async with opened(browser, server_id) as screen:
        assert b"hello" in await screen.run("echo hel''lo")
        running = await session(browser, screen.session_id)
        assert (running["status"], running["reason"], running["watchers"]) == ("active", "a test", [])
        assert (running["is_attached"], running["is_ending"]) == (True, False)
        await screen.cut()
        async with asyncio.timeout(PATIENCE_S):
            while (await session(browser, screen.session_id))["is_attached"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        again = await browser.send("POST", f"/api/terminal/sessions/{screen.session_id}/ticket", {"purpose": "attach"})
        async with attached(browser, again.json(), screen.session_id, have=screen.at) as back:
            assert (await back.frame("ready"))["reset"] is False
            stopped = await browser.send("POST", f"/api/terminal/sessions/{screen.session_id}/stop", {})
            assert (stopped.status_code, stopped.json()["status"]) in {(200, "active"), (200, "closed")}
            assert stopped.json()["is_ending"] == (stopped.json()["status"] == "active")
            assert (await back.frame("closed"))["reason"] == "closed"

    found = await settled(browser, screen.session_id)
    assert (found["status"], found["cause"], found["recording"]) == ("closed", "closed", "verified")
    assert found["sentence"] == "Whoever opened it closed it."
    text = await browser.get(f"/api/terminal/sessions/{screen.session_id}/recording?format=text")
    assert "hello" in text.text
    listed = (await browser.get("/api/terminal/sessions?status=closed")).json()
    assert [one["id"] for one in listed["items"]] == [screen.session_id]
    log = (await browser.get("/api/audit-logs?limit=200")).json()["items"]
    by_action = {one["action"]: one for one in log}
    assert {"terminal.connect", "terminal.stop", "terminal.disconnect"} <= by_action.keys()
    for action in ("terminal.connect", "terminal.attach"):
        assert by_action[action]["ip"] == "127.0.0.1"


async def test_a_running_session_tells_how_much_is_recorded_by_now(browser: Browser, sshd: Sshd):
    """Its row is told only every minute."""
    async with opened(browser, await add(browser, sshd)) as screen:
        async with asyncio.timeout(PATIENCE_S):
            while not (running := await session(browser, screen.session_id))["output_bytes"]:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

        assert running["chunks"] > 0
        assert running["recording_bytes"] > running["output_bytes"]
        assert len(running["head"]) == 64


async def test_refusals_are_told_with_their_status(browser: Browser, sshd: Sshd):
    server_id = await add(browser, sshd)
    own = next(one for one in (await browser.get("/api/servers")).json()["items"] if one["host"] == "local")

    async def status(**body: object) -> int:
        return (await browser.send("POST", "/api/terminal/sessions", body)).status_code

    assert await status(server_id=own["id"]) == 409
    assert await status(server_id=server_id, cols=0) == 422
    assert await status(server_id="none") == 404
    await browser.send("PATCH", f"/api/servers/{server_id}", {"capability": "run"})
    assert await status(server_id=server_id) == 403
    missing = await browser.get("/api/terminal/sessions/none")
    assert missing.status_code == 404
    assert (await browser.get("/api/terminal/sessions?cursor=x")).status_code == 422


async def test_a_dangerous_line_is_asked_about_by_the_policy_itself(browser: Browser, sshd: Sshd):
    async with opened(browser, await add(browser, sshd)) as screen:
        await warm(browser)
        at = len(screen.shown)
        await screen.type(DENIED)
        await screen.until(DENIED.encode(), since=at)
        await screen.type("\r")
        question = await screen.frame("guard")
        assert question["line"] == DENIED
        assert question["rule"].startswith("fs.")
        await screen.send(type="drop")
        await screen.type("\x15")
        for harmless in ("for i in 1 2; do", "echo $i", "done"):  # lines that are parts of a command
            await screen.type(harmless + "\r")
        await screen.until(b"1\r\n2\r\n")
        assert not any(one["type"] == "guard" for one in screen.frames)


@on_both_databases
async def test_killed_with_its_terminals_open_the_next_start_closes_and_verifies_them(
    console: ConsoleProcess, browser: Browser, sshd: Sshd
):
    server_id = await add(browser, sshd)
    async with opened(browser, server_id) as screen:
        await screen.run("seq 50000")
        async with asyncio.timeout(PATIENCE_S):  # until it is durable, which is what is promised
            while "\\n50000" not in (await browser.get(f"/api/terminal/sessions/{screen.session_id}/replay")).text:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await console.kill()
        with pytest.raises(ConnectionClosed):
            await screen.connection.recv()
    await console.start()
    browser.client.base_url = console.url

    assert "recovered 0 interrupted tasks, 1 terminal sessions" in console.log
    found = await settled(browser, screen.session_id)
    assert (found["status"], found["cause"], found["recording"]) == ("interrupted", "console_died", "verified")
    text = (await browser.get(f"/api/terminal/sessions/{screen.session_id}/recording?format=text")).text
    assert " 50000\n" in text
    recorded = await actions(browser)
    assert recorded.count("terminal.recover") == 1
    assert recorded.count("terminal.disconnect") == 1
    code, out, err = await console.run("audit", "verify")
    assert code == 0, out + err


async def test_told_to_stop_it_closes_terminals_and_verifies_their_recordings(
    console: ConsoleProcess, browser: Browser, sshd: Sshd
):
    server_id = await add(browser, sshd)
    async with opened(browser, server_id) as one, opened(browser, server_id) as two:
        await warm(browser)
        at = len(two.shown)
        await two.type("yes")
        await two.until(b"yes", since=at)
        await two.type("\r")
        await two.frame("guard")  # It would never end.
        await two.send(type="continue")
        await two.until(b"y\r\ny\r\n")
        assert await console.stop() == 0
        for screen in (one, two):
            assert (await screen.frame("closed"))["reason"] == "console_stopped"
            assert await screen.closed() == 1001
    await console.start()
    browser.client.base_url = console.url

    assert "recovered 0 interrupted tasks, 0 terminal sessions" in console.log
    for screen in (one, two):
        found = await session(browser, screen.session_id)
        assert (found["status"], found["cause"], found["recording"]) == ("interrupted", "console_stopped", "verified")


async def test_a_full_disk_ends_the_terminals_and_opens_none(
    small_disk: Path, console_on_it: ConsoleProcess, sshd: Sshd
):
    assert console_on_it.setup_token is not None
    async with httpx2.AsyncClient(base_url=console_on_it.url, timeout=PATIENCE_S) as client:
        browser = Browser(client)
        await browser.set_up(console_on_it.setup_token)
        server_id = await add(browser, sshd)
        async with opened(browser, server_id) as screen:
            filler = await asyncio.to_thread(fill, small_disk)
            async with asyncio.timeout(PATIENCE_S):
                while "disk_reserve_released" not in console_on_it.log:  # noqa: ASYNC110  # Another process.
                    await asyncio.sleep(0.05)
            more = await asyncio.to_thread(fill, small_disk, "more")
            await screen.type("seq 1000000\r")
            closed = await screen.frame("closed")
            assert closed["reason"] == "not_recorded"
        filler.unlink()
        more.unlink()
        found = await settled(browser, screen.session_id)
        assert (found["status"], found["cause"], found["recording"]) == ("interrupted", "not_recorded", "verified")
        async with opened(browser, server_id) as after:
            assert b"fine" in await after.run("echo fi''ne")
