import asyncio
import json
from typing import Any

import pytest

from server_monitor.bus.contract import SamplesTaken, StatusChanged, Subject
from server_monitor.bus.memory import MemoryBus
from server_monitor.realtime.hub import Browser, Close, Hub, Interest, Limits
from tests.support.live import next_watched

EVERYTHING = Interest(None, detailed=False)
LIMITS = Limits(flush_interval_s=0.01, sample_frames=3, statuses=2, notices=2)


@pytest.fixture
async def bus() -> MemoryBus:
    return MemoryBus()


@pytest.fixture
async def hub(bus: MemoryBus):
    hub = Hub(bus, watcher="here", headline=("load1",), explain=nothing_to_explain, limits=LIMITS)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(hub.run())
        await asyncio.sleep(0)
        yield hub
        running.cancel()


async def nothing_to_explain(_server_id: str, _reason: str) -> tuple[str, str]:
    return "", ""


def watching(hub: Hub, interest: Interest = EVERYTHING) -> Browser:
    browser = hub.join()
    hub.subscribe(browser, interest)
    return browser


async def next_frame(browser: Browser) -> str:
    async with asyncio.timeout(5):
        item = await browser.next()
    assert isinstance(item, str), item
    return item


async def next_message(browser: Browser) -> dict[str, Any]:
    return json.loads(await next_frame(browser))


def take(bus: MemoryBus, at: float = 1.0, **values: float) -> None:
    bus.publish(Subject.SAMPLES, SamplesTaken(at, {key: {"load1": value} for key, value in values.items()}))


async def test_browsers_with_equal_interests_get_the_very_same_frame(hub: Hub, bus: MemoryBus):
    browsers = [watching(hub) for _ in range(3)]
    take(bus, one=1.0)

    first, second, third = [await next_frame(browser) for browser in browsers]

    assert first is second is third


async def test_samples_of_one_flush_leave_together_and_the_newest_wins(hub: Hub, bus: MemoryBus):
    browser = watching(hub)
    take(bus, at=1.0, one=1.0)
    take(bus, at=1.1, one=2.0, two=3.0)

    frame = await next_message(browser)

    assert frame["servers"] == {"one": {"load1": 2.0}, "two": {"load1": 3.0}}
    assert frame["at"] == "1970-01-01T00:00:01.100Z"


async def test_a_full_outbox_loses_its_oldest_samples_and_says_so(hub: Hub):
    browser = hub.join()
    for number in range(5):
        browser.samples(f'"frame {number}"')

    assert await next_message(browser) == {"type": "gap", "frames": 2}
    assert [await next_message(browser) for _ in range(3)] == ["frame 2", "frame 3", "frame 4"]


async def test_states_come_before_samples_and_only_the_newest_of_each_server(hub: Hub, bus: MemoryBus):
    browser = watching(hub)
    browser.samples('"samples"')
    for state in ("online", "offline"):
        bus.publish(Subject.STATUS, StatusChanged("one", state, None, 1.0))
    bus.publish(Subject.STATUS, StatusChanged("two", "online", None, 1.0))
    async with asyncio.timeout(5):
        while len(browser._statuses) < 2:  # noqa: ASYNC110  # Only the hub knows when it has read its bus.
            await asyncio.sleep(0)

    assert [(await next_message(browser))["status"] for _ in range(2)] == ["offline", "online"]
    assert await next_message(browser) == "samples"


async def test_a_browser_too_far_behind_to_keep_every_state_is_told_to_come_again(hub: Hub):
    browser = hub.join()
    for number in range(3):
        browser.status(f"server-{number}", "{}")

    assert await browser.next() == Close(1013, "too far behind, fetch the list again")


async def test_a_browser_that_reads_no_notices_is_closed_after_those_it_can_hold(hub: Hub):
    browser = hub.join()
    for number in range(3):
        browser.notice(str(number))

    assert [await browser.next() for _ in range(3)] == ["0", "1", Close(1013, "this connection does not read")]


async def test_a_slower_rate_gets_fewer_frames_with_the_newest_values(hub: Hub, bus: MemoryBus):
    quick, slow = watching(hub), watching(hub, Interest(None, detailed=False, rate_s=3600))
    take(bus, one=1.0)
    await next_frame(quick)
    first = await next_message(slow)
    for value in (2.0, 3.0):
        take(bus, one=value)
        await next_frame(quick)
    hub.flush(asyncio.get_running_loop().time() + 3600)

    assert first["servers"]["one"]["load1"] == 1.0
    assert (await next_message(slow))["servers"]["one"]["load1"] == 3.0


async def test_what_is_looked_at_is_announced_when_it_changes(hub: Hub, bus: MemoryBus):
    with bus.subscribe(Subject.WATCHED, queue_size=8) as watched:
        table = watching(hub)
        assert (await next_watched(watched)).all_servers
        page = watching(hub, Interest(frozenset({"one"}), detailed=True))
        assert (await next_watched(watched)).detailed == {"one"}
        hub.leave(table)
        assert not (await next_watched(watched)).all_servers
        hub.leave(page)
        last = await next_watched(watched)

    assert (last.watcher, last.all_servers, last.detailed) == ("here", False, frozenset())


async def test_what_is_looked_at_is_repeated_while_it_holds(bus: MemoryBus):
    hub = Hub(bus, watcher="here", headline=(), explain=nothing_to_explain, limits=Limits(announce_interval_s=0.01))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(hub.run())
        with bus.subscribe(Subject.WATCHED, queue_size=8) as watched:
            watching(hub)
            assert [(await next_watched(watched)).all_servers for _ in range(3)] == [True] * 3
        running.cancel()


async def test_a_rate_no_faster_than_the_idle_one_makes_no_host_work_more(hub: Hub, bus: MemoryBus):
    with bus.subscribe(Subject.WATCHED, queue_size=8) as watched:
        watching(hub, Interest(None, detailed=False, rate_s=10))
        watching(hub)
        first = await next_watched(watched)

    assert first.all_servers
    assert not watched._queue


async def test_nothing_is_kept_for_browsers_that_subscribed_to_nothing(hub: Hub, bus: MemoryBus):
    hub.join()
    take(bus, one=1.0)
    await asyncio.sleep(0)
    gone = watching(hub)
    hub.leave(gone)

    assert (hub._feeds, hub._by_server, hub._everywhere) == ({}, {}, [])
