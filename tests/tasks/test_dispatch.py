"""The worker: many tasks at once, its stop, its death, and a database that takes nothing for a while."""

import asyncio
import random
import sqlite3
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import delete, make_url, update
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs

from server_monitor.db.tables import servers, tasks
from server_monitor.fleet import changes
from server_monitor.fleet.servers import Server
from server_monitor.ssh.vault import Vault
from server_monitor.tasks import claims
from server_monitor.tasks.dispatch import Dispatcher
from server_monitor.tasks.placing import Placed
from tests.support.fleet import actions, records
from tests.support.machines import machine, read_only
from tests.support.patience import PATIENCE_S, is_written, until
from tests.support.sshd import Sshd
from tests.tasks.runs import claim, statuses
from tests.tasks.site import ASKER, COUNT, Site, count
from tests.tasks.talks import lives

pytestmark = pytest.mark.sshd


async def test_a_run_on_several_hosts_ends_on_each_with_its_own_result(site: Site) -> None:
    started = [await site.start() for _ in range(3)]
    async with site.worker() as worker:
        found = await site.run(
            worker,
            *(server for _, server in started),
            command=f"{COUNT}; test -e ~/.ssh || echo $HOME; exit $((RANDOM % 1))",
        )

    for row in found:
        [host] = [host for host, server in started if server.id == row.server_id]
        assert (row.status, await site.output(row)) == ("success", (f"{host.home}\n".encode(), b""))
        assert count(host) == {row.id: 1}
    kinds = Counter(await actions(site.db))
    assert (kinds["task.create"], kinds["task.start"], kinds["task.finish"]) == (1, 3, 3)
    assert {one["request"]["id"] for one in await records(site.db) if one["action"] in {"task.start", "task.finish"}}


async def test_tasks_for_one_host_run_one_after_the_other(site: Site) -> None:
    host, server = await site.start()
    async with site.worker() as worker:
        placed = [
            await site.place(server, command=f"mkdir ~/alone || exit 9; {COUNT}; sleep 0.05; rmdir ~/alone")
            for _ in range(10)
        ]
        worker.wake()
        found = [await site.ended(one) for one in placed]

    assert [row.status for [row] in found] == ["success"] * 10
    assert list(count(host)) == [row.id for [row] in found]


async def test_a_slow_host_holds_nobody_else(site: Site) -> None:
    slow, quick = (await site.start())[1], (await site.start())[1]
    async with site.worker() as worker:
        held = await site.place(slow, quick, command="case $(hostname) in *) sleep 60;; esac")
        worker.wake()
        await site.running(held)
        other = await site.start()
        [row] = await site.run(worker, other[1], command="true")

        assert row.status == "success"


async def test_a_command_for_a_server_that_was_removed_runs_nowhere(site: Site, disk: Path) -> None:
    """Least of all on the console's own machine."""
    _, server = await site.start()
    async with site.dispatcher() as worker:
        placed = await site.place(server, command=f"touch {disk}/ran")
        cleared = await worker._clearing.clear(asyncio.get_running_loop().time(), slots=1, per_server=1)
        assert cleared.run_ids == [placed.run_id]
        async with site.db.transaction() as conn:
            await conn.execute(delete(servers).where(servers.c.id == server.id))
        running = asyncio.create_task(worker.run())
        [row] = await site.ended(placed)
        running.cancel()
        await asyncio.wait([running])

    assert (row.status, row.cause) == ("failed", "server_unfit")
    assert not (disk / "ran").exists()


async def remove(site: Site, server: Server) -> None:
    async with site.db.transaction() as conn:
        await changes.remove(conn, server.id, actor=ASKER)


async def test_a_command_whose_server_is_removed_while_it_runs_says_so(site: Site) -> None:
    """With the server its host's accepted key is forgotten, and nobody can ask there any more."""
    host, server = await site.start()
    async with site.worker() as worker:
        placed = await site.place(server, command=f"{COUNT}; sleep 60")
        worker.wake()
        await until((host.home / "count").exists)
        await remove(site, server)
        host.drop_connections()
        [row] = await site.ended(placed)

    assert (row.status, row.cause, row.detail) == ("interrupted", "server_removed", None)


