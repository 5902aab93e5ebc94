"""`server-monitor user` and `server-monitor token`, as typed at a shell."""

import asyncio
import os
import pty
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import httpx2
import orjson
import pytest
import typer
from websockets.asyncio.client import connect

from server_monitor.cli.token import days_of
from tests.support.console import ADMIN, PASSWORD, Browser, ConsoleProcess
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.long

OTHER_PASSWORD = "walnut orbit cactus thirty"


@pytest.fixture
def shell(tmp_path: Path) -> ConsoleProcess:
    """The program with a data directory of its own; no console runs."""
    return ConsoleProcess(tmp_path / "data")


async def add(shell: ConsoleProcess, name: str, role: str) -> tuple[int, str, str]:
    return await shell.run("user", "add", name, "--role", role, "--password-stdin", stdin=f"{PASSWORD}\n".encode())


def records(shell: ConsoleProcess, action: str) -> list[dict]:
    with closing(sqlite3.connect(shell.data_dir / "server-monitor.sqlite3", timeout=PATIENCE_S)) as conn:
        rows = conn.execute("SELECT body FROM audit_records WHERE action = ? ORDER BY seq", (action,))
        return [orjson.loads(body) for (body,) in rows]


async def test_accounts_are_kept_without_a_running_console(shell):
    assert (await add(shell, ADMIN, "admin"))[0] == 0
    assert (await add(shell, "olga", "operator"))[0] == 0
    assert (await shell.run("user", "disable", "OLGA"))[0] == 0

    code, out, _ = await shell.run("user", "list", "--json")

    assert code == 0
    listed = [(user["name"], user["role"], user["disabled"]) for user in orjson.loads(out)["items"]]
    assert listed == [("ada", "admin", False), ("olga", "operator", True)]
    (record,) = records(shell, "user.disable")
    assert (record["actor"]["type"], record["source"]["via"]) == ("os_user", "cli")


async def test_the_last_admin_cannot_be_removed_from_the_shell_either(shell):
    await add(shell, ADMIN, "admin")

    for command in ("disable", "remove"):
        code, out, err = await shell.run("user", command, ADMIN, *(["--yes"] if command == "remove" else []))
        assert (code, out) == (1, "")
        assert "is the last administrator; make another one first" in err


async def test_without_a_terminal_a_decision_is_asked_for_by_exit_code(shell):
    no_password = await shell.run("user", "add", ADMIN, "--role", "admin")
    await add(shell, ADMIN, "admin")
    unsure = await shell.run("user", "remove", ADMIN)

    assert (no_password[0], unsure[0]) == (2, 2)
    assert "--password-stdin" in no_password[2]
    assert "--yes" in unsure[2]


@pytest.mark.parametrize("what", [("user", "remove", ADMIN), ("server", "remove", "web1")])
async def test_at_a_terminal_no_means_that_nothing_was_done(shell, what):
    await add(shell, ADMIN, "admin")
    await shell.run("server", "add", "web1", "--user", "ops")

    shown = await at_terminal(shell, list(what), ["n"])

    assert "Nothing was " in shown
    assert ADMIN in (await shell.run("user", "list"))[1]
    assert "web1" in (await shell.run("server", "list"))[1]


async def test_every_mistake_is_told_on_standard_error(shell):
    code, out, err = await shell.run(
        "user", "add", "a\u202eb", "--role", "viewer", "--password-stdin", stdin=b"short\n"
    )

    assert (code, out) == (1, "")
    assert "name: holds characters that cannot be seen (U+202E)" in err
    assert "password: has 5 characters" in err


async def test_a_role_that_does_not_exist_is_wrong_usage(shell):
    code, _, err = await shell.run("user", "add", "eve", "--role", "king")

    assert code == 3
    assert "'admin', 'operator', 'auditor', 'viewer'" in err


async def test_at_a_terminal_the_password_is_asked_for_twice_and_not_shown(shell):
    typed = [OTHER_PASSWORD, "something different", OTHER_PASSWORD, OTHER_PASSWORD]

    shown = await at_terminal(shell, ["user", "add", ADMIN, "--role", "admin"], typed)

    assert "ada can log in as admin." in shown
    assert OTHER_PASSWORD not in shown
    assert "do not match" in shown


