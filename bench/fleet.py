"""What a fleet costs the console: CPU for a thousand hosts at one sample a second, and memory for each.

A real console, a real database, real SSH on loopback; only the hosts are simulated (`simulated_fleet.py`), in another
process that is not counted. One browser watches all of them. Everything the console does is in the figure: SSH,
parsing, rates, history, publishing, the frames for the browser.
"""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from bench.console import Console, Fleet, simulated_fleet
from bench.harness import (
    ROOT,
    Figure,
    Measured,
    Options,
    Result,
    at_least,
    at_most,
    column,
    in_turn,
    main,
    say,
    wait_until,
)

CORES_GOAL = 0.30
KIB_A_HOST_GOAL = 60
CONNECT_TIMEOUT_S = 600
CURVE = (100, 300, 3000)


@dataclass(frozen=True, slots=True)
class Times:
    """How long to wait until the first minute's work is over, and how long to measure then."""

    settle_s: float
    steady_s: float


class Watcher:
    """A browser that watches the whole fleet, and notes when each server was last heard of."""

    def __init__(self, console: Console, token: str) -> None:
        self.samples = 0
        self.frames = 0
        self.bytes = 0
        self.longest_silence_s = 0.0
        self._heard: dict[str, float] = {}
        self._connection = connect(
            f"ws://127.0.0.1:{console.port}/ws/live",
            additional_headers={"Authorization": f"Bearer {token}"},
            compression=None,
            max_size=None,
            proxy=None,
        )
        self._connection.send(orjson.dumps({"type": "subscribe", "servers": "all", "rate_s": 1}).decode())
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def start_again(self) -> None:
        """Count from here on."""
        self.samples = self.frames = self.bytes = 0
        self.longest_silence_s = 0.0

    def close(self) -> None:
        self._connection.close()
        self._thread.join()

    def _listen(self) -> None:
        try:
            for frame in self._connection:
                self._note(frame)
        except ConnectionClosed:
            return

    def _note(self, frame: str | bytes) -> None:
        message = orjson.loads(frame)
        if message["type"] != "samples":
            return
        now = time.monotonic()
        for server_id in message["servers"]:
            self.longest_silence_s = max(self.longest_silence_s, now - self._heard.get(server_id, now))
            self._heard[server_id] = now
        self.samples += len(message["servers"])
        self.frames += 1
        self.bytes += len(frame)


@contextmanager
def watched_console(fleet: Fleet, hosts: int) -> Iterator[tuple[Console, Watcher, float]]:
    """A console with that many hosts, all connected, and a browser; and the seconds it took to connect them all."""
    with tempfile.TemporaryDirectory(prefix="server-monitor-bench-") as folder:
        prepared = Console(Path(folder))
        token = prepared.token()
        if hosts:
            seed(prepared, fleet, hosts)
        logins = fleet.counts()["logins"]
        with prepared as console:
            watcher = Watcher(console, token)
            began = time.monotonic()
            wait_until(
                lambda: fleet.counts()["logins"] - logins >= hosts,
                timeout_s=CONNECT_TIMEOUT_S,
                what=f"{hosts} hosts connected",
                poll_s=0.2,
            )
            yield console, watcher, time.monotonic() - began
            watcher.close()


def seed(console: Console, fleet: Fleet, hosts: int) -> None:
    command = [sys.executable, "-m", "bench.seed", "--hosts", str(hosts), "--port", str(fleet.port)]
    command += ["--host-key", fleet.host_key]
    subprocess.run(command, cwd=ROOT, env=console.environment, check=True)


