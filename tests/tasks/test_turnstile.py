"""A thousand steps let others through."""

import asyncio

from server_monitor.tasks.turnstile import Turnstile
from tests.support.patience import PATIENCE_S


async def test_few_do_not_wait() -> None:
    turnstile, steps = Turnstile(2), list[str]()

    async def go() -> None:
        await turnstile.passed()
        await turnstile.passed()
        steps.append("passed")

    asyncio.get_running_loop().call_soon(steps.append, "others")
    await go()

    assert steps == ["passed"]


async def test_so_many_pass_in_a_turn_and_all_in_the_end_in_their_order() -> None:
    turnstile, passed = Turnstile(3), list[int]()

    async def go(number: int) -> None:
        await turnstile.passed()
        passed.append(number)

    tasks = [asyncio.ensure_future(go(number)) for number in range(10)]
    seen = []
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        seen.append(len(passed))

    assert passed == list(range(10))
    assert max(later - earlier for earlier, later in zip([0, *seen], seen, strict=False)) <= 3


async def test_whoever_gives_up_holds_up_nobody() -> None:
    turnstile = Turnstile(1)
    first, second, third = (asyncio.ensure_future(turnstile.passed()) for _ in range(3))
    await asyncio.sleep(0)
    second.cancel()

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(first, third)
