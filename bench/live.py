"""What browsers cost: the live endpoint with a table of a thousand servers, and 0 to 1,000 browsers that watch it."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.harness import ROOT, Figure, Measured, Options, Result, at_least, at_most, column, in_turn, main
from bench.process_tree import usage

BROWSERS = (0, 10, 50, 200, 1000)
SETTLE_S = 2.0
CORES_GOAL = 0.05


@contextmanager
def _process(*words: str) -> Iterator[tuple["subprocess.Popen[str]", dict[str, int]]]:
    """A module of this folder as a process, and the facts it prints when it is ready."""
    command = [sys.executable, "-m", *words]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, _read(process)
        finally:
            process.kill()


def _read(process: "subprocess.Popen[str]") -> dict[str, int]:
    assert process.stdout is not None
    facts: dict[str, int] = json.loads(process.stdout.readline())
    return facts


def _received(process: "subprocess.Popen[str]") -> int:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return _read(process)["bytes"]


def one_round(hosts: int, browsers: int, steady_s: float) -> Measured:
    with (
        _process("bench.live_side", str(hosts)) as (server, facts),
        _process("bench.browsers", str(facts["port"]), str(browsers)) as (clients, _),
    ):
        time.sleep(SETTLE_S)
        received, before = _received(clients), usage(server.pid)
        time.sleep(steady_s)
        received, after = _received(clients) - received, usage(server.pid)
    seconds = after.at_s - before.at_s
    return {"cores": after.cores_since(before), "bytes_per_s": received / seconds, "rss_kib": after.rss_bytes / 1024}


def _side(hosts: int, browsers: int, steady_s: float) -> Callable[[], Measured]:
    return lambda: one_round(hosts, browsers, steady_s)


def measure(options: Options) -> Result:
    counts = BROWSERS[:3] if options.quick else BROWSERS
    steady_s = 3.0 if options.quick else 15.0
    rounds = in_turn({f"{count} browsers": _side(options.hosts, count, steady_s) for count in counts}, options.rounds)
    title = f"Browsers on a table of {options.hosts:,} servers at one sample a second"
    return Result("live", title, list(_figures(counts, rounds)), NOTES)


def _figures(counts: tuple[int, ...], rounds: dict[str, list[Measured]]) -> Iterator[Figure]:
    alone = rounds["0 browsers"]
    yield Figure("CPU without browsers", "of a core", column(alone, "cores"))
    single = [one["bytes_per_s"] / 10 for one in rounds["10 browsers"]]
    for count in counts[1:]:
        with_them = rounds[f"{count} browsers"]
        cores = [more["cores"] - less["cores"] for less, more in zip(alone, with_them, strict=True)]
        goal = at_most(CORES_GOAL) if count == 50 else None
        yield Figure(f"CPU for {count:,} browsers", "of a core", cores, goal)
        share = [one["bytes_per_s"] / count / each for one, each in zip(with_them, single, strict=True)]
        yield Figure(f"share of the frames that reached {count:,} browsers", "", share, at_least(0.98))
        kib = [(more["rss_kib"] - less["rss_kib"]) / count for less, more in zip(alone, with_them, strict=True)]
        yield Figure(f"memory a browser, of {count:,}", "KiB", kib)


NOTES = (
    "The endpoint, the hub and the bus in a process of their own; samples arrive in 40 batches a second.",
    "CPU for browsers is that over the same process without any.",
)

if __name__ == "__main__":
    raise SystemExit(main(measure))
