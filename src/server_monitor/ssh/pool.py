"""One connection to each server, shared by everybody who works on it.

    pool = Pool(db, vault, Limits(), agent_socket="/run/user/1000/agent")
    channel = await pool.open_channel(target, "uptime", on_data=..., on_closed=...)

Whoever asks first connects; whoever asks meanwhile waits for the same attempt and shares its outcome. A connection is
kept until it breaks, the way to its server is changed, or the pool closes. Nobody logs in to a host whose key was not
accepted.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from server_monitor.db.engine import Database
from server_monitor.errors import NotFound, Unavailable, Unreachable
from server_monitor.ssh import agent, algorithms, hostkeys
from server_monitor.ssh.channel import DEFAULT_WINDOW, Channel, OnClosed, OnData, Pty, open_on
from server_monitor.ssh.connection import SHELL_PROBE_S, Connection
from server_monitor.ssh.dial import Dialler, Login, base_options
from server_monitor.ssh.failures import Stage, timed_out, unreachable
from server_monitor.ssh.hostkeys import HostKey, HostKeyChanged, HostKeyUnknown
from server_monitor.ssh.logins import Known, Logins
from server_monitor.ssh.pace import SHARE
from server_monitor.ssh.vault import Vault, VaultUnreadable
from server_monitor.telemetry import metrics
from server_monitor.telemetry.logs import logger

log = logger(__name__)

MOST_JUMPS = 8
CLOSE_TIMEOUT_S = 2.0
SHELL_WINDOW = 262_144
# Shells on the connection that everybody shares. OpenSSH gives ten channels on each, and tasks need some of them.
SHELLS_SHARED = 4


@dataclass(frozen=True, slots=True)
class Target:
    """A server as SSH sees it. `auth` is agent, key or password; `jump` is the server to go through.

    One that was only renamed is the same target, and its connection stays.
    """

    server_id: str
    name: str = field(compare=False)
    host: str
    port: int
    username: str
    auth: str
    credential_id: str | None = None
    jump: "Target | None" = None

    @property
    def place(self) -> str:
        return f"{self.host} port {self.port}"


@dataclass(frozen=True, slots=True)
class Limits:
    connect_concurrency: int = 50
    connect_timeout_s: float = 10.0  # from TCP to logged in, for each host on the way; also for opening a channel
    host_cpu_share: float = SHARE  # of a core that one host may keep busy
    shell_probe_s: float = SHELL_PROBE_S


@dataclass(slots=True, eq=False)
class _Attempt:
    """Somebody is connecting. `settled` becomes the failure to share, or None: look again."""

    target: Target
    settled: asyncio.Future[Unreachable | Unavailable | None]


@dataclass(slots=True, eq=False)
class _Held:
    target: Target
    connection: Connection


class Pool:
    def __init__(self, db: Database, vault: Vault, limits: Limits, *, agent_socket: str | None = None) -> None:
        self._db = db
        self._logins = Logins(db, vault)
        self._limits = limits
        self._agent_socket = agent_socket or None
        self._base = base_options()
        self._slots = asyncio.Semaphore(limits.connect_concurrency)
        self._held: dict[str, _Held] = {}
        self._attempts: dict[str, _Attempt] = {}
        self._apart: dict[Connection, str] = {}  # connections that each carry one shell, and to which server

    async def connect(self, target: Target) -> Connection:
        """The open connection to this server. Raises Unreachable with the reason why there is none.

        Raises Unavailable when a new one is needed and the database, which knows how to log in, cannot be asked.
        """
        _refuse_loops(target)
        while True:
            held = self._held.get(target.server_id)
            if held is not None and held.target == target and held.connection.is_usable:
                return held.connection
            attempt = self._attempts.get(target.server_id)
            if attempt is None:
                return await self._lead(target)
            failure = await asyncio.shield(attempt.settled)
            if failure is not None and attempt.target == target:
                raise failure.with_traceback(None)

    async def open_channel(
        self,
        target: Target,
        command: str,
        on_data: OnData,
        on_closed: OnClosed,
        on_stderr: OnData | None = None,
        *,
        window_bytes: int = DEFAULT_WINDOW,
    ) -> Channel:
        """Start `command` on the server; its bytes come by the callbacks. Raises Unreachable, Unavailable."""
        connection = await self.connect(target)
        channel = Channel(on_data, on_closed, on_stderr)
        await self._open_on(connection, target, channel, command, window_bytes)
        return channel

    async def open_shell(self, target: Target, pty: Pty, on_data: OnData, on_closed: OnClosed) -> Channel:
        """Start the account's own shell in a terminal on the server. Raises Unreachable.

        On the connection that everybody shares while there is room for it, else on one of its own.
        """
        connection = await self.connect(target)
        if connection.shells < SHELLS_SHARED:
            try:
                return await self._shell_on(connection, target, pty, on_data, on_closed)
            except Unreachable as refused:
                if refused.reason not in {"channel_refused", "connection_lost"}:
                    raise
        connection = await self._connected(target)
        self._apart[connection] = target.server_id
        self._count()
        connection.peer.on_lost = lambda _: self._let_go(connection)
        try:
            return await self._shell_on(connection, target, pty, on_data, on_closed)
        except BaseException:
            self._let_go(connection)
            raise

    async def _shell_on(
        self, connection: Connection, target: Target, pty: Pty, on_data: OnData, on_closed: OnClosed
    ) -> Channel:
        is_open = True

        def closed(reason: str | None) -> None:
            # While we hang up, a host may still tell that the shell ended: of that, and not by itself.
            is_cut = connection.closed_by_us
            settle()
            on_closed("connection_lost" if is_cut else reason)

        def settle() -> None:
            nonlocal is_open
            if is_open:
                is_open = False
                connection.shell_closed()
                self._let_go(connection)

        connection.shell_opened(self._limits.shell_probe_s)
        channel = Channel(on_data, closed, None)
        try:
            await self._open_on(connection, target, channel, pty, SHELL_WINDOW)
        except BaseException:
            settle()
            raise
        return channel

    def _let_go(self, connection: Connection) -> None:
        """Close a connection that carried one shell. The shared one stays."""
        if self._apart.pop(connection, None) is not None:
            self._count()
            connection.close()

    async def _open_on(
        self, connection: Connection, target: Target, channel: Channel, what: str | Pty, window_bytes: int
    ) -> None:
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                await open_on(connection, channel, what, window_bytes)
        except TimeoutError:
            # Not even a refusal: the connection is of no use to anybody.
            self._discard(target.server_id, connection)
            raise timed_out(Stage.OPEN, target.place, self._limits.connect_timeout_s) from None
        except Exception as error:
            raise unreachable(error, Stage.OPEN, target.place) from error

    async def scan(self, target: Target) -> list[HostKey]:
        """The host keys that the server shows, best first. Nobody tries to log in. Raises Unreachable."""
        _refuse_loops(target)
        through = await self._through(target)
        async with self._slots, asyncio.TaskGroup() as tasks:
            scans = [tasks.create_task(self._shown(target, through, family)) for family in algorithms.HOST_KEY_FAMILIES]
        outcomes = [scan.result() for scan in scans]
        keys = [outcome for outcome in outcomes if isinstance(outcome, HostKey)]
        if not keys:
            raise next(outcome for outcome in outcomes if isinstance(outcome, Unreachable))
        return keys

    async def drop(self, server_id: str) -> None:
        """Close the connection to a server that was edited, removed or disabled; an attempt under way is void."""
        attempt = self._attempts.pop(server_id, None)
        if attempt is not None and not attempt.settled.done():
            attempt.settled.set_result(None)
        held = self._held.pop(server_id, None)
        if held is not None:
            held.connection.close()
            self._count()
        for connection in [one for one, server in self._apart.items() if server == server_id]:
            self._let_go(connection)

    async def close(self) -> None:
        """Close every connection, those that lead through another one first."""
        for attempt in self._attempts.values():
            if not attempt.settled.done():
                attempt.settled.set_result(None)
        self._attempts.clear()
        held = sorted(self._held.values(), key=lambda each: _depth(each.target), reverse=True)
        self._held.clear()
        connections = [*self._apart, *(each.connection for each in held)]
        self._apart.clear()
        self._count()
        for connection in connections:
            connection.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                for connection in connections:
                    await connection.wait_closed()
        except TimeoutError:
            log.warning("ssh_close_timed_out", connections=len(connections))

    async def _lead(self, target: Target) -> Connection:
        """Connect for everybody who asks meanwhile. Whoever is cancelled here leaves the work to the next one."""
        attempt = _Attempt(target, asyncio.get_running_loop().create_future())
        self._attempts[target.server_id] = attempt
        failure: Unreachable | Unavailable | None = None
        try:
            connection = await self._connected(target)
            return self._keep(attempt, connection)
        except (Unreachable, Unavailable) as error:
            failure = error
            raise
        finally:
            if self._attempts.get(target.server_id) is attempt:
                del self._attempts[target.server_id]
            if not attempt.settled.done():
                attempt.settled.set_result(failure)

    def _keep(self, attempt: _Attempt, connection: Connection) -> Connection:
        target = attempt.target
        if self._attempts.get(target.server_id) is not attempt:
            connection.close()
            raise Unreachable("connection_lost", f"{target.place} was changed or removed while connecting.")
        self._close_held(target.server_id)
        self._held[target.server_id] = _Held(target, connection)
        self._count()
        connection.peer.on_lost = lambda _: self._discard(target.server_id, connection)
        return connection

    def _discard(self, server_id: str, connection: Connection) -> None:
        held = self._held.get(server_id)
        if held is not None and held.connection is connection:
            self._close_held(server_id)

    def _close_held(self, server_id: str) -> None:
        held = self._held.pop(server_id, None)
        if held is not None:
            held.connection.abort()
            self._count()

    def _count(self) -> None:
        metrics.ssh_connections.set(len(self._held) + len(self._apart))

    async def _connected(self, target: Target) -> Connection:
        try:
            connection = await self._dialled(target)
        except Unreachable as failure:
            metrics.ssh_connects.labels(failure.reason).inc()
            raise
        metrics.ssh_connects.labels("connected").inc()
        return connection

    async def _dialled(self, target: Target) -> Connection:
        # First the jump, which needs a slot of its own: with the slot taken, fifty targets behind one jump would wait
        # for each other until they time out.
        through = await self._through(target)
        known = await self._known(target)
        login = self._login(target, known)
        preference = algorithms.host_key_preference(key.key_type for key in known.pinned)
        dialler = self._dialler(target, login, known.pinned, preference)
        try:
            async with self._slots, self._deadline(dialler):
                connection = await dialler.open(through)
        except HostKeyUnknown as refused:
            if refused.offered not in known.offered:  # A host that nobody accepts is tried again and again.
                await self._record(target, refused.offered)
            raise
        except HostKeyChanged as refused:
            await self._record(target, refused.offered)  # even when it is known: the newest offer is the alarm's
            raise
        except Unreachable as failure:
            raise await self._blame_the_agent(failure, login) from failure
        await self._forget_stale_offers(target, known)
        return connection

    async def _through(self, target: Target) -> Connection | None:
        if target.jump is None:
            return None
        try:
            return await self.connect(target.jump)
        except Unreachable as error:
            raise Unreachable("jump_failed", f"The jump server {target.jump.name} cannot be used: {error}") from error

    async def _known(self, target: Target) -> Known:
        try:
            return await self._logins.known(target.server_id, target.credential_id)
        except (NotFound, VaultUnreadable) as error:
            raise Unreachable("credential_missing", str(error)) from error

    def _login(self, target: Target, known: Known) -> Login:
        if not known.pinned:
            return Login(target.username)  # Nobody will log in: this connection only shows us the host's key.
        if target.auth == "agent":
            if self._agent_socket is None:
                raise Unreachable("credential_missing", "No SSH agent is known: SSH_AUTH_SOCK was not set at start.")
            return Login(target.username, agent_socket=self._agent_socket)
        if known.secret is None:
            raise Unreachable("credential_missing", f"{target.name} has no stored {target.auth} to log in with.")
        return Login(target.username, key=known.secret.key, password=known.secret.password)

    async def _blame_the_agent(self, failure: Unreachable, login: Login) -> Unreachable:
        """A refused login whose cause is an agent that is gone or empty, and not the host."""
        if failure.reason != "auth_failed" or login.agent_socket is None:
            return failure
        trouble = await agent.trouble(login.agent_socket)
        return failure if trouble is None else Unreachable("credential_missing", trouble)

    async def _record(self, target: Target, key: HostKey) -> None:
        async with self._db.transaction() as conn:
            await hostkeys.record_offer(conn, target.server_id, key)

    async def _forget_stale_offers(self, target: Target, known: Known) -> None:
        """The host showed its accepted key: whoever showed another one of that type is gone."""
        with suppress(Unavailable):  # The next connection tries again.
            for key in known.pinned:
                if any(offer.key_type == key.key_type for offer in known.offered):
                    await self._record(target, key)

    async def _shown(self, target: Target, through: Connection | None, family: Sequence[str]) -> HostKey | Unreachable:
        """The key of this family that the host shows, or why none. No key is pinned here, so none is accepted."""
        dialler = self._dialler(target, Login(target.username), pinned=(), preference=family)
        try:
            async with self._deadline(dialler):
                await dialler.open(through)
        except HostKeyUnknown as shown:
            return shown.offered
        except Unreachable as failure:
            return failure
        raise AssertionError("a connection without a pinned key cannot open")

    def _dialler(self, target: Target, login: Login, pinned: Sequence[HostKey], preference: Sequence[str]) -> Dialler:
        return Dialler(
            self._base,
            host=target.host,
            port=target.port,
            login=login,
            pinned=pinned,
            host_key_algorithms=preference,
            cpu_share=self._limits.host_cpu_share,
        )

    @asynccontextmanager
    async def _deadline(self, dialler: Dialler) -> AsyncIterator[None]:
        timeout_s = self._limits.connect_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError:
            raise timed_out(dialler.stage_reached, dialler.place, timeout_s) from None


def _refuse_loops(target: Target) -> None:
    seen: set[str] = set()
    each: Target | None = target
    while each is not None:
        if each.server_id in seen:
            raise Unreachable("jump_failed", f"{target.name} is reached through itself: change its jump server.")
        seen.add(each.server_id)
        each = each.jump
    if len(seen) > MOST_JUMPS + 1:
        raise Unreachable("jump_failed", f"{target.name} is behind more than {MOST_JUMPS} jump servers.")


def _depth(target: Target) -> int:
    return 0 if target.jump is None else 1 + _depth(target.jump)
