"""A shell in a browser, on a real host with bash: typed into, resized, left and come back to, flooded, and ended."""

import asyncio
import hashlib
import os
import shutil
import threading
from contextlib import suppress

import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from server_monitor.auth.actor import Role
from server_monitor.db.engine import Database
from server_monitor.ssh.pool import Limits as PoolLimits
from server_monitor.terminal.bridge import Limits
from server_monitor.terminal.chain import Verdict
from server_monitor.terminal.states import Purpose
from tests.support.fleet import records
from tests.support.patience import PATIENCE_S, until
from tests.support.sshd import Sshds
from tests.support.terminals import Screen, TerminalConsole, running_terminals

pytestmark = pytest.mark.sshd
MIB = 1 << 20


@pytest.fixture
async def opened(terminals: TerminalConsole):
    """An operator's terminal at its first prompt."""
    person, server = await terminals.person(Role.OPERATOR), await terminals.host()
    async with terminals.screen(person, server) as screen:
        yield terminals, person, server, screen


async def test_what_is_typed_runs_and_what_it_prints_is_shown_and_recorded(terminals: TerminalConsole):
    person, server = await terminals.person(Role.OPERATOR), await terminals.host()

    async with terminals.screen(person, server) as screen:
        assert b"hello 42" in await screen.run("echo hello $((6*7))")
        await screen.type("exit 3\r")
        closed = await screen.frame("closed")
        assert await screen.closed() == 1000

    assert (closed["reason"], closed["exit_status"]) == ("exited", 3)
    row = await terminals.over(screen.session_id)
    assert (row.status, row.cause, row.recording) == ("closed", "exited", "unverified")
    assert row.output_bytes == len(screen.shown)
    assert terminals.recorded(screen.session_id) == bytes(screen.shown)


async def test_a_terminal_is_the_same_on_every_database(db: Database, sshds: Sshds, tmp_path):
    """From asking to the verified recording, with a loss of the network, somebody who looks on, and a stop."""
    async with running_terminals(db, sshds, tmp_path / "recordings") as terminals:
        person, admin = await terminals.person(Role.OPERATOR), await terminals.person(Role.ADMIN)
        async with terminals.screen(person, await terminals.host()) as screen:
            await screen.run("seq 20000")
            await screen.cut()
            watch = await terminals.desk.issue(screen.session_id, Purpose.WATCH, actor=admin.actor)
            async with terminals.socket(admin, watch) as watching:
                await watching.frame("ready")
                ticket = await terminals.desk.issue(screen.session_id, Purpose.ATTACH, actor=person.actor)
                async with terminals.socket(person, ticket, have=screen.at) as back:
                    assert b"hello 42" in await back.run("echo hello $((6*7))")
                    await watching.until(b"hello 42")
                    await terminals.desk.stop(screen.session_id, "enough", actor=admin.actor)
                    assert (await back.frame("closed"))["reason"] == "stopped"
        row = await terminals.over(screen.session_id)
        verified = await terminals.library.verify_closed(screen.session_id)

    assert (row.status, row.cause) == ("stopped", "stopped")
    assert verified.verdict is Verdict.INTACT
    done = [one["action"] for one in await records(db) if one["action"].startswith(("terminal.", "recording."))]
    assert [one for one in done if one != "terminal.head"] == [
        "terminal.connect",
        "recording.view",
        "terminal.attach",
        "terminal.stop",
        "terminal.disconnect",
        "recording.verify",
    ]


async def test_a_shell_is_preceded_by_its_intent_and_followed_by_its_outcome(opened):
    terminals, _, server, screen = opened
    await screen.run("true")
    await screen.send(type="close")
    await terminals.over(screen.session_id)

    found = [record for record in await records(terminals.db) if record["action"].startswith("terminal.")]
    connect, *heads, disconnect = found
    assert (connect["action"], connect["phase"]) == ("terminal.connect", "intent")
    assert connect["meta"]["server_id"] == server
    assert len(bytes.fromhex(connect["meta"]["head"])) == 32
    assert {one["action"] for one in heads} <= {"terminal.head"}
    assert (disconnect["phase"], disconnect["cause"]["parent_seq"]) == ("outcome", connect["seq"])
    assert disconnect["meta"]["cause"] == "closed"
    assert disconnect["meta"]["chunks"] > 0


