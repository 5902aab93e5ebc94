"""The web terminal beside `ssh` in a PTY, on the same machine and the same sshd.

Keystrokes are echoed by the host's own line discipline, so both sides wait for the same thing. Output is a file of a
hundred megabytes of lines, counted at the socket and at the PTY; recording is on, as it always is. Two hundred sessions
show a screen of `top` again every second, kept by the shell itself: two hundred real ones would measure `top`.
"""

import asyncio
import fcntl
import getpass
import json
import os
import pty
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import uvloop
from websockets.asyncio.client import ClientConnection, connect

from bench.console import Console, free_port
from bench.harness import Figure, Measured, Options, Result, at_least, at_most, column, in_turn, main, wait_until
from bench.peers import debian_tool

KEYS = 1_000
BULK_BYTES = 100_000_000
SESSIONS = 200
OPENINGS = 20
WATCH_S = 15.0
ACK_BYTES = 65_536
STORE = "/var/tmp"
SIZE = (80, 24)


@dataclass(frozen=True, slots=True)
class Host:
    """A running sshd, and how to log in."""

    folder: Path
    port: int
    fingerprint: str

    @property
    def key(self) -> Path:
        return self.folder / "login"


class Site:
    """A console that knows the host."""

    def __init__(self, console: Console, token: str, server_id: str) -> None:
        self.console = console
        self.server_id = server_id
        self._token = token

    async def ask(self) -> tuple[str, str]:
        """The path and the ticket of a new session."""
        body = {"server_id": self.server_id, "cols": SIZE[0], "rows": SIZE[1]}
        asked = await asyncio.to_thread(self.console.ask, "POST", "/api/terminal/sessions", self._token, body)
        return asked["path"], asked["ticket"]

    @asynccontextmanager
    async def terminal(self) -> AsyncIterator["Terminal"]:
        path, ticket = await self.ask()
        url = f"ws://127.0.0.1:{self.console.port}{path}"
        headers = {"Authorization": f"Bearer {self._token}"}
        async with connect(url, additional_headers=headers, compression=None, proxy=None, max_size=None) as socket:
            terminal = Terminal(socket)
            await socket.send(json.dumps({"type": "ticket", "ticket": ticket, "have": 0}))
            yield terminal
            await socket.send('{"type":"close"}')


