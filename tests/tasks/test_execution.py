"""One command on a real host, and all that can happen to the host and to the way there."""

import asyncio
import os
import signal
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import update

from server_monitor.db.tables import tasks
from server_monitor.errors import Unreachable
from server_monitor.tasks import hosts as task_hosts
from server_monitor.tasks.execution import Execution, Timing
from server_monitor.tasks.run import Claimed, Status
from tests.support.machines import in_memory, is_sh, logs_in_with, machine, on_disk_of, read_only, without
from tests.support.patience import PATIENCE_S, is_written, until
from tests.support.sshd import Sshd
from tests.tasks.runs import statuses
from tests.tasks.site import COUNT, Site, count
from tests.tasks.talks import lives

pytestmark = pytest.mark.sshd


def task_directory(host: Sshd, task_id: str) -> Path:
    return host.home / ".local/state/server-monitor/tasks" / task_id


def wrapper_pid(host: Sshd, task_id: str) -> int:
    return int((task_directory(host, task_id) / "pid").read_text().split()[0])


async def test_a_command_that_succeeds(site: Site) -> None:
    host, server = await site.start()
    async with site.worker() as worker:
        [row] = await site.run(worker, server, command=f"{COUNT}; echo out; echo err >&2")

        assert (row.status, row.exit_code, row.cause, row.mode) == ("success", 0, None, "wrapped")
        assert await site.output(row) == (b"out\n", b"err\n")
        assert count(host) == {row.id: 1}
        await until(lambda: not list(task_directory(host, row.id).iterdir()))


async def test_a_command_that_fails(site: Site) -> None:
    _, server = await site.start()
    async with site.worker() as worker:
        [row] = await site.run(worker, server, command="echo why; exit 3")

    assert (row.status, row.exit_code, row.cause) == ("failed", 3, "exit_status")
    assert (await site.output(row))[0] == b"why\n"


async def test_a_host_that_cannot_be_reached(site: Site) -> None:
    host, server = await site.start()
    host.stop()
    async with site.worker() as worker:
        [row] = await site.run(worker, server, command=COUNT)

    assert (row.status, row.cause) == ("failed", "connect_refused")
    assert count(host) == {}


async def test_long_output_is_seen_while_it_comes_and_kept_whole(site: Site) -> None:
    host, server = await site.start()
    async with site.worker() as worker:
        placed = await site.place(
            server, command="echo begin; until test -e ~/go; do sleep 0.05; done; seq 300000; seq 99 >&2"
        )
        worker.wake()
        [row] = await site.running(placed)
        await until(lambda: site.outputs.live(row.id) is not None)
        live = site.outputs.live(row.id)
        assert live is not None
        begun = await asyncio.wait_for(anext(live.read_on("stdout", 0)), PATIENCE_S)
        (host.home / "go").touch()
        [row] = await site.ended(placed)

    assert begun.data == b"begin\n"
    out, err = await site.output(row)
    assert out == b"begin\n" + b"".join(b"%d\n" % n for n in range(1, 300_001))
    assert err == b"".join(b"%d\n" % n for n in range(1, 100))
    kept = await site.kept(row)
    assert (kept.stdout_bytes, kept.truncated, bytes(kept.stdout)) == (len(out), False, out[:65_536])


async def test_a_command_that_runs_too_long_is_ended_on_its_host(site: Site) -> None:
    _, server = await site.start()
    async with site.worker() as worker:
        [row] = await site.run(worker, server, command="echo $$; sleep 60", timeout_s=3)

    assert (row.status, row.cause, row.exit_code) == ("timeout", "timeout", 143)
    assert not lives(int((await site.output(row))[0]))


async def test_a_cancelled_command_is_gone_from_its_host_when_it_counts_as_cancelled(site: Site) -> None:
    host, server = await site.start()
    async with site.worker() as worker:
        placed = await site.place(server, command="echo $$ >~/pid; sleep 60")
        worker.wake()
        await until(lambda: is_written(host.home / "pid"))
        await site.cancel(placed, worker)
        [row] = await site.ended(placed)

    assert (row.status, row.cause) == ("cancelled", "cancelled")
    await until(lambda: not lives(int((host.home / "pid").read_text())))


