"""`server-monitor server`: the program itself, with nobody at the terminal."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.console import ConsoleProcess
from tests.support.sshd import Sshd

pytestmark = pytest.mark.long

Run = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def server(tmp_path: Path) -> Run:
    """Runs `server-monitor server …` on an empty data directory; gives exit code, stdout and stderr."""
    shell = ConsoleProcess(tmp_path / "data", {"HOME": str(tmp_path)})

    async def run(*words: str, stdin: str = "") -> tuple[int, str, str]:
        return await shell.run("server", *words, stdin=stdin.encode())

    return run


async def listed(server: Run) -> list[dict[str, Any]]:
    code, out, _ = await server("list", "--json")
    assert code == 0
    return list(json.loads(out)["items"])


async def test_a_server_is_added_shown_listed_and_removed(server: Run) -> None:
    code, out, err = await server("add", "web1", "--host", "10.0.0.1", "--user", "deploy", "--label", "env=live")
    assert (code, out) == (0, "")
    assert "server trust 'web1'" in err
    (only,) = await listed(server)
    assert (only["name"], only["username"], only["labels"]) == ("web1", "deploy", {"env": "live"})
    assert (await server("list"))[1] == "web1\tdeploy@10.0.0.1\tunknown\thost_key_unknown\t\n"
    code, out, err = await server("show", "web1")
    assert code == 0
    assert "deploy@10.0.0.1" in out
    assert "Nobody has approved" in err, "words go beside the data"
    assert (await server("add", "web1", "--host", "10.0.0.2"))[0] == 1
    code, _, err = await server("remove", "web1")
    assert (code, "--yes" in err) == (2, True), "nobody is there to be asked"
    assert (await server("remove", "web1", "--yes"))[0] == 0
    assert (await server("show", "web1"))[0] == 1
    assert await listed(server) == []


async def test_wrong_usage_exits_3_and_every_mistake_is_told(server: Run) -> None:
    assert (await server("add"))[0] == 3
    assert (await server("add", "a", "--label", "novalue"))[0] == 3
    assert (await server("add", "a", "--key", "x", "--password-stdin"))[0] == 3
    await server("list")
    code, _, err = await server("add", "a\nb", "--host", "-x", "--port", "0")
    assert code == 3
    assert [line.split(":")[0] for line in err.splitlines()] == ["name", "host", "port"]


@pytest.mark.sshd
async def test_the_ssh_config_of_this_account_is_imported_with_its_includes_and_keys(
    server: Run, sshd: Sshd, tmp_path: Path
) -> None:
    home = tmp_path / ".ssh"
    (home / "conf.d").mkdir(parents=True)
    (home / "key").write_text(sshd.private_key)
    (home / "config").write_text("Include conf.d/*\nHost *\n User me\n")
    (home / "conf.d" / "work").write_text(
        f"Host real\n HostName {sshd.host}\n Port {sshd.port}\n User {sshd.username}\n IdentityFile ~/.ssh/key\n"
    )
    code, out, err = await server("import", "--dry-run")
    assert (code, out.split("\t")[0]) == (0, "real")
    assert "1 server would be added" in err
    assert await listed(server) == []
    code, out, _ = await server("import", "--with-keys", "--json")
    assert (code, json.loads(out)["created"]) == (0, 1)

    code, _, err = await server("test", "real")
    assert code == 2, "its host key waits for a decision"
    assert "Nobody has approved" in err
    code, _, err = await server("trust", "real")
    assert code == 2, "nobody is here to be asked"
    assert sshd.fingerprint() in err
    assert (await server("trust", "real", "--fingerprint", "SHA256:another"))[0] == 1
    assert (await server("trust", "real", "--fingerprint", sshd.fingerprint()))[0] == 0
    code, _, err = await server("test", "real")
    assert code == 0, err
    code, out, _ = await server("test", "real", "--json")
    assert json.loads(out)["logged_in"] is True


async def test_an_import_with_mistakes_names_their_lines_and_adds_nothing(server: Run, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("name,host,port\na,10.0.0.1,22\nb,bad host,x\n")
    await server("list")
    code, out, err = await server("import", "list.csv")
    assert (code, out) == (1, "")
    assert [line.split(":")[:2] for line in err.splitlines()] == [["line 3", " host"], ["line 3", " port"]]
    assert await listed(server) == []
    assert (await server("import", "missing"))[0] == 1
    assert (await server("import", "list.csv", "--format", "magic"))[0] == 3


async def test_an_export_goes_into_another_import_by_a_pipe(server: Run) -> None:
    await server("import", "-", stdin="Host a b\n User x\n")
    code, exported, _ = await server("export")
    assert code == 0
    await server("remove", "a", "--yes")
    code, out, _ = await server("import", "-", "--json", stdin=exported)
    assert (code, json.loads(out)["created"], len(json.loads(out)["skipped"])) == (0, 1, 1)


async def test_a_secret_is_not_sealed_under_a_key_that_the_console_cannot_open(console: ConsoleProcess) -> None:
    """Somebody without the settings of the service is at the shell of its machine."""
    words = "server", "add", "web1", "--user", "root", "--password-stdin"
    stranger = ConsoleProcess(console.data_dir, {"KEY_VAULT_MASTER_KEY": "another key, which is long enough for it"})

    code, _, said = await stranger.run(*words, stdin=b"hunter2-hunter2\n")
    assert (code, "KEY_VAULT_MASTER_KEY here is not the one" in said) == (1, True), said
    assert "web1" not in (await console.run("server", "list"))[1]

    code, _, said = await console.run(*words, stdin=b"hunter2-hunter2\n")
    assert code == 0, said


async def test_a_password_comes_by_stdin_and_never_back(server: Run) -> None:
    await server("add", "old", "--host", "10.0.0.3", "--user", "root", "--password-stdin", stdin="hunter2hunter2\n")
    for words in (("show", "old"), ("show", "old", "--json"), ("export",)):
        _, out, err = await server(*words)
        assert "hunter2" not in out + err
    assert (await listed(server))[0]["auth"] == "password"
