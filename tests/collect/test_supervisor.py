"""The supervisor with real probes on this machine, a real bus, and a table of rows that the test changes."""

import asyncio
import platform
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import psutil
import pytest

from server_monitor.bus.contract import Changed, SamplesTaken, StatusChanged, Subject, Watched
from server_monitor.bus.memory import MemoryBus
from server_monitor.collect import probe
from server_monitor.collect.supervisor import Supervisor, Verdict
from server_monitor.errors import Failure, Unavailable, Unreachable
from server_monitor.fleet.servers import Watch
from server_monitor.series.sample import HEADLINE, METRICS, Sample, split_series
from server_monitor.ssh import local
from server_monitor.ssh.pool import Target
from tests.support.patience import PATIENCE_S


def here(server_id: str = "here") -> Watch:
    """The console's own machine."""
    return Watch(server_id, server_id, "local", None, True, True, datetime(2026, 1, 1, tzinfo=UTC))


def there(server_id: str) -> Watch:
    target = Target(server_id, server_id, "192.0.2.1", 22, "root", "agent")
    return Watch(server_id, server_id, "192.0.2.1", target, True, True, datetime(2026, 1, 1, tzinfo=UTC))


@dataclass
class World:
    """Everything around the supervisor, kept for the test to look at."""

    rows: list[Watch]
    bus: MemoryBus = field(default_factory=MemoryBus)
    kept: list[Sample] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    facts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    channels: list[local.LocalChannel] = field(default_factory=list)
    refusal: Failure | None = None
    rows_fail: int = 0
    rows_read: int = 0
    records_fail: int = 0
    supervisor: Supervisor = field(init=False)

    async def targets(self) -> Sequence[Watch]:
        self.rows_read += 1
        if self.rows_fail:
            self.rows_fail -= 1
            raise Unavailable("the database is away")
        return list(self.rows)

    async def open_remote(self, target: Target, command: str, **callbacks: Any) -> local.LocalChannel:
        """A remote host that is this machine."""
        self.tried.append(target.server_id)
        if self.refusal is not None:
            raise self.refusal
        channel = await local.open_channel(probe.arguments(), **callbacks)
        self.channels.append(channel)
        return channel

    async def drop_remote(self, server_id: str) -> None:
        self.dropped.append(server_id)

    async def record_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        if self.records_fail:
            self.records_fail -= 1
            raise Unavailable("the database is away")
        self.verdicts.extend(verdicts)

    async def record_facts(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        self.facts.update(found)

    def changed(self, *actions: str) -> None:
        self.bus.publish(Subject.CHANGED, Changed(1, frozenset(actions) or None))

    def watch(self, *detailed: str, everyone: bool = False) -> None:
        self.bus.publish(Subject.WATCHED, Watched("browser", everyone, frozenset(detailed)))


@asynccontextmanager
async def running(*rows: Watch, idle_interval_s: int = 10, **facts: Any) -> AsyncIterator[World]:
    world = World(list(rows), **facts)
    world.supervisor = Supervisor(
        targets=world.targets,
        open_remote=world.open_remote,
        drop_remote=world.drop_remote,
        history_append=world.kept.extend,
        bus=world.bus,
        record_verdicts=world.record_verdicts,
        record_facts=world.record_facts,
        idle_interval_s=idle_interval_s,
        connect_concurrency=4,
    )
    task = asyncio.create_task(world.supervisor.run())
    try:
        yield world
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(channel.wait_closed() for channel in world.channels))
        await until(lambda: not probes(), "every probe has ended")


