"""`server-monitor audit export`, as typed at a shell."""

import asyncio
import csv
import fcntl
import hashlib
import io
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from tests.support.console import ConsoleProcess
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.long


@pytest.fixture
async def shell(tmp_path: Path) -> ConsoleProcess:
    """The program with a data directory of its own and three records; no console runs."""
    shell = ConsoleProcess(tmp_path / "data")
    for name in ("olga", "piet", "quin"):
        code, _, err = await shell.run(
            "user", "add", name, "--role", "viewer", "--password-stdin", stdin=b"walnut orbit cactus thirty\n"
        )
        assert code == 0, err
    return shell


def bodies(shell: ConsoleProcess, action: str = "%") -> list[bytes]:
    with closing(sqlite3.connect(shell.data_dir / "server-monitor.sqlite3", timeout=PATIENCE_S)) as conn:
        rows = conn.execute("SELECT body FROM audit_records WHERE action LIKE ? ORDER BY seq", (action,))
        return [body for (body,) in rows]


async def test_jsonl_is_what_was_hashed(shell: ConsoleProcess) -> None:
    before = bodies(shell)

    code, out, err = await shell.run("audit", "export", "--format", "jsonl")

    assert code == 0, err
    assert out.encode() == b"".join(body + b"\n" for body in before)
    assert hashlib.sha256(out.encode()).hexdigest() in err


async def test_a_file_appears_when_it_is_whole(shell: ConsoleProcess, tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"

    words = (
        "audit",
        "export",
        "--format",
        "csv",
        "--output",
        str(path),
        "--action",
        "user.*",
        "--limit",
        "2",
        "--json",
    )
    code, out, err = await shell.run(*words)

    assert code == 0, err
    content = path.read_bytes()
    assert orjson.loads(out) == {
        "path": str(path),
        "rows": 2,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["audit.csv", "data"]
    rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    assert [row["action"] for row in rows] == ["user.create", "user.create"]
    (ended,) = map(orjson.loads, bodies(shell, "audit.export_finished"))
    assert (ended["outcome"], ended["actor"]["type"]) == ("success", "os_user")


@pytest.mark.parametrize("words", [("export", "--format", "jsonl", "--output"), ("bundle",)])
async def test_a_file_that_is_there_is_replaced_only_when_that_is_said(
    shell: ConsoleProcess, tmp_path: Path, words: tuple[str, ...]
) -> None:
    kept, link = tmp_path / "kept", tmp_path / "link"
    kept.write_bytes(b"somebody's only copy")
    link.symlink_to(kept)

    refused = await shell.run("audit", *words, str(kept))
    replaced = await shell.run("audit", *words, str(link), "--force")

    assert (refused[0], "--force" in refused[2]) == (1, True), refused
    assert replaced[0] == 0, replaced
    assert link.is_symlink()
    assert (len(kept.read_bytes()) > 100, kept.stat().st_mode & 0o777) == (True, 0o600)
    assert len(bodies(shell, "audit.export")) == 1, "nothing was exported the first time"
    assert sorted(os.listdir(tmp_path)) == ["data", "kept", "link"]


@pytest.mark.parametrize("words", [("export", "--format", "jsonl", "--output"), ("bundle",)])
async def test_a_pipe_is_written_to_and_stays_one(
    shell: ConsoleProcess, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """As a device does, which nobody wants to find replaced by a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    (code, _, err), data = await asyncio.gather(
        shell.run("audit", *words, str(pipe)), asyncio.to_thread(pipe.read_bytes)
    )

    assert code == 0, err
    assert data[:1] in {b"{", b"\x1f"}
    assert pipe.is_fifo()


async def test_what_cannot_be_written_is_a_failure(shell: ConsoleProcess, tmp_path: Path) -> None:
    code, _, err = await shell.run("audit", "export", "--format", "csv", "--output", str(tmp_path / "no" / "file"))

    assert code == 1
    assert "cannot be written" in err
    (ended,) = map(orjson.loads, bodies(shell, "audit.export_finished"))
    assert ended["outcome"] == "failure"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_pipe_that_does_not_wait_gets_every_byte(unbuffered: str) -> None:
    """Whoever gives the program its standard output may have made it so, and may read slowly."""
    command = (sys.executable, "-m", "server_monitor", "openapi")

    code, data = into_a_small_pipe(command, {**os.environ, "PYTHONUNBUFFERED": unbuffered})

    assert code == 0
    assert orjson.loads(data)["paths"]


def into_a_small_pipe(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, bytes]:
    """The exit code, and what came through."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    with subprocess.Popen(command, env=environment, stdout=writer, stderr=subprocess.DEVNULL) as process:
        os.close(writer)
        with open(reader, "rb") as stream:
            data = stream.read()
        return process.wait(PATIENCE_S), data


SHORT_DISK = """
import resource, sys
from server_monitor.cli.output import whole
sys.stdout = whole(sys.stdout)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
sys.stdout.buffer.write(b"x" * 1500)
sys.stdout.buffer.flush()
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_disk_that_takes_a_part_is_a_failure(tmp_path: Path, unbuffered: str) -> None:
    """It takes what it can without an error; only the next write is refused, and there may be none."""
    with (tmp_path / "out").open("wb") as out:
        ended = subprocess.run(
            [sys.executable, "-c", SHORT_DISK],
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=out,
            stderr=subprocess.PIPE,
            timeout=PATIENCE_S,
            check=False,
        )

    assert ended.returncode != 0
    assert b"File too large" in ended.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--format", "xml"), 3, "format"),
        (("--format", "csv", "--from", "2026-13-01"), 3, "from: must be a date"),
        (("--format", "csv", "--action", "nothing"), 3, "action: must be"),
        (("--format", "csv", "--limit", "0"), 3, "limit"),
        (("--format", "csv", "--json"), 3, "--output"),
    ],
)
async def test_a_mistake_is_named(shell: ConsoleProcess, words: tuple[str, ...], code: int, said: str) -> None:
    ended, out, err = await shell.run("audit", "export", *words)

    assert (ended, out) == (code, "")
    assert said in err