async def test_a_command_that_will_not_go_is_killed(site: Site) -> None:
    host, server = await site.start()
    async with site.worker() as worker:
        placed = await site.place(server, command="trap '' TERM; echo $$ >~/pid; while :; do sleep 0.1; done")
        worker.wake()
        await until(lambda: is_written(host.home / "pid"))
        await site.cancel(placed, worker)
        [row] = await site.ended(placed)

    assert row.status == "cancelled"
    await until(lambda: not lives(int((host.home / "pid").read_text())))


async def test_a_cut_connection_costs_neither_result_nor_output(site: Site) -> None:
    """Cut twice in mid-command: it runs on, is found again, and every byte is there once."""
    host, server = await site.start()
    command = f"{COUNT}; for n in 1 2 3; do seq 50000; touch ~/step$n; until test -e ~/go$n; do sleep 0.05; done; done"
    async with site.worker() as worker:
        placed = await site.place(server, command=f"{command}; exit 4")
        worker.wake()
        for number in (1, 2, 3):
            await until((host.home / f"step{number}").exists)
            if number < 3:
                host.drop_connections()
            (host.home / f"go{number}").touch()
        [row] = await site.ended(placed)

    assert (row.status, row.exit_code) == ("failed", 4)
    assert (await site.output(row))[0] == b"".join(b"%d\n" % n for n in range(1, 50_001)) * 3
    assert count(host) == {row.id: 1}


async def test_a_command_that_ends_while_its_host_cannot_be_reached_keeps_its_result(site: Site) -> None:
    host, server = await site.start()
    async with site.worker() as worker:
        placed = await site.place(
            server, command=f"{COUNT}; until test -e ~/go; do sleep 0.05; done; echo late; exit 5"
        )
        worker.wake()
        await until((host.home / "count").exists)
        host.stop()
        (host.home / "go").touch()
        [row] = await site.running(placed)
        await until((task_directory(host, row.id) / "exit").exists)
        host.start()
        [row] = await site.ended(placed)

    assert (row.status, row.exit_code) == ("failed", 5)
    assert (await site.output(row))[0] == b"late\n"
    assert count(host) == {row.id: 1}


async def test_a_host_with_another_key_is_not_asked_what_became_of_the_command(site: Site) -> None:
    host, server = await site.start()
    async with site.worker() as worker:
        placed = await site.place(server, command=f"{COUNT}; sleep 60")
        worker.wake()
        await until((host.home / "count").exists)
        host.swap_host_key()
        [row] = await site.ended(placed)

    assert (row.status, row.cause) == ("interrupted", "host_key_changed")
    os.killpg(wrapper_pid(host, row.id), signal.SIGKILL)


@pytest.mark.parametrize("change", [read_only, in_memory])
async def test_on_a_host_that_keeps_nothing_a_command_runs_attached(site: Site, change: object) -> None:
    assert callable(change)
    _, server = await site.start(lambda directory: machine(change(directory / "home")))
    async with site.worker() as worker:
        [good] = await site.run(worker, server, command="echo out; echo err >&2")
        [bad] = await site.run(worker, server, command="exit 3")

    assert (good.status, good.mode, await site.output(good)) == ("success", "attached", (b"out\n", b"err\n"))
    assert (bad.status, bad.mode, bad.exit_code, bad.cause) == ("failed", "attached", 3, "exit_status")


