"""Watching from another process what a running task prints."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server_monitor.tasks.frames import Piece
from server_monitor.tasks.output import RECENT_BYTES, Outputs, Sizes
from server_monitor.tasks.watching import NAME, Window, watch
from tests.support.patience import PATIENCE_S

TASK = "01890000-0000-7000-8000-0000000000ab"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """One whose name alone is longer than the address of a socket may be."""
    made = tmp_path / ("d" * 120)
    made.mkdir()
    return made


@pytest.fixture
async def outputs(data_dir: Path) -> AsyncIterator[Outputs]:
    """Those of a console that shows them."""
    outputs = Outputs(data_dir / "tasks", Sizes(head_bytes=100))
    serving = asyncio.create_task(Window(data_dir, outputs).run())
    async with asyncio.timeout(PATIENCE_S):
        while not (data_dir / NAME).exists():  # noqa: ASYNC110  # It says nothing when it listens.
            await asyncio.sleep(0)
    yield outputs
    serving.cancel()
    await asyncio.wait([serving])
    assert not (data_dir / NAME).exists()


async def seen(data_dir: Path, stream: str = "stdout", offset: int = 0) -> bytes:
    async with asyncio.timeout(PATIENCE_S):
        return b"".join([piece.data async for piece in watch(data_dir, TASK, stream, offset)])


@pytest.mark.parametrize("is_stored", [True, False])
async def test_each_line_is_seen_before_the_next_one_comes(data_dir: Path, outputs: Outputs, is_stored: bool) -> None:
    live = await outputs.begin(TASK, is_stored=is_stored)
    watching, at, pieces = watch(data_dir, TASK, "stdout", 0), 0, []
    async with asyncio.timeout(PATIENCE_S):
        for number in range(50):
            line = f"line {number}\n".encode()
            at = live.add_at("stdout", at, line)
            while len(came := b"".join(piece.data for piece in pieces)) < at:
                pieces.append(await anext(watching))
            assert came.endswith(line)
        await live.end(0)
        assert [piece async for piece in watching] == []


async def test_all_of_a_long_stream_arrives_in_order(data_dir: Path, outputs: Outputs) -> None:
    live, printed = await outputs.begin(TASK, is_stored=True), random.Random(1).randbytes(3_000_000)
    watching = [asyncio.create_task(seen(data_dir, offset=offset)) for offset in (0, 1_000_000)]
    for at in range(0, len(printed), 10_000):
        live.add_at("stdout", at, printed[at : at + 10_000])
        await asyncio.sleep(0)
    await live.end(0)
    outputs.forget(TASK)

    assert await asyncio.gather(*watching) == [printed, printed[1_000_000:]]


async def test_of_what_is_gone_the_length_is_told(data_dir: Path, outputs: Outputs) -> None:
    live, printed = await outputs.begin(TASK, is_stored=False), random.Random(2).randbytes(3 * RECENT_BYTES)
    live.add_at("stdout", 0, printed)
    watching = watch(data_dir, TASK, "stdout", 0)
    async with asyncio.timeout(PATIENCE_S):
        beginning = await anext(watching)
        await live.end(0)
        rest = [piece async for piece in watching]

    assert beginning == Piece(0, printed[:100])
    assert rest[0].at == 2 * RECENT_BYTES, "the piece after it says how much is missing"
    assert b"".join(piece.data for piece in rest) == printed[-RECENT_BYTES:]


async def test_of_what_does_not_run_here_nothing_is_seen(data_dir: Path, outputs: Outputs) -> None:
    assert await seen(data_dir) == b""
    await outputs.begin(TASK, is_stored=True)
    assert await seen(data_dir, stream="../../secrets") == b""


async def test_without_a_console_nothing_is_seen(data_dir: Path) -> None:
    assert await seen(data_dir) == b""


async def test_whoever_leaves_lets_go_of_the_output(data_dir: Path, outputs: Outputs) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        live = await outputs.begin(TASK, is_stored=True)
        live.add_at("stdout", 0, bytes(1_000 + number))
        watching = watch(data_dir, TASK, "stdout", 0)
        await anext(watching)
        await watching.aclose()
        await live.end(0)
        outputs.forget(TASK)

    async with asyncio.timeout(PATIENCE_S):
        while len(os.listdir("/proc/self/fd")) > before:  # noqa: ASYNC110  # The other side closes it.
            await asyncio.sleep(0)


async def test_only_the_account_of_the_console_may_look(data_dir: Path, outputs: Outputs) -> None:
    assert (data_dir / NAME).stat().st_mode & 0o777 == 0o600


async def test_a_socket_that_was_left_behind_is_replaced(data_dir: Path) -> None:
    (data_dir / NAME).touch()
    outputs = Outputs(data_dir / "tasks", Sizes())
    live = await outputs.begin(TASK, is_stored=True)
    live.add_at("stdout", 0, b"here")
    await live.end(0)
    serving = asyncio.create_task(Window(data_dir, outputs).run())
    async with asyncio.timeout(PATIENCE_S):
        while await seen(data_dir) != b"here":  # noqa: ASYNC110
            await asyncio.sleep(0)
    serving.cancel()
    await asyncio.wait([serving])
