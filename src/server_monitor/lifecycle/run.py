"""One console from start to stop.

Start: settings, logs, data directory, database, loops, listener, ready. Stop is the reverse, within a deadline: not
ready, browsers told to reconnect, copies, commands and terminals ended, no new requests, SSH closed, history flushed,
database closed.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import anchors, checkpoints, intents
from server_monitor.audit import log as audit_log
from server_monitor.audit.chain import Event
from server_monitor.audit.damage import reported
from server_monitor.auth import setup
from server_monitor.auth.actor import SYSTEM, audited
from server_monitor.bus.contract import Bus, Changed, Stopping, Subject
from server_monitor.db import migrate
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_records
from server_monitor.errors import Failure, Invalid, Unavailable
from server_monitor.fleet import servers
from server_monitor.lifecycle import wiring
from server_monitor.lifecycle.heap import share_heap
from server_monitor.lifecycle.instance import exclusive, instance_id
from server_monitor.settings import Settings
from server_monitor.ssh.envelope import MasterKey
from server_monitor.telemetry.logs import logger, set_up_logs

log = logger(__name__)

CHANGE_POLL_S = 1.0
SECOND_SIGNAL_EXIT = 130
LISTEN_BACKLOG = 2048
CANCEL_WAIT_S = 1.0
DRAIN_SHARE = 0.75  # of the time to stop is for what runs, and of what is left for requests; the rest for letting go

Announce = Callable[[str, str | None], None]


async def serve(settings: Settings, announce: Announce) -> int:
    """Run the console until SIGTERM or SIGINT; returns the exit code.

    `announce(url, setup_url)` is called once it is ready; `setup_url` is None when there is an admin already.
    Raises Invalid, Conflict or Unavailable when it cannot start.
    """
    share_heap()
    set_up_logs(settings.log_format, settings.log_level)
    _warn_of_weakness(settings)
    node = instance_id(settings.data_dir)
    with exclusive(settings.data_dir), _listening(settings) as listener:
        db = await Database.open(settings.database, node=node)
        try:
            await migrate.prepare(db)
            with reported():
                await _require_continuation(settings, db)
            await _record_start(settings, db)
            async with wiring.build(settings, db) as parts:
                await parts.keeper.sign("start")
                tasks, terminals = await parts.dispatcher.recover(), await parts.desk.recover()
                log.info(f"recovered {tasks} interrupted tasks, {terminals} terminal sessions")
                failed = await _run(parts, listener, announce)
            await _record_stop(db, failed)
            await parts.keeper.sign("stop")
        finally:
            await db.close()
    log.info("stopped")
    return 1 if failed else 0


async def _run(parts: wiring.Parts, listener: socket.socket, announce: Announce) -> bool:
    """Run until told to stop. True when it ended because a part of it died of a bug, which is logged."""
    failed = False
    try:
        await _run_all(parts, listener, announce)
    except* Exception as failures:
        log.critical("console_failed", exc_info=failures)
        failed = True
    return failed


async def _run_all(parts: wiring.Parts, listener: socket.socket, announce: Announce) -> None:
    """Everything that runs, under one owner: when one loop dies, all end."""
    server = _HttpServer(parts.app)
    stop = _stop_signal()
    async with asyncio.TaskGroup() as tasks:
        loops = [tasks.create_task(loop(), name=name) for name, loop in parts.loops.items()]
        loops.append(tasks.create_task(_watch_for_changes(parts.db, parts.bus), name="changes"))
        http = tasks.create_task(server.serve(sockets=[listener]), name="http")
        await server.has_started()
        parts.readiness.serving = True
        url = _url(parts.settings, listener)
        announce(url, await _setup_url(parts.db, url))
        log.info("ready", url=url)
        await _wait_for_either(stop, http)
        log.info("stopping")
        clock = asyncio.get_running_loop()
        deadline = clock.time() + parts.settings.shutdown_timeout_seconds
        clock.call_at(deadline, _give_up)
        parts.readiness.serving = False
        parts.bus.publish(Subject.STOPPING, Stopping())
        async with asyncio.TaskGroup() as draining:
            drain_s = parts.settings.shutdown_timeout_seconds * DRAIN_SHARE
            draining.create_task(parts.copying.drain(drain_s))
            with suppress(TimeoutError):
                async with asyncio.timeout(parts.settings.shutdown_timeout_seconds / 2):
                    await parts.send_browsers_away()
            draining.create_task(parts.dispatcher.drain(drain_s))
            draining.create_task(_close_terminals(parts, drain_s))
        server.end(within_s=(deadline - clock.time()) * DRAIN_SHARE)
        await http
        await _cancel_between_transactions(parts.db, loops)


async def _close_terminals(parts: wiring.Parts, within_s: float) -> None:
    """End every terminal, and verify its recording; what there is no time for, the next start does."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await parts.desk.drain(within_s)
            with suppress(Failure):
                await parts.verify_recordings()


async def _cancel_between_transactions(db: Database, loops: Sequence["asyncio.Task[None]"]) -> None:
    """End the loops while none of them is in a transaction: cut off in its middle, it takes the connection with it."""
    with suppress(TimeoutError, Unavailable):
        async with asyncio.timeout(CANCEL_WAIT_S), db.transaction():
            for loop in loops:
                loop.cancel()
    for loop in loops:
        if not loop.cancelling():
            loop.cancel()