def one_round(fleet: Fleet, hosts: int, times: Times) -> Measured:
    """Connect, let it settle, and measure the steady state."""
    with watched_console(fleet, hosts) as (console, watcher, connected_s):
        time.sleep(times.settle_s)
        watcher.start_again()
        lines, before = fleet.counts()["lines"], console.usage()
        time.sleep(times.steady_s)
        lines, after = fleet.counts()["lines"] - lines, console.usage()
        seconds = after.at_s - before.at_s
        return {
            "cores": after.cores_since(before),
            "rss_kib": after.rss_bytes / 1024,
            "pss_kib": after.pss_bytes / 1024,
            "lines_per_s": lines / seconds,
            "seen_per_s": watcher.samples / seconds,
            "frames_per_s": watcher.frames / seconds,
            "kib_per_s": watcher.bytes / 1024 / seconds,
            "longest_silence_s": watcher.longest_silence_s,
            "connected_s": connected_s,
        }


def measure(options: Options) -> Result:
    times = Times(3, 5) if options.quick else Times(20, 60)
    hosts = options.hosts
    with simulated_fleet() as fleet:
        rounds = in_turn(
            {
                "no hosts": lambda: one_round(fleet, 0, times),
                f"{hosts} hosts": lambda: one_round(fleet, hosts, times),
            },
            options.rounds,
        )
        curve = [] if options.quick else [(size, _point(fleet, size)) for size in CURVE if size != hosts]
    alone, full = rounds["no hosts"], rounds[f"{hosts} hosts"]
    return Result(
        "fleet", f"Console with {hosts:,} hosts at one sample a second", figures(hosts, alone, full, curve), NOTES
    )


def _point(fleet: Fleet, hosts: int) -> Measured:
    say(f"curve: {hosts} hosts")
    return one_round(fleet, hosts, Times(15, 20))


def figures(hosts: int, alone: list[Measured], full: list[Measured], curve: list[tuple[int, Measured]]) -> list[Figure]:
    full_size = hosts >= 1000  # What does not grow with the fleet would be shared by too few.
    kib = _for_each(hosts, column(alone, "rss_kib"), column(full, "rss_kib"))
    lines = column(full, "lines_per_s")
    cores = column(full, "cores")
    pss = _for_each(hosts, column(alone, "pss_kib"), column(full, "pss_kib"))
    return [
        Figure(
            "console CPU, everything included",
            "of a core",
            cores,
            at_most(CORES_GOAL * hosts / 1000) if full_size else None,
        ),
        Figure(
            "memory a host, over a console without hosts (RSS)",
            "KiB",
            kib,
            at_most(KIB_A_HOST_GOAL) if full_size else None,
        ),
        Figure("the same by PSS", "KiB", pss),
        Figure("lines answered by the fleet", "a second", lines, at_least(0.98 * hosts)),
        Figure("samples that reached the browser", "a second", column(full, "seen_per_s"), at_least(0.98 * hosts)),
        Figure("console CPU for one line", "ms", [1000 * cpu / line for cpu, line in zip(cores, lines, strict=True)]),
        Figure("frames to the browser", "a second", column(full, "frames_per_s")),
        Figure("bytes to the browser", "KiB/s", column(full, "kib_per_s")),
        Figure("longest silence of any host at the browser", "s", column(full, "longest_silence_s")),
        Figure("all hosts connected after a start", "s", column(full, "connected_s")),
        Figure("console CPU without hosts, one browser", "of a core", column(alone, "cores")),
        Figure("console memory without hosts (RSS)", "MiB", [kib / 1024 for kib in column(alone, "rss_kib")]),
        *(Figure(f"curve: CPU with {size:,} hosts", "of a core", [point["cores"]]) for size, point in curve),
        *(
            Figure(f"curve: CPU for one line, {size:,} hosts", "ms", [1000 * point["cores"] / point["lines_per_s"]])
            for size, point in curve
        ),
    ]


def _for_each(hosts: int, without: list[float], with_hosts: list[float]) -> list[float]:
    return [(more - less) / hosts for less, more in zip(without, with_hosts, strict=True)]


NOTES = (
    "The console is one process with its child (the probe of its own machine); CPU and memory are those of that tree.",
    "The fleet and the browser run in other processes on the same machine and are not counted.",
    "Steady state, 20 s after the last host connected; the hourly compaction of the history is not in it.",
    "Memory: after 80 s at one sample a second.",
)

if __name__ == "__main__":
    raise SystemExit(main(measure))
