import asyncio
import json
from typing import Any

import pytest

from server_monitor.bus.contract import SamplesTaken, StatusChanged, Subject, TasksChanged, TaskState
from server_monitor.bus.memory import MemoryBus
from server_monitor.realtime.hub import Browser, Close, Hub, Interest, Limits, Watching
from tests.support.live import next_watched
from tests.support.patience import PATIENCE_S

EVERYTHING = Interest(None, detailed=False)
LIMITS = Limits(flush_interval_s=0.01, sample_frames=3, statuses=2, notices=2, tasks_in_frame=2)


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
    async with asyncio.timeout(PATIENCE_S):
        item = await browser.next()
    assert isinstance(item, str), item
    return item


async def next_message(browser: Browser) -> dict[str, Any]:
    return json.loads(await next_frame(browser))


def take(bus: MemoryBus, at: float = 1.0, **values: float) -> None:
    bus.publish(Subject.SAMPLES, SamplesTaken(at, {key: {"load1": value} for key, value in values.items()}))


def moved(task_id: str, status: str, run_id: str = "run", server_id: str = "one") -> TaskState:
    return TaskState(task_id, run_id, server_id, status, None, 0 if status == "success" else None)


def following(hub: Hub, run_id: str = "run", servers: frozenset[str] | None = None) -> Browser:
    browser = hub.join()
    hub.watch(browser, Watching(run_id, servers))
    return browser


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
    async with asyncio.timeout(PATIENCE_S):
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


async def test_tasks_of_one_flush_leave_together_and_the_newest_state_of_each_wins(hub: Hub, bus: MemoryBus):
    browser = following(hub)
    bus.publish(Subject.TASKS, TasksChanged((moved("a", "running"), moved("b", "running"))))
    bus.publish(Subject.TASKS, TasksChanged((moved("a", "success"),)))

    frame = await next_message(browser)

    assert (frame["type"], frame["run"]) == ("task", "run")
    assert frame["tasks"] == [
        {"id": "a", "server_id": "one", "status": "success", "cause": None, "exit_code": 0},
        {"id": "b", "server_id": "one", "status": "running", "cause": None, "exit_code": None},
    ]


async def test_only_the_watched_run_is_shown_and_of_it_only_what_may_be_seen(hub: Hub, bus: MemoryBus):
    browser = following(hub, servers=frozenset({"one"}))
    states = (moved("a", "running", "another"), moved("b", "running", server_id="two"), moved("c", "running"))
    bus.publish(Subject.TASKS, TasksChanged(states))

    assert [task["id"] for task in (await next_message(browser))["tasks"]] == ["c"]


async def test_a_browser_that_does_not_read_loses_only_states_in_between(hub: Hub):
    browser = following(hub)
    for status in ("running", "success"):
        browser.tasks({task_id: moved(task_id, status) for task_id in ("a", "b", "c")})

    frames = [await next_message(browser) for _ in range(2)]

    assert [[task["id"] for task in frame["tasks"]] for frame in frames] == [["a", "b"], ["c"]]
    assert {task["status"] for frame in frames for task in frame["tasks"]} == {"success"}


async def test_what_waits_of_a_run_that_is_watched_no_more_is_never_sent(hub: Hub, bus: MemoryBus):
    browser = following(hub)
    browser.tasks({"a": moved("a", "running")})
    hub.watch(browser, Watching("another", None))
    bus.publish(Subject.TASKS, TasksChanged((moved("b", "running", "another"),)))

    frame = await next_message(browser)

    assert (frame["run"], [task["id"] for task in frame["tasks"]]) == ("another", ["b"])


async def test_nothing_is_kept_of_runs_that_nobody_watches(hub: Hub, bus: MemoryBus):
    hub.leave(following(hub))
    bus.publish(Subject.TASKS, TasksChanged((moved("a", "running"),)))
    await asyncio.sleep(0)

    assert (hub._by_run, hub._moved) == ({}, {})
