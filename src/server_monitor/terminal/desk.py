"""All running sessions of this console: opened, attached to, watched over, and ended.

    ticket → may they still? → recording begun → `terminal.connect` committed → shell → … → `terminal.disconnect`

Without a recording there is no shell. Whoever opened a session is asked about again whenever rows about access change,
and every few seconds besides, because a login also ends by itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.auth import identity
from server_monitor.auth import sessions as logins
from server_monitor.auth.actor import Actor, Permission, allows
from server_monitor.bus.contract import Bus, Changed, Subject
from server_monitor.db.engine import Database
from server_monitor.errors import Conflict, TooMany, Unavailable, Unreachable
from server_monitor.fleet import servers as fleet
from server_monitor.fleet.servers import Server
from server_monitor.ssh.channel import TERM
from server_monitor.ssh.pool import Target
from server_monitor.telemetry import metrics
from server_monitor.telemetry.logs import RequestContext, logger, request_context
from server_monitor.terminal import sessions
from server_monitor.terminal.bridge import GOING_AWAY, NORMAL, Bridge, Limits, Link
from server_monitor.terminal.chain import Opening
from server_monitor.terminal.recording import Progress, Recorder, RecordingFailed
from server_monitor.terminal.sessions import Redeemed, Session, Ticket, TicketRefused
from server_monitor.terminal.shell import OpenShell
from server_monitor.terminal.states import Ending, Purpose, Size, Status
from server_monitor.terminal.typed import Objection

log = logger(__name__)

SESSIONS_MAX: Final = 1_000  # of this console
WATCHERS_MAX: Final = 16  # of one session
SIZES_MAX: Final = 1_000
DEFAULT_SIZE: Final = Size(80, 24)
CHECK_EVERY_S: Final = 4.0
TICK_S: Final = 1.0
HEADS_EVERY_S: Final = 60.0
HOUSEKEEPING_EVERY_S: Final = 15.0
STORE_RETRY_S: Final = 1.0

# Audit actions after which a login may have ended or somebody may do less.
_ABOUT_ACCESS: Final = ("user.", "token.", "session.", "group.", "server.", "host_key.", "auth.logout")

Done = TypeVar("Done")
BeginRecording = Callable[[Opening], Awaitable[Recorder]]
"""Raises RecordingFailed."""

SettleRecording = Callable[[str], Awaitable[Progress | None]]
"""Closes the file that a dead console left of a session; None when nothing of it is there. Raises Unavailable."""

ObjectTo = Callable[[str, Server, Actor], Awaitable[Objection | None]]
"""What the command policy says about a line for this server and person."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How often the desk looks. Shorter in tests."""

    check_s: float = CHECK_EVERY_S
    tick_s: float = TICK_S
    heads_s: float = HEADS_EVERY_S
    housekeeping_s: float = HOUSEKEEPING_EVERY_S


