"""The console starts, stops, is killed and comes back; nothing it acknowledged is lost."""

import asyncio
import os
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator, Awaitable
from contextlib import closing
from pathlib import Path

import httpx2
import orjson
import pytest

from tests.support.bad_hosts import bad_host, never_answers
from tests.support.console import Browser, ConsoleProcess
from tests.support.patience import PATIENCE_S, until

pytestmark = pytest.mark.long


@pytest.fixture
async def stopped_console(tmp_path: Path) -> AsyncIterator[ConsoleProcess]:
    """A console that is not running yet."""
    process = ConsoleProcess(tmp_path / "data")
    yield process
    if process.is_running:
        await process.kill()


def records(console: ConsoleProcess) -> list[dict[str, object]]:
    with closing(sqlite3.connect(console.data_dir / "server-monitor.sqlite3", timeout=PATIENCE_S)) as conn:
        return [orjson.loads(body) for (body,) in conn.execute("SELECT body FROM audit_records ORDER BY seq")]


def is_open_to_others(file: Path) -> bool:
    """False for one that is gone by now, as the console makes and removes files at any moment."""
    try:
        return bool(file.stat().st_mode & 0o077)
    except FileNotFoundError:
        return False


async def _refused(request: Awaitable[httpx2.Response]) -> None:
    """The request gets no answer: the console has gone."""
    with pytest.raises(httpx2.TransportError):
        await request


async def test_it_says_that_it_lives_and_that_it_is_ready(console: ConsoleProcess) -> None:
    async with httpx2.AsyncClient(base_url=console.url, timeout=PATIENCE_S) as client:
        health = await client.get("/api/health")
        ready = await client.get("/api/ready")
        heads = [await client.head(path) for path in ("/api/health", "/api/ready")]
        metrics = await client.get("/api/metrics")
        openmetrics = await client.get("/api/metrics", headers={"Accept": "application/openmetrics-text"})
        as_json = await client.get("/api/metrics?format=json")
        forwarded = await client.get("/api/metrics", headers={"X-Forwarded-For": "127.0.0.1"})

    assert health.json()["status"] == "ok"
    assert ready.json()["status"] == "ready"
    assert [(head.status_code, head.content) for head in heads] == [(200, b""), (200, b"")]
    assert {"database", "migrations", "secrets", "audit", "bus", "disk"} <= ready.json()["checks"].keys()
    assert "server_monitor_http_requests_total" in metrics.text
    assert openmetrics.text.endswith("# EOF\n")
    assert as_json.json()["metrics"]
    assert forwarded.status_code == 401


async def test_what_it_writes_is_its_owners_alone(console: ConsoleProcess) -> None:
    written = [console.data_dir, *console.data_dir.rglob("*")]

    assert len(written) > 5
    assert [file for file in written if is_open_to_others(file)] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_asked_to_stop_it_stops_and_records_both(console: ConsoleProcess, number: signal.Signals) -> None:
    assert await console.stop(number) == 0

    actions = [record["action"] for record in records(console)]
    assert actions[0] == "system.start"
    assert actions[-1] == "system.stop"


@pytest.fixture
async def patient_console(tmp_path: Path) -> AsyncIterator[ConsoleProcess]:
    """One that waits for a silent host, and for a request in its drain, for longer than this test does."""
    waits = {"CONNECT_TIMEOUT_SECONDS": "120", "SHUTDOWN_TIMEOUT_SECONDS": "120"}
    process = ConsoleProcess(tmp_path / "data", waits)
    await process.start()
    try:
        yield process
    finally:
        if process.is_running:
            await process.kill()


async def test_a_second_signal_ends_it_at_once_and_the_next_start_knows(patient_console: ConsoleProcess) -> None:
    """A request to a host that never answers holds it in the drain, until somebody is impatient."""
    console = patient_console
    assert console.setup_token is not None
    async with (
        httpx2.AsyncClient(base_url=console.url, timeout=PATIENCE_S) as client,
        bad_host(never_answers) as host,
        asyncio.TaskGroup() as tasks,
    ):
        browser = Browser(client)
        await browser.set_up(console.setup_token)
        server = {"name": "mute", "host": host.host, "port": host.port, "username": "monitor"}
        asked = tasks.create_task(_refused(browser.send("POST", "/api/servers/test", server)))
        await until(lambda: host.accepted > 0)
        os.kill(console.pid, signal.SIGTERM)
        await until(lambda: '"event": "stopping"' in console.log)
        assert not asked.done()
        assert await console.stop(signal.SIGINT) == 130

    await console.start()
    start = [record for record in records(console) if record["action"] == "system.start"][-1]
    assert start["meta"]["clean"] is False  # type: ignore[index]