def probes() -> list[psutil.Process]:
    """The probes that this process has running, without what they start in turn to look at filesystems."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE and any("awk" in word for word in child.cmdline()):
                found.append(child)
    return found


async def until(condition: Callable[[], object], what: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110  # What is waited for happens in other processes.
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not within {PATIENCE_S:.0f} s: {what}")


async def test_rows_are_read_again_for_what_concerns_servers_and_not_for_commands_on_them() -> None:
    async with running(here()) as world:
        await until(lambda: world.rows_read == 1, "rows read")
        world.changed("task.start", "task.finish", "auth.login")
        world.changed("task.start", "server.update")
        await until(lambda: world.rows_read == 2, "rows read again")
        world.changed()
        await until(lambda: world.rows_read == 3, "rows read when nobody knows what has changed")


async def test_the_consoles_own_machine_is_live_with_everything_a_list_shows() -> None:
    async with running(here()) as world:
        heard: list[object] = []
        with world.bus.subscribe(Subject.SAMPLES, Subject.STATUS, queue_size=10) as messages:
            async with asyncio.timeout(PATIENCE_S):
                while not heard or not isinstance(heard[-1], SamplesTaken):
                    heard.append(await anext(messages))
        *_, judged, sampled = heard
        assert isinstance(judged, StatusChanged)
        assert (judged.server_id, judged.status, judged.reason) == ("here", "online", None)
        assert isinstance(sampled, SamplesTaken)
        values = sampled.values["here"]
        assert set(HEADLINE) - {"disk_percent"} <= values.keys()
        assert {split_series(name)[0] for name in values} <= METRICS.keys()
        assert world.kept[0].values == values
        await until(lambda: world.verdicts and world.verdicts[-1].status == "online", "its status is written down")
        await until(lambda: world.facts, "its facts are written down")
        assert world.facts["here"]["hostname"] == platform.node()


async def test_a_watched_server_is_sampled_at_once_and_its_processes_are_known() -> None:
    async with running(here(), idle_interval_s=86_400) as world:

        def looking(seen: Callable[[], object]) -> Callable[[], object]:
            """A screen says again and again what it shows."""
            return lambda: world.watch("here") or seen()

        await until(lambda: world.kept, "a first sample")
        await until(
            looking(lambda: len(world.kept) >= 4), "samples, of which nobody else would have asked for one a day"
        )
        await until(looking(lambda: world.supervisor.top("here")), "processes")
        await until(looking(lambda: any("cpu_core_percent:0" in sample.values for sample in world.kept)), "each CPU")
    assert world.supervisor.top("nowhere") == ()


async def test_answers_of_many_servers_share_one_message() -> None:
    async with running(*(there(f"host-{number}") for number in range(8))) as world:
        with world.bus.subscribe(Subject.SAMPLES, queue_size=100) as messages:
            async with asyncio.timeout(PATIENCE_S):
                world.watch(everyone=True)
                async for message in messages:
                    assert isinstance(message, SamplesTaken)
                    if len(message.values) == 8:
                        break
                    world.watch(everyone=True)
        assert not world.rows_fail
        assert sorted(set(world.tried)) == sorted(world.tried), "one connection each"


async def test_rows_that_come_and_go_are_followed() -> None:
    async with running(there("a")) as world:
        await until(lambda: world.kept, "a is live")
        world.rows = [there("b")]
        world.changed()
        await until(lambda: any(sample.server_id == "b" for sample in world.kept), "b is live")
        await until(lambda: len(probes()) == 1, "the probe of a has ended")
        await until(lambda: world.dropped == ["a"], "the connection to a is closed")
        world.rows = [replace(there("b"), enabled=False)]
        world.changed()
        await until(lambda: not probes(), "the probe of b has ended")


async def test_an_unknown_host_key_waits_for_the_row_to_change() -> None:
    async with running(there("a"), refusal=Unreachable("host_key_unknown", "not approved")) as world:
        await until(lambda: world.verdicts, "a verdict")
        assert (world.verdicts[0].status, world.verdicts[0].reason) == ("unknown", "host_key_unknown")
        assert world.tried == ["a"]
        world.refusal = None
        world.rows = [replace(there("a"), updated_at=datetime(2026, 1, 2, tzinfo=UTC))]
        world.changed()
        await until(lambda: world.kept, "a is live")
        assert world.tried == ["a", "a"]


async def test_a_database_that_is_away_delays_rows_and_verdicts_and_loses_none() -> None:
    async with running(here(), rows_fail=1, records_fail=2) as world:
        await until(lambda: world.rows_fail == 0, "the rows have been asked for")
        world.changed()
        await until(lambda: world.kept, "a sample")
        await until(lambda: world.verdicts, "the verdict is written down in the end")


async def test_a_probe_that_is_killed_is_started_again() -> None:
    async with running(here()) as world:
        await until(lambda: world.kept, "a first sample")
        (probe,) = probes()
        probe.kill()
        await until(lambda: [v for v in world.verdicts if v.reason == "probe_failed"], "it is noticed")
        await until(lambda: world.verdicts[-1].status == "online", "it is back")


async def test_a_database_that_is_away_while_connecting_ends_nothing_else() -> None:
    async with running(there("far"), here(), refusal=Unavailable("the database is away")) as world:
        expected = {"far": ("offline", "internal"), "here": ("online", None)}
        await until(lambda: newest(world.verdicts) == expected, "both are judged")


def newest(verdicts: Sequence[Verdict]) -> dict[str, tuple[str, str | None]]:
    return {verdict.server_id: (verdict.status, verdict.reason) for verdict in verdicts}
