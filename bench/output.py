"""A hundred megabytes from each of twenty hosts at once: memory must not follow what is printed, and no byte may go.

Each host is a real sshd with a home of its own, in which a file says what numbers to print; so every host prints lines
that no other one does, in an order that shows. The console runs one command on all of them, over real SSH on loopback,
and its memory is sampled while they print and while all of it is read back over HTTP.
"""

import getpass
import hashlib
import http.client
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.console import Console, free_port
from bench.harness import (
    Figure,
    Measured,
    Options,
    Result,
    at_most,
    column,
    in_turn,
    main,
    wait_until,
)
from bench.peers import debian_tool
from bench.process_tree import Usage
from server_monitor.tasks.output import READ_BYTES

HOSTS = 20
LINES = 10_000_000
LINE_BYTES = 10  # nine digits and a newline
FIRST = 100_000_000
END_BYTES = 65_536  # at the least, at both ends of a stream that was cut
MEMORY_GOAL_MIB = 300
IDLE_S = 5.0
SAMPLE_S = 0.1
START_TIMEOUT_S = 15.0
RUN_TIMEOUT_S = 1800
COMMAND = 'read -r first last <range && seq "$first" "$last"'
STORE = "/var/tmp"  # a disk: on the tmpfs that /tmp may be, hosts would keep no output


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a host prints: so many numbers from `first` on, one a line."""

    first: int
    lines: int

    @property
    def last(self) -> int:
        return self.first + self.lines - 1

    @property
    def size_bytes(self) -> int:
        return self.lines * LINE_BYTES


@dataclass(frozen=True, slots=True)
class Host:
    """A running sshd. `fingerprint` is that of its host key."""

    name: str
    port: int
    fingerprint: str
    prints: Numbers


@dataclass(frozen=True, slots=True)
class Load:
    """What the hosts of a round print, and the largest file of one stream when it is not the console's own default."""

    prints: Sequence[Numbers]
    file_bytes: int | None = None

    @property
    def size_bytes(self) -> int:
        return sum(numbers.size_bytes for numbers in self.prints)


class Sampler:
    """The memory of a console, looked at again and again by a thread until the block ends."""

    def __init__(self, console: Console) -> None:
        self.peak_bytes = 0
        self._console = console
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        is_over = False
        while not is_over:
            self.peak_bytes = max(self.peak_bytes, self._console.usage().rss_bytes)
            is_over = self._is_over.wait(SAMPLE_S)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_over.set()
        self._thread.join()


# --- the hosts --------------------------------------------------------------------------------------------------------


@contextmanager
def running_hosts(folder: Path, prints: Sequence[Numbers]) -> Iterator[list[Host]]:
    """An sshd for each, all with the login key `folder/login`."""
    program = debian_tool("openssh-server", "sshd")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    _make_key(folder / "login")
    with ExitStack() as running:
        yield [
            running.enter_context(_running_host(program, folder, f"printer-{number:02}", numbers))
            for number, numbers in enumerate(prints)
        ]


@contextmanager
def _running_host(program: Path, folder: Path, name: str, prints: Numbers) -> Iterator[Host]:
    home = folder / name
    home.mkdir()
    (home / "range").write_text(f"{prints.first} {prints.last}\n")
    _make_key(home / "host")
    port = free_port()
    (home / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {home}/host\nAuthorizedKeysFile {folder}/login.pub\n"
        "PidFile none\nUsePAM no\nUseDNS no\nStrictModes no\nPermitRootLogin yes\nPrintMotd no\n"
        f"SetEnv HOME={home}\n"
    )
    log = home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([program, "-D", "-e", "-f", home / "config"], stderr=output)
    try:
        listens = b"Server listening on"
        wait_until(lambda: listens in log.read_bytes(), timeout_s=START_TIMEOUT_S, what=f"sshd listens (see {log})")
        yield Host(name, port, _fingerprint(home / "host"), prints)
    finally:
        process.terminate()
        process.wait(START_TIMEOUT_S)


def _make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


def _fingerprint(key: Path) -> str:
    shown = subprocess.run(["ssh-keygen", "-l", "-f", key], check=True, capture_output=True, text=True)
    return shown.stdout.split()[1]


# --- a round ----------------------------------------------------------------------------------------------------------


def one_round(load: Load) -> Measured:
    """Raises AssertionError when a byte is missing or not in its place."""
    with tempfile.TemporaryDirectory(prefix="server-monitor-bench-", dir=STORE) as folder:
        data_dir, machines = Path(folder, "console"), Path(folder, "hosts")
        data_dir.mkdir()
        machines.mkdir()
        prepared = Console(data_dir, _settings(load))
        token = prepared.token("admin")
        with running_hosts(machines, load.prints) as hosts, prepared as console:
            add_hosts(console, token, hosts, (machines / "login").read_text())
            time.sleep(IDLE_S)
            return measured_run(console, token, hosts, load)


