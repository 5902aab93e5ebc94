"""What watching costs a host: our probe over a real sshd and over a pipe, against node_exporter's default scrape.

Everything on the host is counted: over SSH that is sshd with the session and the probe in it, for node_exporter the
whole process. CPU is taken from a control group of its own, in nanoseconds and with all that has ended meanwhile, or
without root from the scheduler's statistics of each living thread. Each side gets a minute's worth of questions as
the collector asks them at 1 Hz; node_exporter is scraped as often.
"""

import contextlib
import getpass
import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from bench.harness import Figure, Measured, Options, Result, at_least, at_most, column, in_turn, main, ratios
from bench.peers import debian_tool
from server_monitor.collect import linux, probe
from server_monitor.collect.lines import Reading, decode
from server_monitor.collect.questions import FILESYSTEMS_EVERY_S

GOAL_MS = 0.45
GOAL_RATIO = 20.0
# A minute at one question a second, slow gauges every ten. Filesystems are asked for every five minutes.
MINUTE = tuple(b"t" + (b"m" if second % 10 == 0 else b"") for second in range(60))
FILESYSTEMS = (b"tf",) * 6
START_TIMEOUT_S = 15.0


class Meter:
    """CPU of a process and all it starts."""

    def __init__(self, name: str) -> None:
        self._group: Path | None = None
        for root, usage in (("/sys/fs/cgroup/cpuacct", "cpuacct.usage"), ("/sys/fs/cgroup", "cpu.stat")):
            group = Path(root) / f"server-monitor-bench-{os.getpid()}-{name}"
            with contextlib.suppress(OSError):
                group.mkdir()
                if (group / usage).exists():
                    self._group = group
                    break
                group.rmdir()
        self._pid = 0

    @property
    def counts_all(self) -> bool:
        return self._group is not None

    def start(self, command: list[str], **options: object) -> "subprocess.Popen[bytes]":
        """The command, from its first instruction on within the group."""
        if self._group is not None:
            command = ["/bin/sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self._group / "cgroup.procs"), *command]
        process: subprocess.Popen[bytes] = subprocess.Popen(command, **options)  # type: ignore[call-overload]
        self._pid = process.pid
        return process

    def cpu_s(self) -> float:
        if self._group is None:
            return sum(_run_ns(pid) for pid in _family(self._pid)) / 1e9
        usage = self._group / "cpuacct.usage"
        if usage.exists():
            return int(usage.read_text()) / 1e9
        first = (self._group / "cpu.stat").read_text().split()
        return int(first[first.index("usage_usec") + 1]) / 1e6

    def close(self) -> None:
        if self._group is not None:
            deadline = time.monotonic() + START_TIMEOUT_S
            while (self._group / "cgroup.procs").read_text() and time.monotonic() < deadline:
                time.sleep(0.02)
            with contextlib.suppress(OSError):
                self._group.rmdir()


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [pid, *(grand for child in children.read_text().split() for grand in _family(int(child)))]
    except OSError:
        return []


def _run_ns(pid: int) -> int:
    total = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            total += int(task.read_text().split()[0])
    return total


@contextlib.contextmanager
def sshd(meter: Meter) -> Iterator[list[str]]:
    """A real sshd on loopback within the meter; yields the client command that logs in to it."""
    server = debian_tool("openssh-server", "sshd")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for name in ("host", "login"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / name], check=True)
        port = _free_port()
        config = (
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {home}/host\nAuthorizedKeysFile {home}/login.pub\n"
            "PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nPrintMotd no\n"
            # What this account's own shell start files cost is not ours.
            f"SetEnv HOME={home}\n"
        )
        (home / "config").write_text(config)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        process = meter.start([str(server), "-D", "-e", "-f", str(home / "config")], stderr=subprocess.DEVNULL)
        try:
            _wait_for(port)
            yield [
                *(
                    "ssh",
                    "-F",
                    "none",
                    "-T",
                    "-p",
                    str(port),
                    "-i",
                    str(home / "login"),
                    "-c",
                    "aes128-gcm@openssh.com",
                ),
                *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"),
                f"{getpass.getuser()}@127.0.0.1",
                probe.command(),
            ]
        finally:
            process.terminate()
            process.wait(START_TIMEOUT_S)


def over_ssh(options: Options) -> Measured:
    meter = Meter("ssh")
    try:
        with sshd(meter) as command:
            before_s = meter.cpu_s()
            client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            return _ask_for_a_minute(client, meter, before_s, options)
    finally:
        meter.close()


