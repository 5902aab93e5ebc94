"""`server-monitor run` and `runs`: the program itself, with a console beside it and without one."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server_monitor.auth.actor import os_user
from server_monitor.db import migrate
from server_monitor.db.engine import Database
from server_monitor.fleet import changes, groups, servers, trust
from server_monitor.fleet.changes import Edit, Login, NewServer
from server_monitor.fleet.groups import NewGroup
from server_monitor.lifecycle.instance import instance_id
from server_monitor.settings import Settings
from server_monitor.ssh import hostkeys
from server_monitor.ssh.hostkeys import HostKey
from server_monitor.ssh.vault import Vault
from tests.support.console import ConsoleProcess
from tests.support.patience import PATIENCE_S
from tests.support.sshd import Sshd, Sshds

pytestmark = [pytest.mark.sshd, pytest.mark.long]

SECOND = "daemon"  # an account that every machine has
SETTER = os_user("the test")
DENIED = "rm -rf / # DENY"
TO_BE_APPROVED = 'eval "$(date +:)" # ASK'
behind_sudo = pytest.mark.skipif(os.getuid() != 0, reason="Only root is believed when it says who is behind it.")


@dataclass(frozen=True, slots=True)
class Shell:
    """The program on the data of one console, and the hosts that it knows."""

    console: ConsoleProcess
    hosts: Sequence[Sshd]

    async def run(self, *words: str, code: int = 0) -> tuple[str, str]:
        """What a command prints on stdout and stderr; it has to end with this code."""
        ended, out, err = await self.console.run(*words)
        assert ended == code, (ended, out, err)
        return out, err

    async def document(self, *words: str, code: int = 0) -> Any:
        return json.loads((await self.run(*words, "--json", code=code))[0])

    async def only_run(self) -> str:
        (only,) = (await self.document("runs", "list"))["items"]
        return str(only["id"])


@pytest.fixture
async def shell(tmp_path: Path, sshds: Sshds) -> Shell:
    """Two hosts, `one` (in the group `pair`, labelled env=live) and `two`, both trusted and at capability run."""
    console = ConsoleProcess(tmp_path / "data")
    shell = Shell(console, [sshds.start() for _ in range(2)])
    await prepare(shell)
    return shell


@pytest.fixture
async def served(shell: Shell) -> AsyncIterator[Shell]:
    """The same with a console that runs."""
    await shell.console.start()
    try:
        yield shell
    finally:
        if shell.console.is_running:
            await shell.console.kill()


async def prepare(shell: Shell) -> None:
    settings = Settings.load(
        data_dir=shell.console.data_dir, database_url=shell.console.environment.get("DATABASE_URL")
    )
    vault = Vault(settings.key_vault_master_key)
    db = await Database.open(settings.database, node=instance_id(settings.data_dir))
    try:
        await migrate.prepare(db)
        async with db.transaction() as conn:
            await servers.ensure_local(conn)
            ids = [await add(conn, vault, name, host) for name, host in zip(("one", "two"), shell.hosts, strict=True)]
            pair = await groups.create(conn, NewGroup("pair"), actor=SETTER)
            await groups.set_members(conn, pair.id, ids[:1], actor=SETTER)
            await changes.edit(conn, vault, ids[0], Edit(labels={"env": "live"}), actor=SETTER)
    finally:
        await db.close()


async def add(conn: Any, vault: Vault, name: str, host: Sshd) -> str:
    login = Login("key", private_key=host.private_key)
    new = NewServer(name, host.host, host.username, host.port, login, capability="run")
    added = await changes.add(conn, vault, new, actor=SETTER)
    key_type, key = host.host_public_key().split()
    await hostkeys.record_offer(conn, added.id, HostKey(key_type, host.fingerprint(), f"{key_type} {key}"))
    await trust.trust_host_key(conn, added.id, host.fingerprint(), actor=SETTER)
    return str(added.id)


def home(host: Sshd) -> Path:
    return host.directory / "home"


async def appears(path: Path) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not path.exists():  # noqa: ASYNC110, ASYNC240  # A process of the host makes it.
            await asyncio.sleep(0.02)


# --- with and without a console ---------------------------------------------------------------------------------------


async def test_one_server_prints_as_if_it_had_been_logged_in_to(shell: Shell) -> None:
    out, err = await shell.run("run", "echo out; echo err >&2; printf '\\000end'", "--on", "one")
    assert (out, err) == ("out\n\0end", "err\n")
    out, err = await shell.run("run", "exit 3", "--on", "one", code=1)
    assert out == ""
    assert "one: failed, exit status 3" in err


async def test_several_servers_print_behind_their_names(shell: Shell) -> None:
    out, err = await shell.run("run", "echo a; printf b", "--on", "one", "--on", "two")
    assert sorted(out.splitlines()) == ["one | a", "one | b", "two | a", "two | b"]
    assert "2 success" in err


async def test_a_running_console_does_the_work(served: Shell) -> None:
    out, _ = await served.run("run", "echo $((6*7)); seq 20000", "--on", "one,two")
    lines = [str(number) for number in (42, *range(1, 20_001))]
    for name in ("one", "two"):
        shown = [line.removeprefix(f"{name} | ") for line in out.splitlines() if line.startswith(name)]
        assert shown == lines, "more than the database keeps"
    assert await served.console.stop() == 0
    assert "console_failed" not in served.console.log


async def test_what_a_console_runs_is_shown_as_it_comes(served: Shell) -> None:
    printing = "for line in 1 2 3; do echo $line; until test -e go$line; do sleep 0.05; done; done; echo end >&2"
    running = await served.console.spawn("run", printing, "--on", "one")
    assert running.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        for line in (b"1", b"2", b"3"):
            assert await running.stdout.readline() == line + b"\n"
            (home(served.hosts[0]) / f"go{line.decode()}").touch()
        assert await running.communicate() == (b"", b"end\n")
    assert running.returncode == 0


async def test_a_console_that_dies_and_comes_back_is_watched_again_from_where_it_was(served: Shell) -> None:
    running = await served.console.spawn(
        "run", "printf 'one\ntw'; until test -e go; do sleep 0.05; done; echo o", "--on", "one,two"
    )
    assert running.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        lines = sorted([await running.stdout.readline(), await running.stdout.readline()])
        assert lines == [b"one | one\n", b"two | one\n"]
        await served.console.kill()
        # A busy machine starts no console in ten seconds, after which this command would do the work itself.
        running.send_signal(signal.SIGSTOP)
        for host in served.hosts:
            (home(host) / "go").touch()
        await served.console.start()
        running.send_signal(signal.SIGCONT)
        out, err = await running.communicate()
    assert sorted(out.splitlines()) == [b"one | two", b"two | two"]
    assert (err.count(b"2 success"), running.returncode) == (1, 0)


async def test_the_machine_of_the_console_takes_commands_once_it_may(served: Shell) -> None:
    (local,) = [one["name"] for one in (await served.document("server", "list"))["items"] if one["host"] == "local"]
    _, err = await served.run("run", "true", "--on", local, code=1)
    assert "capability observe" in err
    await served.run("server", "set", local, "--capability", "run")
    assert (await served.run("run", "echo $((6*7))", "--on", local))[0] == "42\n"


async def test_without_a_console_the_work_is_done_on_postgresql_too(
    postgres_url: str, tmp_path: Path, sshds: Sshds
) -> None:
    console = ConsoleProcess(tmp_path / "data", {"DATABASE_URL": postgres_url})
    shell = Shell(console, [sshds.start() for _ in range(2)])
    await prepare(shell)
    out, _ = await shell.run("run", "echo $((6*7))", "--on", "all")
    assert sorted(out.splitlines()) == ["one | 42", "two | 42"]


async def test_a_document_tells_everything_at_once(shell: Shell) -> None:
    document = await shell.document("run", "echo out; exit 2", "--on", "one", "--reason", "a test", code=1)
    (task,) = document["tasks"]
    assert (task["server_name"], task["status"], task["exit_code"], task["stdout"]) == ("one", "failed", 2, "out\n")
    assert document["progress"] == {"total": 1, "open": 0, "failed": 1, "by_status": {"failed": 1}}
    assert (document["reason"], document["verdict"]["verdict"]) == ("a test", "allow")


async def test_no_console_starts_while_a_command_does_the_work(shell: Shell) -> None:
    working = await shell.console.spawn("run", "touch begun; until test -e go; do sleep 0.05; done", "--on", "one")
    await appears(home(shell.hosts[0]) / "begun")
    code, _, err = await shell.console.run("serve", "--port", "0")
    (home(shell.hosts[0]) / "go").touch()

    assert code == 1
    assert "Another console is using" in err
    async with asyncio.timeout(PATIENCE_S):
        await working.communicate()
    assert working.returncode == 0


async def test_two_commands_without_a_console_do_their_work_one_after_the_other(shell: Shell) -> None:
    first = await shell.console.spawn("run", "touch begun; until test -e go; do sleep 0.05; done", "--on", "one")
    await appears(home(shell.hosts[0]) / "begun")
    second = await shell.console.spawn("run", "touch begun; echo $((6*7))", "--on", "two")
    await appears(home(shell.hosts[1]) / "begun")
    (home(shell.hosts[0]) / "go").touch()

    async with asyncio.timeout(PATIENCE_S):
        await first.communicate()
        assert await second.communicate() == (b"42\n", b"")
    assert (first.returncode, second.returncode) == (0, 0)


# --- where ------------------------------------------------------------------------------------------------------------


async def test_a_dry_run_tells_where_and_starts_nothing(shell: Shell) -> None:
    document = await shell.document("run", "touch begun", "--on", "all", "--dry-run")
    assert [one["name"] for one in document["servers"]] == ["one", "two"]
    assert [one["obstacle"] for one in document["excluded"]] == ["capability"]
    out, err = await shell.run("run", "touch begun", "--on", "group:pair,label:env=live", "--dry-run")
    assert out == "one\twould run\tunknown\n"
    assert "on 1 server; 0 are left out" in err
    assert (await shell.document("runs", "list"))["items"] == []
    assert not (home(shell.hosts[0]) / "begun").exists()


async def test_servers_that_do_not_exist_and_wrong_numbers_are_told(shell: Shell) -> None:
    _, err = await shell.run("run", "true", "--on", "one,nix,group:none", code=3)
    assert [line.split("; ")[0] for line in err.splitlines()] == [
        "selector: There is no server “nix”",
        "selector: There is no group “none”.",
    ]
    _, err = await shell.run("run", " ", "--on", "one", "--timeout", "0", "--max-parallel", "0", code=3)
    assert [line.split(":")[0] for line in err.splitlines()] == ["command", "timeout_seconds", "max_parallel"]
    await shell.run("run", "true", code=3)
    _, err = await shell.run("run", "true", "--on", "one", "--secret", "NOT_SET_ANYWHERE", code=3)
    assert "NOT_SET_ANYWHERE" in err


# --- the end before the end -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_served", [False, True])
async def test_an_interrupt_ends_the_command_on_its_host(shell: Shell, is_served: bool) -> None:
    if is_served:
        await shell.console.start()
    try:
        working = await shell.console.spawn("run", "touch begun; exec sleep 300", "--on", "one")
        await appears(home(shell.hosts[0]) / "begun")
        working.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_S):
            _, err = await working.communicate()
        (task,) = (await shell.document("runs", "show", await shell.only_run()))["tasks"]
    finally:
        if is_served:
            await shell.console.kill()

    assert working.returncode == 1
    assert b"Ending it on every server" in err
    assert (task["status"], task["cause"]) == ("cancelled", "cancelled")


async def test_a_second_interrupt_leaves_it_to_itself_and_it_is_found_again(shell: Shell) -> None:
    working = await shell.console.spawn("run", "trap '' TERM; touch begun; sleep 300", "--on", "one")
    await appears(home(shell.hosts[0]) / "begun")
    assert working.stderr is not None
    for words in (b"Interrupt once more", b"Left it to itself"):
        working.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_S):
            while words not in (line := await working.stderr.readline()):
                assert line, f"it ended without saying: {words.decode()}"
    async with asyncio.timeout(PATIENCE_S):
        await working.wait()
    assert working.returncode == 130

    document = await shell.document("runs", "follow", await shell.only_run(), code=1)
    assert document["progress"]["open"] == 0, "its end had been asked for, and what comes next sees to it"


async def test_a_run_is_cancelled_from_another_shell(shell: Shell) -> None:
    working = await shell.console.spawn("run", "touch begun; exec sleep 300", "--on", "one,two")
    for host in shell.hosts:
        await appears(home(host) / "begun")
    run_id = await shell.only_run()
    await shell.run("runs", "cancel", run_id, "--server", "one")
    await shell.run("runs", "cancel", run_id)
    async with asyncio.timeout(PATIENCE_S):
        _, err = await working.communicate()

    assert working.returncode == 1
    assert b"2 cancelled" in err


# --- decisions and what came of them ----------------------------------------------------------------------------------


async def test_what_the_policy_denies_is_explained_and_recorded(shell: Shell) -> None:
    _, err = await shell.run("run", DENIED, "--on", "one", code=1)
    assert "does not allow this" in err
    assert (await shell.document("run", DENIED, "--on", "one", code=1))["status"] == "denied"
    assert [one["ruling"] for one in (await shell.document("runs", "list"))["items"]] == ["deny", "deny"]


@behind_sudo
async def test_a_second_person_decides_and_then_it_runs(shell: Shell) -> None:
    _, err = await shell.run("run", TO_BE_APPROVED, "--on", "one", code=2)
    run_id = await shell.only_run()
    assert f"runs approve {run_id}" in err
    _, err = await shell.run("runs", "approve", run_id, code=2)
    assert TO_BE_APPROVED in err
    _, err = await shell.run("runs", "approve", run_id, "--yes", code=1)
    assert "Somebody else" in err

    other = Shell(ConsoleProcess(shell.console.data_dir, {"SUDO_USER": SECOND}), shell.hosts)
    await other.run("runs", "approve", run_id, "--yes")
    await shell.run("runs", "follow", run_id)
    shown = await shell.document("runs", "show", run_id)
    assert (shown["decided_name"], shown["tasks"][0]["status"]) == (SECOND, "success")


@behind_sudo
async def test_a_refused_run_never_begins(shell: Shell) -> None:
    await shell.run("run", TO_BE_APPROVED, "--on", "one", code=2)
    other = Shell(ConsoleProcess(shell.console.data_dir, {"SUDO_USER": SECOND}), shell.hosts)
    await other.run("runs", "reject", await shell.only_run(), "--reason", "not on a Friday")
    await shell.run("runs", "follow", await shell.only_run(), code=1)


async def test_where_it_failed_it_is_tried_again_and_nowhere_else(shell: Shell) -> None:
    (home(shell.hosts[0]) / "there").touch()
    await shell.run("run", "test -e there && echo x >>count", "--on", "one,two", code=1)
    first = await shell.only_run()
    (home(shell.hosts[1]) / "there").touch()
    await shell.run("runs", "retry", first)

    assert [(home(host) / "count").read_text() for host in shell.hosts] == ["x\n", "x\n"]
    newest, _ = (await shell.document("runs", "list"))["items"]
    assert [task["server_name"] for task in (await shell.document("runs", "show", newest["id"]))["tasks"]] == ["two"]


async def test_output_is_read_again_later(shell: Shell) -> None:
    await shell.run(
        "run", "head -c 200000 /dev/zero | tr '\\0' x; echo e >&2; test -e there", "--on", "one,two", code=1
    )
    run_id = await shell.only_run()
    assert await shell.run("runs", "output", run_id, "--server", "one") == ("x" * 200_000, "e\n")
    out, _ = await shell.run("runs", "output", run_id)
    assert out.startswith("== 2 servers alike (one, two): failed, exit status 1\nxxx")
    await shell.run("runs", "output", run_id, "--server", "nix", code=1)
    out, _ = await shell.run("runs", "list", "--server", "one", "--status", "failed")
    assert out.split("\t")[0] == run_id
    assert (await shell.run("runs", "list", "--status", "success"))[0] == ""
    await shell.run("runs", "list", "--status", "happy", code=3)


async def test_a_secret_reaches_the_command_and_nothing_else(shell: Shell) -> None:
    keeper = Shell(ConsoleProcess(shell.console.data_dir, {"DB_PASSWORD": "correct-horse"}), shell.hosts)
    command = 'printf %s "$DB_PASSWORD" | tee seen'
    out, err = await keeper.run("run", command, "--on", "one", "--secret", "DB_PASSWORD")
    assert (home(shell.hosts[0]) / "seen").read_text() == "correct-horse"
    shown, _ = await shell.run("runs", "show", await shell.only_run(), "--json")
    assert "correct-horse" not in out + err + shown