async def test_the_shell_knows_the_size_and_every_new_one(opened):
    _, _, _, screen = opened
    assert b"24 80" in await screen.run("stty size")

    await screen.send(type="resize", cols=132, rows=43)
    assert b"43 132" in await screen.run("stty size")
    assert b"xterm-256color" in await screen.run("echo $TERM")


async def test_bytes_arrive_as_they_are_however_they_are_cut(opened):
    _, _, _, screen = opened
    every = bytes(range(0x20, 0x7F)) + "é€😀".encode() + b"\xff\xfe\xc3"
    octal = "".join(f"\\0{byte:03o}" for byte in every)
    shown = await screen.run(f"printf '%b' '{octal}'")

    assert every in shown


async def test_a_shell_of_a_host_without_a_locale_takes_characters(terminals: TerminalConsole):
    """Typed one after the other and rubbed out as a whole; in the C locale each byte would be one."""
    person, server = await terminals.person(Role.OPERATOR), await terminals.host(options={"AcceptEnv": "LANG LC_*"})
    async with terminals.screen(person, server) as screen:
        for character in "x=ä€😀ß":
            await screen.type(character)
        await screen.until("x=ä€😀ß".encode())
        shown = await screen.run("\x7f; echo ${#x} $x end")
        assert "3 ä€😀 end\r\n".encode() in shown
        await screen.type("echo rea''dy; cat\r")
        await screen.until(b"ready\r\n")
        await screen.type("a€\x7fb\r")
        await screen.until(b"\r\nab\r\n")


@pytest.mark.skipif(shutil.which("vim") is None, reason="vim is needed: apt install vim")
async def test_a_file_is_edited_in_vim(opened):
    terminals, _, server, screen = opened
    await screen.run(f"cd {terminals.sshd(server).home}")
    await screen.type("vim -u NONE note.txt\r")
    await screen.until(b"\x1b[?1049h")
    await screen.until(b"[New File]")
    await screen.type("ihello from vim")
    await screen.until(b"hello from vim")
    await screen.type("\x1b")
    await screen.type(":wq\r")
    await screen.until(b"\x1b[?1049l")
    await screen.run("true")

    assert (terminals.sshd(server).home / "note.txt").read_text() == "hello from vim\n"


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is needed: apt install tmux")
async def test_tmux_draws_its_screen_and_leaves_it(opened):
    _, _, _, screen = opened
    await screen.type("tmux -L sm-test -f /dev/null new 'exec sh'\r")
    await screen.until(b"\x1b[?1049h")
    await screen.type("echo in$((1+1))tmux\r")
    await screen.until(b"in2tmux")
    await screen.type("exit\r")
    await screen.until(b"\x1b[?1049l")


@pytest.mark.skipif(shutil.which("htop") is None, reason="htop is needed: apt install htop")
async def test_htop_is_shown_and_left_with_q(opened):
    _, _, _, screen = opened
    await screen.type("htop\r")
    await screen.until(b"Load")
    await screen.type("q")
    await screen.until(b"\x1b[?1049l")


# --- a network that breaks --------------------------------------------------------------------------------------------


async def test_a_browser_that_comes_back_goes_on_where_it_was(opened):
    terminals, person, server, screen = opened
    is_cut = terminals.sshd(server).home / "is-cut"
    await screen.run("x=kept")
    await screen.type(f"until [ -e {is_cut} ]; do sleep 0.05; done; echo la''ter\r")
    await screen.until(b"la''ter")
    before = screen.at
    await screen.cut()
    is_cut.touch()

    ticket = await terminals.desk.issue(screen.session_id, Purpose.ATTACH, actor=person.actor)
    async with terminals.socket(person, ticket, have=before) as back:
        ready = await back.frame("ready")
        assert (ready["from"], ready["reset"]) == (before, False)
        await back.until(b"later")
        assert b"kept" in await back.run("echo $x")

    assert b"reconnected" in await _marks_after_end(terminals, back)