async def test_a_command_that_may_have_run_when_its_console_died_and_its_server_was_removed_says_so(
    site: Site,
) -> None:
    host, server = await site.start()
    placed = await site.place(server, command=f"{COUNT}; sleep 60")
    async with site.worker() as worker:
        worker.wake()
        await until((host.home / "count").exists)
    await remove(site, server)
    async with site.worker():
        [row] = await site.ended(placed)

    assert (row.status, row.cause) == ("interrupted", "server_removed")


async def test_secrets_that_cannot_be_opened_cost_the_task_and_not_the_console(site: Site) -> None:
    host, server = await site.start()
    async with site.worker() as worker:
        worker._vault = Vault(SecretStr("another master key than the one before"))
        [row] = await site.run(worker, server, command=COUNT, secrets={"DB_PASSWORD": "correct horse"})
        [next_one] = await site.run(worker, server, command="true")

    assert (row.status, row.cause) == ("failed", "secrets_unreadable")
    assert count(host) == {}
    assert next_one.status == "success"


# --- death ------------------------------------------------------------------------------------------------------------


async def test_what_ran_when_the_console_died_ends_in_its_true_state_and_ran_once(site: Site) -> None:
    """Killed at ten instants of a run, from before the first connection to after the last end."""
    started = [await site.start() for _ in range(3)]
    chance = random.Random(7)
    for number in range(10):
        placed = [
            await site.place(*(server for _, server in started), command=f"{COUNT}; sleep 0.{n}; seq 2000; exit {n}")
            for n in range(3)
        ]
        async with site.worker() as worker:
            worker.wake()
            await asyncio.sleep(chance.uniform(0, 1.2))
        async with site.worker():
            found = [await site.ended(one) for one in placed]

        for code, rows in enumerate(found):
            for row in rows:
                [host] = [host for host, server in started if server.id == row.server_id]
                assert (row.status, row.exit_code) == (("failed", code) if code else ("success", 0)), (
                    number,
                    row.cause,
                )
                assert count(host)[row.id] == 1
                assert (await site.output(row))[0] == b"".join(b"%d\n" % n for n in range(1, 2_001))


async def test_what_never_reached_its_host_when_the_console_died_is_started_then(site: Site) -> None:
    host, server = await site.start()
    placed = await site.place(server, command=COUNT)
    async with site.db.transaction() as conn:
        [claimed] = await claims.claim(
            conn, "one", slots=1, per_server=1, cleared=[placed.run_id], now=datetime.now(UTC)
        )
    async with site.worker():
        [row] = await site.ended(placed)

    assert (row.status, row.fence) == ("success", claimed.fence + 2)
    assert count(host) == {row.id: 1}


async def test_a_console_finds_what_it_holds_without_knowing_and_finds_it_once(site: Site) -> None:
    """The claim became durable, and the connection to the database broke before it said so."""
    _, server = await site.start()
    placed = await site.place(server, command="true")
    async with site.dispatcher() as worker:
        [unknown] = await claim(site.db, placed)
        await worker._bury()
        await worker._bury()

        assert [(one.task_id, one.fence) for one in worker._adopted] == [(unknown.task_id, 2)]


async def test_an_attached_command_of_a_dead_console_is_interrupted(site: Site, disk: Path) -> None:
    _, server = await site.start(lambda directory: machine(read_only(directory / "home")))
    placed = await site.place(server, command=f"touch {disk}/began; sleep 60")
    async with site.worker() as worker:
        worker.wake()
        await until((disk / "began").exists)
        await site.until(placed, lambda rows: rows[0].mode == "attached")
    async with site.worker():
        [row] = await site.ended(placed)

    assert (row.status, row.cause) == ("interrupted", "console_died")


