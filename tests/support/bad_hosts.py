"""Hosts that misbehave on purpose.

`bad_host(script)` listens on loopback and runs the script for each connection: it speaks bytes, not SSH.
`fake_sshd(…)` is a whole SSH server inside the test (asyncssh's), for what can only go wrong after a proper handshake.
`Proxy` stands between us and a host and stops forwarding when told to, as a network does when a cable is cut.
`Cutter` ends the connection after so many bytes, so that a test can cut a conversation at every place.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncssh

from server_monitor.ssh.hostkeys import HostKey

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class BadHost:
    """Where it listens, how many connections it has had; `left` is set while it has none."""

    port: int
    host: str = "127.0.0.1"
    accepted: int = 0
    open: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def bad_host(script: Script) -> AsyncIterator[BadHost]:
    tasks: set[asyncio.Task[Any]] = set()
    host = BadHost(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        host.accepted += 1
        host.open += 1
        host.left.clear()
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            host.open -= 1
            tasks.discard(task)
            writer.transport.abort()
            if not host.open:
                host.left.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host.port = server.sockets[0].getsockname()[1]
    try:
        yield host
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        while tasks:
            await asyncio.wait(tasks, timeout=5)


# --- scripts ----------------------------------------------------------------------------------------------------------


async def never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes the connection and says nothing."""
    await reader.read(-1)


async def closes_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Closes before a word, as sshd does above MaxStartups."""


async def closes_after_its_banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    await writer.drain()


async def goes_silent_after_its_banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    await reader.read(-1)


async def endless_banner_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"welcome to this host, please wait\r\n" * 100)
        await writer.drain()


async def one_endless_banner_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"w" * 10_000)
        await writer.drain()


async def a_banner_line_now_and_then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Never silent for long, and never done: only a deadline for the whole helps."""
    while not reader.at_eof():
        writer.write(b"wait\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def speaks_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()


async def speaks_ssh_1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-1.5-OldThing\r\n")
    await reader.read(-1)


async def floods_with_noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    noise = bytes(range(256)) * 256
    while True:
        writer.write(noise)
        await writer.drain()


async def announces_a_huge_packet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A key-exchange packet of 100 MB, with all of it to follow."""
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n" + struct.pack(">IB", 100_000_000, 4) + b"\x14")
    while True:
        writer.write(b"\0" * 65_536)
        await writer.drain()


async def sends_ignore_packets_for_ever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Well-formed packets, and no key exchange ever (RFC 4253, section 11.2)."""
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    packet = struct.pack(">IB", 12, 6) + b"\x02" + struct.pack(">I", 0) + b"\0" * 6
    while True:
        writer.write(packet * 500)
        await writer.drain()


# --- a whole SSH server -----------------------------------------------------------------------------------------------


class _Server(asyncssh.SSHServer):
    """Lets everybody in, unless the test says otherwise."""

    def __init__(self, fake: "FakeSshd") -> None:
        self._fake = fake

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._fake.connections.append(conn)

    def begin_auth(self, username: str) -> bool:
        self._fake.logins.append(username)
        return self._fake.needs_login

    def auth_completed(self) -> None:
        self._fake.let_in.set()

    def kbdint_auth_supported(self) -> bool:
        return self._fake.prompts is not None

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        assert self._fake.prompts is not None
        return "", "", "", self._fake.prompts

    def validate_kbdint_response(self, username: str, responses: Any) -> Any:
        self._fake.answers.append(list(responses))
        if len(responses) == 1 and responses[0] == self._fake.password:
            return True
        return "", "", "", self._fake.prompts

    def password_auth_supported(self) -> bool:
        return False


class FakeSshd:
    """`connections` are the server's own ends: a test may send anything over them."""

    def __init__(self, *, needs_login: bool, prompts: list[tuple[str, bool]] | None, password: str) -> None:
        self.needs_login = needs_login
        self.prompts = prompts
        self.password = password
        self.host = "127.0.0.1"
        self.port = 0
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.connections: list[asyncssh.SSHServerConnection] = []
        self.logins: list[str] = []
        self.answers: list[list[str]] = []
        self.let_in = asyncio.Event()

    @property
    def host_key(self) -> HostKey:
        return HostKey.of("ssh-ed25519", self.key.public_data)

    @property
    def _end(self) -> Any:
        """The server's end of its newest connection, with the insides that a misbehaving host would use."""
        return self.connections[-1]

    def present_another_key(self) -> None:
        """At the next key exchange of the connection that there is."""
        [pair] = asyncssh.load_keypairs([asyncssh.generate_private_key("ssh-ed25519")])
        self._end._server_host_keys = {pair.algorithm: pair}

    async def exchange_keys(self) -> bool:
        """Ask for a key exchange in mid-connection. False when the other side ended the connection over it."""
        end = self._end
        end._send_kexinit()
        end._kexinit_sent = True
        while not end._kex_complete:
            if end.is_closed():
                return False
            await asyncio.sleep(0)
        return True

    def stop_reading(self) -> None:
        self._end._transport.pause_reading()

    def ask(self, times: int) -> None:
        """Send requests that want an answer each (RFC 4254, section 4)."""
        for _ in range(times):
            self._end._send_global_request(b"keepalive@openssh.com", want_reply=True)

    def send_ignore_packets(self, times: int) -> None:
        for _ in range(times):
            self._end.send_packet(2, (0).to_bytes(4, "big"))


@asynccontextmanager
async def fake_sshd(
    process: Callable[[asyncssh.SSHServerProcess[bytes]], Awaitable[None]] | None = None,
    *,
    needs_login: bool = False,
    prompts: list[tuple[str, bool]] | None = None,
    password: str = "",
) -> AsyncIterator[FakeSshd]:
    """An SSH server that runs `process` for each command. It has small socket buffers: what is not read soon shows."""
    fake = FakeSshd(needs_login=needs_login, prompts=prompts, password=password)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
    sock.bind(("127.0.0.1", 0))
    options = asyncssh.SSHServerConnectionOptions(
        server_factory=lambda: _Server(fake),
        server_host_keys=[fake.key],
        process_factory=process,
        encoding=None,
        config=None,
    )
    acceptor = await asyncssh.listen(sock=sock, options=options, config=None)
    fake.port = sock.getsockname()[1]
    try:
        yield fake
    finally:
        acceptor.close()
        for connection in fake.connections:
            connection.abort()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(connection.wait_closed(), 5)
        await acceptor.wait_closed()


class Proxy:
    """Forwards to a host until `cut()`: then it keeps both connections open and moves nothing any more."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.bad_host: BadHost | None = None

    def cut(self) -> None:
        self._flowing.clear()

    async def script(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, far_writer))
                tasks.create_task(self._pump(far_reader, writer))
        except* ConnectionError:
            pass
        finally:
            far_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        writer.write_eof()


class Cutter:
    """Forwards to a host; once armed it lets so many more bytes pass, counted in both directions, and cuts once."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._left: int | None = None
        self.cuts = 0

    def arm(self, after_bytes: int) -> None:
        self._left = after_bytes

    async def script(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer)),
            asyncio.create_task(self._pump(far_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            far_writer.transport.abort()
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                if self._left is not None:
                    data, is_cut = data[: self._left], len(data) >= self._left
                    self._left = None if is_cut else self._left - len(data)
                    writer.write(data)
                    await writer.drain()
                    if is_cut:
                        self.cuts += 1
                        return
                    continue
                writer.write(data)
                await writer.drain()