class Desk:
    """Sessions of this console. `recover` before anything else, then `run` until cancelled."""

    def __init__(  # noqa: PLR0917
        self,
        db: Database,
        owner: str,
        bus: Bus,
        open_shell: OpenShell,
        begin_recording: BeginRecording,
        settle_recording: SettleRecording,
        object_to: ObjectTo,
        actions_since: Callable[[int], Awaitable[Collection[str]]],
        limits: Limits,
        rules: sessions.Rules,
        *,
        dead: Callable[[], Collection[str]] = tuple,
        timing: Timing = Timing(),
    ) -> None:
        self.rules = rules
        self._db = db
        self._owner = owner
        self._bus = bus
        self._open_shell = open_shell
        self._begin_recording = begin_recording
        self._settle_recording = settle_recording
        self._object_to = object_to
        self._actions_since = actions_since
        self._limits = limits
        self._dead = dead  # consoles that do not beat any more
        self._timing = timing
        self._bridges: dict[str, Bridge] = {}
        self._ways: dict[str, Target | None] = {}  # to the server of each session, as it was when it was opened
        self._stopping: set[str] = set()  # sessions that somebody is just stopping
        self._sizes: dict[str, Size] = {}  # asked for, until the ticket is used
        self._tasks: asyncio.TaskGroup | None = None
        self._is_stopping = False
        self._audit_size: int | None = None
        self._emptied = asyncio.Event()
        self._emptied.set()

    # --- for routes and sockets ------------------------------------------------------------------------------------

    async def ask(self, server_id: str, size: Size, reason: str | None, *, request_id: str, actor: Actor) -> Ticket:
        """A new session. Raises as `sessions.ask` does; a refusal is recorded."""
        try:
            async with self._db.transaction() as conn:
                ticket = await sessions.ask(
                    conn,
                    server_id,
                    size,
                    reason,
                    rules=self.rules,
                    request_id=request_id,
                    actor=actor,
                    now=datetime.now(UTC),
                )
        except sessions.Unfit as unfit:
            async with self._db.transaction() as conn:
                await sessions.record_denied(conn, server_id, unfit.obstacle, actor=actor)
            raise unfit.failure from None
        if len(self._sizes) >= SIZES_MAX:
            del self._sizes[next(iter(self._sizes))]
        self._sizes[ticket.session_id] = size
        return ticket

    async def issue(self, session_id: str, purpose: Purpose, *, actor: Actor) -> Ticket:
        """A ticket for a session that runs here. Raises as `sessions.issue` does."""
        async with self._db.transaction() as conn:
            return await sessions.issue(conn, session_id, purpose, actor=actor, now=datetime.now(UTC))

    async def stop(self, session_id: str, reason: str | None, *, actor: Actor) -> None:
        """End a session, once: whoever comes second is told that it ends. Raises as `sessions.record_stop` does."""
        is_mine = False
        try:
            async with self._db.transaction() as conn:
                session, ending = await sessions.record_stop(conn, session_id, reason, actor=actor)
                if self.is_ending(session_id):
                    raise Conflict("This session is ending already.")  # and what was recorded is taken back
                self._stopping.add(session_id)
                is_mine = True
                await self._end_unheld(conn, session, ending)
            if (bridge := self._bridges.get(session_id)) is not None:
                bridge.end(ending)
        finally:
            if is_mine:
                self._stopping.discard(session_id)

    async def _end_unheld(self, conn: AsyncConnection, session: Session, ending: Ending) -> None:
        """End a session that nobody has opened yet. Raises Conflict when another console has, or it is over."""
        if session.id in self._bridges:
            return
        if session.started_at is not None:
            raise Conflict("Another console holds this session.")
        if not await sessions.end(conn, session, ending, None, now=datetime.now(UTC)):
            raise Conflict("This session is over.")

    def is_ending(self, session_id: str) -> bool:
        """Is it being stopped, or was it, and only the last of it is written down?"""
        bridge = self._bridges.get(session_id)
        return session_id in self._stopping or (bridge is not None and bridge.ending is not None)

    def bridge(self, session_id: str) -> Bridge | None:
        """A session that runs here."""
        return self._bridges.get(session_id)

    def written(self, session_id: str) -> Progress | None:
        """What is recorded of a session that runs here: its row is told only every minute."""
        bridge = self._bridges.get(session_id)
        return bridge.recorder.progress if bridge is not None and bridge.recorder is not None else None

    def is_attached(self, session_id: str) -> bool:
        """Is somebody there who types in it?"""
        bridge = self._bridges.get(session_id)
        return bridge is not None and bridge.is_attached

    def watchers(self, session_id: str) -> Sequence[str]:
        bridge = self._bridges.get(session_id)
        return [link.name for link in bridge.watchers] if bridge else []

    async def attach(self, session_id: str, ticket: str, have: int, *, actor: Actor | None) -> tuple[Bridge, Link]:
        """Use a ticket: the session, and this browser's side of it.

        Raises TicketRefused, TooMany, and Unavailable when the console takes no sessions now.
        """
        async with self._db.transaction() as conn:
            redeemed = await sessions.redeem(conn, session_id, ticket, actor=actor, now=datetime.now(UTC))
            if redeemed.purpose is Purpose.ATTACH and session_id in self._bridges:
                await sessions.record_attach(conn, redeemed.session, actor=redeemed.actor)
        if redeemed.purpose is Purpose.WATCH:
            return await self._watch(redeemed, have)
        bridge = self._bridges.get(session_id)
        if bridge is None:
            if redeemed.session.started_at is not None:
                raise TicketRefused  # It ran in another console, or has just ended.
            bridge = self._begin(redeemed.session)
        link = Link(redeemed.actor, redeemed.session.user_name, is_watching=False)
        bridge.attach(link, have)
        return bridge, link

    async def _watch(self, redeemed: Redeemed, have: int) -> tuple[Bridge, Link]:
        session, actor = redeemed.session, redeemed.actor
        bridge = self._bridges.get(session.id)
        if bridge is None or bridge.ending is not None:
            raise TicketRefused
        if len(bridge.watchers) >= WATCHERS_MAX:
            raise TooMany("As many people watch this session as may.", 30)
        async with self._db.transaction() as conn:  # Before the first byte is shown.
            await sessions.record_watch(conn, session, actor=actor)
        link = Link(actor, actor.name, is_watching=True)
        bridge.attach(link, have)
        return bridge, link

    # --- one session ----------------------------------------------------------------------------------------------

    def _begin(self, session: Session) -> Bridge:
        if self._tasks is None or self._is_stopping or len(self._bridges) >= SESSIONS_MAX:
            raise Unavailable("The console takes no further terminals now.")
        size = self._sizes.pop(session.id, DEFAULT_SIZE)
        bridge = Bridge(session, size, self._limits, self._objector(session))
        self._bridges[session.id] = bridge
        self._emptied.clear()
        metrics.terminal_sessions.set(len(self._bridges))
        self._tasks.create_task(self._serve(bridge), name=f"terminal {session.id}")
        return bridge

    async def _serve(self, bridge: Bridge) -> None:
        """A session from its first ticket to its last record."""
        # Its records say from where the socket came, and belong to the request that asked for it.
        request_context.set(_context_of(bridge.session))
        try:
            if (trouble := await self._opened(bridge)) is not None:
                bridge.end(trouble)
            ending = await self._explained(bridge, await bridge.run())
            await self._stored(bridge, ending, await _closed(bridge.recorder, ending))
        finally:
            del self._bridges[bridge.session.id]
            self._ways.pop(bridge.session.id, None)
            metrics.terminal_sessions.set(len(self._bridges))
            if not self._bridges:
                self._emptied.set()

    async def _explained(self, bridge: Bridge, ending: Ending) -> Ending:
        """The true cause: a connection is also lost because somebody switched its server off, moved or removed it."""
        if ending.cause == "connection_lost":
            with suppress(Unavailable):
                ending = (await self._troubles([bridge])).get(bridge.session.id, ending)
            bridge.ending = ending
        return ending

    async def _opened(self, bridge: Bridge) -> Ending | None:
        """Open the shell; why there is none."""
        session = bridge.session
        try:
            trouble = (await self._troubles([bridge])).get(session.id)
            return trouble or await self._with_recording(bridge)
        except Unavailable as error:  # The disk or the database: what cannot be recorded does not run.
            log.warning("terminal_not_recorded", session_id=session.id, cause=str(error))
            return Ending(Status.INTERRUPTED, "not_recorded", detail=str(error))
        except Unreachable as error:
            log.info("terminal_not_opened", session_id=session.id, reason=error.reason)
            return Ending(Status.INTERRUPTED, error.reason, detail=str(error))

    async def _with_recording(self, bridge: Bridge) -> Ending | None:
        """Raises Unavailable and Unreachable."""
        session, size, now = bridge.session, bridge.size, datetime.now(UTC)
        opening = Opening(
            session.id, now, size.cols, size.rows, TERM, server=session.server_name, user=session.user_name
        )
        recorder = await self._begin_recording(opening)
        bridge.record_with(recorder)
        async with self._db.transaction() as conn:
            if not await sessions.begin(conn, session, size, recorder.progress, owner=self._owner, now=now):
                return Ending(Status.CLOSED, "closed")  # It was stopped before it began.
        bridge.session = replace(session, started_at=now)
        await self._with_shell(bridge)
        return None

    async def _with_shell(self, bridge: Bridge) -> None:
        """Open the shell, or leave it when the session ends before. Raises Unavailable and Unreachable."""
        if bridge.ending is not None:
            return
        server_id = bridge.session.server_id
        try:
            async with asyncio.timeout(None) as patience:
                bridge.on_ended = lambda: patience.reschedule(0)
                bridge.open(await self._open_shell(server_id, bridge.size, bridge.on_output, bridge.on_closed))
        except TimeoutError:
            log.info("terminal_not_opened", session_id=bridge.session.id, reason="ended")
        finally:
            bridge.on_ended = lambda: None

    async def _stored(self, bridge: Bridge, ending: Ending, progress: Progress | None) -> None:
        """Write down the end, however long the database takes; browsers are told meanwhile."""
        session, now = bridge.session, datetime.now(UTC)
        code = GOING_AWAY if ending.cause == "console_stopped" else NORMAL

        async def store() -> None:
            async with self._db.transaction() as conn:
                await sessions.end(conn, session, ending, progress, now=now)

        with suppress(Unavailable):
            await store()
        bridge.say_closed(code)
        await _insist(store)
        metrics.terminal_sessions_ended.labels(ending.status.value).inc()

    def _objector(self, session: Session) -> Callable[[str], Awaitable[Objection | None]]:
        async def object_to(line: str) -> Objection | None:
            try:
                async with self._db.reading() as conn:
                    actor = await identity.actor_still_valid(conn, sessions.opener_of(session))
                    found = await fleet.existing(conn, [session.server_id])
            except Unavailable:
                return None
            return await self._object_to(line, found[0], actor) if actor is not None and found else None

        return object_to

    # --- all sessions ---------------------------------------------------------------------------------------------

    async def recover(self) -> int:
        """Mark what a console that died under this name has left; returns how many sessions."""
        return await self._adopt(is_start=True)

    async def run(self) -> None:
        """Keep time, rights and books until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for loop in (self._keep_time, self._keep_rights, self._keep_books, self._keep_house):
                tasks.create_task(loop())

    async def drain(self, timeout_s: float) -> None:
        """End every session because the console stops, their recordings closed and verified."""
        self._is_stopping = True
        for bridge in self._bridges.values():
            bridge.end(Ending(Status.INTERRUPTED, "console_stopped"))
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._emptied.wait()

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(self._timing.tick_s)
            for bridge in list(self._bridges.values()):
                bridge.tick()

    async def _keep_rights(self) -> None:
        """End what its person may not have any more: soon after a change, and every few seconds besides."""
        with self._bus.subscribe(Subject.CHANGED, queue_size=1) as subscription:
            messages = aiter(subscription)
            while True:
                change = None
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._timing.check_s):
                        change = await anext(messages)
                try:
                    if not isinstance(change, Changed) or await self._concerns_access(change.size):
                        await self._check()
                except Unavailable as error:
                    self._audit_size = None
                    log.warning("terminal_rights_not_checked", cause=str(error))

    async def _concerns_access(self, size: int) -> bool:
        earlier, self._audit_size = self._audit_size, size
        if earlier is None or not self._bridges:
            return True
        return any(action.startswith(_ABOUT_ACCESS) for action in await self._actions_since(earlier))

    async def _check(self) -> None:
        bridges = [bridge for bridge in self._bridges.values() if bridge.ending is None]
        if not bridges:
            return
        troubles = await self._troubles(bridges)
        for bridge in bridges:
            if (ending := troubles.get(bridge.session.id)) is not None:
                log.info("terminal_ended", session_id=bridge.session.id, cause=ending.cause)
                bridge.end(ending)

    async def _troubles(self, bridges: Sequence[Bridge]) -> Mapping[str, Ending]:
        """Why some of these sessions may not go on.

        Whoever sits at one may have come with another login or token than it was opened with: a browser whose own has
        ended is sent away, and the session waits for another one as if that browser had gone.
        """
        known: dict[tuple[object, ...], Actor | None] = {}
        troubles: dict[str, Ending] = {}
        async with self._db.reading() as conn:
            server_ids = {bridge.session.server_id for bridge in bridges}
            servers = {server.id: server for server in await fleet.existing(conn, server_ids)}
            ways = await fleet.targets_of(conn, server_ids)

            async def now(actor: Actor) -> Actor | None:
                key = (actor.kind, actor.id, actor.session_id, actor.token_id)
                if key not in known:
                    known[key] = await identity.actor_still_valid(conn, actor)
                return known[key]

            for bridge in bridges:
                server, way = servers.get(bridge.session.server_id), ways.get(bridge.session.server_id)
                is_moved = self._ways.setdefault(bridge.session.id, way) != way
                cause = _trouble(
                    bridge.session, await now(sessions.opener_of(bridge.session)), server, is_moved=is_moved
                )
                if cause is not None:
                    troubles[bridge.session.id] = Ending(Status.INTERRUPTED, cause)
                    continue  # Everybody there is told how it ended.
                for link in bridge.links:
                    if not _may_stay(link, await now(link.actor), bridge.session, server):
                        bridge.send_away(link)
        return troubles

    async def _keep_books(self) -> None:
        """Every minute: the heads of recordings that have grown, and that those who type are there."""
        while True:
            await asyncio.sleep(self._timing.heads_s)
            grown = [(bridge, progress) for bridge in self._running if (progress := _news(bridge)) is not None]
            active = {login_id for bridge in self._running for login_id in _in_use(bridge)}
            if not grown and not active:
                continue
            try:
                async with self._db.transaction() as conn:
                    await sessions.note_heads(conn, [(bridge.session, progress) for bridge, progress in grown])
                    for login_id in sorted(active):
                        await logins.note_visit(conn, login_id, datetime.now(UTC))
            except Unavailable as error:
                log.warning("terminal_heads_not_noted", cause=str(error))
                continue
            for bridge, progress in grown:
                bridge.noted_chunks = progress.chunks
            for bridge in self._running:
                bridge.typed_with.clear()

    async def _keep_house(self) -> None:
        """End sessions that nobody opened or whose console is dead, and close the recordings that one left."""
        while True:
            try:
                async with self._db.transaction() as conn:
                    await sessions.give_up_unused(conn, datetime.now(UTC))
                await self._adopt(is_start=False)
                await self._let_go_of_lost()
                await self._settle()
            except Unavailable as error:
                log.warning("terminal_housekeeping_failed", cause=str(error))
            await asyncio.sleep(self._timing.housekeeping_s)

    async def _adopt(self, *, is_start: bool) -> int:
        async with self._db.transaction() as conn:
            found = await sessions.recover(
                conn, self._owner, dead=self._dead(), is_start=is_start, now=datetime.now(UTC)
            )
        metrics.terminal_sessions_ended.labels(Status.INTERRUPTED.value).inc(len(found))
        return len(found)

    async def _let_go_of_lost(self) -> None:
        """End what another console has declared dead, because we had not been heard of for too long."""
        async with self._db.reading() as conn:
            lost = await sessions.no_longer_active(conn, [bridge.session.id for bridge in self._running])
        for session_id in lost:
            if (bridge := self._bridges.get(session_id)) is not None:
                bridge.end(Ending(Status.INTERRUPTED, "console_died"))

    async def _settle(self) -> None:
        async with self._db.reading() as conn:
            left = [one for one in await sessions.unsettled(conn, self._owner) if one.id not in self._bridges]
        for session in left:
            progress = await self._settle_recording(session.id)
            async with self._db.transaction() as conn:
                await sessions.settle(conn, session, progress)

    @property
    def _running(self) -> list[Bridge]:
        return [bridge for bridge in self._bridges.values() if bridge.recorder is not None and bridge.ending is None]


def _context_of(session: Session) -> RequestContext:
    context = request_context.get()
    if context is None:
        return RequestContext(session.request_id, "ws")
    return replace(context, request_id=session.request_id)


def _trouble(session: Session, actor: Actor | None, server: Server | None, *, is_moved: bool) -> str | None:
    """Why a session may not go on, as a cause."""
    if actor is None:
        return "logged_out"
    if server is None or server.username != session.account or is_moved:
        return "server_unfit"
    found = sessions.obstacle(server, actor)
    return None if found is None else "not_permitted" if found == "not_permitted" else "server_unfit"


def _may_stay(link: Link, actor: Actor | None, session: Session, server: Server | None) -> bool:
    """May this browser go on, with what its login or token still is?"""
    if actor is None:
        return False
    if link.is_watching:
        return allows(actor, Permission.TERMINAL_STOP, session.groups)
    return server is None or allows(actor, Permission.TERMINAL_OPEN, server.group_ids)


def _in_use(bridge: Bridge) -> set[str]:
    """The logins that typing in it keeps: of who typed, and the one that the session ends with."""
    opened_with = {bridge.session.login_id} if bridge.session.login_id is not None else set()
    return bridge.typed_with | opened_with if bridge.typed_with else set()


def _news(bridge: Bridge) -> Progress | None:
    """How far the recording has come, when that is further than the audit log says."""
    progress = bridge.recorder.progress if bridge.recorder is not None else None
    return progress if progress is not None and progress.chunks > bridge.noted_chunks else None


async def _closed(recorder: Recorder | None, ending: Ending) -> Progress | None:
    """The recording, closed: all of it, or what of it is durable."""
    if recorder is None:
        return None
    try:
        return await recorder.end(ending.exit_status)
    except RecordingFailed:
        return recorder.progress


async def _insist(work: Callable[[], Awaitable[Done]]) -> Done:
    """Do it, again and again while the database takes nothing."""
    while True:
        try:
            return await work()
        except Unavailable as error:
            log.warning("terminal_waits_for_the_database", cause=str(error))
            await asyncio.sleep(STORE_RETRY_S)
