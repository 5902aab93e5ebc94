"""PostgreSQL goes away and comes back: the console waits for it, and says so meanwhile."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2
import pytest

from tests.support.console import Browser, ConsoleProcess
from tests.support.patience import PATIENCE_S
from tests.support.postgres import Postgres

pytestmark = pytest.mark.long


@pytest.fixture
def server() -> Iterator[Postgres]:
    """A PostgreSQL server of this test alone, to be stopped and killed."""
    with TemporaryDirectory(prefix="server-monitor-") as directory, Postgres(Path(directory)) as running:
        yield running


@pytest.fixture
async def console(server: Postgres, tmp_path: Path) -> AsyncIterator[ConsoleProcess]:
    """A running console whose database is on that server."""
    process = ConsoleProcess(tmp_path / "data", {"DATABASE_URL": server.url("postgres")})
    code, _, words = await process.run("migrate")
    assert code == 0, words
    await process.start()
    yield process
    if process.is_running:
        await process.kill()


async def ready(browser: Browser) -> httpx2.Response:
    return await browser.get("/api/ready")


async def until(ask: Callable[[], Awaitable[httpx2.Response]], status: int) -> httpx2.Response:
    """The first answer with this status."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if (answer := await ask()).status_code == status:
            return answer
        await asyncio.sleep(0.05)
    pytest.fail(f"not {status} within {PATIENCE_S:.0f} s; the last answer is {answer.text}")


@pytest.mark.parametrize("take_away", [Postgres.stop, Postgres.kill])
async def test_the_console_outlives_its_database(
    server: Postgres, console: ConsoleProcess, browser: Browser, take_away: Callable[[Postgres], None]
) -> None:
    """Writers are in the middle of it each time; every one gets an answer, and nobody has to restart anything."""
    answers: Counter[int] = Counter()

    async def make_group(name: str) -> httpx2.Response:
        answer = await browser.send("POST", "/api/groups", {"name": name})
        answers[answer.status_code] += 1
        return answer

    async def write_for_ever(writer: int) -> None:
        number = 0
        while True:
            number += 1
            await make_group(f"group {writer} {number}")

    async with asyncio.TaskGroup() as tasks:
        writers = [tasks.create_task(write_for_ever(writer)) for writer in range(4)]
        await until(lambda: make_group("before"), 201)
        for outage in range(3):
            await asyncio.to_thread(take_away, server)
            not_ready = await until(lambda: ready(browser), 503)
            refused = await make_group("during")
            assert console.is_running, console.log
            assert not_ready.json()["checks"]["database"]["status"] == "fail"
            assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")

            await asyncio.to_thread(server.start)
            await until(lambda: ready(browser), 200)
            assert (await make_group(f"after {outage}")).status_code == 201
        for writer in writers:
            writer.cancel()

    assert answers.keys() == {201, 503}, console.log
    assert await console.stop() == 0
