"""The live endpoint alone in a small application, with a directory of actors instead of a database."""

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from websockets.asyncio.client import ClientConnection, connect

from server_monitor.auth.actor import Actor, ActorKind, Role
from server_monitor.bus.contract import Changed, SamplesTaken, StatusChanged, Subject, TasksChanged, TaskState, Watched
from server_monitor.bus.memory import MemoryBus
from server_monitor.errors import NotFound
from server_monitor.realtime.endpoint import Access, Live, Rules
from server_monitor.realtime.hub import Hub, Limits
from tests.support.patience import PATIENCE_S

HEADLINE = ("cpu_percent", "load1")


def person(name: str, role: Role | None = Role.ADMIN) -> Actor:
    return Actor(ActorKind.USER, f"id-of-{name}", name, role, session_id=f"session-of-{name}")


@dataclass
class Directory:
    """Keeps the promises of `Access` in memory: who is logged in, and which servers each may see (None: all)."""

    servers: set[str] = field(default_factory=set)
    cookies: dict[str, Actor] = field(default_factory=dict)
    tokens: dict[str, Actor] = field(default_factory=dict)
    visible: dict[str, set[str] | None] = field(default_factory=dict)
    runs: dict[str, set[str]] = field(default_factory=dict)  # the servers of each
    ended: set[str] = field(default_factory=set)
    actions: list[str] = field(default_factory=list)

    def log_in(self, name: str, *, visible: Collection[str] | None = None, role: Role = Role.ADMIN) -> Actor:
        actor = person(name, role)
        self.cookies[name] = self.tokens[name] = actor
        self.visible[name] = None if visible is None else set(visible)
        return actor

    async def authenticate(self, cookie: str | None, bearer: str | None) -> Actor | None:
        if bearer is not None:
            return self.tokens.get(bearer)
        return self.cookies.get(cookie or "")

    async def still_valid(self, actor: Actor) -> Actor | None:
        return None if actor.name in self.ended else actor

    async def visible_servers(self, actor: Actor) -> frozenset[str] | None:
        visible = self.visible[actor.name]
        return None if visible is None else frozenset(visible)

    async def find_servers(self, actor: Actor, ids: Collection[str]) -> frozenset[str]:
        visible = self.visible[actor.name]
        return frozenset(self.servers & set(ids) if visible is None else self.servers & visible & set(ids))

    async def find_run(self, actor: Actor, run_id: str) -> frozenset[str] | None:
        visible = self.visible[actor.name]
        seen = self.runs.get(run_id, set()) & (self.servers if visible is None else visible)
        if not seen:
            raise NotFound("run", run_id)
        return None if visible is None else frozenset(seen)

    async def actions_since(self, size: int) -> Collection[str]:
        return self.actions[size:]

    async def explain(self, server_id: str, reason: str) -> tuple[str, str]:
        if server_id not in self.servers:
            raise NotFound("server", server_id)
        return f"Sentence of {reason} for {server_id}.", f"Remedy of {reason}."

    def access(self) -> Access:
        return Access(
            self.authenticate,
            self.still_valid,
            self.visible_servers,
            self.find_servers,
            self.find_run,
            self.actions_since,
        )


class Screen:
    """A browser's end of the connection."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, **message: object) -> None:
        await self.connection.send(json.dumps(message))

    async def next(self, kind: str | None = None) -> dict[str, Any]:
        """The next frame, of this type when one is named; other frames are passed over."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                frame: dict[str, Any] = json.loads(await self.connection.recv())
                if kind is None or frame["type"] == kind:
                    return frame

    async def watch(self, servers: object = "all", rate_s: float = 1) -> dict[str, Any]:
        """Subscribe, and wait for the answer: `subscribed` or `error`."""
        await self.send(type="subscribe", servers=servers, rate_s=rate_s)
        while True:
            frame = await self.next()
            if frame["type"] in ("subscribed", "error"):
                return frame

    async def watch_run(self, run_id: str) -> dict[str, Any]:
        """Watch a run, and wait for the answer: `watching` or `error`."""
        await self.send(type="watch", run=run_id)
        while True:
            frame = await self.next()
            if frame["type"] in ("watching", "error"):
                return frame

    async def closed(self) -> int | None:
        async with asyncio.timeout(PATIENCE_S):
            await self.connection.wait_closed()
        return self.connection.close_code


def opened(url: str, headers: Mapping[str, str], **options: Any) -> connect:
    """The client's end of `/ws/live`. It asks for no signs of life: one that does not read would hear no answer."""
    return connect(
        url + "/ws/live",
        additional_headers=headers,
        proxy=None,
        open_timeout=PATIENCE_S,
        ping_interval=None,
        **options,
    )


class LiveConsole:
    """A running endpoint: `publish` is what collectors do, `screen` is what browsers do."""

    def __init__(self, url: str, directory: Directory, bus: MemoryBus, hub: Hub, live: Live) -> None:
        self.url = url
        self.directory = directory
        self.bus = bus
        self.hub = hub
        self.live = live

    @asynccontextmanager
    async def screen(self, name: str = "ann", **options: Any) -> AsyncIterator[Screen]:
        """The browser of a logged-in user, on our own page."""
        headers = {"Cookie": f"server_monitor_session={name}", "Origin": self.url.replace("ws://", "http://")}
        async with opened(self.url, headers, compression=None, **options) as connection:
            screen = Screen(connection)
            assert (await screen.next())["type"] == "hello"
            yield screen

    def samples(self, values: Mapping[str, Mapping[str, float]], at: float = 1_700_000_000.0) -> None:
        self.bus.publish(Subject.SAMPLES, SamplesTaken(at, {key: dict(value) for key, value in values.items()}))

    def status(self, server_id: str, status: str, reason: str | None = None) -> None:
        self.bus.publish(Subject.STATUS, StatusChanged(server_id, status, reason, 1_700_000_000.0))

    def moved(self, *states: TaskState) -> None:
        """Tasks have moved on."""
        self.bus.publish(Subject.TASKS, TasksChanged(states))

    def changed(self, *actions: str) -> None:
        """Some changes were recorded in the audit log."""
        self.directory.actions.extend(actions)
        self.bus.publish(Subject.CHANGED, Changed(len(self.directory.actions)))


async def next_watched(subscription: AsyncIterator[object]) -> Watched:
    async with asyncio.timeout(PATIENCE_S):
        message = await anext(subscription)
    assert isinstance(message, Watched)
    return message


@asynccontextmanager
async def running_live(
    directory: Directory, limits: Limits | None = None, rules: Rules | None = None
) -> AsyncIterator[LiveConsole]:
    bus = MemoryBus()
    hub = Hub(
        bus,
        watcher="test",
        headline=HEADLINE,
        explain=directory.explain,
        limits=limits or Limits(flush_interval_s=0.02),
    )
    live = Live(hub, bus, directory.access(), rules)
    app = Starlette(routes=[WebSocketRoute("/ws/live", live.serve)])
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            port=0,
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=1,
        )
    )
    loops = asyncio.gather(hub.run(), live.run())
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it.
                await asyncio.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield LiveConsole(f"ws://127.0.0.1:{port}", directory, bus, hub, live)
    finally:
        loops.cancel()
        server.should_exit = True
        await asyncio.gather(serving, loops, return_exceptions=True)