async def test_a_request_that_takes_too_long_does_not_keep_it_from_stopping(tmp_path: Path) -> None:
    """It is cut off while there is time left to stop properly."""
    console = ConsoleProcess(tmp_path / "data", {"CONNECT_TIMEOUT_SECONDS": "120"})
    await console.start()
    assert console.setup_token is not None
    try:
        async with (
            httpx2.AsyncClient(base_url=console.url, timeout=PATIENCE_S) as client,
            bad_host(never_answers) as host,
        ):
            browser = Browser(client)
            await browser.set_up(console.setup_token)
            server = {"name": "mute", "host": host.host, "port": host.port, "username": "monitor"}
            asked = asyncio.create_task(browser.send("POST", "/api/servers/test", server))
            await until(lambda: host.accepted > 0)
            assert await console.stop() == 0, console.log
            await asyncio.gather(asked, return_exceptions=True)  # an error, or no answer at all
    finally:
        if console.is_running:
            await console.kill()
    assert records(console)[-1]["action"] == "system.stop"


async def test_kill_9_loses_nothing_that_was_acknowledged(console: ConsoleProcess, browser: Browser) -> None:
    """Groups are made by eight writers at once; the console is killed in between; each answered one is there after."""
    acknowledged: list[str] = []
    enough = asyncio.Event()

    async def write(writer: int) -> None:
        for number in range(200):
            try:
                answer = await browser.send("POST", "/api/groups", {"name": f"g{writer}-{number}"})
            except httpx2.TransportError:
                return
            if answer.status_code == 201:
                acknowledged.append(answer.json()["id"])
            if len(acknowledged) >= 40:
                enough.set()

    async with asyncio.TaskGroup() as tasks:
        for writer in range(8):
            tasks.create_task(write(writer))
        await enough.wait()
        await console.kill()

    await console.start()
    async with httpx2.AsyncClient(base_url=console.url, timeout=PATIENCE_S) as client:
        page = Browser(client)
        await page.log_in()
        kept = {group["id"] for group in (await page.get("/api/groups")).json()["items"]}
    assert console.setup_token is None
    assert set(acknowledged) <= kept
    created = [r["target"]["id"] for r in records(console) if r["action"] == "group.create"]  # type: ignore[index]
    assert sorted(created) == sorted(kept)
    assert [r["seq"] for r in records(console)] == list(range(len(records(console))))


async def test_one_data_directory_has_one_console(console: ConsoleProcess) -> None:
    code, _, words = await console.run("serve", "--port", "0")

    assert code == 1
    assert "Another console is using" in words


async def test_a_taken_port_is_named(stopped_console: ConsoleProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, words = await stopped_console.run("serve", "--port", str(port))

    assert code == 1
    assert words.startswith(f"API_PORT: cannot listen on 127.0.0.1:{port}: Address already in use")


async def test_beyond_loopback_takes_a_decision(stopped_console: ConsoleProcess) -> None:
    code, _, words = await stopped_console.run("serve", "--port", "0", "--host", "0.0.0.0")

    assert code == 1
    assert "--allow-plain-http" in words


async def test_production_without_good_secrets_does_not_start(tmp_path: Path) -> None:
    bad = {"ENVIRONMENT": "production", "JWT_SECRET": "hunter2hunter2", "ENCRYPTION_KEY": "x" * 40}
    console = ConsoleProcess(tmp_path / "data", environment=bad)

    code, out, words = await console.run("serve", "--port", "0")

    assert code == 1
    assert {"JWT_SECRET", "ENCRYPTION_KEY", "KEY_VAULT_MASTER_KEY"} == {
        line.split(":")[0] for line in words.splitlines()
    }
    assert "hunter2" not in out + words
    assert not (tmp_path / "data" / "server-monitor.sqlite3").exists()


@pytest.mark.parametrize("arguments", [["serve", "--port", "x"], ["no-such"], ["serve", "--no-such"]])
async def test_wrong_usage_exits_3(stopped_console: ConsoleProcess, arguments: list[str]) -> None:
    code, _, words = await stopped_console.run(*arguments)

    assert code == 3
    assert words
