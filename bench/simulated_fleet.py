"""A fleet on loopback: one SSH server that is a thousand hosts, each running our probe and taking commands.

Real SSH (handshake, public-key login, an encrypted channel with the probe as its command), only the far end of the
channel is simulated: every tick is answered with a line of believable counters that grow from tick to tick. A host
is known by its user name; all share one address and one host key. It runs as a process of its own, so that its CPU
is not counted as the console's:

    python -m bench.simulated_fleet

prints {"port": …, "host_key": "ssh-ed25519 …"} when it listens, {"lines": …, "logins": …, "commands": …} for each line
on its standard input, and ends at end of file.

A command costs no process here: `uptime` prints what a host's does, anything else prints nothing, and both succeed.
Asked under the wrapper of `tasks/wrapper.py` a host speaks its protocol, word for word and packet for packet: the start
word, what the command printed, its exit on both streams, and then it waits for our `ok`. A task that it has had before
is refused.
"""

import asyncio
import json
import sys
import time
from random import Random
from typing import Any

import asyncssh
import uvloop
from asyncssh.connection import SSHServerConnection

from server_monitor.tasks import wrapper

MIB_KIB = 1024
MSG_IGNORE = 2  # RFC 4253, section 11.2
_CURVE = ("curve25519-sha256", "curve25519-sha256@libssh.org")
_SYSTEMS = ("Debian GNU/Linux 12 (bookworm)", "Ubuntu 24.04.1 LTS", "Rocky Linux 9.5 (Blue Onyx)", "Alpine Linux v3.20")


_START_SCRIPT = wrapper.start("k", "t", "true", "sh", "r", may_attach=True).words[2]