async def test_an_attached_command_is_ended_when_its_connection_is_cut(site: Site, disk: Path) -> None:
    host, server = await site.start(lambda directory: machine(read_only(directory / "home")))
    async with site.worker() as worker:
        placed = await site.place(server, command=f"echo $$ >{disk}/began; sleep 60")
        worker.wake()
        await until((disk / "began").exists)
        await site.until(placed, lambda rows: rows[0].mode == "attached")
        host.drop_connections()
        [row] = await site.ended(placed)

    assert (row.status, row.cause, row.mode) == ("interrupted", "connection_lost", "attached")
    await until(lambda: not lives(int((disk / "began").read_text())))


async def test_an_attached_command_that_runs_too_long_is_ended_on_its_host(site: Site, disk: Path) -> None:
    _, server = await site.start(lambda directory: machine(read_only(directory / "home")))
    async with site.worker() as worker:
        [row] = await site.run(worker, server, command="echo $$; sleep 60", timeout_s=3)

    assert (row.status, row.cause, row.mode) == ("timeout", "timeout", "attached")
    assert not lives(int((await site.output(row))[0]))


async def test_an_attached_command_is_gone_from_its_host_when_it_counts_as_cancelled(site: Site, disk: Path) -> None:
    _, server = await site.start(lambda directory: machine(read_only(directory / "home")))
    async with site.worker() as worker:
        placed = await site.place(server, command=f"trap '' TERM; echo $$ >{disk}/began; while :; do sleep 0.1; done")
        worker.wake()
        await until((disk / "began").exists)
        await site.cancel(placed, worker)
        [row] = await site.ended(placed)

    assert (row.status, row.cause) == ("cancelled", "cancelled")
    assert not lives(int((disk / "began").read_text()))


async def test_a_killed_wrapper_leaves_no_claim_about_the_exit_status(site: Site) -> None:
    host, server = await site.start()
    async with site.worker() as worker:
        placed = await site.place(server, command=f"{COUNT}; sleep 60")
        worker.wake()
        await until((host.home / "count").exists)
        [row] = await site.running(placed)
        group = wrapper_pid(host, row.id)
        host.drop_connections()
        os.killpg(group, signal.SIGKILL)
        [row] = await site.ended(placed)

    assert (row.status, row.cause, row.exit_code) == ("interrupted", "vanished", None)


async def test_a_command_whose_shell_alone_was_killed_is_followed_until_it_is_gone(site: Site) -> None:
    host, server = await site.start()
    async with site.worker() as worker:
        placed = await site.place(server, command=f"{COUNT}; until test -e ~/go; do sleep 0.05; done; echo end")
        worker.wake()
        await until((host.home / "count").exists)
        [row] = await site.running(placed)
        os.kill(wrapper_pid(host, row.id), signal.SIGKILL)
        host.drop_connections()
        await until((task_directory(host, row.id) / "followed").exists)
        assert await statuses(site.db, placed) == ["running"]
        (host.home / "go").touch()
        [row] = await site.ended(placed)

    assert (row.status, row.cause, row.exit_code) == ("interrupted", "vanished", None)
    assert (await site.output(row))[0] == b"end\n"
    assert count(host) == {row.id: 1}


async def test_a_command_whose_shell_alone_was_killed_can_be_cancelled(site: Site) -> None:
    host, server = await site.start()
    async with site.worker() as worker:
        placed = await site.place(server, command="echo $$ >~/pid; sleep 60; true")
        worker.wake()
        await until(lambda: is_written(host.home / "pid"))
        [row] = await site.running(placed)
        os.kill(wrapper_pid(host, row.id), signal.SIGKILL)
        await site.cancel(placed, worker)
        [row] = await site.ended(placed)

    assert (row.status, row.cause) == ("cancelled", "cancelled")
    assert not lives(int((host.home / "pid").read_text()))


async def test_a_host_that_was_started_anew_says_so(site: Site) -> None:
    host, server = await site.start()
    async with site.worker() as worker:
        placed = await site.place(server, command=f"{COUNT}; sleep 60")
        worker.wake()
        await until((host.home / "count").exists)
        [row] = await site.running(placed)
        group = wrapper_pid(host, row.id)
    async with site.db.transaction() as conn:
        await conn.execute(update(tasks).values(boot_id="the boot before"))
    os.killpg(group, signal.SIGKILL)
    async with site.worker():
        [row] = await site.ended(placed)

    assert (row.status, row.cause) == ("interrupted", "host_rebooted")


