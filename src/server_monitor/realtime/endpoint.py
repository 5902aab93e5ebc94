"""`/ws/live`: who may open it, what a browser may say on it, and when it is closed.

A browser shows its session cookie and must come from our own pages, which its `Origin` tells; a program shows a bearer
token. What the actor may see is asked again every half minute and whenever rows about access change.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from server_monitor.auth import handshake
from server_monitor.auth.actor import Actor, Permission, groups_allowing
from server_monitor.auth.bucket import Bucket
from server_monitor.auth.handshake import Refusal
from server_monitor.bus.contract import Bus, Changed, Subject
from server_monitor.errors import Failure, NotFound, Unavailable
from server_monitor.realtime import messages
from server_monitor.realtime.hub import Browser, Close, Hub, Interest, Watching
from server_monitor.telemetry.logs import logger

POLICY_VIOLATION = 1008
TOO_BIG = 1009
LOGGED_OUT = 4401

# Audit actions after which a session may have ended or an actor may see other servers. A login ends the one before it.
_ABOUT_ACCESS = ("user.", "token.", "session.", "group.", "server.", "auth.logout", "auth.login")
# Audit actions after which the list of servers reads differently.
_ABOUT_SERVERS = ("server.", "group.", "host_key.")
# Audit actions after which the list of runs reads differently.
_ABOUT_RUNS = ("task.",)

Found = TypeVar("Found")

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Access:
    """What the endpoint asks of the rest of the console; `lifecycle/wiring.py` hands it over.

    `visible_servers` returns None when the actor sees the whole fleet. `find_servers` returns those of the given ids
    that exist and that the actor may see. `find_run` returns the servers whose tasks of this run they may see, None for
    all of them; it raises NotFound when there are none. `actions_since` names the audited actions from a sequence
    number on.
    """

    authenticate: Callable[[str | None, str | None], Awaitable[Actor | None]]  # cookie, bearer token
    still_valid: Callable[[Actor], Awaitable[Actor | None]]
    visible_servers: Callable[[Actor], Awaitable[frozenset[str] | None]]
    find_servers: Callable[[Actor, Collection[str]], Awaitable[frozenset[str]]]
    find_run: Callable[[Actor, str], Awaitable[frozenset[str] | None]]
    actions_since: Callable[[int], Awaitable[Collection[str]]]


@dataclass(frozen=True, slots=True)
class Rules:
    """Bounds of a connection. A message costs one token of a bucket that refills `messages_per_second`."""

    cookie_names: tuple[str, ...] = ("server_monitor_session",)  # over HTTPS it has another; the first found counts
    allowed_origins: frozenset[str] = frozenset()
    sockets: int = 12_000
    sockets_per_user: int = 32
    messages_burst: int = 30
    messages_per_second: float = 5.0
    send_timeout_s: float = 30.0
    reauthorise_interval_s: float = 30.0


@dataclass(slots=True, eq=False)
class _Connection:
    """An accepted socket: its actor, its outbox, and what it asked for."""

    actor: Actor
    browser: Browser
    wanted: messages.Subscribe | None = None


class Live:
    """The endpoint and all its connections. `serve` handles one socket; `run` keeps their rights true."""

    def __init__(self, hub: Hub, bus: Bus, access: Access, rules: Rules | None = None) -> None:
        self._hub = hub
        self._bus = bus
        self._access = access
        self._rules = rules or Rules()
        self._connections: set[_Connection] = set()
        self._opened: Counter[str] = Counter()
        self._audit_size: int | None = None

    # --- one socket -----------------------------------------------------------------------------------------------

    async def serve(self, socket: WebSocket) -> None:
        """Handle one socket from its handshake to its end."""
        actor = await self._admit(socket)
        if isinstance(actor, Refusal):
            await socket.send_denial_response(_problem(actor))
            return
        async with self._open(actor) as connection:
            await socket.accept()
            connection.browser.notice(messages.hello(time.time()))
            with suppress(WebSocketDisconnect):
                await self._talk(socket, connection)

    async def _admit(self, socket: WebSocket) -> Actor | Refusal:
        bearer = handshake.bearer(socket.headers.get("authorization"))
        if bearer is None and not self._is_own_page(socket):
            return handshake.FOREIGN_PAGE
        try:
            cookie = next((socket.cookies[name] for name in self._rules.cookie_names if name in socket.cookies), None)
            actor = await self._access.authenticate(cookie, bearer)
        except Unavailable as error:
            return Refusal(503, error.code, str(error))
        if actor is None:
            return handshake.NOT_LOGGED_IN
        if len(self._connections) >= self._rules.sockets:
            return Refusal(503, "unavailable", "This console has as many live connections as it may have.")
        if self._opened[_owner(actor)] >= self._rules.sockets_per_user:
            return Refusal(429, "too_many_requests", "Close a tab: this user has too many live connections.")
        return actor

    def _is_own_page(self, socket: WebSocket) -> bool:
        host = socket.headers.get("host", "")
        return handshake.is_own_page(socket.headers.get("origin"), host, self._rules.allowed_origins)

    @asynccontextmanager
    async def _open(self, actor: Actor) -> AsyncIterator[_Connection]:
        connection = _Connection(actor, self._hub.join())
        self._connections.add(connection)
        self._opened[_owner(actor)] += 1
        try:
            yield connection
        finally:
            self._connections.discard(connection)
            self._opened[_owner(actor)] -= 1
            if not self._opened[_owner(actor)]:
                del self._opened[_owner(actor)]
            self._hub.leave(connection.browser)

    async def _talk(self, socket: WebSocket, connection: _Connection) -> None:
        """Read and write until either side has finished; the other then has nothing left to do."""
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read(socket, connection))
            writing = tasks.create_task(self._write(socket, connection.browser))
            await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
            reading.cancel()
            writing.cancel()

    async def _write(self, socket: WebSocket, browser: Browser) -> None:
        while not isinstance(item := await browser.next(), Close):
            try:
                async with asyncio.timeout(self._rules.send_timeout_s):
                    await socket.send_text(item)
            except TimeoutError:
                log.info("live_reader_stalled", timeout_s=self._rules.send_timeout_s)
                return
            except WebSocketDisconnect:
                return
        await _close(socket, item)

    async def _read(self, socket: WebSocket, connection: _Connection) -> None:
        bucket = Bucket(self._rules.messages_burst, self._rules.messages_per_second)
        while (received := await socket.receive())["type"] == "websocket.receive":
            text = received.get("text")
            if not bucket.take():
                connection.browser.close(Close(POLICY_VIOLATION, "too many messages"))
            elif len(text or received.get("bytes") or b"") > messages.MESSAGE_LIMIT_BYTES:
                connection.browser.close(Close(TOO_BIG, "the message is too long"))
            elif text is None:
                connection.browser.notice(messages.error("invalid", "Send text frames."))
            else:
                await self._obey(connection, text)

    async def _obey(self, connection: _Connection, text: str) -> None:
        try:
            message = messages.parse(text)
        except messages.MalformedError as error:
            connection.browser.notice(messages.error(error.code, str(error)))
            return
        if isinstance(message, messages.Ping):
            connection.browser.notice(messages.pong(time.time()))
            return
        try:
            await self._show(connection, message)
        except Failure as error:
            connection.browser.notice(messages.error(error.code, str(error)))

    async def _show(
        self, connection: _Connection, message: messages.Subscribe | messages.Watch | messages.Unwatch
    ) -> None:
        if isinstance(message, messages.Subscribe):
            interest = await _as_of_now(connection, lambda actor: self._interest(actor, message))
            connection.wanted = message
            self._hub.subscribe(connection.browser, interest)
            connection.browser.notice(messages.subscribed(message))
        else:
            run_id = message.run if isinstance(message, messages.Watch) else None
            watching = await _as_of_now(connection, lambda actor: self._watching(actor, run_id))
            self._hub.watch(connection.browser, watching)
            connection.browser.notice(messages.watching(run_id))

    async def _interest(self, actor: Actor, wanted: messages.Subscribe) -> Interest:
        """What `wanted` means for this actor. Raises NotFound for a server that they do not see."""
        if wanted.servers == "all":
            return Interest(await self._access.visible_servers(actor), detailed=False, rate_s=wanted.rate_s)
        found = await self._access.find_servers(actor, wanted.servers)
        for server_id in wanted.servers:
            if server_id not in found:
                raise NotFound("server", server_id)
        return Interest(found, detailed=True, rate_s=wanted.rate_s)

    async def _watching(self, actor: Actor, run_id: str | None) -> Watching | None:
        """Raises NotFound for a run of which the actor sees nothing."""
        return None if run_id is None else Watching(run_id, await self._access.find_run(actor, run_id))

    # --- all sockets ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ask again what everybody may see, regularly and after each change that matters, until cancelled."""
        with self._bus.subscribe(Subject.CHANGED, queue_size=1) as subscription:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._reauthorise_regularly())
                async for message in subscription:
                    if isinstance(message, Changed):
                        await self._react(message)

    async def _reauthorise_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._rules.reauthorise_interval_s)
            try:
                await self._reauthorise()
            except Unavailable as error:
                log.warning("live_rights_not_checked", detail=str(error))

    async def _react(self, change: Changed) -> None:
        try:
            actions = await self._actions_until(change.size)
            await self._apply_actions(actions)
        except Unavailable as error:
            self._audit_size = None
            log.warning("live_rights_not_checked", detail=str(error))

    async def _apply_actions(self, actions: Collection[str] | None) -> None:
        if actions is None or _any_about(actions, _ABOUT_ACCESS):
            await self._reauthorise()
        if actions is None or _any_about(actions, _ABOUT_SERVERS):
            for connection in self._connections:
                connection.browser.notice(messages.changed("servers"))
        # While tasks run this is said as often as CHANGED is: once a second.
        if actions is None or _any_about(actions, _ABOUT_RUNS):
            for connection in self._connections:
                if _sees_runs(connection.actor):
                    connection.browser.notice(messages.changed("runs"))

    async def _actions_until(self, size: int) -> Collection[str] | None:
        """What happened since the last time, or None when that is not known."""
        earlier, self._audit_size = self._audit_size, size
        return None if earlier is None else await self._access.actions_since(earlier)

    async def _reauthorise(self) -> None:
        by_login: dict[tuple[object, ...], list[_Connection]] = {}
        for connection in self._connections:
            by_login.setdefault(_login(connection.actor), []).append(connection)
        for connections in by_login.values():
            actor = await self._access.still_valid(connections[0].actor)
            for connection in connections:
                await self._apply(connection, actor)

    async def _apply(self, connection: _Connection, actor: Actor | None) -> None:
        if actor is None:
            connection.browser.close(Close(LOGGED_OUT, "logged out"))
            return
        connection.actor = actor
        if connection.wanted is not None:
            await self._subscribe_again(connection, connection.wanted)
        if connection.browser.watching is not None:
            await self._watch_again(connection, connection.browser.watching)

    async def _subscribe_again(self, connection: _Connection, wanted: messages.Subscribe) -> None:
        try:
            interest: Interest | None = await self._interest(connection.actor, wanted)
            lost = None
        except NotFound as error:
            interest, lost = None, error
        # Something else may have been asked for meanwhile; it was judged on its own.
        if connection not in self._connections or connection.wanted is not wanted:
            return
        self._hub.subscribe(connection.browser, interest)
        if lost is not None:
            connection.wanted = None
            connection.browser.notice(messages.error(lost.code, str(lost)))

    async def _watch_again(self, connection: _Connection, earlier: Watching) -> None:
        try:
            now = await self._watching(connection.actor, earlier.run_id)
        except NotFound as error:
            now = None
            connection.browser.notice(messages.error(error.code, str(error)))
        # Another run may have been asked for meanwhile; it was judged on its own.
        if connection in self._connections and connection.browser.watching == earlier:
            self._hub.watch(connection.browser, now)


def _any_about(actions: Iterable[str], prefixes: tuple[str, ...]) -> bool:
    return any(action.startswith(prefixes) for action in actions)


def _sees_runs(actor: Actor) -> bool:
    return groups_allowing(actor, Permission.TASK_READ) != frozenset()


def _owner(actor: Actor) -> str:
    return actor.id or actor.name


def _login(actor: Actor) -> tuple[object, ...]:
    """Connections that are equal in this stand and fall together."""
    return (actor.kind, actor.id, actor.session_id, actor.token_id)


async def _as_of_now(connection: _Connection, ask: Callable[[Actor], Awaitable[Found]]) -> Found:
    """What somebody may see; asked again when their rights were looked at meanwhile, which may have taken some away."""
    while True:
        actor = connection.actor
        found = await ask(actor)
        if connection.actor is actor:
            return found


def _problem(refusal: Refusal) -> JSONResponse:
    return JSONResponse(refusal.problem(), refusal.status, media_type="application/problem+json")


async def _close(socket: WebSocket, close: Close) -> None:
    with suppress(WebSocketDisconnect):
        await socket.close(close.code, close.reason)