async def test_a_page_that_was_loaded_anew_gets_the_screen_again(opened):
    terminals, person, _, screen = opened
    await screen.run("echo first")
    await screen.cut()

    ticket = await terminals.desk.issue(screen.session_id, Purpose.ATTACH, actor=person.actor)
    async with terminals.socket(person, ticket) as back:
        assert (await back.frame("ready"))["reset"] is False
        await back.until(b"first")
        assert back.start == 0


async def test_where_the_backlog_does_not_reach_the_screen_is_drawn_anew(sqlite_db: Database, sshds: Sshds, tmp_path):
    limits = Limits(backlog_bytes=4096)
    async with running_terminals(sqlite_db, sshds, tmp_path / "recordings", limits=limits) as terminals:
        person, server = await terminals.person(Role.OPERATOR), await terminals.host()
        async with terminals.screen(person, server) as screen:
            await screen.run("seq 10000")
            await screen.type("printf '\\033[?1049h'; cat\r")
            await screen.until(b"\x1b[?1049h")
            await screen.run_raw("x" * 60 + "\r", 200)
            await screen.cut()

            ticket = await terminals.desk.issue(screen.session_id, Purpose.ATTACH, actor=person.actor)
            async with terminals.socket(person, ticket, have=100) as back:
                ready = await back.frame("ready")

    assert ready["reset"] is True
    assert ready["from"] > 10_000
    assert ready["modes"] == "\x1b[?1049h"


async def test_another_tab_takes_the_terminal_over(opened):
    terminals, person, _, screen = opened
    ticket = await terminals.desk.issue(screen.session_id, Purpose.ATTACH, actor=person.actor)
    async with terminals.socket(person, ticket) as other:
        assert await screen.closed() == 4409
        assert b"still" in await other.run("echo still")


async def test_a_browser_that_stays_away_interrupts_the_session(sqlite_db: Database, sshds: Sshds, tmp_path):
    limits = Limits(return_s=0.3)
    async with running_terminals(sqlite_db, sshds, tmp_path / "recordings", limits=limits) as terminals:
        person, server = await terminals.person(Role.OPERATOR), await terminals.host()
        async with terminals.screen(person, server) as screen:
            await screen.cut()
            row = await terminals.over(screen.session_id)

    assert (row.status, row.cause) == ("interrupted", "browser_gone")