async def at_terminal(shell: ConsoleProcess, arguments: list[str], answers: list[str]) -> str:
    """Run a command on a terminal, answering each prompt; returns what the terminal showed."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server_monitor", *arguments),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=shell.data_dir.parent,
        env={**os.environ, "DATA_DIR": str(shell.data_dir)},
    )
    os.close(theirs)
    shown = ""
    try:
        async with asyncio.timeout(PATIENCE_S):
            for answer in answers:
                shown += await read_until(ours, ": ")
                os.write(ours, f"{answer}\n".encode())
            shown += await read_until(ours, "\x04")
            await process.wait()
    finally:
        os.close(ours)
    return shown


async def read_until(terminal: int, end: str) -> str:
    shown = ""
    while not shown.endswith(end):
        try:
            shown += (await asyncio.to_thread(os.read, terminal, 4096)).decode()
        except OSError:  # The program has closed its side.
            break
    return shown


async def test_a_token_is_printed_once_and_works_until_it_is_revoked(console):
    browser_of_ada = httpx2.AsyncClient(base_url=console.url, timeout=PATIENCE_S)
    async with browser_of_ada as client:
        await Browser(client).set_up(console.setup_token)
        code, out, _ = await console.run(
            *("token", "create", "--user", ADMIN, "--scope", "read", "--scope", "metrics", "--expires", "30d", "--json")
        )
        assert code == 0
        token = orjson.loads(out)
        client.cookies.clear()
        bearer = {"Authorization": f"Bearer {token['token']}"}
        assert (await client.get("/api/servers", headers=bearer)).status_code == 200
        assert (await client.get("/api/metrics", headers=bearer)).status_code == 200
        assert (await client.get("/api/users", headers=bearer)).status_code == 200

        _, listed, _ = await console.run("token", "list")
        assert token["id"] in listed
        assert token["token"] not in listed

        assert (await console.run("token", "revoke", token["id"]))[0] == 0
        assert (await client.get("/api/servers", headers=bearer)).status_code == 401


async def test_a_user_disabled_at_the_shell_is_out_of_the_running_console_at_once(console, browser):
    await browser.send("POST", "/api/users", {"name": "olga", "password": PASSWORD, "role": "operator"})
    async with httpx2.AsyncClient(base_url=console.url, timeout=PATIENCE_S) as client:
        await Browser(client).log_in("olga")
        cookie = f"server_monitor_session={client.cookies['server_monitor_session']}"
        socket_url = console.url.replace("http", "ws") + "/ws/live"
        async with connect(
            socket_url, origin=console.url, additional_headers={"Cookie": cookie}, open_timeout=PATIENCE_S
        ) as socket:
            await socket.send('{"type":"subscribe","servers":"all","rate_s":1}')
            await socket.recv()

            assert (await console.run("user", "disable", "olga"))[0] == 0

            assert (await client.get("/api/auth/verify")).status_code == 401
            async with asyncio.timeout(PATIENCE_S):
                await socket.wait_closed()


async def test_setup_ends_when_the_shell_makes_the_first_admin(console):
    await add(console, ADMIN, "admin")

    async with httpx2.AsyncClient(base_url=console.url, timeout=PATIENCE_S) as client:
        body = {"token": console.setup_token, "username": "eve", "password": PASSWORD}
        assert (await client.post("/api/setup/initialize", json=body)).status_code == 410
        await Browser(client).log_in()


async def test_a_reset_password_is_the_only_one_that_works(shell):
    await add(shell, ADMIN, "admin")
    await shell.run("token", "create", "--user", ADMIN, "--scope", "read")

    code, _, err = await shell.run(
        "user", "reset-password", ADMIN, "--password-stdin", stdin=f"{OTHER_PASSWORD}\n".encode()
    )

    assert code == 0
    assert "1 of their API tokens still work" in err
    assert OTHER_PASSWORD not in err


@pytest.mark.parametrize(
    ("period", "days"), [("90d", 90), ("90", 90), ("12w", 84), ("6m", 180), ("1y", 365), (" 7D ", 7)]
)
def test_periods_are_written_as_people_write_them(period, days):
    assert days_of(period) == days


@pytest.mark.parametrize("period", ["", "d", "-1d", "1.5d", "tomorrow", "99999d", "٣d"])
def test_other_periods_are_refused_with_an_example(period):
    with pytest.raises(typer.BadParameter, match="write it like 30d"):
        days_of(period)
