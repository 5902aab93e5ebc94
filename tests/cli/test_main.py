"""The program as a whole: what every command takes, and how it ends."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.console import ConsoleProcess
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.long


@pytest.fixture
def shell(tmp_path: Path) -> ConsoleProcess:
    """The program with a data directory of its own; no console runs."""
    return ConsoleProcess(tmp_path / "data")


async def test_machines_get_json_of_every_command(shell: ConsoleProcess) -> None:
    first = await shell.run("migrate", "--json")
    second = await shell.run("migrate", "--json")
    version = await shell.run("version", "--json")
    exported = await shell.run("server", "export", "--json")

    moved, stayed = json.loads(first[1]), json.loads(second[1])
    assert (moved["from"], stayed["from"]) == (None, moved["version"])
    assert json.loads(version[1])["version"]
    assert json.loads(exported[1]) == {"servers": []}


@pytest.mark.parametrize("role", ["api", "worker", "king"])
async def test_one_process_plays_every_role(shell: ConsoleProcess, role: str) -> None:
    code, _, words = await shell.run("serve", "--port", "0", "--role", role)
    assert (code, "all" in words) == (3, True)

    await shell.start("--role", "all")
    assert await shell.stop() == 0


async def test_a_period_that_is_none_is_wrong_usage(shell: ConsoleProcess) -> None:
    code, _, words = await shell.run("token", "create", "--user", "ada", "--scope", "read", "--expires", "soon")

    assert code == 3
    assert "30d, 12w, 6m or 1y" in words


async def test_the_rest_of_the_commands_know_json_too(shell: ConsoleProcess) -> None:
    described = await shell.run("openapi", "--json")
    held = await shell.run("audit", "hold", "list", "--json")

    assert json.loads(described[1])["paths"]
    assert json.loads(held[1]) == {"items": []}


@pytest.mark.parametrize(
    "words",
    [
        ("audit", "hold", "add", "h", "--reason", b"x\xff"),
        ("server", "show", b"x\xff"),
        ("user", "remove", b"\xff", "--yes"),
        ("run", "true", "--on", b"\xff"),
    ],
)
async def test_an_argument_that_is_no_text_is_wrong_usage(
    shell: ConsoleProcess, words: tuple[str | bytes, ...]
) -> None:
    code, out, said = await into(shell, subprocess.PIPE, *words)

    assert (code, out) == (3, b"")
    assert b"is not UTF-8 text" in said
    assert b"Traceback" not in said


async def test_a_command_that_is_judged_may_hold_any_byte(shell: ConsoleProcess) -> None:
    code, _, _ = await into(shell, subprocess.PIPE, "policy", "check", b"echo \xff")

    assert code == 1


@pytest.mark.parametrize(
    "words",
    [
        ("server", "add", "q", "--port", "70000"),
        ("server", "add", ""),
        ("token", "create", "--user", "ada", "--scope", "read", "--expires", "0d"),
        ("run", "true", "--on", "all", "--max-parallel", "0"),
    ],
)
async def test_a_value_that_an_option_cannot_have_is_wrong_usage(shell: ConsoleProcess, words: tuple[str, ...]) -> None:
    await shell.run("user", "add", "ada", "--role", "admin", "--password-stdin", stdin=b"correct horse battery\n")

    assert (await shell.run(*words))[0] == 3


async def test_a_full_disk_under_standard_output_is_told_in_words(shell: ConsoleProcess) -> None:
    await shell.start()  # which signs the first checkpoint
    await shell.stop()
    await shell.run("user", "add", "ada", "--role", "admin", "--password-stdin", stdin=b"correct horse battery\n")
    with Path("/dev/full").open("wb") as full:  # noqa: ASYNC230
        for words in (
            ("user", "list"),
            ("audit", "checkpoint"),
            ("audit", "verify", "--json"),
            ("token", "create", "--user", "ada", "--scope", "read"),
        ):
            code, _, said = await into(shell, full.fileno(), *words)
            assert code == 1, words
            assert b"No space left on device" in said, words
            assert b"Traceback" not in said, (words, said)
            assert b"Exception ignored" not in said, words

    assert json.loads((await shell.run("token", "list", "--json"))[1])["items"] == [], "nobody has seen its secret"


async def into(shell: ConsoleProcess, stdout: int, *words: str | bytes) -> tuple[int, bytes, bytes]:
    """A command with these bytes as its arguments, and this for its standard output."""
    environment = {**os.environ, "DATA_DIR": str(shell.data_dir), **shell.environment}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server_monitor", *words, env=environment, stdout=stdout, stderr=subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE_S):
        out, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out or b"", said


async def test_a_command_where_no_console_was_says_that_it_makes_one(tmp_path: Path) -> None:
    console = ConsoleProcess(tmp_path / "data")

    first, second = await console.run("server", "list"), await console.run("server", "list")

    assert first[0] == second[0] == 0
    assert str(tmp_path / "data") in first[2]
    assert "DATA_DIR" in first[2]
    assert second[2] == ""


async def test_choices_are_told_in_one_line(tmp_path: Path) -> None:
    code, _, err = await ConsoleProcess(tmp_path / "data").run("user", "add", "ada")

    assert code == 3
    assert err == "Missing option '--role'. Choose from: admin, operator, auditor, viewer\n"