async def test_a_worker_that_slept_beyond_its_lease_says_nothing_any_more(site: Site) -> None:
    """Another one has taken over meanwhile; what the sleeper then knows counts for nothing."""
    host, server = await site.start()
    placed = await site.place(server, command=f"{COUNT}; until test -e ~/go; do sleep 0.05; done; exit 3")
    async with site.worker("sleeper", heartbeat_s=3600) as sleeper:
        sleeper.wake()
        await until((host.home / "count").exists)
        async with site.worker("awake", heartbeat_s=0.1) as awake:
            await site.until(placed, lambda rows: rows[0].owner == "awake")
            (host.home / "go").touch()
            [row] = await site.ended(placed)
            assert awake is not sleeper

    assert (row.status, row.exit_code, row.fence) == ("failed", 3, 2)
    assert count(host) == {row.id: 1}
    ends = [one for one in await records(site.db) if one["phase"] == "outcome" and one["meta"].get("task_id") == row.id]
    assert len(ends) == 1


async def lose(site: Site, placed: Placed) -> None:
    """Another console takes the tasks of a run over; it does nothing with them."""
    async with site.db.transaction() as conn:
        await claims.beat(conn, "another", datetime.now(UTC))
        mine = tasks.c.run_id == placed.run_id
        await conn.execute(update(tasks).where(mine).values(owner="another", fence=tasks.c.fence + 1))


async def test_a_lost_claim_starts_nothing(site: Site, disk: Path) -> None:
    """Where no directory can be written, only the claim keeps a command from a second start."""
    _, server = await site.start(lambda directory: machine(read_only(directory / "home")))
    placed = await site.place(server, command=f"touch {disk}/ran")
    [claimed] = await claim(site.db, placed)
    await lose(site, placed)
    async with site.dispatcher() as worker:
        worker._adopted.append(claimed)
        running = asyncio.create_task(worker.run())
        with capture_logs() as said:
            await until(lambda: any(one["event"] == "task_claim_lost" for one in said))
        await until(lambda: not worker._running)
        running.cancel()
        await asyncio.wait([running])

    assert not (disk / "ran").exists()
    assert await statuses(site.db, placed) == ["running"]


async def test_a_lost_claim_ends_nothing(site: Site) -> None:
    host, server = await site.start()
    placed = await site.place(server, command="echo $$ >~/pid; sleep 60")
    async with site.worker(heartbeat_s=3600) as worker:
        worker.wake()
        await until(lambda: is_written(host.home / "pid"))
        await lose(site, placed)
        with capture_logs() as said:
            for execution in worker._executions.values():
                execution.cancel()
            await until(lambda: any(one["event"] == "task_claim_lost" for one in said))
        await until(lambda: not worker._running)

    assert lives(int((host.home / "pid").read_text()))
    assert await statuses(site.db, placed) == ["running"]


async def test_a_console_that_lost_a_claim_and_gets_the_task_back_begins_with_it_anew(site: Site) -> None:
    """What the old claim was at is void, and must be over before the new one goes on with the same output."""
    host, server = await site.start()
    placed = await site.place(server, command=f"{COUNT}; until test -e ~/go; do sleep 0.05; done; echo end; exit 3")
    async with site.worker(heartbeat_s=3600) as worker:
        worker.wake()
        await until((host.home / "count").exists)
        async with site.db.transaction() as conn:
            await conn.execute(update(tasks).where(tasks.c.run_id == placed.run_id).values(owner="gone"))
            worker._adopted += await claims.take_over(conn, "one", dead=["gone"])
        worker.wake()
        await until(lambda: [one.claim.fence for one in worker._executions.values()] == [2])
        (host.home / "go").touch()
        [row] = await site.ended(placed)

    assert (row.status, row.exit_code, row.fence) == ("failed", 3, 2)
    assert (await site.output(row))[0] == b"end\n"
    assert count(host) == {row.id: 1}


async def test_a_console_that_gave_no_sign_of_life_asks_again_before_it_acts(site: Site) -> None:
    """The database's answer was long on its way: somebody else may hold the claim by now."""
    answers = [True, False]

    async def write(_conn: AsyncConnection) -> bool:
        return answers.pop(0)

    async with site.dispatcher() as worker:
        worker._beaten_s -= 3600
        assert not await worker._note(write)

    assert answers == []


