"""One SSH connection, and what the host at its other end cannot do to us.

asyncssh's own `connect` prepares some eighty options anew, in a thread, for every connection. Here they are prepared
once and copied (`dial.py`), and asyncssh's connection class is extended, which also lets us bound what a host may send.
These two modules are the only ones that rely on names asyncssh does not promise: `_options`, `_password`,
`_client_keys`, `_inpbuf`, `_transport`, `_force_close`, `_server_version`, `_server_kexinit`, `waiter`.
"""

import asyncio
import socket

import asyncssh
from typing_extensions import override

from server_monitor.ssh import algorithms
from server_monitor.ssh.failures import Stage
from server_monitor.ssh.peer import Peer

LONGEST_HANDSHAKE = 65_536  # bytes a host may send before it has let us in; a real one takes about 3,000
LONGEST_BACKLOG = 1_048_576  # bytes that may wait while asyncssh is busy with a packet
WRITE_HIGH_WATER = 262_144  # bytes we may owe a host that does not read, before we stop reading from it

_KERNEL_KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 40_000}


class Connection(asyncssh.SSHClientConnection):
    """An SSH connection whose host is not trusted with our memory."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: asyncssh.SSHClientConnectionOptions, peer: Peer):
        super().__init__(loop, options, wait="auth")
        self.peer = peer
        self._was_made = False
        self._received = 0
        self._paused = False

    @property
    def stage_reached(self) -> Stage:
        """How far the connection came; still right after it was lost."""
        if self.peer.stage is not Stage.BANNER:
            return self.peer.stage
        if self._server_version:
            return Stage.KEX
        return Stage.BANNER if self._was_made else Stage.DIAL

    @property
    def is_usable(self) -> bool:
        return self.peer.stage is Stage.OPEN and self._transport is not None

    def settle(self, base: asyncssh.SSHClientConnectionOptions) -> None:
        """Let go of what was needed to connect: the copied options, and with them every secret."""
        self._options = base
        self._password = None
        self._client_keys = []
        self._server_kexinit = b""

    def shared_host_keys(self) -> bool:
        """Does the host have a host key of a type that we accept? True while it has not said."""
        if not self._server_kexinit:
            return True
        return not set(algorithms.HOST_KEYS).isdisjoint(algorithms.offered_host_keys(self._server_kexinit))

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._was_made = True
        _let_the_kernel_watch(transport.get_extra_info("socket"))
        super().connection_made(transport)
        if isinstance(transport, asyncio.WriteTransport):
            transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)

    @override
    def data_received(self, data: bytes, datatype: asyncssh.DataType = None) -> None:
        if self.peer.stage is not Stage.OPEN:
            self._received += len(data)
            if self._received > LONGEST_HANDSHAKE:
                self._cut_off(f"more than {LONGEST_HANDSHAKE} bytes before the login was done")
                return
        super().data_received(data, datatype)
        if len(self._inpbuf) > LONGEST_BACKLOG:
            self._cut_off(f"more than {LONGEST_BACKLOG} bytes in one packet")

    @override
    def pause_writing(self) -> None:
        """The host does not read what it asked for: it is not read from either until it does."""
        self._reading(False)

    @override
    def resume_writing(self) -> None:
        self._reading(True)

    def _reading(self, on: bool) -> None:
        if self._transport is not None and self._paused == on:
            self._paused = not on
            (self._transport.resume_reading if on else self._transport.pause_reading)()

    def _cut_off(self, why: str) -> None:
        self._inpbuf = b""
        self._force_close(asyncssh.ProtocolError(f"It sent {why}"))


def _let_the_kernel_watch(sock: socket.socket | None) -> None:
    """TCP's own probes find a host that vanished within 45 s and cost us nothing. A tunnel has no socket."""
    if sock is None:
        return
    for name, value in _KERNEL_KEEPALIVE.items():
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
