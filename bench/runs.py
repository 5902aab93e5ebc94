"""`uptime` on 500 hosts, the console against those whom people use for it: Ansible, pyinfra and pssh.

All sides meet the same simulated hosts over real SSH on loopback, and each works as it comes: the console over the
connections of its collectors, Ansible over the masters of OpenSSH (ControlPersist), pyinfra and pssh over new ones, and
pssh over masters too, as it can be told to. Each has run the command once before it is timed. The console is asked over
HTTP and its run followed until it is finished; the verdict of the policy, every state of every task, its audit records
and its output are then in the database.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.console import Console, Fleet, simulated_fleet
from bench.fleet import CONNECT_TIMEOUT_S, seed
from bench.harness import (
    Figure,
    Measured,
    Options,
    Result,
    at_least,
    at_most,
    column,
    in_turn,
    main,
    ratios,
    say,
    wait_until,
)
from bench.peers import PEERS, MissingPeerError, debian_tool, python_tool

HOSTS = 500
FORKS = 50
CPU_MS_GOAL = 2.5
QUEUED = 10_000
QUEUE_GOAL = 500  # a second
IDLE_S = 5.0
RUNS = 4
COMMAND = "uptime"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a side keeps its files, and the hosts by name."""

    folder: Path
    fleet: Fleet
    names: Sequence[str]

    @property
    def key(self) -> Path:
        return self.folder / "key"


# --- ours -------------------------------------------------------------------------------------------------------------


