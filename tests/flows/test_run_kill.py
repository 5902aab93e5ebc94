"""The console is killed with -9 while commands run on real hosts: each ends in its true state, and ran exactly once.

Executions are counted on the hosts, in a file to which each command appends its task's id.
"""

import asyncio
import json
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.auth.actor import os_user
from server_monitor.db import migrate
from server_monitor.db.engine import Database
from server_monitor.fleet import changes, trust
from server_monitor.fleet.changes import Login, NewServer
from server_monitor.lifecycle.instance import instance_id
from server_monitor.settings import Settings
from server_monitor.ssh import hostkeys
from server_monitor.ssh.vault import Vault
from tests.ssh.conftest import key_of
from tests.support.console import Browser, ConsoleProcess
from tests.support.machines import on_a_real_disk
from tests.support.patience import PATIENCE_S
from tests.support.sshd import Sshd, Sshds, require_sshd

pytestmark = [pytest.mark.sshd, pytest.mark.long]

SETTER = os_user("the test")
HOSTS = 3
KEYS = {"KEY_VAULT_MASTER_KEY": "a master key for both of the consoles", "JWT_SECRET": "a secret for both, long enough"}


@dataclass(slots=True)
class Site:
    """A console that is started and killed, its first admin, and the hosts it knows."""

    console: ConsoleProcess
    hosts: Sequence[Sshd]
    browser: Browser | None = None

    async def start(self) -> None:
        await self.console.start()
        if self.browser is not None:
            self.browser.client.base_url = self.console.url
            return
        assert self.console.setup_token is not None
        self.browser = Browser(httpx2.AsyncClient(base_url=self.console.url, timeout=PATIENCE_S))
        await self.browser.set_up(self.console.setup_token)

    async def get(self, path: str) -> Any:
        assert self.browser is not None
        answer = await self.browser.get(path)
        assert answer.is_success, answer.text
        return answer.json()

    async def run(self, command: str) -> str:
        """Ask for a command on all hosts; the id of the run."""
        assert self.browser is not None
        ids = [one["id"] for one in (await self.get("/api/servers"))["items"] if one["name"].startswith("kill-")]
        body = {"command": command, "selector": {"servers": ids}, "timeout_seconds": 600}
        answer = await self.browser.send("POST", "/api/tasks", body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run_id"])

    async def finished(self, run_id: str) -> list[dict[str, Any]]:
        """The tasks of a run, once it is over."""
        async with asyncio.timeout(PATIENCE_S):
            while (await self.get(f"/api/runs/{run_id}"))["finished_at"] is None:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        items: list[dict[str, Any]] = (await self.get(f"/api/tasks?run_id={run_id}"))["items"]
        return items

    async def knows_its_hosts(self) -> None:
        """Until it knows which boot each host is at: what never started can then be told from what is gone."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                items = (await self.get("/api/servers"))["items"]
                if all(one["status"] == "online" for one in items if one["name"].startswith("kill-")):
                    return
                await asyncio.sleep(0.1)

    def counts(self) -> Counter[str]:
        """How often each task ran, on whatever host."""
        files = (host.home / "count" for host in self.hosts)
        return Counter(line for path in files if path.exists() for line in path.read_text().split())


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Sequence[Sshd]]:
    require_sshd()
    with on_a_real_disk(tmp_path) as disk:
        started = Sshds(disk)
        try:
            yield [started.start() for _ in range(HOSTS)]
        finally:
            started.stop()


@asynccontextmanager
async def site_on(console: ConsoleProcess, hosts: Sequence[Sshd]) -> AsyncIterator[Site]:
    site = Site(console, hosts)
    try:
        yield site
    finally:
        if console.is_running:
            await console.kill()
        if site.browser is not None:
            await site.browser.client.aclose()


async def register(console: ConsoleProcess, hosts: Sequence[Sshd]) -> None:
    settings = Settings.load(data_dir=console.data_dir)
    key = KEYS["KEY_VAULT_MASTER_KEY"] if console.environment else settings.key_vault_master_key.get_secret_value()
    url = console.environment.get("DATABASE_URL", settings.database)
    db = await Database.open(url, node=instance_id(settings.data_dir))
    try:
        await migrate.prepare(db)
        async with db.transaction() as conn:
            for number, host in enumerate(hosts):
                await _add(conn, Vault(type(settings.key_vault_master_key)(key)), f"kill-{number}", host)
    finally:
        await db.close()


async def _add(conn: AsyncConnection, vault: Vault, name: str, host: Sshd) -> None:
    login = Login("key", private_key=host.private_key)
    new = NewServer(name, host.host, host.username, host.port, login, capability="run")
    added = await changes.add(conn, vault, new, actor=SETTER)
    await hostkeys.record_offer(conn, added.id, key_of(host))
    await trust.trust_host_key(conn, added.id, host.fingerprint(), actor=SETTER)


def command(number: int) -> str:
    """One that takes up to half a second, prints a little or a lot, and ends with a status of its own."""
    lines = (3, 500, 40_000)[number % 3]
    return f"echo $SERVER_MONITOR_TASK_ID >>~/count; sleep 0.{number % 6}; seq {lines}; exit {number % 4}"


async def check(site: Site, run_ids: Sequence[str], seed: str) -> None:
    """Every task told the truth, and the audit log is whole."""
    for number, run_id in enumerate(run_ids):
        for task in await site.finished(run_id):
            expected = ("failed", number % 4) if number % 4 else ("success", 0)
            assert (task["status"], task["exit_code"]) == expected, (seed, task)
            assert site.counts()[task["id"]] == 1, (seed, task, site.counts()[task["id"]])
            assert site.browser is not None
            output = await site.browser.get(f"/api/tasks/{task['id']}/output")
            wanted = "".join(f"{line}\n" for line in range(1, (3, 500, 40_000)[number % 3] + 1))
            assert output.text == wanted, (seed, task, len(output.text), len(wanted))
    code, out, err = await site.console.run("audit", "verify")
    assert code == 0, (seed, out, err)


@pytest.mark.parametrize("seed", range(3))
async def test_killed_at_any_instant_each_command_ran_once_and_its_result_is_true(
    tmp_path: Path, hosts: Sequence[Sshd], seed: int
) -> None:
    chance = random.Random(seed)
    console = ConsoleProcess(tmp_path / "data", {"TASKS_CONCURRENT_PER_SERVER": "4"})
    await register(ConsoleProcess(console.data_dir), hosts)
    async with site_on(console, hosts) as site:
        await site.start()
        await site.knows_its_hosts()
        for number in range(2):
            run_ids = [await site.run(command(each)) for each in range(12)]
            instant_s = chance.uniform(0, 2.5)
            print(f"seed {seed}, round {number}: killed after {instant_s:.3f} s")  # noqa: T201  # To run it again.
            await asyncio.sleep(instant_s)
            await console.kill()
            await asyncio.sleep(chance.choice((0, 0, 1.0)))
            await site.start()
            await check(site, run_ids, f"seed {seed}, round {number}")
        assert "console_failed" not in console.log


async def test_killed_again_and_again_nothing_runs_twice(tmp_path: Path, hosts: Sequence[Sshd]) -> None:
    """Also a start that recovers is killed. A task may then say that it never started; it never runs twice."""
    seed = 20
    chance = random.Random(seed)
    console = ConsoleProcess(tmp_path / "data", {"TASKS_CONCURRENT_PER_SERVER": "4"})
    await register(ConsoleProcess(console.data_dir), hosts)
    async with site_on(console, hosts) as site:
        await site.start()
        await site.knows_its_hosts()
        run_ids = [await site.run(command(each)) for each in range(12)]
        for _ in range(6):
            await asyncio.sleep(chance.uniform(0, 0.6))
            await console.kill()
            await site.start()
        tasks = [task for run_id in run_ids for task in await site.finished(run_id)]
        counts = site.counts()
        for task in tasks:
            ran = counts[task["id"]]
            assert ran == (0 if task["cause"] == "never_started" else 1), (seed, task, ran)
            assert task["status"] in {"success", "failed", "interrupted"}, (seed, task)
            assert (task["status"] == "interrupted") == (task["cause"] == "never_started"), (seed, task)
        code, out, err = await console.run("audit", "verify")
        assert code == 0, (out, err)


async def stop_in_its_tracks(console: ConsoleProcess, database_url: str) -> None:
    """Freeze it where it holds no lock: in the middle of a transaction it would hold up everybody else as well."""
    in_a_transaction = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
    )
    database = await asyncpg.connect(database_url)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                os.kill(console.pid, signal.SIGSTOP)
                if not await database.fetchval(in_a_transaction):
                    return
                os.kill(console.pid, signal.SIGCONT)
                await asyncio.sleep(0.05)
    finally:
        await database.close()


async def taken_over(database_url: str) -> None:
    """Until every task is claimed a second time: the lease of three beats is over before the commands are."""
    database = await asyncpg.connect(database_url)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while await database.fetchval("SELECT count(*) FROM tasks WHERE fence > 1") < HOSTS:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        await database.close()


@pytest.mark.parametrize("how", ["killed", "stopped in its tracks"])
async def test_another_console_takes_over_from_one_that_no_longer_beats(
    tmp_path: Path, hosts: Sequence[Sshd], postgres_url: str, how: str
) -> None:
    """Two on one PostgreSQL. One is killed, or frozen beyond its lease and then thawed: it says nothing more."""
    environment = {**KEYS, "DATABASE_URL": postgres_url, "TASK_HEARTBEAT_SECONDS": "1"}
    one, two = (ConsoleProcess(tmp_path / name, environment) for name in ("one", "two"))
    await register(one, hosts)
    async with site_on(one, hosts) as site, site_on(two, hosts) as other:
        await site.start()
        await site.knows_its_hosts()
        run_id = await site.run(
            "echo $SERVER_MONITOR_TASK_ID >>~/count; until test -e ~/go; do sleep 0.1; done; exit 3"
        )
        async with asyncio.timeout(PATIENCE_S):
            while len(site.counts()) < HOSTS:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        if how == "killed":
            await one.kill()
        else:
            await stop_in_its_tracks(one, postgres_url)
        # The log of one database has one key, which whoever keeps it has to hold.
        (two.data_dir / "audit").mkdir(parents=True)
        shutil.copy(one.data_dir / "audit" / "signing_key", two.data_dir / "audit" / "signing_key")
        await two.start()
        other.browser = Browser(httpx2.AsyncClient(base_url=two.url, timeout=PATIENCE_S))
        await other.browser.log_in()
        await taken_over(postgres_url)
        for host in hosts:
            (host.home / "go").touch()
        tasks = await other.finished(run_id)
        if how != "killed":
            os.kill(one.pid, signal.SIGCONT)
            await asyncio.sleep(3)  # what it would say now, it has said
            tasks = await other.finished(run_id)

        assert [(task["status"], task["exit_code"]) for task in tasks] == [("failed", 3)] * HOSTS
        assert all(site.counts()[task["id"]] == 1 for task in tasks)
        # Each console signs under a name of its own; that of the other one is not known here, and is no part of this.
        _, out, err = await two.run("audit", "verify", "--json")
        verdicts = json.loads(out)["verdicts"]
        assert (verdicts["integrity"], verdicts["completeness"]) == ("intact", "intact"), (out, err)
