import asyncio
import json
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import pytest
from websockets.exceptions import InvalidStatus

from server_monitor.auth.actor import Actor, Role
from server_monitor.bus.contract import Stopping, Subject, TaskState
from server_monitor.realtime.endpoint import Rules
from server_monitor.realtime.hub import Limits
from tests.support.live import Directory, LiveConsole, next_watched, opened, running_live
from tests.support.patience import PATIENCE_S

VALUES = {"cpu_percent": 12.5, "load1": 0.5, "filesystem_percent:/": 40.0}


@pytest.fixture
async def directory() -> Directory:
    directory = Directory(servers={"one", "two", "three"})
    directory.log_in("ann")
    directory.log_in("bob", visible={"two"})
    return directory


@pytest.fixture
async def live(directory: Directory):
    async with running_live(directory) as console:
        yield console


async def refused(url: str, **headers: str) -> int:
    with pytest.raises(InvalidStatus) as caught:
        async with opened(url, headers):
            pass
    assert json.loads(caught.value.response.body or b"{}")["code"]
    return caught.value.response.status_code


# --- the handshake ----------------------------------------------------------------------------------------------------


async def test_a_page_of_another_origin_is_refused_in_the_handshake(live: LiveConsole):
    assert await refused(live.url, Cookie="server_monitor_session=ann", Origin="http://evil.example") == 403


@pytest.mark.parametrize("origin", ["null", "", "http://127.0.0.1", "javascript:alert(1)", "http://127.0.0.1:1"])
async def test_an_origin_that_is_not_ours_is_refused_however_it_is_written(live: LiveConsole, origin: str):
    assert await refused(live.url, Cookie="server_monitor_session=ann", Origin=origin) == 403


async def test_a_cookie_without_an_origin_is_refused(live: LiveConsole):
    assert await refused(live.url, Cookie="server_monitor_session=ann") == 403


async def test_nobody_gets_in_without_a_login(live: LiveConsole):
    own = live.url.replace("ws://", "http://")

    assert await refused(live.url, Origin=own) == 401
    assert await refused(live.url, Cookie="server_monitor_session=wrong", Origin=own) == 401
    assert await refused(live.url, Authorization="Bearer wrong") == 401


async def test_a_bearer_token_needs_no_origin(live: LiveConsole):
    headers = {"Authorization": "Bearer ann"}
    async with opened(live.url, headers) as connection:
        assert json.loads(await connection.recv())["type"] == "hello"


async def test_a_configured_origin_is_as_good_as_our_own(directory: Directory):
    rules = Rules(allowed_origins=frozenset({"https://console.example"}))
    headers = {"Cookie": "server_monitor_session=ann", "Origin": "https://console.example"}
    async with (
        running_live(directory, rules=rules) as live,
        opened(live.url, headers) as connection,
    ):
        assert json.loads(await connection.recv())["type"] == "hello"


async def test_each_user_has_only_so_many_connections(directory: Directory):
    async with (
        running_live(directory, rules=Rules(sockets_per_user=2)) as live,
        live.screen("ann"),
        live.screen("ann"),
        live.screen("bob"),
        live.screen("bob"),
    ):
        assert await refused(live.url, Authorization="Bearer ann") == 429
        assert await refused(live.url, Authorization="Bearer bob") == 429


async def test_the_console_has_only_so_many_connections(directory: Directory):
    async with running_live(directory, rules=Rules(sockets=1)) as live, live.screen("ann"):
        assert await refused(live.url, Authorization="Bearer bob") == 503


async def test_a_connection_that_ended_makes_room(directory: Directory):
    async with running_live(directory, rules=Rules(sockets=1)) as live:
        async with live.screen("ann"):
            pass
        async with asyncio.timeout(PATIENCE_S):
            await live.hub.emptied()
        async with live.screen("bob"):
            pass


# --- what is seen -----------------------------------------------------------------------------------------------------


async def test_a_subscription_to_all_shows_the_headline_of_each_server(live: LiveConsole):
    async with live.screen() as screen:
        await screen.watch("all")
        live.samples({"one": VALUES, "two": VALUES}, at=1_700_000_000.25)

        frame = await screen.next("samples")

    assert frame["servers"] == {key: {"cpu_percent": 12.5, "load1": 0.5} for key in ("one", "two")}
    assert frame["at"] == "2023-11-14T22:13:20.250Z"


