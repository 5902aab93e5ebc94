"""`audit verify` says in an exit code what an auditor's script needs to know."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from server_monitor.audit import checkpoints, standalone
from server_monitor.db.engine import Database
from tests.support import forger as forging
from tests.support.forger import Forger
from tests.support.keeping import housekeeping, later
from tests.support.patience import PATIENCE_S

PROGRAM = Path(sys.executable).with_name("server-monitor")
NODE = "test-node"


@pytest.fixture
async def data_dir(sqlite_db: Database, sqlite_url: str) -> Path:
    """An installation with a log of 20 signed records."""
    place = Forger(sqlite_url).path.parent
    (place / "instance_id").write_text(f"{NODE}\n")
    await forging.fill(sqlite_db, checkpoints.load_signer(place, NODE), [20])
    await sqlite_db.close()
    return place


@pytest.fixture
async def pruned(sqlite_url: str, data_dir: Path) -> Path:
    """The same installation after its records went to the archive."""
    db = await Database.open(sqlite_url, node=NODE)
    await housekeeping(db, data_dir).once(later())
    await db.close()
    return data_dir


def run(
    data_dir: Path | str, *arguments: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "audit", *arguments],
        env={**os.environ, "DATA_DIR": str(data_dir), **(environment or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_an_own_log_is_verified_and_that_is_recorded(data_dir: Path) -> None:
    ended = run(data_dir, "verify", "--json")

    assert ended.returncode == 0, ended
    assert json.loads(ended.stdout)["verdicts"] == dict.fromkeys(
        ("integrity", "completeness", "authenticity"), "intact"
    )
    with closing(sqlite3.connect(data_dir / "server-monitor.sqlite3", timeout=PATIENCE_S)) as conn:
        assert conn.execute("SELECT action, outcome FROM audit_records ORDER BY seq DESC").fetchone() == (
            "audit.verify",
            "success",
        )


def test_a_key_a_checkpoint_and_a_bundle_are_all_an_auditor_needs(data_dir: Path, tmp_path: Path) -> None:
    key, kept, bundle = tmp_path / "key.txt", tmp_path / "checkpoint.txt", tmp_path / "b.tar.gz"
    key.write_text(run(data_dir, "key").stdout)
    kept.write_text(run(data_dir, "checkpoint").stdout)
    assert run(data_dir, "bundle", bundle).returncode == 0

    ended = run(tmp_path / "elsewhere", "verify", "--bundle", bundle, "--public-key", key, "--checkpoint", kept)

    assert (ended.returncode, ended.stderr) == (0, ""), ended
    assert run(tmp_path / "elsewhere", "verify", "--bundle", bundle).returncode == 3


def test_a_changed_record_is_named(data_dir: Path) -> None:
    with closing(sqlite3.connect(data_dir / "server-monitor.sqlite3", timeout=PATIENCE_S)) as conn:
        conn.execute("DROP TRIGGER audit_records_are_never_changed")
        conn.execute("UPDATE audit_records SET actor_name = 'eve' WHERE seq = 7")
        conn.commit()

    ended = run(data_dir, "verify")

    assert ended.returncode == 1
    assert "first bad record  7" in ended.stdout
    assert "actor_name" in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--database", "sqlite:////absent/x.sqlite3"],
        ["--database", "nonsense"],
        ["--bundle", "absent.tar.gz"],
        ["--bundle", "absent.tar.gz", "--archive", "absent"],
        ["--archive", "/absent"],
        ["--public-key", "absent.txt"],
        ["--checkpoint", "absent.txt"],
        ["--nonsense"],
    ],
)
def test_what_cannot_be_read_is_neither_intact_nor_broken(data_dir: Path, arguments: list[str]) -> None:
    ended = run(data_dir, "verify", *arguments)

    assert ended.returncode == 3, ended
    assert "Traceback" not in ended.stderr


def test_checking_what_one_was_given_leaves_nothing_behind(data_dir: Path, tmp_path: Path) -> None:
    key, bundle, desk = tmp_path / "key.txt", tmp_path / "b.tar.gz", tmp_path / "desk"
    key.write_text(run(data_dir, "key").stdout)
    assert run(data_dir, "bundle", bundle).returncode == 0
    desk.mkdir()

    ended = run("", "verify", "--bundle", bundle, "--public-key", key, cwd=desk)

    assert ended.returncode == 0, ended
    assert list(desk.iterdir()) == []


def test_a_database_that_is_busy_is_not_called_broken(data_dir: Path) -> None:
    with closing(
        sqlite3.connect(data_dir / "server-monitor.sqlite3", timeout=PATIENCE_S, isolation_level=None)
    ) as conn:
        conn.execute("PRAGMA locking_mode=EXCLUSIVE")
        conn.execute("BEGIN EXCLUSIVE")
        conn.execute("DELETE FROM audit_prune_ticket")

        ended = run(data_dir, "verify", "--database", f"sqlite:///{data_dir / 'server-monitor.sqlite3'}")

    assert ended.returncode == 3, ended


def test_a_store_that_is_not_there_is_not_called_broken(data_dir: Path, tmp_path: Path) -> None:
    database = f"sqlite:///{data_dir / 'server-monitor.sqlite3'}"
    elsewhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "x"}

    ended = run(data_dir, "verify", "--database", database, "--archive", "s3://audit", environment=elsewhere)

    assert ended.returncode == 3, ended
    assert "Traceback" not in ended.stderr


@pytest.mark.long
def test_an_export_that_lacks_what_was_pruned_says_so_and_how_to_get_it(pruned: Path, tmp_path: Path) -> None:
    part = run(pruned, "export", "--format", "jsonl", "--output", tmp_path / "part.jsonl", "--json")
    told = run(pruned, "export", "--format", "jsonl", "--action", "server.*")
    whole = run(pruned, "export", "--archive", "--format", "jsonl", "--action", "server.*")
    elsewhere = run(pruned, "export", "--archive", (tmp_path / "absent").as_uri(), "--format", "csv")

    assert json.loads(part.stdout)["first_seq"] == 20
    assert (told.returncode, told.stdout) == (0, "")
    assert "The records before 20 " in told.stderr
    assert "--archive" in told.stderr
    assert [json.loads(line)["seq"] for line in whole.stdout.splitlines()] == list(range(20))
    assert "only in the archive" not in whole.stderr
    assert elsewhere.returncode == 1


@pytest.mark.long
def test_a_bundle_of_a_pruned_log_says_where_it_begins(pruned: Path, tmp_path: Path) -> None:
    part = run(pruned, "bundle", tmp_path / "part.tar.gz")
    whole = run(pruned, "bundle", tmp_path / "whole.tar.gz", "--archive", "--json")

    assert "It begins with record 20" in part.stderr
    assert json.loads(whole.stdout)["first_seq"] == 0
    key = tmp_path / "key.txt"
    key.write_text(run(pruned, "key").stdout)
    ended = run("", "verify", "--bundle", tmp_path / "whole.tar.gz", "--public-key", key, "--json")
    assert ended.returncode == 0, ended
    assert json.loads(ended.stdout)["first_seq"] == 0


@pytest.mark.long
@pytest.mark.parametrize("verifier", ["ours", "the one in the bundle"])
def test_an_export_is_proven_with_a_bundle_and_a_key(pruned: Path, tmp_path: Path, verifier: str) -> None:
    """The whole way of an auditor, over records that have left the database."""
    key, bundle, export = tmp_path / "key.txt", tmp_path / "b.tar.gz", tmp_path / "q3.csv"
    key.write_text(run(pruned, "key").stdout)
    filters = ("--from", "2020-01-01", "--to", "2100-01-01", "--action", "server.*")
    assert run(pruned, "export", "--archive", "--format", "csv", "--output", export, *filters).returncode == 0
    assert run(pruned, "bundle", bundle, "--archive").returncode == 0

    def proven() -> subprocess.CompletedProcess[str]:
        words = ("--public-key", key, "--csv", export)
        if verifier == "ours":
            return run("", "verify", "--bundle", bundle, *words)
        command = [sys.executable, "-I", "-S", standalone.__file__, bundle, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    honest = proven()
    content = export.read_bytes()
    export.write_bytes(b"".join(content.splitlines(keepends=True)[:-2]))
    cut = proven()
    export.write_bytes(content)
    export.write_bytes(export.read_bytes().replace(b",s7,", b",s8,"))
    forged = proven()

    assert honest.returncode == 0, honest
    assert "proven, and nothing is missing" in honest.stdout
    assert "action=server.*" in honest.stdout + honest.stderr
    assert (cut.returncode, "NOT that none is missing" in cut.stdout) == (3, True), cut
    assert forged.returncode == 1
    assert "line 9 " in forged.stdout + forged.stderr


@pytest.mark.long
def test_a_line_that_is_missing_is_named_when_the_filters_are_repeated(data_dir: Path, tmp_path: Path) -> None:
    export = tmp_path / "export.jsonl"
    export.write_text(run(data_dir, "export", "--format", "jsonl", "--action", "server.*").stdout)
    whole = run(data_dir, "verify", "--jsonl", export, "--json")
    lines = export.read_text().splitlines(keepends=True)
    export.write_text("".join(lines[:5] + lines[6:]))

    without = run(data_dir, "verify", "--jsonl", export)
    repeated = run(data_dir, "verify", "--jsonl", export, "--filter", "action=server.*", "--json")
    export.write_text("")
    empty = run(data_dir, "verify", "--jsonl", export)

    assert (whole.returncode, json.loads(whole.stdout)["export"]["complete"]) == (0, True), whole
    assert json.loads(whole.stdout)["export"]["exported"]["asked"]["filters"] == {"action": "server.*"}
    assert without.returncode == 3
    assert "not in it: 5." in without.stderr
    assert empty.returncode == 3
    assert repeated.returncode == 1
    assert json.loads(repeated.stdout)["export"]["lacking"] == 5
    assert run(data_dir, "verify", "--filter", "action=server.*").returncode == 3
    assert run(data_dir, "verify", "--jsonl", export, "--filter", "nonsense").returncode == 3
