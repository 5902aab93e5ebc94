"""Terminals without the rest of the console: a database, hosts that are real sshds, the desk and its socket.

async with running_terminals(db, sshds, directory) as console:
    person, server = await console.person(Role.OPERATOR), await console.host()
    async with console.screen(person, server) as screen:
        await screen.type("echo hello\\r")
        await screen.until(b"hello")
"""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from sqlalchemy import Row, insert, select, update
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from websockets.asyncio.client import ClientConnection, connect

from server_monitor.audit import log as audit_log
from server_monitor.auth import credentials, identity, sessions
from server_monitor.auth.actor import Actor, GroupId, Role, os_user
from server_monitor.bus.contract import Changed, Subject
from server_monitor.bus.memory import MemoryBus
from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id
from server_monitor.db.tables import grants, servers, terminal_sessions, users
from server_monitor.fleet.servers import Server
from server_monitor.ssh.pool import Limits as PoolLimits
from server_monitor.ssh.pool import Pool, Target
from server_monitor.terminal import recording
from server_monitor.terminal.bridge import Limits
from server_monitor.terminal.desk import DEFAULT_SIZE, Desk, Timing
from server_monitor.terminal.endpoint import Rules as SocketRules
from server_monitor.terminal.endpoint import Terminals
from server_monitor.terminal.events import OUTPUT
from server_monitor.terminal.library import Library
from server_monitor.terminal.sessions import Rules, Ticket
from server_monitor.terminal.shell import opener
from server_monitor.terminal.states import Size
from server_monitor.terminal.typed import Objection
from tests.ssh.conftest import Fleet
from tests.support.fleet import VAULT
from tests.support.patience import PATIENCE_S
from tests.support.recordings import KEYRING
from tests.support.sshd import Sshd, Sshds

QUICK = Timing(check_s=0.2, tick_s=0.02, heads_s=0.2, housekeeping_s=0.2)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is logged in at a browser."""

    actor: Actor
    cookie: str
    token: str | None = None  # of a program, in place of the cookie


class Screen:
    """A browser's end of a terminal: what it was shown, and the frames that it was sent besides."""

    def __init__(self, connection: ClientConnection, session_id: str) -> None:
        self.connection = connection
        self.session_id = session_id
        self.shown = bytearray()
        self.frames: list[dict[str, Any]] = []
        self.start = 0  # the position of the first byte that is shown
        self.is_drawing = True
        self.digest = hashlib.sha256()  # of all that was ever shown
        self.keep_bytes: int | None = None  # of what is shown; None keeps all
        self._news = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    @property
    def at(self) -> int:
        """The position of the shell that it has drawn up to."""
        return self.start + len(self.shown)

    async def begin(self, ticket: str, have: int = 0) -> None:
        self._reading = asyncio.create_task(self._read())
        await self.send(type="ticket", ticket=ticket, have=have)

    async def send(self, **frame: object) -> None:
        await self.connection.send(json.dumps(frame))

    async def type(self, text: str | bytes) -> None:
        await self.connection.send(text.encode() if isinstance(text, str) else text)

    async def run(self, command: str) -> bytes:
        """Type a command at a prompt, and return what was shown until it was done."""
        mark = new_id()
        before = len(self.shown)
        await self.type(f"{command}; echo {mark[:8]}''{mark[8:]}\r")
        await self.until(mark.encode())
        return bytes(self.shown[before:])

    async def run_raw(self, text: str, times: int) -> None:
        """Type the same again and again to a program that prints it back."""
        for _ in range(times):
            at = self.at
            await self.type(text)
            await self.wait(lambda at=at: self.at >= at + len(text))

    async def until(self, wanted: bytes, *, since: int = 0, within_s: float = PATIENCE_S) -> None:
        """Until this was shown, at or after a place in what is shown."""
        await self.wait(
            lambda: self.shown.find(wanted, since) >= 0,
            lambda: f"{wanted!r} in {bytes(self.shown[since:])[-2000:]!r}",
            within_s,
        )

    async def frame(self, kind: str) -> dict[str, Any]:
        """The first frame of this type that was not asked for before."""
        await self.wait(lambda: any(one["type"] == kind for one in self.frames), lambda: f"{kind} in {self.frames}")
        found = next(one for one in self.frames if one["type"] == kind)
        self.frames.remove(found)
        return found

    async def wait(
        self, happened: Callable[[], bool], what: Callable[[], str] = lambda: "", within_s: float = PATIENCE_S
    ) -> None:
        try:
            async with asyncio.timeout(within_s):
                while not happened():
                    assert self._reading is not None
                    if self._reading.done() and not happened():
                        raise AssertionError(f"closed with {self.connection.close_code} before {what()}: {self.frames}")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not in time: {what()}") from None

    async def closed(self) -> int | None:
        async with asyncio.timeout(PATIENCE_S):
            await self.connection.wait_closed()
            if self._reading is not None:
                await self._reading
        return self.connection.close_code

    async def cut(self) -> None:
        """The network is gone: no goodbye."""
        transport = self.connection.transport
        transport.abort()
        await self.closed()

    async def _read(self) -> None:
        try:
            async for message in self.connection:
                if isinstance(message, bytes):
                    self.shown += message
                    self.digest.update(message)
                    if self.keep_bytes is not None and len(self.shown) > self.keep_bytes:
                        self.start += len(self.shown) - self.keep_bytes
                        del self.shown[: -self.keep_bytes]
                    if self.is_drawing:
                        await self.send(type="ack", bytes=self.at)
                else:
                    frame = json.loads(message)
                    if frame["type"] == "ready":
                        self.shown.clear()
                        self.start = frame["from"]
                    self.frames.append(frame)
                self._news.set()
        except Exception as error:  # noqa: BLE001  # However it ends: the tests look at the close code.
            self.frames.append({"type": "error", "error": repr(error)})
        finally:
            self._news.set()