async def test_a_subscription_to_named_servers_shows_every_series_of_them(live: LiveConsole):
    async with live.screen() as screen:
        await screen.watch(["two"])
        live.samples({"one": VALUES, "two": VALUES, "three": VALUES})

        assert (await screen.next("samples"))["servers"] == {"two": VALUES}


async def test_a_new_subscription_replaces_the_one_before(live: LiveConsole):
    async with live.screen() as screen:
        await screen.watch("all")
        await screen.watch(["one"])
        live.samples({"one": VALUES, "two": VALUES})

        assert (await screen.next("samples"))["servers"] == {"one": VALUES}


async def test_servers_that_the_user_may_not_see_are_in_no_frame(live: LiveConsole):
    async with live.screen("bob") as screen:
        await screen.watch("all")
        live.status("one", "offline", "connect_timeout")
        live.status("two", "online")
        live.samples({"one": VALUES, "two": VALUES})

        assert (await screen.next())["server"] == "two"
        assert set((await screen.next())["servers"]) == {"two"}


@pytest.mark.parametrize("ids", [["one"], ["two", "one"], ["never-existed"]])
async def test_an_invisible_server_is_answered_as_one_that_does_not_exist(live: LiveConsole, ids: list[str]):
    async with live.screen("bob") as screen:
        answer = await screen.watch(ids)

    assert answer == {"type": "error", "code": "not_found", "detail": f"There is no server {ids[-1]!r}."}


async def test_a_status_comes_with_words_for_a_person(live: LiveConsole):
    async with live.screen() as screen:
        await screen.watch("all")
        live.status("one", "offline", "connect_timeout")

        frame = await screen.next("status")

    assert frame == {
        "type": "status",
        "server": "one",
        "status": "offline",
        "reason": "connect_timeout",
        "sentence": "Sentence of connect_timeout for one.",
        "remedy": "Remedy of connect_timeout.",
        "at": "2023-11-14T22:13:20.000Z",
    }


async def test_a_status_that_cannot_be_explained_is_still_told(live: LiveConsole):
    async with live.screen() as screen:
        await screen.watch("all")
        live.status("just-removed", "offline", "disabled")

        frame = await screen.next("status")

    assert (frame["status"], frame["sentence"]) == ("offline", None)


# --- runs -------------------------------------------------------------------------------------------------------------


def success(run_id: str, server_id: str) -> TaskState:
    return TaskState(f"task-on-{server_id}", run_id, server_id, "success", None, 0)


async def test_a_watched_run_is_shown_as_its_tasks_move_on(live: LiveConsole):
    live.directory.runs = {"r": {"one", "two"}}
    async with live.screen() as screen:
        assert await screen.watch_run("r") == {"type": "watching", "run": "r"}
        live.moved(success("r", "one"), success("another", "two"))

        frame = await screen.next("task")

    assert frame == {
        "type": "task",
        "run": "r",
        "tasks": [{"id": "task-on-one", "server_id": "one", "status": "success", "cause": None, "exit_code": 0}],
    }


async def test_of_a_run_only_the_tasks_on_visible_servers_are_shown(live: LiveConsole):
    live.directory.runs = {"r": {"one", "two"}}
    async with live.screen("bob") as screen:
        await screen.watch_run("r")
        live.moved(success("r", "one"), success("r", "two"))

        assert [task["server_id"] for task in (await screen.next("task"))["tasks"]] == ["two"]


@pytest.mark.parametrize("run_id", ["hidden", "never-existed"])
async def test_an_invisible_run_is_answered_as_one_that_does_not_exist(live: LiveConsole, run_id: str):
    live.directory.runs = {"hidden": {"one"}, "r": {"two"}}
    async with live.screen("bob") as screen:
        await screen.watch_run("r")
        answer = await screen.watch_run(run_id)
        live.moved(success(run_id, "one"), success("r", "two"))

        assert answer == {"type": "error", "code": "not_found", "detail": f"There is no run {run_id!r}."}
        assert (await screen.next("task"))["run"] == "r", "the run before is still watched"


async def test_a_run_that_is_watched_no_more_sends_nothing(live: LiveConsole):
    live.directory.runs = {"r": {"one"}}
    async with live.screen() as screen:
        await screen.watch("all")
        await screen.watch_run("r")
        await screen.send(type="unwatch")
        assert await screen.next() == {"type": "watching", "run": None}
        live.moved(success("r", "one"))
        live.samples({"one": VALUES})

        assert (await screen.next())["type"] == "samples"