async def test_on_a_full_disk_a_command_does_not_run_and_the_host_says_why(site: Site, disk: Path) -> None:
    def full(directory: Path) -> tuple[str, ...]:
        home = directory / "home"
        fill = f"mkdir -p {home}/.local/state/server-monitor/tasks; head -c 9000000 /dev/zero >{home}/fill 2>&1 || true"
        room_for_one_directory = f"sync; truncate -s -1024 {home}/fill; sync"
        return machine(on_disk_of(1_024, home, directory / "image"), fill, room_for_one_directory)

    _, server = await site.start(full)
    async with site.worker() as worker:
        [row] = await site.run(worker, server, command=f"touch {disk}/ran")

    assert not (disk / "ran").exists()
    assert (row.status, row.cause) == ("failed", "no_directory")


async def test_a_host_without_bash_runs_it_in_sh(site: Site) -> None:
    def bashless(directory: Path) -> tuple[str, ...]:
        return machine(logs_in_with("/bin/sh", directory), is_sh("dash"), without("/bin/bash"))

    host, server = await site.start(bashless)
    async with site.worker() as worker:
        [row] = await site.run(worker, server, command=f"{COUNT}; echo $0")

    assert row.status == "success", (row.cause, row.detail)
    assert count(host) == {row.id: 1}


async def test_secrets_reach_the_command_and_nothing_else(site: Site) -> None:
    host, server = await site.start()
    secret = "p4ss 'word' \\ $HOME \"x\""
    async with site.worker() as worker:
        [row] = await site.run(
            worker,
            server,
            command="printf '%s|' \"$DB_PASSWORD\" >~/got; cat /proc/[0-9]*/cmdline >~/seen; echo $DB_PASSWORD",
            secrets={"DB_PASSWORD": secret},
        )

    assert (host.home / "got").read_text() == f"{secret}|"
    assert secret not in (host.home / "seen").read_text(errors="replace")
    assert (await site.output(row))[0] == b"*" * len(secret) + b"\n"


# --- hosts that never answer ------------------------------------------------------------------------------------------


class Scripted(task_hosts.Hosts):
    """A host that does with each channel what the test says, in order; the last goes on for ever."""

    def __init__(self, *does: str) -> None:
        super().__init__(nobody)
        self.does = list(does)
        self.opened = 0
        self.waits = asyncio.Event()
        self.key = ""

    async def open(self, target, script, on_data, on_closed, on_stderr=None):
        does = self.does[min(self.opened, len(self.does) - 1)]
        self.opened += 1
        if does == "silence":
            self.waits.set()
            await asyncio.Event().wait()
        if does in {"refused", "host_key_changed"}:
            self.waits.set()
            raise Unreachable(does, "no")
        if does != "mute":
            asyncio.get_running_loop().call_soon(on_data, f"sm1 {self.key} start b\n".encode())
        asyncio.get_running_loop().call_soon(self.waits.set)
        if does == "cut":
            asyncio.get_running_loop().call_soon(on_closed, "connection_lost")
        return Closed()


class Closed:
    exit_status = None

    def write(self, data: bytes) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...


async def nobody(*_: object) -> task_hosts.Channel:
    raise AssertionError


async def note(_: object) -> bool:
    return True


async def execution_on(site: Site, host: Scripted, timing: Timing, *, taken_over: bool = False) -> Execution:
    claim = Claimed("t-1", "r-1", "s-1", "host", "true", "bash", 60, "q-1", True, 1, datetime.now(UTC), "b")
    made = Execution(
        replace(claim, is_taken_over=taken_over),
        None,
        host,
        await site.outputs.begin("t-1", is_stored=True),
        file_bytes=1,
        note_mode=note,
        note_ending=note,
        secrets={},
        timing=timing,
    )
    host.key = made._key
    return made


