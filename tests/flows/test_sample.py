"""A sample, from /proc of a real host over a real sshd to the API and a live socket."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
import websockets

from tests.support.console import Browser, ConsoleProcess
from tests.support.patience import PATIENCE_S
from tests.support.sshd import Sshd, Sshds

pytestmark = [pytest.mark.sshd, pytest.mark.long]


@pytest.fixture
def host(sshds: Sshds, tmp_path: Path) -> Sshd:
    """A host whose account has no shell start files: those of whoever runs the tests may do anything."""
    return sshds.start(options={"SetEnv": f"HOME={tmp_path}"})


async def server_when(browser: Browser, server_id: str, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """The server as the API shows it, once it fulfils the condition."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        server: dict[str, Any] = (await browser.get(f"/api/servers/{server_id}")).json()
        if condition(server):
            return server
        await asyncio.sleep(0.1)
    pytest.fail(f"not within {PATIENCE_S:.0f} s; the server is {server}")


async def added(browser: Browser, host: Sshd) -> str:
    body = {
        "name": "real host",
        "host": host.host,
        "port": host.port,
        "username": host.username,
        "auth": {"type": "key", "private_key": host.private_key},
    }
    answer = await browser.send("POST", "/api/servers", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def trust(browser: Browser, server_id: str, host: Sshd) -> None:
    """Approve the key of the host, once the console has seen it."""
    fingerprint = host.fingerprint()
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        offered = (await browser.get(f"/api/servers/{server_id}/host-key")).json()["offered"]
        if fingerprint in [key["fingerprint"] for key in offered]:
            break
        await asyncio.sleep(0.1)
    answer = await browser.send("POST", f"/api/servers/{server_id}/host-key", {"fingerprint": fingerprint})
    assert answer.is_success, answer.text


async def test_a_real_host_is_approved_goes_live_changes_its_key_and_comes_back(
    browser: Browser, console: ConsoleProcess, host: Sshd
) -> None:
    server_id = await added(browser, host)

    # Nothing is sent to a host whose key nobody approved.
    server = await server_when(browser, server_id, lambda found: found["status_reason"] == "host_key_unknown")
    assert server["status"] == "unknown"
    await trust(browser, server_id, host)

    server = await server_when(browser, server_id, lambda found: found["status"] == "online" and found["latest"])
    latest = server["latest"]
    assert 0 <= latest["cpu_percent"] <= 100
    assert 0 < latest["memory_percent"] < 100
    assert latest["uptime_seconds"] > 0

    # Another key on the same address is not retried and not accepted.
    host.swap_host_key()
    await server_when(browser, server_id, lambda found: found["status"] == "host_key_changed")
    await trust(browser, server_id, host)
    await server_when(browser, server_id, lambda found: found["status"] == "online")


async def test_once_the_cause_is_mended_a_test_brings_a_server_back_at_once(
    browser: Browser, host: Sshd, console: ConsoleProcess
) -> None:
    """Patience with a host that refuses us lasts ten minutes, and a changed key waits for a person for ever."""
    server_id = await added(browser, host)
    await trust(browser, server_id, host)
    await server_when(browser, server_id, lambda found: found["status"] == "online")

    host.lock_out()
    await server_when(browser, server_id, lambda found: found["status"] == "auth_failed")
    host.let_in()
    tried = await browser.send("POST", f"/api/servers/{server_id}/test")
    assert tried.json()["logged_in"] is True
    await server_when(browser, server_id, lambda found: found["status"] == "online")

    host.swap_host_key()
    await server_when(browser, server_id, lambda found: found["status"] == "host_key_changed")
    host.put_host_key_back()
    code, _, words = await console.run("server", "test", "real host")
    assert code == 0, words
    await server_when(browser, server_id, lambda found: found["status"] == "online")
    assert (await browser.get(f"/api/servers/{server_id}/host-key")).json()["offered"] == []


async def test_the_alarm_names_the_key_that_is_new_and_no_other(browser: Browser, sshds: Sshds) -> None:
    """A host has keys of several types; those that nobody approved are no reason for an alarm."""
    host = sshds.start(host_key_types=("ed25519", "rsa"))
    server_id = await added(browser, host)
    await trust(browser, server_id, host)
    await server_when(browser, server_id, lambda found: found["status"] == "online")
    await browser.send("POST", f"/api/servers/{server_id}/test")
    offered = (await browser.get(f"/api/servers/{server_id}/host-key")).json()["offered"]
    assert [key["type"] for key in offered] == ["ssh-rsa"]

    host.swap_host_key()
    await server_when(browser, server_id, lambda found: found["status"] == "host_key_changed")
    alarms = (await browser.get("/api/audit-logs", params={"action": "host_key.changed"})).json()["items"]
    assert [alarm["meta_json"]["offered"] for alarm in alarms] == [host.fingerprint()]


async def test_a_host_that_goes_away_is_offline_and_comes_back_by_itself(browser: Browser, host: Sshd) -> None:
    server_id = await added(browser, host)
    await trust(browser, server_id, host)
    await server_when(browser, server_id, lambda found: found["status"] == "online")

    host.stop()
    server = await server_when(browser, server_id, lambda found: found["status"] == "offline")
    assert server["status_reason"] in ("connection_lost", "connect_refused")
    host.start()
    await server_when(browser, server_id, lambda found: found["status"] == "online")


async def test_the_consoles_own_machine_is_live_at_one_second_while_somebody_looks(
    browser: Browser, console: ConsoleProcess
) -> None:
    own = next(item for item in (await browser.get("/api/servers")).json()["items"] if item["host"] == "local")
    cookies = "; ".join(f"{name}={value}" for name, value in browser.client.cookies.items())
    address = console.url.replace("http://", "ws://") + "/ws/live"
    times: list[float] = []
    async with (
        asyncio.timeout(PATIENCE_S),
        websockets.connect(
            address, origin=console.url, additional_headers={"Cookie": cookies}, open_timeout=PATIENCE_S
        ) as socket,
    ):
        await socket.send(orjson.dumps({"type": "subscribe", "servers": [own["id"]], "rate_s": 1}).decode())
        # The machine may be too busy for one sample or another; without anybody who looks no two were this close.
        while not any(0.5 < later - earlier < 3 for earlier, later in pairwise(times)):
            message = orjson.loads(await socket.recv())
            if message["type"] == "samples" and own["id"] in message["servers"]:
                times.append(datetime.fromisoformat(message["at"]).timestamp())
                values = message["servers"][own["id"]]
    assert "memory_available_bytes" in values
    answer = await browser.get(f"/api/servers/{own['id']}/metrics", params={"metric": "cpu_percent"})
    assert answer.json()["metric"] == "cpu_percent"
