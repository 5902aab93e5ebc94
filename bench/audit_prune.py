"""Pruning the audit log under API requests: how long do requests wait while most of the log leaves the database?

A console starts on a log most of which is older than the retention. It archives all of it, verifies the archive, and
prunes, and gives the empty pages back, while one client reads and writes through the API at a steady pace. Times are
split by what the console was doing.
"""

import http.client
import json
import sqlite3
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.audit_seed import seed
from bench.console import Console
from bench.harness import Figure, Options, Result, at_most, main, say

P99_GOAL_MS = 100.0
SHRINK_GOAL = 0.5
EVERY_S = 0.02
TIMEOUT_S = 1800.0


def measure(options: Options) -> Result:
    old, young = (40_000, 10_000) if options.quick else (500_000, 100_000)
    with tempfile.TemporaryDirectory(prefix="server-monitor-bench-") as folder:
        console = Console(Path(folder))
        console.command("migrate")
        database = Path(folder, "server-monitor.sqlite3")
        node = Path(folder, "instance_id").read_text().strip()
        say(f"seeding {old + young} records")
        seed(database, node, old, datetime.now(UTC) - timedelta(days=100))
        seed(database, node, young)
        console.command(
            "user", "add", "bench", "--role", "admin", "--password-stdin", given="a long benchmark phrase\n"
        )
        created = console.command("token", "create", "--user", "bench", "--scope", "admin", "--json")
        before = database.stat().st_size
        with console:
            times, prune_s = _watch(database, console.port, json.loads(created)["token"], old)
        after = database.stat().st_size
    return Result(
        "audit_prune",
        f"Pruning {old} of {old + young} audit records",
        [
            Figure("slowest hundredth of requests while pruning", "ms", [_p99(times["prune"])], at_most(P99_GOAL_MS)),
            Figure("slowest hundredth of requests while the file shrinks", "ms", [_p99(times["shrink"])]),
            Figure("slowest hundredth of requests while archiving", "ms", [_p99(times["archive"])]),
            Figure("slowest hundredth of requests afterwards", "ms", [_p99(times["idle"])]),
            Figure("pruning", "s", [prune_s]),
            Figure("size of the file afterwards against before", "", [after / before], at_most(SHRINK_GOAL)),
        ],
        [
            f"{len(times['prune'])} requests while pruning, {len(times['shrink'])} while the file shrank.",
            f"One client, {EVERY_S * 1000:g} ms between its requests, a tenth of them writes.",
        ],
    )


def _watch(database: Path, port: int, token: str, old: int) -> tuple[Mapping[str, list[float]], float]:
    """Milliseconds of each request by phase, and how long pruning took."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    times: dict[str, list[float]] = {"archive": [], "prune": [], "shrink": [], "idle": []}
    phase, number = "archive", 0
    began = pruned_from = pruned_to = time.monotonic()
    while len(times["idle"]) < 200:
        if time.monotonic() - began > TIMEOUT_S:
            raise RuntimeError("the log was not pruned in time")
        number += 1
        method, path, body = ("GET", "/api/servers", None)
        if number % 10 == 0:
            method, path, body = "POST", "/api/groups", json.dumps({"name": f"g{number}"})
        elif number % 10 == 5:
            path = "/api/audit/segments"
        sent = time.monotonic()
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        said = answer.read()
        took_s = time.monotonic() - sent
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {said[:300]!r}")
        times[phase].append(took_s * 1000)
        if path == "/api/audit/segments":
            first = json.loads(said)["first_seq"]
            if phase == "archive" and first:
                phase, pruned_from = "prune", sent
            elif phase == "prune" and first >= old:
                phase, pruned_to = "shrink", sent
            elif phase == "shrink" and _empty_pages(database) == 0:
                phase = "idle"
        time.sleep(max(0.0, EVERY_S - took_s))
    return times, pruned_to - pruned_from


def _empty_pages(database: Path) -> int:
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as conn:
        return int(conn.execute("PRAGMA freelist_count").fetchone()[0])


def _p99(times_ms: list[float]) -> float:
    return sorted(times_ms)[int(len(times_ms) * 0.99)] if times_ms else 0.0


if __name__ == "__main__":
    raise SystemExit(main(measure))