def over_pipe(options: Options) -> Measured:
    meter = Meter("pipe")
    try:
        running = meter.start(probe.arguments(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return _ask_for_a_minute(running, meter, 0.0, options)
    finally:
        meter.close()


def _ask_for_a_minute(running: "subprocess.Popen[bytes]", meter: Meter, before_s: float, options: Options) -> Measured:
    assert running.stdin is not None
    assert running.stdout is not None
    with running:
        running.stdout.readline()
        start_ms = (meter.cpu_s() - before_s) * 1000
        lines = [_ask(running.stdin, running.stdout, b"tm"), _ask(running.stdin, running.stdout, b"t")]
        time.sleep(0.2)
        used_ms = {}
        for questions in (MINUTE, FILESYSTEMS):
            used_s = meter.cpu_s()
            for question in questions:
                lines.append(_ask(running.stdin, running.stdout, question))
                time.sleep(_pause_s(options))
            used_ms[questions] = (meter.cpu_s() - used_s) * 1000 / len(questions)
        running.stdin.close()
    filesystems_ms = max(0.0, used_ms[FILESYSTEMS] - used_ms[MINUTE])
    return {
        "ms": used_ms[MINUTE] + filesystems_ms / FILESYSTEMS_EVERY_S,
        "filesystems_ms": filesystems_ms,
        "start_ms": start_ms,
        "line_bytes": sum(map(len, lines)) / len(lines),
        "parse_us": _parse_us(lines),
    }


def _ask(stdin: IO[bytes], stdout: IO[bytes], question: bytes) -> bytes:
    stdin.write(question + b"\n")
    stdin.flush()
    while not (line := stdout.readline()).startswith(b"[1"):
        assert line, "the probe has ended"
    return line.rstrip()


def _parse_us(lines: list[bytes]) -> float:
    """Our own side: decode a line and turn it into values."""
    earlier = decode(lines[0])
    assert isinstance(earlier, Reading)
    times = 2000
    started_s = time.process_time()
    for number in range(times):
        later = decode(lines[number % len(lines)])
        assert isinstance(later, Reading)
        linux.rates(earlier, later, 1.0)
        linux.gauges(later)
    return (time.process_time() - started_s) / times * 1e6


def node_exporter(options: Options) -> Measured:
    meter = Meter("peer")
    port = _free_port()
    program = debian_tool("prometheus-node-exporter", "prometheus-node-exporter")
    try:
        process = meter.start(
            [str(program), f"--web.listen-address=127.0.0.1:{port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for(port)
            for _ in range(3):
                _scrape(port)
            used_s = meter.cpu_s()
            for _ in MINUTE:
                size = _scrape(port)
                time.sleep(_pause_s(options))
            return {"ms": (meter.cpu_s() - used_s) * 1000 / len(MINUTE), "line_bytes": size}
        finally:
            process.terminate()
            process.wait(START_TIMEOUT_S)
    finally:
        meter.close()


def _scrape(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return float(len(answer.read()))


def _pause_s(options: Options) -> float:
    return 0.05 if options.quick else 0.5


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


def measure(options: Options) -> Result:
    sides: dict[str, Callable[[], Measured]] = {
        "probe over sshd": lambda: over_ssh(options),
        "probe over a pipe": lambda: over_pipe(options),
        "node_exporter": lambda: node_exporter(options),
    }
    rounds = in_turn(sides, options.rounds)
    ssh, pipe, peer = (rounds[side] for side in sides)
    meter = Meter("check")
    how = "control group" if meter.counts_all else "schedstat of living threads (as root a control group is used)"
    meter.close()
    figures = [
        Figure("one sample over sshd, all of it", "ms of CPU", column(ssh, "ms"), at_most(GOAL_MS)),
        Figure("one sample over a pipe: the probe alone", "ms of CPU", column(pipe, "ms")),
        Figure("one scrape of node_exporter, default collectors", "ms of CPU", column(peer, "ms")),
        Figure("less than node_exporter", "times", ratios(column(ssh, "ms"), column(peer, "ms")), at_least(GOAL_RATIO)),
        Figure("one look at the filesystems, of which each sample bears its part", "ms", column(ssh, "filesystems_ms")),
        Figure("start of a session: login, shell, probe", "ms of CPU", column(ssh, "start_ms")),
        Figure("bytes of an answer", "B", column(ssh, "line_bytes")),
        Figure("bytes of a scrape", "B", column(peer, "line_bytes")),
        Figure("the console's part: decode and rates", "µs of CPU", column(pipe, "parse_us")),
    ]
    pause = _pause_s(options)
    notes = [
        (
            f"CPU from: {how}. {len(MINUTE)} questions a round, one every {pause} s, as the collector asks them at "
            "1 Hz: slow gauges every tenth. Filesystems are asked for six times beside that, and counted at one in "
            f"{FILESYSTEMS_EVERY_S} s."
        ),
        "The client (ssh, urllib) is not counted on any side; its cost is the console's.",
    ]
    return Result("probe", "What watching costs a host", figures, notes)


if __name__ == "__main__":
    raise SystemExit(main(measure))
