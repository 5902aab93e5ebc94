"""One SSH connection, and what the host at its other end cannot do to us.

asyncssh's own `connect` prepares some eighty options anew, in a thread, for every connection. Here they are prepared
once and copied (`dial.py`), and asyncssh's connection class is extended, which also lets us bound what a host may send.
These two modules are the only ones that rely on names asyncssh does not promise: `_options`, `_password`,
`_client_keys`, `_inpbuf`, `_transport`, `_loop`, `_force_close`, `_server_version`, `_server_kexinit`,
`_client_kexinit`, `_server_sig_algs`, `waiter`; and `channel.py`, on a channel's `_open`, `_make_request`, `_session`,
`_recv_paused`, `_send_state`.
"""

import asyncio
import logging
import socket
import time
from typing import Any

import asyncssh
from asyncssh.logging import SSHLogger
from asyncssh.packet import SSHPacketLogger
from typing_extensions import override

from server_monitor.ssh import algorithms
from server_monitor.ssh.failures import Stage
from server_monitor.ssh.pace import Pace
from server_monitor.ssh.peer import Peer
from server_monitor.telemetry import metrics

SLICE = 16_384  # bytes given to asyncssh at once; it copies what is left of them for every packet in them
MSG_IGNORE = 2  # RFC 4253, section 11.2
LONGEST_HANDSHAKE = 65_536  # bytes a host may send before it has let us in; a real one takes about 3,000
LONGEST_BACKLOG = 1_048_576  # bytes that may wait while asyncssh is busy with a packet
WRITE_HIGH_WATER = 65_536  # bytes we may owe a host that does not read, before we stop reading from it
MOST_REKEYS = 20  # key exchanges in a minute; each costs about 3 ms
REKEY_WINDOW_S = 60.0
SHELL_SHARE = 0.75  # of a core, while somebody works on the host in a shell: they wait for what it prints
SHELL_PROBE_S = 15.0  # a host that is silent for so long, with a shell open, is asked whether it still is there
SHELL_PROBES = 3  # unanswered ones, after which the connection is lost

SMALL_SLICE = 4_096  # bytes whose cost is taken from the wall clock: asking for CPU time costs more than they do
SMALL_SLICE_MOST_S = 0.003  # CPU that so few bytes can cost; beyond it we were made to wait

_KERNEL_KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 40_000}


