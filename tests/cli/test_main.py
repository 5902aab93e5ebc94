"""The program as a whole: what every command takes, and how it ends."""

import json
from pathlib import Path

import pytest

from tests.support.console import ConsoleProcess

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