class Terminal:
    """A browser's end, as far as it is measured: it counts, and says what it has drawn."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._seen = self._acked = 0
        self.tail = b""

    async def write(self, data: bytes) -> None:
        await self._socket.send(data)

    async def read(self) -> bytes:
        """What is shown next."""
        while True:
            message = await self._socket.recv()
            if isinstance(message, bytes):
                self._seen += len(message)
                if self._seen - self._acked >= ACK_BYTES:
                    self._acked = self._seen
                    await self._socket.send(f'{{"type":"ack","bytes":{self._seen}}}')
                return message

    async def until(self, wanted: bytes) -> None:
        tail = b""
        while wanted not in tail:
            tail = (tail + await self.read())[-4096:]


class Ssh:
    """`ssh` in a PTY."""

    def __init__(self, host: Host) -> None:
        words = ["ssh", "-tt", "-F", "none", "-i", str(host.key), "-p", str(host.port), "-o", "LogLevel=ERROR"]
        words += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes"]
        self._pid, self._file = pty.fork()
        if self._pid == 0:
            os.execvp("ssh", [*words, f"{getpass.getuser()}@127.0.0.1"])
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))

    def write(self, data: bytes) -> None:
        os.write(self._file, data)

    def read(self) -> bytes:
        return os.read(self._file, 65_536)

    def until(self, wanted: bytes) -> None:
        tail = b""
        while wanted not in tail:
            tail = (tail + self.read())[-4096:]

    def close(self) -> None:
        os.close(self._file)
        os.waitpid(self._pid, 0)


# --- one key ----------------------------------------------------------------------------------------------------------

QUIET = b"stty -icanon echo; printf 're''ady\\n'; exec cat >/dev/null\r"


async def _keys_here(site: Site, count: int) -> Measured:
    async with site.terminal() as terminal:
        await terminal.until(b"# " if os.geteuid() == 0 else b"$ ")
        await terminal.write(QUIET)
        await terminal.until(b"ready\r\n")
        times = []
        for number in range(count):
            key = b"abcdefghij"[number % 10 :][:1]
            began = time.perf_counter()
            await terminal.write(key)
            while key not in await terminal.read():
                pass
            times.append(time.perf_counter() - began)
            await asyncio.sleep(0.002)
        return _spread(times)


def _keys_ssh(host: Host, count: int) -> Measured:
    ssh = Ssh(host)
    try:
        ssh.until(b"# " if os.geteuid() == 0 else b"$ ")
        ssh.write(QUIET)
        ssh.until(b"ready\r\n")
        times = []
        for number in range(count):
            key = b"abcdefghij"[number % 10 :][:1]
            began = time.perf_counter()
            ssh.write(key)
            while key not in ssh.read():
                pass
            times.append(time.perf_counter() - began)
            time.sleep(0.002)
        return _spread(times)
    finally:
        ssh.close()


def _spread(times: Sequence[float]) -> Measured:
    return {"median_ms": median(times) * 1e3, "p99_ms": quantiles(times, n=100)[98] * 1e3}


# --- a lot ------------------------------------------------------------------------------------------------------------


async def _bulk_here(site: Site, big: Path, size: int) -> Measured:
    async with site.terminal() as terminal:
        await terminal.until(b"# " if os.geteuid() == 0 else b"$ ")
        before = site.console.usage().rss_bytes
        peak = before
        looked_s = began = time.perf_counter()
        await terminal.write(b"cat %s; echo d''one\r" % str(big).encode())
        tail = b""
        while b"done\r\n" not in tail:
            tail = (tail + await terminal.read())[-4096:]
            if time.perf_counter() - looked_s > 0.5:
                looked_s = time.perf_counter()
                peak = max(peak, site.console.usage().rss_bytes)
        took_s = time.perf_counter() - began
        return {"mb_per_s": size / took_s / 1e6, "grown_mib": (peak - before) / 2**20}


def _bulk_ssh(host: Host, big: Path) -> Measured:
    ssh = Ssh(host)
    try:
        ssh.until(b"# " if os.geteuid() == 0 else b"$ ")
        began = time.perf_counter()
        ssh.write(b"cat %s; echo d''one\r" % str(big).encode())
        ssh.until(b"done\r\n")
        return {"mb_per_s": big.stat().st_size / (time.perf_counter() - began) / 1e6}
    finally:
        ssh.close()


# --- many, and one quickly --------------------------------------------------------------------------------------------


async def _many(site: Site, count: int, watch_s: float, screen: Path) -> Measured:
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        before = site.console.usage()
        terminals = [await stack.enter_async_context(site.terminal()) for _ in range(count)]
        command = f'f=$(cat {screen}); while :; do read -rt 1 _; printf %s "$f"; done\r'.encode()
        for terminal in terminals:
            await terminal.until(b"# " if os.geteuid() == 0 else b"$ ")
            await terminal.write(command)
        drawing = [tasks.create_task(_draw(terminal)) for terminal in terminals]
        await asyncio.sleep(3)
        began = site.console.usage()
        await asyncio.sleep(watch_s)
        ended = site.console.usage()
        for task in drawing:
            task.cancel()
        return {
            "cores": ended.cores_since(began),
            "grown_mib": (ended.rss_bytes - before.rss_bytes) / 2**20,
        }


async def _draw(terminal: Terminal) -> None:
    while True:
        await terminal.read()


async def _open(site: Site) -> Measured:
    times = []
    for _ in range(OPENINGS):
        began = time.perf_counter()
        async with site.terminal() as terminal:
            await terminal.until(b"# " if os.geteuid() == 0 else b"$ ")
            times.append(time.perf_counter() - began)
    return {"ms": median(times) * 1e3}


# --- what it runs on --------------------------------------------------------------------------------------------------


@contextmanager
def _host(folder: Path) -> Iterator[Host]:
    program = debian_tool("openssh-server", "sshd")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("login", "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    port = free_port()
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/login.pub\n"
        "PidFile none\nUsePAM no\nUseDNS no\nStrictModes no\nPermitRootLogin yes\nPrintMotd no\nPrintLastLog no\n"
        f"MaxStartups 1000\nSetEnv HOME={folder}\n"
    )
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([program, "-D", "-e", "-f", folder / "config"], stderr=output)
    try:
        wait_until(lambda: b"Server listening on" in log.read_bytes(), timeout_s=15, what=f"sshd listens (see {log})")
        shown = subprocess.run(["ssh-keygen", "-l", "-f", folder / "host"], check=True, capture_output=True, text=True)
        yield Host(folder, port, shown.stdout.split()[1])
    finally:
        process.terminate()
        process.wait(15)


@contextmanager
def _site(host: Host, folder: Path) -> Iterator[Site]:
    console = Console(folder, {"TERMINAL_SESSIONS_PER_USER": "1000"})
    with console:
        token = console.token("admin")
        body = {
            "name": "bench",
            "host": "127.0.0.1",
            "port": host.port,
            "username": getpass.getuser(),
            "auth": {"type": "key", "private_key": host.key.read_text()},
            "capability": "terminal",
        }
        server_id = console.ask("POST", "/api/servers", token, body)["id"]
        console.ask("POST", f"/api/servers/{server_id}/host-key", token, {"fingerprint": host.fingerprint})
        wait_until(
            lambda: console.ask("GET", f"/api/servers/{server_id}", token)["status"] == "online",
            timeout_s=30,
            what="the host is online",
        )
        yield Site(console, token, server_id)


def _make(folder: Path, size: int) -> tuple[Path, Path]:
    """A large file of lines, and a screen as `top` draws it."""
    big, screen = folder / "big", folder / "screen"
    with big.open("w") as file:
        subprocess.run(["seq", "-f", "%060.0f", str(size // 61)], stdout=file, check=True)
    shown = subprocess.run(["top", "-bn1", "-w", str(SIZE[0])], capture_output=True, text=True, check=True).stdout
    rows = [
        f"\x1b[{number + 1};1H{row[: SIZE[0]]:{SIZE[0]}}\x1b[39;49m" for number, row in enumerate(shown.splitlines())
    ]
    screen.write_text("".join(rows[: SIZE[1]]))
    return big, screen


def measure(options: Options) -> Result:
    keys, size = (100, BULK_BYTES // 10) if options.quick else (KEYS, BULK_BYTES)
    with tempfile.TemporaryDirectory(prefix="server-monitor-bench-", dir=STORE) as name:
        folder = Path(name)
        for part in ("host", "console"):
            (folder / part).mkdir()
        with _host(folder / "host") as host, _site(host, folder / "console") as site:
            big, screen = _make(folder / "host", size)
            typed = in_turn(
                {"console": lambda: uvloop.run(_keys_here(site, keys)), "ssh": lambda: _keys_ssh(host, keys)},
                options.rounds,
            )
            bulk = in_turn(
                {
                    "console": lambda: uvloop.run(_bulk_here(site, big, big.stat().st_size)),
                    "ssh": lambda: _bulk_ssh(host, big),
                },
                options.rounds,
            )
            opening = in_turn({"console": lambda: uvloop.run(_open(site))}, options.rounds)
            many = in_turn(
                {"console": lambda: uvloop.run(_many(site, 20 if options.quick else SESSIONS, WATCH_S, screen))}, 1
            )
    return Result("terminal", "A shell in the browser, beside ssh", _figures(typed, bulk, opening, many), _NOTES)


_NOTES = (
    "Keys go through the socket, the console, SSH and the host's line discipline and back; beside it `ssh` in a PTY.",
    "Output is `cat` of lines, counted at the socket with recording on; memory is the console's resident set.",
    "Each of the 200 sessions draws a screen of `top` once a second; all but four have an SSH connection of their own.",
)


def _figures(
    typed: dict[str, list[Measured]],
    bulk: dict[str, list[Measured]],
    opening: dict[str, list[Measured]],
    many: dict[str, list[Measured]],
) -> Sequence[Figure]:
    def more(key: str) -> list[float]:
        ours, theirs = column(typed["console"], key), column(typed["ssh"], key)
        return [our - other for our, other in zip(ours, theirs, strict=True)]

    here, there = column(bulk["console"], "mb_per_s"), column(bulk["ssh"], "mb_per_s")
    return (
        Figure("a key to its echo, more than ssh, median", "ms", more("median_ms"), at_most(2)),
        Figure("a key to its echo, more than ssh, p99", "ms", more("p99_ms"), at_most(10)),
        Figure("a key to its echo by ssh, median", "ms", column(typed["ssh"], "median_ms")),
        Figure("bulk output", "MB/s", here),
        Figure("bulk output by ssh", "MB/s", there),
        Figure(
            "share of ssh's speed", "", [our / other for our, other in zip(here, there, strict=True)], at_least(0.25)
        ),
        Figure("memory grown by it", "MiB", column(bulk["console"], "grown_mib")),
        Figure("from asking to the prompt", "ms", column(opening["console"], "ms"), at_most(150)),
        Figure("cores for all sessions", "", column(many["console"], "cores"), at_most(1)),
        Figure("memory for all sessions", "MiB", column(many["console"], "grown_mib"), at_most(100)),
    )


if __name__ == "__main__":
    raise SystemExit(main(measure))