class Host:
    """One machine: counters of so many CPUs, so busy, with one disk and one network card, and the tasks it has had."""

    def __init__(self, name: str) -> None:
        chance = Random(name)
        self.name = name
        self._chance = chance
        self._cpus = chance.choice((1, 2, 4, 4, 8, 16))
        self._memory_kib = self._cpus * chance.choice((2, 4, 4)) * MIB_KIB * 1024
        self._busy = chance.uniform(0.02, 0.5)
        self._free_share = chance.uniform(0.2, 0.7)
        self._started = time.time() - chance.uniform(1e5, 3e7)
        self._last = self._started
        self._cpu = [0] * 8
        self._pressure = [0] * 5
        self._disk = [0] * 7
        self._net = [0] * 8
        self.boot_id = f"{chance.getrandbits(32):08x}-0000-4000-8000-{chance.getrandbits(48):012x}"
        self.tasks: set[str] = set()

    def run(self, command: str) -> bytes:
        """What the command prints."""
        if "uptime" not in command:
            return b""
        now = time.time()
        up_days = int((now - self._started) / 86_400)
        load = self._busy * self._cpus
        clock = time.strftime("%H:%M:%S", time.gmtime(now))
        loads = f"{load:.2f}, {load * 0.9:.2f}, {load * 0.8:.2f}"
        return f" {clock} up {up_days} days,  3:07,  1 user,  load average: {loads}\n".encode()

    def hello(self) -> str:
        chance = self._chance
        return json.dumps(
            [
                "hello",
                1,
                "mawk",
                ["cpu", "memory", "pressure", "disks", "interfaces"],
                int(self._started),
                round(time.time() - self._started, 2),
                chance.choice(_SYSTEMS),
                "6.1.0-28-amd64",
                "x86_64",
                self.name,
                self._cpus,
                self._memory_kib,
                self.boot_id,
            ],
            separators=(",", ":"),
        )

    def answer(self, tick: str) -> str:
        """The line, or lines, that the probe prints for these letters."""
        now = time.time()
        self._advance(now - self._last)
        self._last = now
        pressure = _list(self._pressure) if {"m", "c"} & {*tick} else "null"
        line = (
            f"[1,{now - self._started:.2f},{_list(self._cpu)},{self._memory()},{pressure},"
            f'[["vda",{_items(self._disk)}]],[["eth0",{_items(self._net)}]]'
        )
        if len(tick) > 1:
            line += self._slow() if "m" in tick else ",null,null,null,null"
            line += f",[{','.join([self._core()] * self._cpus)}]" if "c" in tick else ",null"
            line += f",{self._top()}" if "p" in tick else ",null"
        return line + "]\n" + (self._filesystems() if "f" in tick else "")

    def _advance(self, elapsed_s: float) -> None:
        chance = self._chance.random
        self._busy = min(0.95, max(0.01, self._busy + (chance() - 0.5) * 0.06))
        jiffies = elapsed_s * 100 * self._cpus
        used = self._busy * jiffies
        for place, share in ((0, 0.7), (2, 0.25), (6, 0.03), (7, 0.02)):
            self._cpu[place] += int(used * share + chance())
        self._cpu[3] += int((jiffies - used) * 0.98)
        self._cpu[4] += int((jiffies - used) * 0.02 * chance())
        for place in (0, 1, 3):
            self._pressure[place] += int(elapsed_s * 1e6 * self._busy * 0.1 * chance())
        reads, writes = int(elapsed_s * 40 * chance()), int(elapsed_s * 120 * self._busy)
        for place, grown in enumerate((reads, reads * 16, reads, writes, writes * 24, writes, reads + writes)):
            self._disk[place] += grown
        packets = elapsed_s * 4000 * self._busy * chance()
        for place, each in ((0, 900.0), (1, 1.0), (4, 400.0), (5, 0.8)):
            self._net[place] += int(packets * each)

    def _memory(self) -> str:
        self._free_share = min(0.9, max(0.05, self._free_share + (self._chance.random() - 0.5) * 0.004))
        total = self._memory_kib
        available = int(total * self._free_share)
        free = available // 2
        values = (total, free, available, total // 50, available - free, 1048572, 1048572, free % 4096)
        return _list([*values, total // 90, total // 60])

    def _slow(self) -> str:
        load = self._busy * self._cpus
        own_ns = int((self._last - self._started) * 290_000)
        return (
            f",[{load:.2f},{load * 0.9:.2f},{load * 0.8:.2f},{int(load) + 1},{180 + self._cpus * 20}]"
            f",[{1500 + self._cpus * 64},9223372036854775807],[],[3,4,0,0,{own_ns}]"
        )

    def _core(self) -> str:
        return _list([jiffies // self._cpus for jiffies in self._cpu])

    def _top(self) -> str:
        return json.dumps([[number * 97, f"worker-{number}", number % 7, 4000 + number] for number in range(1, 21)])

    def _filesystems(self) -> str:
        free = 20_000_000 + int(self._last / 60) % 1000
        return f"P {120 + self._cpus * 8}\nF 4096 66053021 {free + 5000} {free} 16777216 16316143 /\n"


def _items(values: list[int]) -> str:
    return ",".join(map(str, values))


def _list(values: list[int]) -> str:
    return f"[{_items(values)}]"


class Counts:
    """What the fleet has done so far."""

    def __init__(self) -> None:
        self.lines = 0
        self.logins = 0
        self.commands = 0


class _Session(asyncssh.SSHServerSession[bytes]):
    """The far end of a channel: what it is becomes clear with the command."""

    def __init__(self, host: Host, counts: Counts) -> None:
        self._host = host
        self._counts = counts
        self._channel: asyncssh.SSHServerChannel[bytes] | None = None
        self._program: _Probe | _Plain | _Wrapped | None = None

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def exec_requested(self, command: str) -> bool:
        assert self._channel is not None
        words = command.removeprefix("exec '").removesuffix("'").split("' '")
        if len(words) > 3 and words[2] == _START_SCRIPT:
            self._program = _Wrapped(self._host, self._counts, self._channel, words[4], int(words[5]))
        elif "awk" in command:
            self._program = _Probe(self._host, self._counts, self._channel)
        elif "sm1" in words:
            return False  # our other scripts; nobody asks for them here
        else:
            self._program = _Plain(self._host, self._counts, self._channel, command)
        return True

    def session_started(self) -> None:
        assert self._program is not None
        self._program.begin()

    def data_received(self, data: bytes, _datatype: asyncssh.DataType) -> None:
        assert self._program is not None
        self._program.read(data)

    def eof_received(self) -> bool:
        return False


class _Probe:
    """A collector's probe."""

    def __init__(self, host: Host, counts: Counts, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        self._host = host
        self._counts = counts
        self._channel = channel
        self._rest = b""

    def begin(self) -> None:
        self._channel.write((self._host.hello() + "\n").encode())

    def read(self, data: bytes) -> None:
        *ticks, self._rest = (self._rest + data).split(b"\n")
        for tick in ticks:
            self._counts.lines += 1
            self._channel.write(self._host.answer(tick.decode("ascii", "replace")).encode())


class _Plain:
    """A command as others run it: it prints, succeeds, and the channel closes."""

    def __init__(self, host: Host, counts: Counts, channel: asyncssh.SSHServerChannel[bytes], command: str) -> None:
        self._host = host
        self._counts = counts
        self._channel = channel
        self._command = command

    def begin(self) -> None:
        self._counts.commands += 1
        self._channel.write(self._host.run(self._command))
        self._channel.exit(0)

    def read(self, data: bytes) -> None:
        """Nothing here reads its input."""


class _Wrapped:
    """A command under our wrapper, see `tasks/wrapper.py`: `lines` lines of it follow the key."""

    def __init__(
        self, host: Host, counts: Counts, channel: asyncssh.SSHServerChannel[bytes], task_id: str, lines: int
    ) -> None:
        self._host = host
        self._counts = counts
        self._channel = channel
        self._task_id = task_id
        self._lines = lines
        self._input = b""
        self._has_ended = False

    def begin(self) -> None:
        """It waits for its input first."""

    def read(self, data: bytes) -> None:
        self._input += data
        lines = self._input.split(b"\n")
        if self._has_ended:
            self._channel.exit(0)
        elif len(lines) > self._lines + 1:
            self._input = b""
            self._has_ended = True
            self._run(lines[0], b"\n".join(lines[1 : self._lines + 1]))

    def _run(self, key: bytes, command: bytes) -> None:
        mark = b"sm1 " + key
        if self._task_id in self._host.tasks:
            self._channel.write(mark + b" exists\n")
            self._channel.exit(0)
            return
        self._host.tasks.add(self._task_id)
        self._counts.commands += 1
        self._channel.write(mark + b" start " + self._host.boot_id.encode() + b"\n")
        printed = self._host.run(command.decode("utf-8", "replace"))
        if printed:
            self._channel.write(printed)
        self._channel.write_stderr(mark + b" exit 0 inline\n")
        self._channel.write(mark + b" exit 0 inline\n")


class _Server(asyncssh.SSHServer):
    """One connection: the user's name says which host it reached."""

    def __init__(self, hosts: dict[str, Host], counts: Counts) -> None:
        self._hosts = hosts
        self._counts = counts
        self._name = ""

    def begin_auth(self, username: str) -> bool:
        self._name = username
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, _username: str, _key: asyncssh.SSHKey) -> bool:
        return True

    def auth_completed(self) -> None:
        self._counts.logins += 1

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        if self._name not in self._hosts:
            self._hosts[self._name] = Host(self._name)
        return _Session(self._hosts[self._name], self._counts)


def _speak_like_openssh() -> None:
    """asyncssh puts an empty packet before each one that it sends. No real host does, and reading them costs."""
    usual = SSHServerConnection.send_packet

    def send_packet(self: SSHServerConnection, pkttype: int, *args: bytes, **options: Any) -> None:
        if pkttype != MSG_IGNORE:
            usual(self, pkttype, *args, **options)

    SSHServerConnection.send_packet = send_packet  # type: ignore[method-assign, assignment]


async def _serve() -> None:
    _speak_like_openssh()
    counts = Counts()
    hosts: dict[str, Host] = {}
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.create_server(
        lambda: _Server(hosts, counts),
        "127.0.0.1",
        0,
        server_host_keys=[key],
        encoding=None,
        kex_algs=_CURVE,
        compression_algs=["none"],
        backlog=4096,
        login_timeout=120,
        allow_scp=False,
    )
    _say({"port": server.get_port(), "host_key": key.export_public_key().decode().strip()})
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        _say({"lines": counts.lines, "logins": counts.logins, "commands": counts.commands})
    server.close()


def _say(facts: dict[str, object]) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    uvloop.run(_serve())