class TerminalConsole:
    """A desk with its socket. `person` logs somebody in, `host` starts a server, `screen` opens a terminal."""

    def __init__(  # noqa: PLR0917
        self, db: Database, sshds: Sshds, pool: Pool, library: Library, bus: MemoryBus, desk: Desk
    ) -> None:
        self.db = db
        self.pool = pool
        self.library = library
        self.bus = bus
        self.desk = desk
        self.url = ""
        self.objections: dict[str, Objection] = {}
        self.judged: list[str] = []
        self._sshds = sshds
        self._fleet = Fleet(db, VAULT)
        self._hosts: dict[str, Sshd] = {}
        self._targets: dict[str, Target] = {}

    async def object_to(self, line: str, _server: Server, _actor: Actor) -> Objection | None:
        self.judged.append(line)
        return self.objections.get(line)

    async def person(self, role: Role | None, groups: Mapping[GroupId, Role] | None = None) -> Person:
        """A new user at a browser."""
        user_id, now = new_id(), datetime.now(UTC)
        async with self.db.transaction() as conn:
            row = {"id": user_id, "name": f"user {user_id[-4:]}", "role": role, "created_at": now}
            await conn.execute(insert(users).values(**row))
            for group_id, group_role in (groups or {}).items():
                await conn.execute(insert(grants).values(group_id=group_id, user_id=user_id, role=group_role))
            started = await sessions.start(conn, user_id, ip="127.0.0.1", user_agent="tests", now=now)
        return Person(started.actor, started.cookie)

    async def login(self, person: Person) -> Person:
        """The same person at another browser."""
        async with self.db.transaction() as conn:
            user_id, now = str(person.actor.id), datetime.now(UTC)
            started = await sessions.start(conn, user_id, ip="127.0.0.2", user_agent="others", now=now)
        return Person(started.actor, started.cookie)

    async def token(self, person: Person, *scopes: str) -> Person:
        """The same person's program, with an API token of these scopes."""
        async with self.db.transaction() as conn:
            made = await credentials.create(conn, str(person.actor.id), "t", scopes, actor=os_user("tests"))
        async with self.db.reading() as conn:
            holder = await credentials.find(conn, made.secret, datetime.now(UTC))
        assert holder is not None
        return Person(holder.actor, "", made.secret)

    async def host(
        self, options: Mapping[str, str] | None = None, capability: str = "terminal", *, behind: str | None = None
    ) -> str:
        """A new host at capability terminal, reached through the server `behind`; the id of its server."""
        host = await asyncio.to_thread(self._sshds.start, options=options)
        target = await self._fleet.add_sshd(host, jump=self._targets[behind] if behind else None)
        self._targets[target.server_id] = target
        async with self.db.transaction() as conn:
            await conn.execute(update(servers).where(servers.c.id == target.server_id).values(capability=capability))
        self._hosts[target.server_id] = host
        return target.server_id

    def sshd(self, server_id: str) -> Sshd:
        return self._hosts[server_id]

    async def ask(self, person: Person, server_id: str, size: Size = DEFAULT_SIZE, reason: str | None = None) -> Ticket:
        return await self.desk.ask(server_id, size, reason, request_id="test-request", actor=person.actor)

    @asynccontextmanager
    async def screen(self, person: Person, server_id: str, size: Size = DEFAULT_SIZE) -> AsyncIterator[Screen]:
        """The terminal of a new session, at its first prompt."""
        ticket = await self.ask(person, server_id, size)
        async with self.socket(person, ticket) as screen:
            await screen.frame("ready")
            await screen.until(b"# " if os.geteuid() == 0 else b"$ ")
            yield screen

    @asynccontextmanager
    async def socket(self, person: Person | None, ticket: Ticket, have: int = 0) -> AsyncIterator[Screen]:
        """A socket that has shown this ticket."""
        async with self.connection(person, ticket.session_id) as connection:
            screen = Screen(connection, ticket.session_id)
            await screen.begin(ticket.secret, have)
            yield screen

    @asynccontextmanager
    async def connection(
        self, person: Person | None, session_id: str, **options: Any
    ) -> AsyncIterator[ClientConnection]:
        headers = {}
        if person is not None and person.token is not None:
            headers = {"Authorization": f"Bearer {person.token}"}
        elif person is not None:
            own = self.url.replace("ws://", "http://")
            headers = {"Cookie": f"server_monitor_session={person.cookie}", "Origin": own}
        headers |= options.pop("headers", {})
        async with connect(
            f"{self.url}/ws/terminal/{session_id}",
            additional_headers=headers,
            compression=None,
            proxy=None,
            max_size=None,
            **options,
        ) as connection:
            yield connection

    async def changed(self) -> None:
        """What a console does that sees its audit log grow."""
        async with self.db.reading() as conn:
            self.bus.publish(Subject.CHANGED, Changed(await audit_log.size(conn)))

    async def row(self, session_id: str) -> Row[Any]:
        async with self.db.reading() as conn:
            return (await conn.execute(select(terminal_sessions).where(terminal_sessions.c.id == session_id))).one()

    async def over(self, session_id: str) -> Row[Any]:
        """The row of a session once it is over."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while (row := await self.row(session_id)).status == "active":  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"still active: {row}") from None
        return row

    def recorded(self, session_id: str) -> bytes:
        """Every byte of output in the recording."""
        events = recording.events(self.library.path(session_id), KEYRING, session_id)
        return b"".join(event.data for event in events if event.code == OUTPUT)

    def marks(self, session_id: str) -> list[bytes]:
        events = recording.events(self.library.path(session_id), KEYRING, session_id)
        return [event.data for event in events if event.code == "m"]


@asynccontextmanager
async def running_terminals(
    db: Database,
    sshds: Sshds,
    directory: Path,
    *,
    limits: Limits | None = None,
    rules: Rules | None = None,
    pool_limits: PoolLimits | None = None,
    socket_rules: SocketRules | None = None,
    timing: Timing = QUICK,
    owner: str = "one",
) -> AsyncIterator[TerminalConsole]:
    async with AsyncExitStack() as stack:
        pool = Pool(db, VAULT, pool_limits or PoolLimits(connect_timeout_s=PATIENCE_S))
        stack.push_async_callback(pool.close)
        library = Library(db, directory, KEYRING)
        stack.callback(library.close)
        bus = MemoryBus()
        console: TerminalConsole

        async def object_to(line: str, server: Server, actor: Actor) -> Objection | None:
            return await console.object_to(line, server, actor)

        async def actions_since(seq: int) -> set[str]:
            async with db.reading() as conn:
                return await audit_log.actions_since(conn, seq)

        desk = Desk(
            db,
            owner,
            bus,
            opener(db, pool),
            library.begin,
            library.settle,
            object_to,
            actions_since,
            limits or Limits(),
            rules or Rules(),
            timing=timing,
        )
        console = TerminalConsole(db, sshds, pool, library, bus, desk)
        await desk.recover()
        running = asyncio.create_task(desk.run())
        try:
            async with _served(db, desk, socket_rules) as url:
                console.url = url
                yield console
                assert not running.done(), running
                await desk.drain(PATIENCE_S)
        finally:
            running.cancel()
            await asyncio.wait([running])
            if not running.cancelled() and running.exception() is not None:
                raise running.exception() or AssertionError


@asynccontextmanager
async def _served(db: Database, desk: Desk, rules: SocketRules | None) -> AsyncIterator[str]:
    async def authenticate(cookie: str | None, bearer: str | None) -> Actor | None:
        if bearer is not None:
            return await identity.by_token(db, bearer)
        return await identity.by_cookie(db, cookie) if cookie is not None else None

    app = Starlette(routes=[WebSocketRoute("/ws/terminal/{session_id}", Terminals(desk, authenticate, rules).serve)])
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            port=0,
            ws="websockets-sansio",
            ws_max_size=64 * 1024,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=1,
        )
    )
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not server.started:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving
