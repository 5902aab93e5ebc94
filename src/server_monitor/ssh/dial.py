"""From a name and a port to an open, judged and logged-in connection."""

import asyncio
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncssh

from server_monitor.errors import Unreachable
from server_monitor.ssh import algorithms
from server_monitor.ssh.connection import Connection
from server_monitor.ssh.failures import Stage, quoted, unreachable
from server_monitor.ssh.hostkeys import HostKey
from server_monitor.ssh.pace import Pace
from server_monitor.ssh.peer import Peer

JUMP_WINDOW = 262_144

_TRUSTED_BY_LIST: tuple[list[Any], ...] = ([], [], [])  # nothing: the decision is always `Peer`'s


@dataclass(frozen=True, slots=True)
class Login:
    """How to log in. The secrets are let go as soon as the host has let us in."""

    username: str
    key: asyncssh.SSHKey | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    agent_socket: str | None = None

    @property
    def methods(self) -> list[str]:
        return ["publickey"] if self.password is None else ["password", "keyboard-interactive"]


def base_options() -> asyncssh.SSHClientConnectionOptions:
    """Everything that is the same for every connection. Takes a quarter of a millisecond, so keep it."""
    return asyncssh.SSHClientConnectionOptions(
        config=None,
        known_hosts=_TRUSTED_BY_LIST,
        client_version="server-monitor",
        kex_algs=algorithms.KEY_EXCHANGES,
        encryption_algs=algorithms.CIPHERS,
        mac_algs=algorithms.MACS,
        compression_algs=algorithms.COMPRESSIONS,
        signature_algs=algorithms.LOGIN_SIGNATURES,
        x509_trusted_certs=None,
        gss_host=None,
        host_based_auth=False,
        client_keys=None,
        agent_path=None,
        agent_forwarding=False,
        x11_forwarding=False,
        env=None,
        send_env=None,
        login_timeout=0,  # the deadline is the caller's, and covers more
        rekey_seconds=0,  # after a gigabyte only: connections made together would all do it in the same second
        keepalive_interval=0,  # the probe's tick is one, and the kernel watches the rest
        encoding=None,
        utf8_decode_errors="replace",
        request_pty=False,
        username="nobody",
    )


class Dialler:
    """Opens connections to one host, one after another address, until one is open or refused for good."""

    def __init__(
        self,
        base: asyncssh.SSHClientConnectionOptions,
        *,
        host: str,
        port: int,
        login: Login,
        pinned: Sequence[HostKey],
        host_key_algorithms: Sequence[str],
        cpu_share: float,
    ) -> None:
        self._base = base
        self._host = host
        self._port = port
        self._login = login
        self._pinned = pinned
        self._algorithms = host_key_algorithms
        self._cpu_share = cpu_share
        self._connection: Connection | None = None

    @property
    def place(self) -> str:
        return f"{self._host} port {self._port}"

    @property
    def stage_reached(self) -> Stage:
        return self._connection.stage_reached if self._connection is not None else Stage.DIAL

    async def open(self, through: asyncssh.SSHClientConnection | None) -> Connection:
        """An open connection. The caller sets the deadline. Raises Unreachable."""
        options = self._options()
        try:
            connection = await self._connected(options, through)
            await options.waiter  # type: ignore[misc]
        except Exception as error:
            raise self._explained(error) from error
        finally:
            self._release(options.waiter)
        if not connection.is_usable:
            raise self._explained(asyncssh.ConnectionLost(""))
        connection.settle(self._base)
        return connection

    def _options(self) -> asyncssh.SSHClientConnectionOptions:
        options = copy.copy(self._base)
        options.host = self._host
        options.port = self._port
        options.username = self._login.username
        options.preferred_auth = self._login.methods
        options.password = None  # `Peer` gives it, once
        options.client_keys = asyncssh.load_keypairs([self._login.key]) if self._login.key is not None else ()
        options.agent_path = self._login.agent_socket
        options.server_host_key_algs = self._algorithms
        options.waiter = asyncio.get_running_loop().create_future()
        return options

    async def _connected(
        self, options: asyncssh.SSHClientConnectionOptions, through: asyncssh.SSHClientConnection | None
    ) -> Connection:
        loop = asyncio.get_running_loop()

        def new() -> Connection:
            peer = Peer(self._pinned, self._login.password)
            options.protocol_factory = lambda: peer
            self._connection = Connection(loop, options, peer, Pace(self._cpu_share))
            return self._connection

        if through is not None:
            await self._tunnel(through, new)
        else:
            await loop.create_connection(new, self._host, self._port)
        assert self._connection is not None
        return self._connection

    async def _tunnel(self, through: asyncssh.SSHClientConnection, new: Callable[[], Connection]) -> None:
        try:
            await through.create_connection(new, self._host, self._port, window=JUMP_WINDOW)  # type: ignore[arg-type]
        except asyncssh.ChannelOpenError as error:
            raise Unreachable(
                "jump_failed", f"The jump server does not get through to {self.place}: {quoted(error.reason)}."
            ) from error

    def _explained(self, error: Exception) -> Unreachable:
        connection, stage = self._connection, self.stage_reached
        if connection is None:
            return unreachable(error, stage, self.place)
        if (refused := connection.peer.judgement()) is not None:
            return refused
        if stage is Stage.KEX and not connection.shared_host_keys():
            return Unreachable("weak_algorithms", f"{self.place} has no host key of a type that is safe enough.")
        if stage is Stage.BANNER and connection.has_spoken:
            return Unreachable("not_ssh", f"What answers at {self.place} is not an SSH server.")
        return unreachable(error, stage, self.place)

    def _release(self, waiter: asyncio.Future[None] | None) -> None:
        """After a failure or a cancellation nothing stays open and nobody waits for the outcome."""
        if waiter is not None and (not waiter.done() or waiter.cancelled() or waiter.exception() is not None):
            waiter.cancel()
            if self._connection is not None:
                self._connection.abort()