def _settings(load: Load) -> dict[str, str]:
    return {} if load.file_bytes is None else {"TASKS_OUTPUT_DISK_MAX_BYTES": str(load.file_bytes)}


def add_hosts(console: Console, token: str, hosts: Sequence[Host], private_key: str) -> None:
    """Add them as people do, and wait until the console watches all of them."""
    key_id = console.ask("POST", "/api/ssh-keys", token, {"name": "bench", "private_key": private_key})["id"]
    for host in hosts:
        body = {
            "name": host.name,
            "host": "127.0.0.1",
            "port": host.port,
            "username": getpass.getuser(),
            "auth": {"type": "key", "key_id": key_id},
            "labels": {"env": "bench"},
            "capability": "run",
        }
        server_id = console.ask("POST", "/api/servers", token, body)["id"]
        console.ask("POST", f"/api/servers/{server_id}/host-key", token, {"fingerprint": host.fingerprint})

    def are_watched() -> bool:
        names = {host.name for host in hosts}
        shown = console.ask("GET", "/api/servers", token)["items"]
        return names <= {server["name"] for server in shown if server["status"] == "online"}

    wait_until(are_watched, timeout_s=60, what="all hosts watched", poll_s=0.2)


def measured_run(console: Console, token: str, hosts: Sequence[Host], load: Load) -> Measured:
    idle = console.usage()
    with Sampler(console) as printing:
        run_id, wall_s, ran = timed_run(console, token, len(hosts))
    with Sampler(console) as reading:
        began = time.monotonic()
        read_bytes = check_outputs(console, token, run_id, hosts, load)
        read_s = time.monotonic() - began
    size_mb = load.size_bytes / 1e6
    return {
        "peak_mib": printing.peak_bytes / 1024**2,
        "above_idle_mib": (printing.peak_bytes - idle.rss_bytes) / 1024**2,
        "reading_mib": reading.peak_bytes / 1024**2,
        "wall_s": wall_s,
        "mb_per_s": size_mb / wall_s,
        "cpu_ms_per_mb": 1000 * (ran.cpu_s - idle.cpu_s) / size_mb,
        "read_mb_per_s": read_bytes / 1e6 / read_s,
    }


def timed_run(console: Console, token: str, hosts: int) -> tuple[str, float, Usage]:
    """The run's id, the seconds from the request until it was finished, and what the console had used by then."""
    began = time.monotonic()
    body = {"command": COMMAND, "selector": {"labels": {"env": "bench"}}, "max_parallel": hosts}
    body["timeout_seconds"] = RUN_TIMEOUT_S
    run_id = console.ask("POST", "/api/tasks", token, body)["run_id"]
    while (run := console.ask("GET", f"/api/runs/{run_id}", token))["finished_at"] is None:
        time.sleep(0.2)
    wall_s = time.monotonic() - began
    assert run["progress"]["by_status"] == {"success": hosts}, run["progress"]
    return run_id, wall_s, console.usage()


# --- what was kept ----------------------------------------------------------------------------------------------------


def check_outputs(console: Console, token: str, run_id: str, hosts: Sequence[Host], load: Load) -> int:
    """Read back what every host has printed; returns how many bytes that was."""
    tasks = console.ask("GET", f"/api/tasks?run_id={run_id}&limit=500", token)["items"]
    by_name = {task["server_name"]: task for task in tasks}
    assert set(by_name) == {host.name for host in hosts}
    return sum(_check(console, token, by_name[host.name], host.prints, load.file_bytes) for host in hosts)


def _check(console: Console, token: str, task: Mapping[str, object], prints: Numbers, file_bytes: int | None) -> int:
    if file_bytes is not None and prints.size_bytes > file_bytes:
        return _check_ends(console, token, task, prints, file_bytes)
    assert not task["truncated"], task
    digest, size_bytes = hashlib.sha256(), 0
    for piece in output_of(console, token, str(task["id"])):
        digest.update(piece)
        size_bytes += len(piece)
    assert size_bytes == prints.size_bytes, f"{size_bytes} bytes of {prints.size_bytes}: {task}"
    assert digest.hexdigest() == digest_of(prints), f"other bytes than were printed: {task}"
    return size_bytes