# --- clocks ---


async def test_a_console_whose_clock_is_wrong_keeps_its_tasks_as_long_as_it_beats(site: Site) -> None:
    host, server = await site.start()
    placed = await site.place(server, command=f"{COUNT}; until test -e ~/go; do sleep 0.05; done")
    async with site.worker("behind", heartbeat_s=3600) as behind:
        behind.wake()
        await until((host.home / "count").exists)
        async with site.worker("watching", heartbeat_s=0.5) as watching:
            beaten_s = watching._beaten_s
            last_year = datetime.now(UTC) - timedelta(days=365)
            while watching._beaten_s < beaten_s + 3:
                async with site.db.transaction() as conn:
                    await claims.beat(conn, "behind", last_year := last_year + timedelta(milliseconds=50))
                await asyncio.sleep(0.05)
            (host.home / "go").touch()
            [row] = await site.ended(placed)

    assert (row.status, row.fence) == ("success", 1)


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_that_was_put_right_while_the_console_was_down_takes_no_time_from_a_command(
    site: Site, hours: int
) -> None:
    host, server = await site.start()
    placed = await site.place(server, command=f"{COUNT}; until test -e ~/go; do sleep 0.05; done", timeout_s=600)
    await begin_and_die(site, placed, host, hours)
    async with site.worker() as worker:
        await until(lambda: any(one._is_running for one in worker._executions.values()))
        (host.home / "go").touch()
        [row] = await site.ended(placed)

    assert (row.status, row.exit_code) == ("success", 0)


async def test_a_command_that_ran_too_long_while_the_console_was_down_is_ended_whatever_the_clock_says(
    site: Site,
) -> None:
    host, server = await site.start()
    placed = await site.place(server, command=f"{COUNT}; sleep 60", timeout_s=3)
    await begin_and_die(site, placed, host, -1)
    async with site.worker():
        [row] = await site.ended(placed)

    assert (row.status, row.cause) == ("timeout", "timeout")


async def begin_and_die(site: Site, placed: Placed, host: Sshd, hours: int) -> None:
    """Begin with a task, and die; the clock of the next console is so many hours ahead."""
    async with site.worker() as worker:
        worker.wake()
        await until((host.home / "count").exists)
    async with site.db.transaction() as conn:
        mine = tasks.c.run_id == placed.run_id
        await conn.execute(update(tasks).where(mine).values(started_at=datetime.now(UTC) - timedelta(hours=hours)))


# --- stop -------------------------------------------------------------------------------------------------------------


async def stopped(worker: Dispatcher, within_s: float) -> None:
    await worker.drain(within_s)


async def test_a_stop_leaves_commands_running_and_the_next_start_finds_them(site: Site) -> None:
    host, server = await site.start()
    placed = await site.place(server, command=f"{COUNT}; until test -e ~/go; do sleep 0.05; done; echo end; exit 3")
    async with site.worker() as worker:
        worker.wake()
        await until((host.home / "count").exists)
        await stopped(worker, 0.2)
        assert await statuses(site.db, placed) == ["running"]
    (host.home / "go").touch()
    async with site.worker():
        [row] = await site.ended(placed)

    assert (row.status, row.exit_code, (await site.output(row))[0]) == ("failed", 3, b"end\n")
    assert count(host) == {row.id: 1}


async def test_a_stop_that_is_set_to_interrupt_ends_commands_and_says_so(site: Site) -> None:
    host, server = await site.start()
    placed = await site.place(server, command="echo $$ >~/pid; sleep 60")
    async with site.worker(reattach=False, ending_s=PATIENCE_S) as worker:
        worker.wake()
        await until(lambda: is_written(host.home / "pid"))
        await stopped(worker, PATIENCE_S)
        [row] = await site.ended(placed)

    assert (row.status, row.cause) == ("interrupted", "console_stopped")