async def test_a_run_whose_servers_were_taken_away_gets_an_error_and_no_more_tasks(live: LiveConsole):
    live.directory.runs = {"r": {"two"}}
    async with live.screen("bob") as screen:
        await screen.watch_run("r")
        live.directory.visible["bob"] = set()
        live.changed("group.members")

        assert (await screen.next("error"))["detail"] == "There is no run 'r'."
        live.moved(success("r", "two"))
        await screen.send(type="ping")
        assert (await screen.next())["type"] in ("changed", "pong")


async def test_the_list_of_runs_changes_for_those_who_may_see_runs(live: LiveConsole):
    live.directory.log_in("vic", role=Role.VIEWER)
    async with live.screen() as ann, live.screen("vic") as vic:
        live.changed("system.start")
        for screen in (ann, vic):
            await screen.next("changed")  # The first hint: nobody knows what came before.
        assert (await ann.next())["about"] == "runs"
        live.changed("task.create")
        assert (await ann.next())["about"] == "runs"
        live.changed("server.create")
        assert (await ann.next())["about"] == "servers"
        assert (await vic.next())["about"] == "servers"


# --- what is said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        "",
        "null",
        "[]",
        "{",
        '{"type":"shutdown"}',
        '{"type":"subscribe"}',
        '{"type":"subscribe","servers":"some"}',
        '{"type":"subscribe","servers":[1]}',
        '{"type":"subscribe","servers":[""]}',
        '{"type":"subscribe","servers":"all","rate_s":0}',
        '{"type":"subscribe","servers":"all","rate_s":1e400}',
        '{"type":"subscribe","servers":"all","rate_s":"1"}',
        '{"type":"subscribe","servers":"all","admin":true}',
        '{"type":"watch"}',
        '{"type":"watch","run":""}',
        '{"type":"watch","run":["r"]}',
        '{"type":"unwatch","run":"r"}',
        '{"type":"subscribe","servers":' + json.dumps(["x"] * 1001) + "}",
        "[" * 20_000,
        b"\x00\xff",
    ],
)
async def test_a_message_we_do_not_know_is_answered_and_changes_nothing(live: LiveConsole, message: str | bytes):
    async with live.screen() as screen:
        await screen.watch(["two"])
        await screen.connection.send(message)
        answer = await screen.next()
        live.samples({"two": VALUES})

        assert (answer["type"], answer["code"]) == ("error", "invalid")
        assert (await screen.next())["servers"] == {"two": VALUES}


async def test_a_ping_is_answered(live: LiveConsole):
    async with live.screen() as screen:
        await screen.send(type="ping")
        assert (await screen.next())["type"] == "pong"


async def test_an_endless_message_ends_the_connection(live: LiveConsole):
    async with live.screen() as screen:
        await screen.connection.send("x" * (64 * 1024 + 1))
        assert await screen.closed() == 1009


async def test_a_flood_of_messages_ends_the_connection(live: LiveConsole):
    async with live.screen() as screen:
        for _ in range(100):
            await screen.send(type="ping")
        assert await screen.closed() == 1008


# --- rights that change -----------------------------------------------------------------------------------------------


async def test_a_logged_out_user_loses_the_connection_at_once_and_others_do_not(live: LiveConsole):
    async with live.screen("ann") as ann, live.screen("bob") as bob:
        live.directory.ended.add("ann")
        live.changed("auth.logout")

        assert await ann.closed() == 4401
        await bob.send(type="ping")
        assert (await bob.next("pong"))["type"] == "pong"


async def test_a_socket_goes_with_the_session_that_another_login_replaced(live: LiveConsole):
    async with live.screen("ann") as ann:
        live.directory.ended.add("ann")
        live.changed("auth.login")

        assert await ann.closed() == 4401


async def test_a_login_that_ran_out_is_found_without_any_message(directory: Directory):
    async with running_live(directory, rules=Rules(reauthorise_interval_s=0.05)) as live, live.screen("ann") as ann:
        directory.ended.add("ann")
        assert await ann.closed() == 4401


async def test_a_server_taken_from_a_group_is_seen_no_more(live: LiveConsole):
    async with live.screen("bob") as screen:
        await screen.watch("all")
        live.directory.visible["bob"] = {"three"}
        live.changed("group.members")
        await screen.next("changed")
        live.samples({"two": VALUES, "three": VALUES})

        assert set((await screen.next("samples"))["servers"]) == {"three"}