class _Quiet(SSHLogger):
    """asyncssh describes every channel and prepares the words before it asks whether anybody reads them."""

    @override
    def log(self, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
        if level >= logging.WARNING:
            super().log(level, msg, *args, **kwargs)

    @override
    def get_child(self, child: str = "", context: str = "") -> SSHLogger:
        return self


_quiet = _Quiet(logging.getLogger("asyncssh"))


class Connection(asyncssh.SSHClientConnection):
    """An SSH connection whose host is not trusted with our memory."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, options: asyncssh.SSHClientConnectionOptions, peer: Peer, pace: Pace
    ) -> None:
        super().__init__(loop, options, wait="auth")
        self.peer = peer
        self.closed_by_us = False
        self._was_made = False
        self._was_lost = False
        self._received = 0
        self._pace = pace
        self._resting: asyncio.TimerHandle | None = None
        self._waiting = b""  # what arrived while the host has to wait
        self._unread = False  # the host does not read what we send
        self._exchanges = 0
        self._exchanges_since = 0.0
        self._usual_share = pace.share
        self.shells = 0

    @property
    @override
    def logger(self) -> SSHLogger:
        return _quiet

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

    @override
    def close(self) -> None:
        """End the connection because nobody wants it any more; its channels are told that nothing was wrong."""
        self.closed_by_us = True
        super().close()

    def shell_opened(self, probe_s: float = SHELL_PROBE_S) -> None:
        """A person works in a shell here: serve the host more readily, and notice when it freezes."""
        self.shells += 1
        self._pace.share = max(SHELL_SHARE, self._usual_share)
        self.set_keepalive(probe_s, SHELL_PROBES)

    def shell_closed(self) -> None:
        self.shells -= 1
        if self.shells == 0:
            self._pace.share = self._usual_share
            self.set_keepalive(0)

    def settle(self, base: asyncssh.SSHClientConnectionOptions) -> None:
        """Let go of what was needed to connect: the copied options, and with them every secret."""
        self._options = base
        self._password = None
        self._client_keys = []
        self._server_sig_algs = set()
        self._client_kexinit = b""
        self._server_kexinit = b""

    @property
    def has_spoken(self) -> bool:
        """Did the host send anything at all?"""
        return self._received > 0

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
    def send_packet(self, pkttype: int, *args: bytes, handler: SSHPacketLogger | None = None) -> None:
        """asyncssh puts an empty packet before each one, which protects CBC ciphers; we speak none of those."""
        if pkttype != MSG_IGNORE:
            super().send_packet(pkttype, *args, handler=self)

    @override
    def log_sent_packet(self, pkttype: int, pktid: int | None, packet: object, note: str = "") -> None:
        """Nothing: describing each packet for a log that nobody reads costs as much as encrypting it."""

    @override
    def connection_lost(self, exc: Exception | None = None) -> None:
        """The end. A host that disliked our algorithms closes at once, while we are still reading its own: let us
        finish, because that says why. Two turns of the loop are the packet and what follows from it.
        """
        if self.stage_reached is Stage.KEX and not self._was_lost:
            self._was_lost = True
            self._loop.call_soon(self._loop.call_soon, self.connection_lost, exc)
        else:
            super().connection_lost(exc)

    @override
    def data_received(self, data: bytes, datatype: asyncssh.DataType = None) -> None:
        if self._resting is not None:
            self._waiting += data
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Give the bytes to asyncssh in slices, until they are done or the host has had its share of our time."""
        for start in range(0, len(data), SLICE):
            is_small = len(data) - start <= SMALL_SLICE
            clock = time.monotonic if is_small else time.thread_time
            before_s = clock()
            if not self._feed(data[start : start + SLICE]):
                return
            now_s = time.monotonic()
            # Waiting for other processes is not the host's fault: what counts is CPU of ours.
            spent_s = min(now_s - before_s, SMALL_SLICE_MOST_S) if is_small else time.thread_time() - before_s
            rest_s = self._pace.spend(spent_s, now_s)
            if rest_s:
                self._rest(rest_s, data[start + SLICE :])
                return

    def _feed(self, data: bytes) -> bool:
        """False when the connection is over."""
        if self.peer.stage is not Stage.OPEN:
            self._received += len(data)
            if self._received > LONGEST_HANDSHAKE:
                self._cut_off(f"more than {LONGEST_HANDSHAKE} bytes before the login was done")
        super().data_received(data)
        if len(self._inpbuf) > LONGEST_BACKLOG:
            self._cut_off(f"more than {LONGEST_BACKLOG} bytes in one packet")
        return self._transport is not None

    def _rest(self, rest_s: float, waiting: bytes) -> None:
        metrics.ssh_rests.inc()
        self._waiting = waiting
        self._resting = self._loop.call_later(rest_s, self._go_on)
        self._choose_reading()

    def _go_on(self) -> None:
        self._resting = None
        waiting, self._waiting = self._waiting, b""
        if self._transport is not None:
            self._take(waiting)
            self._choose_reading()

    @override
    def pause_writing(self) -> None:
        """The host does not read what it asked for: it is not read from either until it does."""
        self._unread = True
        self._choose_reading()

    @override
    def resume_writing(self) -> None:
        self._unread = False
        self._choose_reading()

    def _choose_reading(self) -> None:
        if self._transport is None:
            return
        if self._unread or self._resting is not None:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    @override
    def send_newkeys(self, k: bytes, h: bytes) -> None:
        """The end of a key exchange. A host may ask for one at any time, but not for one after another."""
        now = time.monotonic()
        if now - self._exchanges_since > REKEY_WINDOW_S:
            self._exchanges_since, self._exchanges = now, 0
        self._exchanges += 1
        if self._exchanges > MOST_REKEYS:
            raise asyncssh.ProtocolError(f"It asked for more than {MOST_REKEYS} key exchanges in a minute")
        super().send_newkeys(k, h)

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