async def test_while_nobody_is_there_the_shell_waits_once_the_backlog_is_full(opened):
    terminals, person, _, screen = opened
    await screen.type("yes 0123456789\r")
    await screen.until(b"0123456789\r\n0123456789")
    await screen.cut()
    bridge = terminals.desk.bridge(screen.session_id)
    await until(lambda: bridge.held_bytes > MIB // 4)
    assert await _settled(lambda: bridge.held_bytes) < 2 * MIB

    ticket = await terminals.desk.issue(screen.session_id, Purpose.ATTACH, actor=person.actor)
    async with terminals.socket(person, ticket, have=screen.at) as back:
        assert (await back.frame("ready"))["reset"] is False
        await back.type(b"\x03")
        await back.until(b"^C")
        await back.run("true")
        shown = bytes(screen.shown) + bytes(back.shown)
        await back.send(type="close")
        await terminals.over(screen.session_id)
    assert terminals.recorded(screen.session_id)[: len(shown)] == shown


# --- floods -----------------------------------------------------------------------------------------------------------


async def test_ctrl_c_ends_a_flood_behind_no_more_than_was_under_way(opened):
    terminals, _, server, screen = opened
    await screen.type("yes\r")
    await screen.wait(lambda: len(screen.shown) > 3 * MIB)
    screen.is_drawing = False
    bridge = terminals.desk.bridge(screen.session_id)
    await _settled(lambda: bridge.held_bytes)  # From the host to the browser all is full.

    at = len(screen.shown)
    await screen.type(b"\x03")
    await until(lambda: not terminals.sshd(server).runs("yes"))
    screen.is_drawing = True
    await screen.send(type="ack", bytes=screen.at)
    await screen.until(b"^C", since=at)
    assert len(screen.shown) - at < 2 * MIB
    assert b"calm" in await screen.run("echo calm")


async def test_a_browser_that_draws_nothing_lets_the_shell_wait(opened):
    terminals, _, _, screen = opened
    screen.is_drawing = False
    await screen.type("yes\r")
    bridge = terminals.desk.bridge(screen.session_id)
    # Half of what may be unseen, when the disk was slow for a moment: a shell that waits goes on only below that.
    await until(lambda: bridge.held_bytes > MIB // 4)
    assert await _settled(lambda: bridge.held_bytes) < 2 * MIB

    screen.is_drawing = True
    await screen.send(type="ack", bytes=screen.at)
    at = screen.at
    await screen.wait(lambda: screen.at > at + 3 * MIB)
    await screen.type(b"\x03")
    await screen.until(b"^C")


@pytest.mark.long
async def test_a_hundred_megabytes_are_recorded_as_they_were_shown_in_flat_memory(opened):
    terminals, _, server, screen = opened
    size = 100 * MIB
    big = terminals.sshd(server).home / "big"
    line = hashlib.sha256(b"a line").hexdigest().encode() + b"\n"
    await asyncio.to_thread(big.write_bytes, (line * (size // len(line) + 1))[:size])
    screen.keep_bytes = 65_536
    before = psutil.Process().memory_info().rss
    with MemoryPeak() as memory:
        await screen.type(f"cat {big}; echo d''one\r")
        await screen.until(b"done\r\n", within_s=10 * PATIENCE_S)
    await screen.send(type="close")
    await terminals.over(screen.session_id)

    assert memory.peak - before < 60 * MIB
    assert screen.at > size
    recorded = hashlib.sha256()
    for part in terminals.library.parts(screen.session_id):
        for event in part.events:
            if event.code == "o":
                recorded.update(event.data)
    assert recorded.digest() == screen.digest.digest()


async def test_a_paste_that_the_host_does_not_take_yet_waits_and_loses_nothing(opened):
    _, _, _, screen = opened
    await screen.type("stty raw -echo; echo re''ady; sleep 0.5; head -c 3000000 | md5sum\r")
    await screen.until(b"ready")
    data = b"0123456789abcdef" * (3_000_000 // 16)
    for start in range(0, len(data), 32_768):
        await screen.type(data[start : start + 32_768])

    await screen.until(hashlib.md5(data, usedforsecurity=False).hexdigest().encode())


# --- time -------------------------------------------------------------------------------------------------------------


async def test_an_idle_terminal_is_warned_about_and_closed_unless_somebody_types(
    sqlite_db: Database, sshds: Sshds, tmp_path
):
    """The warning comes at half of the time: who sees three of them has had the whole time and more."""
    limits = Limits(idle_s=4.0)
    async with running_terminals(sqlite_db, sshds, tmp_path / "recordings", limits=limits) as terminals:
        person, server = await terminals.person(Role.OPERATOR), await terminals.host()
        async with terminals.socket(person, await terminals.ask(person, server)) as screen:
            for _ in range(2):
                assert (await screen.frame("warning"))["reason"] == "idle"
                await screen.type("x")
            assert (await screen.frame("warning"))["reason"] == "idle"
            assert (await screen.frame("closed"))["reason"] == "idle"
            row = await terminals.over(screen.session_id)

    assert (row.status, row.cause) == ("timeout", "idle")


async def test_the_longest_time_ends_a_terminal_that_is_used(sqlite_db: Database, sshds: Sshds, tmp_path):
    limits = Limits(longest_s=4.0)
    async with running_terminals(sqlite_db, sshds, tmp_path / "recordings", limits=limits) as terminals:
        person, server = await terminals.person(Role.OPERATOR), await terminals.host()
        async with terminals.socket(person, await terminals.ask(person, server)) as screen:
            assert (await screen.frame("warning"))["reason"] == "time"
            await screen.type("x")
            await screen.closed()
            row = await terminals.over(screen.session_id)

    assert (row.status, row.cause) == ("timeout", "max_time")


# --- hosts that fail --------------------------------------------------------------------------------------------------


async def test_a_host_whose_connection_breaks_interrupts_the_session(opened):
    terminals, _, server, screen = opened
    terminals.sshd(server).drop_connections()

    assert (await screen.frame("closed"))["reason"] == "connection_lost"
    row = await terminals.over(screen.session_id)
    assert (row.status, row.cause) == ("interrupted", "connection_lost")
    assert terminals.recorded(screen.session_id) == bytes(screen.shown)


async def test_a_host_that_freezes_is_noticed(sqlite_db: Database, sshds: Sshds, tmp_path):
    limits = PoolLimits(connect_timeout_s=PATIENCE_S, shell_probe_s=2.0)
    async with running_terminals(sqlite_db, sshds, tmp_path / "recordings", pool_limits=limits) as terminals:
        person, server = await terminals.person(Role.OPERATOR), await terminals.host()
        async with terminals.screen(person, server) as screen:
            terminals.sshd(server).freeze()
            try:
                row = await terminals.over(screen.session_id)
            finally:
                terminals.sshd(server).thaw()

    assert (row.status, row.cause) == ("interrupted", "connection_lost")


async def test_a_browser_is_sent_away_from_a_host_that_takes_no_input_and_may_come_back(
    sqlite_db: Database, sshds: Sshds, tmp_path
):
    """What was typed waits in a bounded room; when that is full for too long, nobody is left to wonder."""
    limits = Limits(room_s=0.5)
    async with running_terminals(sqlite_db, sshds, tmp_path / "recordings", limits=limits) as terminals:
        person, server = await terminals.person(Role.OPERATOR), await terminals.host()
        async with terminals.screen(person, server) as screen:
            await screen.type("stty -icanon -echo; echo rea''dy; cat >/dev/null\r")
            await screen.until(b"ready")
            terminals.sshd(server).freeze()
            try:
                with suppress(ConnectionClosed):
                    while True:
                        await screen.type(b"x" * 32_768)
                assert await screen.closed() == 1013
            finally:
                terminals.sshd(server).thaw()
            assert (await terminals.row(screen.session_id)).status == "active"

            ticket = await terminals.desk.issue(screen.session_id, Purpose.ATTACH, actor=person.actor)
            async with terminals.socket(person, ticket, have=screen.at) as back:
                await back.frame("ready")
                await back.type(b"\x03")
                await back.until(b"# " if os.geteuid() == 0 else b"$ ")
                assert b"back" in await back.run("stty sane; echo back")


async def test_a_frozen_host_does_not_hold_up_a_stop(opened):
    terminals, person, server, screen = opened
    terminals.sshd(server).freeze()
    try:
        await screen.type("ls\r")
        await terminals.desk.stop(screen.session_id, None, actor=person.actor)
        row = await terminals.over(screen.session_id)
    finally:
        terminals.sshd(server).thaw()
    assert (row.status, row.cause) == ("closed", "closed")


async def test_where_the_shared_connection_has_no_room_a_shell_gets_its_own(terminals: TerminalConsole):
    person = await terminals.person(Role.OPERATOR)
    server = await terminals.host(options={"MaxSessions": "1"})

    async with terminals.screen(person, server) as one, terminals.screen(person, server) as two:
        assert b"one" in await one.run("echo one")
        assert b"two" in await two.run("echo two")
        assert terminals.sshd(server).connections_accepted() == 2
        await two.type("exit\r")
        await two.closed()
        assert b"again" in await one.run("echo again")


async def test_a_shell_behind_another_host_works_and_is_lost_with_it(terminals: TerminalConsole):
    person, jump = await terminals.person(Role.OPERATOR), await terminals.host()
    server = await terminals.host(behind=jump)
    async with terminals.screen(person, server) as screen:
        await screen.send(type="resize", cols=132, rows=43)
        assert b"43 132" in await screen.run("stty size")
        assert terminals.sshd(server).connections_accepted() == terminals.sshd(jump).connections_accepted() == 1
        terminals.sshd(jump).drop_connections()
        assert (await screen.frame("closed"))["reason"] == "connection_lost"
        row = await terminals.over(screen.session_id)

    assert (row.status, row.cause) == ("interrupted", "connection_lost")
    assert terminals.recorded(screen.session_id) == bytes(screen.shown)


async def test_where_the_way_to_a_host_is_gone_the_jump_is_named(terminals: TerminalConsole):
    person, jump = await terminals.person(Role.OPERATOR), await terminals.host()
    ticket = await terminals.ask(person, await terminals.host(behind=jump))
    terminals.sshd(jump).stop()
    async with terminals.socket(person, ticket) as screen:
        closed = await screen.frame("closed")

    assert closed["reason"] == "jump_failed"
    assert "host-" + jump in closed["sentence"]


async def test_an_account_that_may_not_log_in_says_so_and_ends(terminals: TerminalConsole):
    person = await terminals.person(Role.OPERATOR)
    server = await terminals.host(options={"ForceCommand": "echo not you; exit 1"})
    ticket = await terminals.ask(person, server)

    async with terminals.socket(person, ticket) as screen:
        closed = await screen.frame("closed")

    assert b"not you" in screen.shown
    assert (closed["reason"], closed["exit_status"]) == ("exited", 1)
    assert terminals.recorded(screen.session_id) == bytes(screen.shown)


async def test_a_server_that_cannot_be_reached_gives_no_shell_and_says_why(terminals: TerminalConsole):
    person, server = await terminals.person(Role.OPERATOR), await terminals.host()
    terminals.sshd(server).stop()
    ticket = await terminals.ask(person, server)

    async with terminals.socket(person, ticket) as screen:
        assert (await screen.frame("closed"))["reason"] == "connect_refused"

    row = await terminals.over(screen.session_id)
    assert (row.status, row.cause) == ("interrupted", "connect_refused")
    found = [record["phase"] for record in await records(terminals.db) if record["action"].startswith("terminal.")]
    assert found == ["intent", "outcome"]


async def test_sizes_of_terminals_are_recorded(opened):
    terminals, _, _, screen = opened
    await screen.send(type="resize", cols=100, rows=30)
    await screen.run("true")
    await screen.send(type="close")
    row = await terminals.over(screen.session_id)

    events = [event for part in terminals.library.parts(row.id) for event in part.events]
    assert b"100x30" in [event.data for event in events if event.code == "r"]


class MemoryPeak:
    """The most memory that this process held, looked at by a thread."""

    def __init__(self) -> None:
        self.peak = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._is_over.wait(0.05):
            self.peak = max(self.peak, psutil.Process().memory_info().rss)

    def __enter__(self) -> "MemoryPeak":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_over.set()
        self._thread.join()


async def _marks_after_end(terminals: TerminalConsole, screen: Screen) -> list[bytes]:
    await terminals.desk.drain(PATIENCE_S)
    return terminals.marks(screen.session_id)


async def _settled(measure) -> int:
    """A number once it has stopped growing."""
    before = -1
    async with asyncio.timeout(PATIENCE_S):
        while (now := measure()) != before or now == 0:
            before = now
            await asyncio.sleep(0.3)
    return now