async def test_a_stop_interrupts_what_runs_attached(site: Site, disk: Path) -> None:
    _, server = await site.start(lambda directory: machine(read_only(directory / "home")))
    placed = await site.place(server, command=f"echo $$ >{disk}/began; sleep 60")
    async with site.worker(ending_s=PATIENCE_S) as worker:
        worker.wake()
        await until((disk / "began").exists)
        await site.until(placed, lambda rows: rows[0].mode == "attached")
        await stopped(worker, PATIENCE_S)
        [row] = await site.ended(placed)

    assert (row.status, row.cause) == ("interrupted", "console_stopped")
    assert not lives(int((disk / "began").read_text()))


async def test_a_stop_at_any_moment_loses_no_result(site: Site) -> None:
    """Stopped while tasks begin, end, and are being stored."""
    started = [await site.start() for _ in range(3)]
    chance = random.Random(11)
    for number in range(12):
        placed = await site.place(*(server for _, server in started), command=f"{COUNT}; exit 4")
        async with site.worker() as worker:
            worker.wake()
            await asyncio.sleep(chance.uniform(0, 0.3))
            await stopped(worker, chance.choice((0.0, 0.01, 0.05)))
        async with site.worker():
            found = await site.ended(placed)

        assert [(row.status, row.exit_code) for row in found] == [("failed", 4)] * 3, number
        assert all(count(host)[row.id] == 1 for host, server in started for row in found if row.server_id == server.id)


def another_process(sqlite_url: str) -> sqlite3.Connection:
    """What it would have of the database. It waits its turn for the lock, in a thread: the worker may be about to
    write, and needs this loop to come to an end with it.
    """
    path = str(make_url(sqlite_url).database)
    return sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False)


async def test_a_stop_takes_nothing_back_of_what_waits_for_the_database(
    site: Site, sqlite_url: str, disk: Path
) -> None:
    """It ended well, and that could not be stored when the console was stopped: one claim has one outcome."""
    _, server = await site.start(lambda directory: machine(read_only(directory / "home")))
    placed = await site.place(server, command=f"touch {disk}/began; until test -e {disk}/go; do sleep 0.05; done")
    async with site.worker(reattach=False) as worker:
        worker.wake()
        await until((disk / "began").exists)
        with closing(another_process(sqlite_url)) as other:
            await asyncio.to_thread(other.execute, "BEGIN EXCLUSIVE")
            (disk / "go").touch()
            await until(lambda: bool(worker._ended))
            with capture_logs() as said:
                await until(lambda: any(one["event"] == "tasks_not_stored" and one["waiting"] for one in said))
            stopping = asyncio.create_task(stopped(worker, 0.1))
            await until(lambda: worker._is_leaving and not worker._running)
            other.execute("COMMIT")
        await stopping
        [row] = await site.ended(placed)

    assert (row.status, row.cause) == ("success", None)


# --- the database -----------------------------------------------------------------------------------------------------


async def test_while_the_database_takes_nothing_results_wait_and_are_stored_then(
    site: Site, sqlite_url: str, disk: Path
) -> None:
    """Another process holds SQLite's write lock for longer than anybody waits for it."""
    host, server = await site.start()
    attached = await site.start(lambda directory: machine(read_only(directory / "home")))
    async with site.worker() as worker:
        placed = await site.place(server, command=f"{COUNT}; until test -e ~/go; do sleep 0.05; done; exit 3")
        also = await site.place(
            attached[1], command=f"touch {disk}/began; until test -e {disk}/go; do sleep 0.05; done"
        )
        worker.wake()
        await until((host.home / "count").exists)
        await until((disk / "began").exists)
        with closing(another_process(sqlite_url)) as other, capture_logs() as said:
            await asyncio.to_thread(other.execute, "BEGIN EXCLUSIVE")
            (host.home / "go").touch()
            (disk / "go").touch()
            await until(lambda: any(one["event"] == "tasks_not_stored" and one["waiting"] for one in said))
            other.execute("COMMIT")
        [row] = await site.ended(placed)
        [other_row] = await site.ended(also)

    assert (row.status, row.exit_code) == ("failed", 3)
    assert other_row.status == "success"
    assert count(host) == {row.id: 1}