def _give_up() -> None:
    """The drain deadline has passed and something still hangs. What was acknowledged is on disk; go."""
    log.error("stop_took_too_long")
    os._exit(1)


class _HttpServer(uvicorn.Server):
    """uvicorn without its own signal handling: the console decides when to stop."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="none",
                http="httptools",
                ws="websockets-sansio",
                ws_max_size=64 * 1024,
                ws_per_message_deflate=False,  # costs six times the CPU on small frames
                ws_ping_interval=20,
                ws_ping_timeout=20,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=True,
                proxy_headers=False,  # api/middleware.py decides whom to believe
                h11_max_incomplete_event_size=16 * 1024,
                timeout_keep_alive=30,
            )
        )
        self._started = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def end(self, within_s: float) -> None:
        """Take no more requests, and cut off those that are not answered in time, or whose answer nobody takes."""
        self.config.timeout_graceful_shutdown = max(0, int(within_s))
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started.set()

    async def has_started(self) -> None:
        async with asyncio.timeout(10):
            await self._started.wait()


def _stop_signal() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT. The second ends the process on the spot; the next start recovers."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(SECOND_SIGNAL_EXIT)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


async def _wait_for_either(stop: asyncio.Event, http: "asyncio.Task[None]") -> None:
    """Return when we are told to stop, or when the HTTP server has ended by itself."""
    http.add_done_callback(lambda _: stop.set())
    await stop.wait()


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """The bound socket. Raises Invalid for an address that cannot or should not be listened on."""
    if not settings.allow_plain_http and not _is_loopback(settings.api_host):
        raise Invalid.one(
            "API_HOST",
            f"{settings.api_host} is not a loopback address and the console speaks plain HTTP: put a TLS reverse proxy "
            "in front of 127.0.0.1, or pass --allow-plain-http if you know that nobody listens in between",
        )
    family = socket.AF_INET6 if ":" in settings.api_host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.api_host, settings.api_port))
            listener.listen(LISTEN_BACKLOG)
        except OSError as error:
            raise Invalid.one(
                "API_PORT",
                f"cannot listen on {settings.api_host}:{settings.api_port}: {error.strerror}; see --port",
            ) from None
        listener.setblocking(False)
        yield listener
    finally:
        listener.close()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _url(settings: Settings, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
    return f"http://{host}:{port}"


async def _setup_url(db: Database, url: str) -> str | None:
    """The link that makes the first admin. The token is in the fragment, which no server or log ever sees."""
    async with db.transaction() as conn:
        token = await setup.issue(conn)
    return None if token is None else f"{url}/setup#token={token}"


async def _watch_for_changes(db: Database, bus: Bus) -> None:
    """Tell everybody who caches rows when any state has changed, in this process or another."""
    known = -1
    while True:
        try:
            async with db.reading() as conn:
                size = await audit_log.size(conn)
                is_known = 0 <= known < size
                actions = frozenset(await audit_log.actions_since(conn, known)) if is_known else None
        except Unavailable as error:
            log.warning("change_poll_failed", cause=str(error))
        else:
            if size != known:
                bus.publish(Subject.CHANGED, Changed(size, actions))
            known = size
        await asyncio.sleep(CHANGE_POLL_S)


async def _require_continuation(settings: Settings, db: Database) -> None:
    """Nothing is written to a log that this key has not signed, or whose checkpoints have left the house as others."""
    signer = await checkpoints.open_signer(db, settings.data_dir)
    if settings.audit_anchor_file:
        await anchors.require_continuation(db, signer, Path(settings.audit_anchor_file))


async def _record_start(settings: Settings, db: Database) -> None:
    # The vault compares it, so that no command seals a secret which this console cannot open.
    vault_key = MasterKey.derive(settings.key_vault_master_key.get_secret_value()).key_id
    async with db.transaction() as conn:
        clean = await _stopped_cleanly(conn)
        meta = {"clean": clean, "vault_key": vault_key}
        await audit_log.append(conn, Event("system.start", audited(SYSTEM), meta=meta))
        cut_off = await intents.recover(conn, db.node)
    async with db.transaction() as conn:
        await servers.ensure_local(conn)
    if not clean:
        log.warning("last_run_did_not_stop", meaning="the console was killed; what it had acknowledged is kept")
    if cut_off:
        log.warning("audit_work_was_cut_off", count=cut_off, meaning="exports or verifications did not end; recorded")


async def _stopped_cleanly(conn: AsyncConnection) -> bool:
    """Was the newest system record a stop (or is there none yet)?"""
    newest = select(audit_records.c.action).where(audit_records.c.action.in_(("system.start", "system.stop")))
    action = (await conn.execute(newest.order_by(audit_records.c.seq.desc()).limit(1))).scalar()
    return action != "system.start"


async def _record_stop(db: Database, failed: bool) -> None:
    async with db.transaction() as conn:
        await audit_log.append(conn, Event("system.stop", audited(SYSTEM), outcome="error" if failed else "success"))


def _warn_of_weakness(settings: Settings) -> None:
    for weakness in settings.weak_secrets():
        log.warning("weak_secret", variable=weakness.field, problem=weakness.message)