async def cancelled(execution: Execution, when: asyncio.Event) -> tuple[Status, str | None, str | None]:
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(execution.run("bash"))
        await when.wait()
        execution.cancel()
    outcome = running.result()
    return outcome.status, outcome.cause, outcome.detail


async def test_a_host_that_is_lost_again_and_again_wears_nothing_out(site: Site) -> None:
    """A day of a bad network is hundreds of cuts; each must cost what the first one did."""
    host = Scripted(*["cut"] * 400, "host_key_changed")
    execution = await execution_on(site, host, Timing(retry_first_s=0.0))

    outcome = await execution.run("bash")

    assert (outcome.status, outcome.cause) == (Status.INTERRUPTED, "host_key_changed")


async def test_what_nobody_was_told_to_run_is_cancelled_at_once(site: Site) -> None:
    """The host has not even opened a channel: there is nothing to wait for and nothing to confirm."""
    host = Scripted("silence")
    execution = await execution_on(site, host, Timing(unanswered_s=3_600))

    assert await cancelled(execution, host.waits) == (Status.CANCELLED, "cancelled", None)
    assert host.opened == 1


async def test_what_a_host_was_told_to_run_and_says_nothing_about_may_have_begun(site: Site) -> None:
    """It opened a channel and took the command; long before the command's time is up we say that we do not know."""
    host = Scripted("mute")
    execution = await execution_on(site, host, Timing(unanswered_s=0.05))

    ended = await cancelled(execution, host.waits)

    assert ended == (Status.INTERRUPTED, "not_confirmed", "It was to end: cancelled; its host does not answer.")


async def test_a_command_that_begins_late_is_ended_when_it_was_cancelled_before(site: Site) -> None:
    """Its host needs a while to say that it runs."""
    host, server = await site.start()
    gate = host.home / "gate"
    slow = f"until test -e {gate}; do sleep 0.05; done"
    (host.home / ".bashrc").write_text(f"touch {host.home}/asked; {slow}\n")
    async with site.worker() as worker:
        placed = await site.place(server, command="echo $$ >~/pid; sleep 60")
        worker.wake()
        await until((host.home / "asked").exists)
        await site.cancel(placed, worker)
        await until(lambda: any(one._stop_for for one in worker._executions.values()))
        gate.touch()
        [row] = await site.ended(placed)

    assert (row.status, row.cause) == ("cancelled", "cancelled")
    assert not (host.home / "pid").exists() or not lives(int((host.home / "pid").read_text()))


async def test_the_end_of_a_command_whose_host_does_not_answer_is_not_confirmed_and_that_is_soon_said(
    site: Site,
) -> None:
    host = Scripted("start", "silence")
    execution = await execution_on(site, host, Timing(unanswered_s=0.05, follow_after_s=3_600))

    ended = await cancelled(execution, host.waits)

    assert ended == (Status.INTERRUPTED, "not_confirmed", "It was to end: cancelled; its host does not answer.")


async def test_a_host_that_was_lost_and_does_not_answer_is_not_waited_for_either(site: Site) -> None:
    host = Scripted("silence")
    execution = await execution_on(site, host, Timing(unanswered_s=0.05), taken_over=True)

    ended = await cancelled(execution, host.waits)

    assert ended == (Status.INTERRUPTED, "not_confirmed", "It was to end: cancelled; its host does not answer.")


async def test_a_cancel_does_not_wait_until_a_lost_host_would_have_been_asked_again(site: Site) -> None:
    host = Scripted("refused")
    execution = await execution_on(
        site, host, Timing(retry_first_s=3_600, retry_most_s=3_600, signal_tries=1), taken_over=True
    )

    ended = await cancelled(execution, host.waits)

    assert ended == (Status.INTERRUPTED, "not_confirmed", "It was to end: cancelled; its host cannot be reached.")
    assert host.opened == 2
