"""Exports of the audit log over HTTP, beside the sqlite3 command that writes the same columns of the same records."""

import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.console import Console
from bench.harness import ROOT, Figure, Measured, Options, Result, at_most, column, in_turn, main, say

RECORDS = 50_000
MANY = 1_000_000
PAGE = 50_000
MIB = 1024**2
READ_BYTES = 256 * 1024
# What stands in a column is taken from the column, which is kind to the command. It cannot compute SHA-256, so
# it writes as many characters of something else.
QUERY = """
    SELECT seq, ts AS time, actor_id AS user_id, actor_name AS username, action, target_type, target_id, outcome, ip,
      json_extract(CAST(body AS TEXT), '$.source.ua') AS user_agent, request_id,
      coalesce(json_extract(CAST(body AS TEXT), '$.meta'), '{}') AS meta_json, lower(hex(substr(body, 1, 32))) AS hash
    FROM audit_records ORDER BY seq LIMIT 50000
"""
NOTES = (
    "All sides write to a file, in turn, on the same database with everything in the page cache.",
    "Ours is the whole way: begin and end recorded and synced, checkpoint, HTTP, leaf hashes, guard against formulas.",
    "sqlite3 takes 10 columns from the table, 2 from the body, and writes 64 characters of hexadecimal for the hash.",
    "Memory is the highest resident size while exporting, less that of the same console before its first export.",
)


class _Quiet(Console):
    """A console that archives nothing meanwhile: sealing at its start takes memory and time of its own."""

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "AUDIT_CLEANUP_ENABLED": "false"}


@dataclass(frozen=True, slots=True)
class Taken:
    """One answer: how long it took, how large it was, and where the next page begins."""

    seconds: float
    size_bytes: int
    rows: int
    next: str


def export(console: Console, token: str, form: str, file: Path, cursor: str = "") -> Taken:
    """One page over HTTP into a file, from connecting to the last byte."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", console.port, timeout=120)
    query = f"limit={PAGE}" + (f"&cursor={cursor}" if cursor else "")
    connection.request("GET", f"/api/export/audit/{form}?{query}", headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(f"{answer.status}: {answer.read()[:500]!r}")
    size = 0
    with file.open("wb") as out:
        while chunk := answer.read1(READ_BYTES):
            size += out.write(chunk)
    connection.close()
    rows, following = int(answer.headers["X-Row-Count"]), answer.headers["X-Next-Cursor"] or ""
    return Taken(time.perf_counter() - began, size, rows, following)


def command(database: Path, form: str, file: Path) -> float:
    """Seconds that sqlite3 takes for the same."""
    began = time.perf_counter()
    with file.open("wb") as out:
        subprocess.run(["sqlite3", "-readonly", "-header", f"-{form}", database, QUERY], stdout=out, check=True)
    return time.perf_counter() - began


def measure(options: Options) -> Result:
    _require_sqlite3()
    many = 100_000 if options.quick else MANY
    with tempfile.TemporaryDirectory(prefix="bench-audit-") as folder:
        console = _Quiet(Path(folder))
        token = console.token()
        seed(console, RECORDS)
        with console:
            figures = _beside(console, token, Path(folder), options.rounds)
        say(f"{many:,} records through cursors")
        seed(console, many - RECORDS)
        with console:
            figures += _through_cursors(console, token, Path(folder), many)
    return Result("audit_export", "Exports of the audit log", figures, NOTES)


def seed(console: Console, count: int) -> None:
    say(f"{count:,} more records")
    words = [sys.executable, "-m", "bench.audit_seed", "--records", str(count)]
    subprocess.run(words, cwd=ROOT, env=console.environment, check=True)


def _beside(console: Console, token: str, folder: Path, rounds: int) -> list[Figure]:
    database, file = console.data_dir / "server-monitor.sqlite3", folder / "out"
    idle = console.usage().rss_bytes
    export(console, token, "csv", file)
    export(console, token, "json", file)

    def ours(form: str) -> Callable[[], Measured]:
        def run() -> Measured:
            forget_highest(console.pid)
            before = console.usage().cpu_s
            taken = export(console, token, form, file)
            used = console.usage().cpu_s - before
            return {"s": taken.seconds, "cpu_s": used, "more_mib": (highest_bytes(console.pid) - idle) / MIB}

        return run

    def theirs(form: str) -> Callable[[], Measured]:
        return lambda: {"s": command(database, form, file)}

    found = in_turn(
        {"csv": ours("csv"), "sqlite3 -csv": theirs("csv"), "json": ours("json"), "sqlite3 -json": theirs("json")},
        rounds,
    )
    figures = []
    for form, goal in (("csv", 2.0), ("json", 1.0)):
        mine, other = found[form], found[f"sqlite3 -{form}"]
        times = [a / b for a, b in zip(column(mine, "s"), column(other, "s"), strict=True)]
        figures += [
            Figure(f"{form.upper()} of {RECORDS:,} records over HTTP", "s", column(mine, "s")),
            Figure(f"the same by sqlite3 -{form}", "s", column(other, "s")),
            Figure(f"{form.upper()}: times as long as sqlite3", "", times, at_most(goal)),
            Figure(f"{form.upper()}: CPU of the console", "s", column(mine, "cpu_s")),
            Figure(f"{form.upper()}: memory above idle", "MiB", column(mine, "more_mib"), at_most(15.0)),
        ]
    return figures


def _through_cursors(console: Console, token: str, folder: Path, many: int) -> list[Figure]:
    file = folder / "out"
    idle = console.usage().rss_bytes
    rows, cursor, began = 0, "", time.perf_counter()
    peaks = []
    while rows == 0 or cursor:
        forget_highest(console.pid)
        taken = export(console, token, "csv", file, cursor)
        peaks.append((highest_bytes(console.pid) - idle) / MIB)
        rows, cursor = rows + taken.rows, taken.next
    took = time.perf_counter() - began
    if rows < many:
        raise RuntimeError(f"{rows:,} records came out of {many:,}")
    return [
        Figure(f"{many:,} records as CSV through cursors", "s", [took]),
        Figure("the same: memory above idle, each page", "MiB", peaks, at_most(15.0)),
        Figure("the same: memory of the last page above the second", "MiB", [peaks[-1] - peaks[1]], at_most(5.0)),
    ]


def forget_highest(pid: int) -> None:
    """From now on the kernel's peak counts anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def highest_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _require_sqlite3() -> None:
    """Have the command, which Debian and its relatives have a package for."""
    if shutil.which("sqlite3") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-qq", "sqlite3"], check=True, stdout=sys.stderr)
    if shutil.which("sqlite3") is None:
        raise RuntimeError("sqlite3 is needed to compare with; install the package of that name")


if __name__ == "__main__":
    raise SystemExit(main(measure))
