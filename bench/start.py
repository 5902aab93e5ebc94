"""Cold start: from the start of the process until /api/ready says 200.

Two sides in turn: a database with a thousand servers, and one with none. The page cache is warm, as on any machine
where the program was installed or ran before; the process and its data are not.
"""

import tempfile
from pathlib import Path

from bench.console import Console, simulated_fleet
from bench.fleet import seed
from bench.harness import Figure, Measured, Options, Result, at_most, column, in_turn, main

READY_GOAL_S = 1.5
STOP_GOAL_S = 1.0


def one_start(console: Console) -> Measured:
    ready_s = console.start()
    used = console.usage()
    return {"ready_s": ready_s, "cpu_s": used.cpu_s, "rss_mib": used.rss_bytes / 1024**2, "stop_s": console.stop()}


def measure(options: Options) -> Result:
    with simulated_fleet() as fleet, tempfile.TemporaryDirectory(prefix="server-monitor-bench-") as folder:
        empty, full = Console(_new(folder, "empty")), Console(_new(folder, "full"))
        empty.command("migrate")
        seed(full, fleet, options.hosts)
        rounds = in_turn(
            {"empty": lambda: one_start(empty), "full": lambda: one_start(full)},
            max(options.rounds, 1 if options.quick else 5),
        )
    return Result("start", "Cold start", figures(options.hosts, rounds["full"], rounds["empty"]), NOTES)


def figures(hosts: int, full: list[Measured], empty: list[Measured]) -> list[Figure]:
    return [
        Figure(f"start to ready, {hosts:,} servers", "s", column(full, "ready_s"), at_most(READY_GOAL_S)),
        Figure("start to ready, no servers", "s", column(empty, "ready_s"), at_most(READY_GOAL_S)),
        Figure(f"CPU until ready, {hosts:,} servers", "s", column(full, "cpu_s")),
        Figure("CPU until ready, no servers", "s", column(empty, "cpu_s")),
        Figure("memory when ready, no servers (RSS)", "MiB", column(empty, "rss_mib")),
        Figure("stop, no servers", "s", column(empty, "stop_s"), at_most(STOP_GOAL_S)),
    ]


def _new(folder: str, name: str) -> Path:
    path = Path(folder, name)
    path.mkdir()
    return path


NOTES = ("From the start of the process, imports included; the page cache is warm.",)

if __name__ == "__main__":
    raise SystemExit(main(measure))
