"""Ctrl+C between the placing of a run and its following."""

import os
import signal

import pytest

from server_monitor.cli import interrupts
from tests.support.patience import until


async def test_one_that_comes_before_anybody_follows_is_heard_by_whoever_does() -> None:
    heard: list[str] = []
    with interrupts.kept() as kept:
        os.kill(os.getpid(), signal.SIGINT)
        await until(lambda: kept.is_kept)
        with kept.heard_by(lambda: heard.append("the first")):
            assert heard == ["the first"]
            os.kill(os.getpid(), signal.SIGINT)
            await until(lambda: len(heard) == 2)


async def test_a_second_one_that_nobody_hears_ends_the_program() -> None:
    with interrupts.kept() as kept:
        kept.press()
        with pytest.raises(KeyboardInterrupt):
            kept.press()