def _check_ends(console: Console, token: str, task: Mapping[str, object], prints: Numbers, file_bytes: int) -> int:
    """Of a stream beyond its largest file, what came first and what came last is kept, and the task says so.

    How much of the beginning depends on who cuts first: the console, when its file is full, or the host, whose own copy
    grows as fast as the command prints.
    """
    kept = b"".join(output_of(console, token, str(task["id"])))
    assert task["truncated"], f"nobody was told that it was cut: {task}"
    assert len(kept) <= file_bytes, f"{len(kept)} bytes in a file of {file_bytes}: {task}"
    assert kept.startswith(printed(prints, 0, END_BYTES)), f"another beginning than was printed: {task}"
    end = printed(prints, prints.size_bytes - END_BYTES, END_BYTES)
    assert kept.endswith(end), f"another end than was printed, {kept[-LINE_BYTES:]!r}: {task}"
    return len(kept)


def output_of(console: Console, token: str, task_id: str) -> Iterator[bytes]:
    """What a task has printed, in pieces."""
    connection = http.client.HTTPConnection("127.0.0.1", console.port, timeout=60)
    try:
        connection.request("GET", f"/api/tasks/{task_id}/output", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.status
        while piece := answer.read(READ_BYTES):
            yield piece
    finally:
        connection.close()


def printed(prints: Numbers, offset: int, size_bytes: int) -> bytes:
    """That part of what a host prints."""
    first, last = offset // LINE_BYTES, (offset + size_bytes - 1) // LINE_BYTES
    command = ["seq", str(prints.first + first), str(prints.first + last)]
    lines = subprocess.run(command, check=True, capture_output=True).stdout
    return lines[offset - first * LINE_BYTES :][:size_bytes]


@cache
def digest_of(prints: Numbers) -> str:
    """SHA-256 of it, from a `seq` of our own."""
    command = ["seq", str(prints.first), str(prints.last)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as seq:
        assert seq.stdout is not None
        return hashlib.file_digest(seq.stdout, "sha256").hexdigest()


# --- all of it --------------------------------------------------------------------------------------------------------


def loads(hosts: int, lines: int) -> tuple[Load, Load]:
    """All streams within the limit; and the first of them twice as long, which is beyond a smaller one."""
    even = [Numbers(FIRST + number * 2 * lines, lines) for number in range(hosts)]
    longer = Numbers(FIRST, 2 * lines)
    return Load(even), Load([longer, *even[1:]], file_bytes=lines * LINE_BYTES * 5 // 4)


def measure(options: Options) -> Result:
    hosts, lines = (4, LINES // 20) if options.quick else (HOSTS, LINES)
    whole, beyond = loads(hosts, lines)
    for numbers in {*whole.prints, *beyond.prints[1:]}:
        digest_of(numbers)
    sides = {"all whole": lambda: one_round(whole), "one beyond": lambda: one_round(beyond)}
    rounds = in_turn(sides, options.rounds)
    title = f"{lines * LINE_BYTES / 1e6:g} MB of output from each of {hosts} hosts at once"
    return Result("output", title, list(_figures(rounds, options)), NOTES)


def _figures(rounds: Mapping[str, list[Measured]], options: Options) -> Iterator[Figure]:
    goal = None if options.quick else at_most(MEMORY_GOAL_MIB)
    for side, found in rounds.items():
        yield Figure(f"console memory at its peak, {side}", "MiB", column(found, "peak_mib"), goal)
        yield Figure(f"above the idle console, {side}", "MiB", column(found, "above_idle_mib"))
        yield Figure(f"console memory while all is read back, {side}", "MiB", column(found, "reading_mib"), goal)
        yield Figure(f"until the run is finished, {side}", "s", column(found, "wall_s"))
        yield Figure(f"output taken, {side}", "MB a second", column(found, "mb_per_s"))
        yield Figure(f"console CPU for each MB, {side}", "ms", column(found, "cpu_ms_per_mb"))
        yield Figure(f"output read back, {side}", "MB a second", column(found, "read_mb_per_s"))


NOTES = (
    "Memory is the resident size of the console and all its processes, ten times a second; the largest of them counts.",
    "The time is that from the request until the run is finished, with everything that is kept durable on the disk.",
    "The hosts, their sshd and what they write on their own disk run on the same machine and are in the time.",
    "Every stream that is kept whole was read back over HTTP and has the SHA-256 of what its host has printed.",
    "One beyond: one host prints twice as much, and no stream may have more than 1.25 of what the others print.",
    "Of that stream both ends are kept and the task says that it was cut; the others are whole.",
)

if __name__ == "__main__":
    raise SystemExit(main(measure))
