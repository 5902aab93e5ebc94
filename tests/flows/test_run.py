"""A run, from the request over the console's own machine to the live socket of whoever watches it."""

import asyncio
from pathlib import Path

import orjson
import pytest
import websockets

from server_monitor.tasks.frames import Frames
from server_monitor.tasks.output import RECENT_BYTES
from tests.support.console import Browser, ConsoleProcess
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.long


async def test_a_run_is_watched_from_its_beginning_to_its_end(
    browser: Browser, console: ConsoleProcess, tmp_path: Path
) -> None:
    own = next(item for item in (await browser.get("/api/servers")).json()["items"] if item["host"] == "local")
    await browser.send("PATCH", f"/api/servers/{own['id']}", {"capability": "run"})
    go = tmp_path / "go"
    command = f"until test -e {go}; do sleep 0.05; done; exit 3"
    asked = await browser.send("POST", "/api/tasks", {"command": command, "selector": {"servers": [own["id"]]}})
    run_id = asked.json()["run_id"]
    (task,) = asked.json()["tasks"]

    cookies = "; ".join(f"{name}={value}" for name, value in browser.client.cookies.items())
    address = console.url.replace("http://", "ws://") + "/ws/live"
    seen: list[tuple[str, str | None, int | None]] = []
    abouts: set[str] = set()
    async with (
        asyncio.timeout(PATIENCE_S),
        websockets.connect(
            address, origin=console.url, additional_headers={"Cookie": cookies}, open_timeout=PATIENCE_S
        ) as socket,
    ):
        await socket.send(orjson.dumps({"type": "watch", "run": "never-existed"}).decode())
        await socket.send(orjson.dumps({"type": "watch", "run": run_id}).decode())
        while not seen or seen[-1][0] != "failed" or "runs" not in abouts:
            message = orjson.loads(await socket.recv())
            if message["type"] == "watching":
                go.touch()  # From here on nothing is missed.
            elif message["type"] == "task":
                assert [one["id"] for one in message["tasks"]] == [task["id"]]
                seen += [(one["status"], one["cause"], one["exit_code"]) for one in message["tasks"]]
            elif message["type"] == "changed":
                abouts.add(message["about"])
            elif message["type"] == "error":
                assert message["code"] == "not_found"
    assert seen[-1] == ("failed", "exit_status", 3)
    assert (await browser.get(f"/api/runs/{run_id}")).json()["progress"]["by_status"] == {"failed": 1}


async def test_whoever_watches_more_than_is_kept_is_told_how_much_is_missing(
    browser: Browser, console: ConsoleProcess, tmp_path: Path
) -> None:
    """A cancel is seen at once, and the page that watches reaches the very end."""
    own = next(item for item in (await browser.get("/api/servers")).json()["items"] if item["host"] == "local")
    await browser.send("PATCH", f"/api/servers/{own['id']}", {"capability": "run"})
    command = "head -c 2000000 /dev/zero; exec sleep 300"
    body = {"command": command, "selector": {"servers": [own["id"]]}, "store_output": False}
    (task,) = (await browser.send("POST", "/api/tasks", body)).json()["tasks"]
    path = f"/api/tasks/{task['id']}/output"
    async with asyncio.timeout(PATIENCE_S):
        while (await browser.get(path)).headers["X-Total-Bytes"] != "2000000":  # noqa: ASYNC110
            await asyncio.sleep(0.05)

        following = {"follow": True, "framed": True}
        async with browser.client.stream("GET", path, params=following) as response:
            arriving = response.aiter_bytes()
            came = await anext(arriving)
            asked = (await browser.send("POST", f"/api/tasks/{task['id']}/cancel")).json()
            came += b"".join([data async for data in arriving])

    assert asked["cancel_requested_at"] is not None
    pieces = list(Frames().feed(came))
    ends = [0, *(piece.at + len(piece.data) for piece in pieces)]
    gaps = [(end, piece.at) for end, piece in zip(ends, pieces, strict=False) if end != piece.at]
    assert gaps == [(65_536, 2_000_000 - RECENT_BYTES)]
    assert ends[-1] == 2_000_000