async def test_a_server_page_whose_server_is_gone_gets_an_error_and_no_more_samples(live: LiveConsole):
    async with live.screen("bob") as screen:
        await screen.watch(["two"])
        live.directory.visible["bob"] = set()
        live.changed("group.members")

        assert (await screen.next("error"))["code"] == "not_found"
        live.samples({"two": VALUES})
        await screen.send(type="ping")
        assert (await screen.next())["type"] in ("changed", "pong")


async def test_browsers_fetch_the_list_again_only_when_servers_changed(live: LiveConsole):
    async with live.screen() as screen:
        live.changed("system.start")
        for about in ("servers", "runs"):  # The first hint: nobody knows what came before.
            assert (await screen.next("changed"))["about"] == about
        live.changed("auth.login_failed", "auth.login")
        live.changed("server.create")
        await screen.next("changed")
        await screen.send(type="ping")

        assert (await screen.next())["type"] == "pong"


@dataclass
class SlowDirectory(Directory):
    """Says late which of the `held` servers somebody may see, and then what was so when it was asked."""

    held: frozenset[str] = frozenset()
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def still_valid(self, actor: Actor) -> Actor | None:
        found = await super().still_valid(actor)
        return None if found is None else replace(found)

    async def find_servers(self, actor: Actor, ids: Collection[str]) -> frozenset[str]:
        found = await super().find_servers(actor, ids)
        if self.held == set(ids) and not self.asked.is_set():
            self.asked.set()
            await self.may_answer.wait()
        return found


async def test_what_was_asked_for_while_rights_were_looked_at_stays():
    directory = SlowDirectory(servers={"one", "two"})
    directory.log_in("ann")
    async with asyncio.timeout(PATIENCE_S), running_live(directory) as live, live.screen() as screen:
        await screen.watch(["one"])
        directory.held = frozenset({"one"})
        live.changed("group.members")
        await directory.asked.wait()
        await screen.watch(["two"])
        directory.may_answer.set()
        await screen.next("changed")
        live.samples({"one": VALUES, "two": VALUES})

        assert set((await screen.next("samples"))["servers"]) == {"two"}


async def test_what_was_asked_for_before_a_right_was_lost_is_not_shown_after_it():
    directory = SlowDirectory(servers={"one", "two"}, held=frozenset({"two"}))
    directory.log_in("bob", visible={"two"})
    async with asyncio.timeout(PATIENCE_S), running_live(directory) as live, live.screen("bob") as screen:
        await screen.send(type="subscribe", servers=["two"])
        await directory.asked.wait()
        directory.visible["bob"] = set()
        live.changed("group.members")
        await screen.next("changed")
        directory.may_answer.set()

        while (frame := await screen.next())["type"] == "changed":
            pass
        assert (frame["type"], frame["code"]) == ("error", "not_found")


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_a_stopping_console_sends_browsers_away_and_says_when_to_come_back(live: LiveConsole):
    async with live.screen() as screen:
        live.bus.publish(Subject.STOPPING, Stopping())

        assert (await screen.next()) == {"type": "reconnect", "spread_s": 1.0}
        assert await screen.closed() == 1012
        async with asyncio.timeout(PATIENCE_S):
            await live.hub.emptied()


async def test_a_reader_that_stalls_is_dropped_and_slows_nobody(directory: Directory):
    """One browser never reads; the other sees each sample, and the stalled one is gone after the deadline."""
    fleet = {f"server-{number}": {f"series:{index}": 1.0 for index in range(200)} for number in range(200)}
    directory.servers = set(fleet)
    rules = Rules(send_timeout_s=2.0)  # long enough for the other to see many samples meanwhile
    async with (
        running_live(directory, Limits(flush_interval_s=0.005), rules) as live,
        live.screen("ann", max_queue=1) as reader,
        live.screen("ann", max_queue=1, close_timeout=0.1) as stalled,
    ):
        await stalled.watch(list(fleet))
        await reader.watch(["server-1"])
        with live.bus.subscribe(Subject.WATCHED, queue_size=8) as watched:
            looking = asyncio.ensure_future(next_watched(watched))
            seen = 0
            while not looking.done():
                live.samples(fleet)
                assert set((await reader.next("samples"))["servers"]) == {"server-1"}
                seen += 1
        assert (await looking).detailed == {"server-1"}
    assert seen > 3