def console_side(fleet: Fleet, hosts: int, max_parallel: int) -> Measured:
    """Seconds until a run is finished, and what it costs the console beside collecting."""
    with connected_console(fleet, hosts) as (console, token):
        run_everywhere(console, token, hosts, max_parallel)
        time.sleep(1.0)
        before = console.usage()
        time.sleep(IDLE_S)
        idle_cores = console.usage().cores_since(before)
        began, commands = console.usage(), fleet.counts()["commands"]
        walls = [run_everywhere(console, token, hosts, max_parallel) for _ in range(RUNS)]
        ended, commands = console.usage(), fleet.counts()["commands"] - commands
    assert commands == hosts * RUNS, f"{commands} commands ran, {hosts * RUNS} were asked for"
    cpu_s = ended.cpu_s - began.cpu_s - idle_cores * (ended.at_s - began.at_s)
    return {
        "wall_s": sorted(walls)[len(walls) // 2],
        "cpu_ms": 1000 * cpu_s / commands,
        "idle_cores": idle_cores,
        "rss_mib": ended.rss_bytes / 1024**2,
    }


@contextmanager
def connected_console(fleet: Fleet, hosts: int) -> Iterator[tuple[Console, str]]:
    """A console that holds a connection to each of so many hosts, and a token for it."""
    with tempfile.TemporaryDirectory(prefix="server-monitor-bench-") as folder:
        prepared = Console(Path(folder))
        token = prepared.token("operate")
        seed(prepared, fleet, hosts)
        with prepared as console:
            wait_until(lambda: fleet.counts()["logins"] >= hosts, timeout_s=CONNECT_TIMEOUT_S, what="hosts connected")
            time.sleep(IDLE_S)
            yield console, token


def queue_side(fleet: Fleet, hosts: int, queued: int) -> Measured:
    """Tasks a second, from the request for the first until the last is finished; each server has one at a time."""
    body = {"command": "true", "selector": {"labels": {"env": "bench"}}, "max_parallel": hosts}
    with connected_console(fleet, hosts) as (console, token):
        began, before = time.monotonic(), console.usage()
        run_ids = [console.ask("POST", "/api/tasks", token, body)["run_id"] for _ in range(queued // hosts)]
        for run_id in run_ids:
            while (run := console.ask("GET", f"/api/runs/{run_id}?wait_s=30", token))["finished_at"] is None:
                pass
            assert run["progress"]["by_status"] == {"success": hosts}, run["progress"]
        after = console.usage()
        return {
            "tasks_per_s": queued / (time.monotonic() - began),
            "cpu_ms": 1000 * (after.cpu_s - before.cpu_s) / queued,
        }


def run_everywhere(console: Console, token: str, hosts: int, max_parallel: int) -> float:
    """Seconds from the request until the run is finished. Raises AssertionError unless every task succeeded."""
    began = time.monotonic()
    body = {"command": COMMAND, "selector": {"labels": {"env": "bench"}}, "max_parallel": max_parallel}
    run_id = console.ask("POST", "/api/tasks", token, body)["run_id"]
    while (run := console.ask("GET", f"/api/runs/{run_id}?wait_s=30", token))["finished_at"] is None:
        pass
    wall_s = time.monotonic() - began
    assert run["progress"]["by_status"] == {"success": hosts}, run["progress"]
    return wall_s


# --- the others -------------------------------------------------------------------------------------------------------


def peer_side(command: Sequence[str | Path], place: Place, environment: Mapping[str, str], marks: str) -> Measured:
    """Seconds of one run after another one. Raises MissingPeerError when not every host has answered."""
    run_peer(command, place, environment, marks)
    before = resource_usage()
    began = time.monotonic()
    run_peer(command, place, environment, marks)
    wall_s = time.monotonic() - began
    return {"wall_s": wall_s, "cpu_ms": 1000 * (resource_usage() - before) / len(place.names)}


def run_peer(command: Sequence[str | Path], place: Place, environment: Mapping[str, str], marks: str) -> None:
    # To a file: the masters that ssh leaves behind would hold a pipe open.
    log = place.folder / "log"
    commands = place.fleet.counts()["commands"]
    with log.open("wb") as output:
        subprocess.run(
            [str(word) for word in command],
            cwd=place.folder,
            env={**_plain_environment(), **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=600,
        )
    printed = log.read_text(errors="replace")
    ran = place.fleet.counts()["commands"] - commands
    if ran < len(place.names) or printed.count(marks) < len(place.names):
        raise MissingPeerError(f"{command[0]}: {ran} of {len(place.names)} hosts ran it:\n{printed[-3000:]}")


def resource_usage() -> float:
    """CPU seconds of the children that have ended; masters that stay do not count."""
    times = os.times()
    return times.children_user + times.children_system


def _plain_environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {**kept, "LC_ALL": "C.UTF-8"}


def ansible(place: Place) -> Measured:
    program = python_tool("ansible-core", "ansible")
    lines = [
        f"{name} ansible_host=127.0.0.1 ansible_port={place.fleet.port} ansible_user={name}"
        f" ansible_ssh_private_key_file={place.key}"
        for name in place.names
    ]
    (place.folder / "inventory").write_text("\n".join([*lines, ""]))
    config = f"[defaults]\nforks = {FORKS}\nhost_key_checking = False\ninterpreter_python = /usr/bin/python3\n"
    config += f"[ssh_connection]\ncontrol_path_dir = {place.folder}/c\n"
    (place.folder / "ansible.cfg").write_text(config)
    environment = {"ANSIBLE_CONFIG": str(place.folder / "ansible.cfg"), "ANSIBLE_HOME": str(place.folder / "home")}
    return peer_side(
        [program, "all", "-i", "inventory", "-m", "raw", "-a", COMMAND], place, environment, "load average"
    )


def pyinfra(place: Place) -> Measured:
    program = python_tool("pyinfra", "pyinfra")
    data = {
        "ssh_hostname": "127.0.0.1",
        "ssh_port": place.fleet.port,
        "ssh_key": str(place.key),
        "ssh_strict_host_key_checking": "off",
        "ssh_known_hosts_file": str(place.folder / "known_hosts"),
    }
    hosts = [(name, {**data, "ssh_user": name}) for name in place.names]
    (place.folder / "known_hosts").touch()
    (place.folder / "inventory.py").write_text(f"hosts = {hosts!r}\n")
    return peer_side([program, "-y", "inventory.py", "exec", "--", COMMAND], place, {}, "load average")


def pssh(place: Place) -> Measured:
    return _pssh(place, ())


def pssh_kept(place: Place) -> Measured:
    kept = ("ControlMaster=auto", f"ControlPath={place.folder}/c/%C", "ControlPersist=60s")
    return _pssh(place, kept)


def _pssh(place: Place, kept: Sequence[str]) -> Measured:
    program = debian_tool("pssh", "parallel-ssh", "python3-psshlib")
    lines = [f"{name}@127.0.0.1:{place.fleet.port}" for name in place.names]
    (place.folder / "hosts").write_text("\n".join([*lines, ""]))
    options = [
        f"IdentityFile={place.key}",
        "StrictHostKeyChecking=no",
        f"UserKnownHostsFile={place.folder}/known_hosts",
        "LogLevel=ERROR",
        *kept,
    ]
    words = [word for option in options for word in ("-O", option)]
    library = {"PYTHONPATH": str(PEERS / "pssh/usr/lib/python3/dist-packages")}
    return peer_side([program, "-h", "hosts", "-p", str(FORKS), "-i", *words, COMMAND], place, library, "load average")


SIDES: Mapping[str, Callable[[Place], Measured]] = {
    "Ansible raw": ansible,
    "pyinfra": pyinfra,
    "pssh": pssh,
    "pssh over masters of ssh": pssh_kept,
}
GOALS: Mapping[str, float] = {"Ansible raw": 12, "pyinfra": 6, "pssh": 6}


@contextmanager
def place_for(fleet: Fleet, hosts: int) -> Iterator[Place]:
    """A short path: those of control sockets have to fit into 100 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="smb-", dir="/tmp"))
    (folder / "c").mkdir(mode=0o700)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield Place(folder, fleet, [f"simulated-{number:05}" for number in range(hosts)])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _peer(run: Callable[[Place], Measured], hosts: int) -> Callable[[], Measured]:
    def side() -> Measured:
        # A fleet of its own, so that the masters of ssh end with it and burden nobody else.
        with simulated_fleet() as fleet, place_for(fleet, hosts) as place:
            return run(place)

    return side


def _ours(hosts: int, max_parallel: int) -> Callable[[], Measured]:
    def side() -> Measured:
        with simulated_fleet() as fleet:
            return console_side(fleet, hosts, max_parallel)

    return side


def _queue(hosts: int, queued: int) -> Callable[[], Measured]:
    def side() -> Measured:
        with simulated_fleet() as fleet:
            return queue_side(fleet, hosts, queued)

    return side


def measure(options: Options) -> Result:
    hosts = min(options.hosts, HOSTS)
    queued = hosts * (QUEUED // HOSTS)
    sides: dict[str, Callable[[], Measured]] = {
        "console": _ours(hosts, hosts),
        "console, 50 at once": _ours(hosts, FORKS),
    }
    sides[f"{queued:,} queued tasks"] = _queue(hosts, queued)
    notes = list(NOTES)
    for name, run in SIDES.items():
        try:
            say(f"trying {name}")
            _peer(run, 3)()
        except MissingPeerError as error:
            notes.append(f"{name} could not be measured: {str(error).splitlines()[0]}")
            say(str(error))
        else:
            sides[name] = _peer(run, hosts)
    rounds = in_turn(sides, options.rounds)
    return Result(
        "runs", f"`{COMMAND}` on {hosts:,} hosts, connections warm", list(_figures(hosts, queued, rounds)), notes
    )


def _figures(hosts: int, queued: int, rounds: Mapping[str, list[Measured]]) -> Iterator[Figure]:
    ours = rounds["console"]
    full_size = hosts >= HOSTS
    wall = column(ours, "wall_s")
    yield Figure("console, until the run is finished", "s", wall)
    yield Figure("console, 50 at once", "s", column(rounds["console, 50 at once"], "wall_s"))
    cpu_goal = at_most(CPU_MS_GOAL) if full_size else None
    yield Figure("console CPU for one host-command", "ms", column(ours, "cpu_ms"), cpu_goal)
    for name in SIDES:
        if name not in rounds:
            continue
        theirs = column(rounds[name], "wall_s")
        yield Figure(name, "s", theirs)
        goal = at_least(GOALS[name]) if full_size and name in GOALS else None
        yield Figure(f"console faster than {name}", "times", ratios(wall, theirs), goal)
        yield Figure(f"{name}, CPU for one host-command", "ms", column(rounds[name], "cpu_ms"))
    of_queue = rounds[f"{queued:,} queued tasks"]
    rate_goal = at_least(QUEUE_GOAL) if full_size else None
    yield Figure(f"{queued:,} queued tasks of `true`", "a second", column(of_queue, "tasks_per_s"), rate_goal)
    yield Figure("console CPU for each of them", "ms", column(of_queue, "cpu_ms"))
    yield Figure("console CPU for collecting meanwhile", "of a core", column(ours, "idle_cores"))
    yield Figure("console memory", "MiB", column(ours, "rss_mib"))


NOTES = (
    "The console's time is that from the request until its client, which waits for it, has read that the run is over.",
    f"Its CPU is that of {RUNS} runs, less what collecting from the same hosts takes meanwhile, for each command.",
    "Policy, claims, wrapper, audit, stored output and the client's questions are in both.",
    "Each peer works as it comes, 50 hosts at once: Ansible keeps its connections by ControlPersist, pyinfra and pssh",
    "connect anew. pssh can be told to go through masters of ssh, and stands here with them too.",
    "The hosts share one process that answers all sides alike; on two cores it limits the fastest side.",
)

if __name__ == "__main__":
    raise SystemExit(main(measure))
