"""The composition root: one straight function that builds the console from its settings.

The only module that knows every other. Long on purpose: nearly every line uses what earlier lines made.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI

from server_monitor.api import app as api
from server_monitor.api import audit as audit_routes
from server_monitor.api import (
    audit_archive,
    audit_logs,
    files,
    groups,
    health,
    policy,
    recordings,
    series,
    servers,
    snippets,
    ssh_keys,
    stats,
    tasks,
    terminals,
    tokens,
    users,
)
from server_monitor.api import auth as auth_routes
from server_monitor.api.deps import COOKIE, SECURE_COOKIE, Console
from server_monitor.api.middleware import Edge
from server_monitor.api.roster import Roster
from server_monitor.audit import checkpoints
from server_monitor.audit import log as audit_log
from server_monitor.audit.anchors import Anchors
from server_monitor.audit.archive import Archive
from server_monitor.audit.housekeeping import Housekeeping, rules_of
from server_monitor.audit.keeper import Keeper
from server_monitor.audit.verifying import Verifying
from server_monitor.auth import identity
from server_monitor.auth.actor import SYSTEM, Actor
from server_monitor.auth.login import Logins
from server_monitor.bus.memory import MemoryBus
from server_monitor.collect.supervisor import Supervisor, Verdict
from server_monitor.db.engine import Database
from server_monitor.fleet import reasons, trust
from server_monitor.fleet import servers as fleet
from server_monitor.lifecycle.reserve import Reserve
from server_monitor.lifecycle.shelves import keeping_of, library_of
from server_monitor.lifecycle.tidy import Tidy
from server_monitor.lifecycle.worker import outputs_of, task_limits
from server_monitor.realtime.endpoint import Access, Live, Rules
from server_monitor.realtime.hub import Hub
from server_monitor.series.sample import HEADLINE
from server_monitor.series.store import History
from server_monitor.series.tiers import Tiers
from server_monitor.settings import Settings
from server_monitor.ssh import hostkeys
from server_monitor.ssh.hardening import harden_process
from server_monitor.ssh.pool import Limits, Pool
from server_monitor.ssh.vault import Vault
from server_monitor.tasks import listing, rulings
from server_monitor.tasks.dispatch import Dispatcher
from server_monitor.tasks.hosts import Hosts
from server_monitor.tasks.judge import Judge
from server_monitor.tasks.patience import Patience
from server_monitor.tasks.policy.verdict import Ruling
from server_monitor.tasks.watching import Window
from server_monitor.terminal import sessions as terminal_sessions
from server_monitor.terminal.bridge import Limits as TerminalLimits
from server_monitor.terminal.desk import Desk
from server_monitor.terminal.endpoint import Rules as TerminalRules
from server_monitor.terminal.endpoint import Terminals
from server_monitor.terminal.files import Copying
from server_monitor.terminal.searching import Searching
from server_monitor.terminal.shell import opener
from server_monitor.terminal.typed import Objection

IMPORT_BODY_LIMIT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Parts:
    """What `lifecycle/run.py` runs: the application, the loops beside it, and how to send the browsers away."""

    settings: Settings
    db: Database
    bus: MemoryBus
    app: FastAPI
    readiness: health.Readiness
    loops: Mapping[str, Callable[[], Coroutine[Any, Any, None]]]
    send_browsers_away: Callable[[], Awaitable[None]]
    keeper: Keeper
    dispatcher: Dispatcher
    desk: Desk
    copying: Copying
    verify_recordings: Callable[[], Awaitable[int]]


def routers() -> list[APIRouter]:
    """Every route file."""
    route_files = (
        audit_routes,
        audit_logs,
        audit_archive,
        auth_routes,
        users,
        tokens,
        servers,
        groups,
        ssh_keys,
        series,
        stats,
        tasks,
        policy,
        snippets,
        terminals,
        files,
        recordings,
    )
    return [file.router for file in route_files]


def described() -> FastAPI:
    """The routes with nothing behind them, for the OpenAPI document."""
    return api.describe(routers())


@asynccontextmanager
async def build(settings: Settings, db: Database) -> AsyncIterator[Parts]:
    """Everything above the database, closed in reverse order at the end."""
    harden_process()
    bus = MemoryBus()
    signer = checkpoints.load_signer(settings.data_dir, db.node)
    keeper = Keeper(db, signer)
    archive = Archive(settings.audit_archive)
    handed_out = Anchors(
        db,
        Path(settings.audit_anchor_file) if settings.audit_anchor_file else None,
        archive if settings.audit_archive_url else None,
    )
    housekeeping = Housekeeping(db, signer, archive, rules_of(settings), settings.data_dir)
    verifying = Verifying(db, settings.database, signer)
    vault = Vault(settings.key_vault_master_key, settings.key_vault_previous_key)
    tiers = Tiers(settings.history_raw_hours, settings.history_minute_days, settings.history_hour_days)
    judge = rulings.judge_of(settings)
    library = library_of(settings, db)
    history = await History.open(settings.data_dir / "history.sqlite3", tiers)
    try:
        limits = Limits(settings.connect_concurrency, settings.connect_timeout_seconds)
        pool = Pool(db, vault, limits, agent_socket=settings.ssh_auth_sock)
        try:
            supervisor = Supervisor(
                targets=_Targets(db),
                open_remote=pool.open_channel,
                drop_remote=pool.drop,
                history_append=history.append,
                bus=bus,
                record_verdicts=_VerdictRecorder(db),
                record_facts=_FactRecorder(db),
                idle_interval_s=settings.collect_idle_interval_seconds,
                connect_concurrency=settings.connect_concurrency,
            )
            outputs = outputs_of(settings)
            rule = rulings.rule_of(judge)
            dispatcher = Dispatcher(
                db, db.node, Hosts(pool.open_channel), outputs, vault, rule, bus, task_limits(settings)
            )
            tidy = Tidy(db, vault, history, outputs, timedelta(days=settings.tasks_retention_days))
            access = _access(db)
            desk = Desk(
                db,
                db.node,
                bus,
                opener(db, pool),
                library.begin,
                library.settle,
                _Rail(judge),
                access.actions_since,
                TerminalLimits(idle_s=settings.terminal_idle_timeout_seconds, longest_s=settings.terminal_max_seconds),
                terminal_sessions.Rules(settings.terminal_sessions_per_user, settings.terminal_reason_required),
                dead=lambda: dispatcher.dead,
            )
            hub = Hub(bus, watcher=db.node, headline=HEADLINE, explain=_Explainer(db))
            rules = Rules(cookie_names=(SECURE_COOKIE, COOKIE), allowed_origins=_origins(settings))
            live = Live(hub, bus, access, rules)
            terminal_rules = TerminalRules(cookie_names=rules.cookie_names, allowed_origins=rules.allowed_origins)
            copying = Copying(db, pool, settings.file_transfer_max_bytes)
            terminal = Terminals(desk, access.authenticate, terminal_rules)
            sockets = {"/ws/live": live.serve, "/ws/terminal/{session_id}": terminal.serve}
            keeping = keeping_of(settings, db, library)
            readiness = health.Readiness()
            edge = Edge(
                proxies=settings.proxies,
                hosts=frozenset({*settings.allowed_hosts, settings.api_host}),
                body_limits={"/api/servers/import": IMPORT_BODY_LIMIT_BYTES},
                upload_limit_bytes=settings.file_transfer_max_bytes,
            )
            logins = Logins(db, settings.jwt_secret)
            console = Console(
                settings,
                db,
                logins,
                history,
                pool,
                vault,
                Roster(db, history),
                signer,
                supervisor.top,
                housekeeping,
                verifying,
                judge,
                rule,
                outputs,
                dispatcher,
                Patience(db, bus),
                desk,
                library,
                Searching(db, library, settings.jwt_secret),
                copying,
            )

            async def send_browsers_away() -> None:
                hub.stop()
                await hub.emptied()

            yield Parts(
                settings,
                db,
                bus,
                app=api.make_app(console, edge, readiness, routers(), sockets),
                readiness=readiness,
                loops={
                    "history": history.run,
                    "collect": supervisor.run,
                    "hub": hub.run,
                    "live": live.run,
                    "logins": logins.run,
                    "checkpoints": keeper.run,
                    "anchors": handed_out.run,
                    "housekeeping": housekeeping.run,
                    "verifying": verifying.run,
                    "tasks": dispatcher.run,
                    "window": Window(settings.data_dir, outputs).run,
                    "terminals": desk.run,
                    "copies": copying.run,
                    "recordings": keeping.run,
                    "tidy": tidy.run,
                    "reserve": Reserve(settings.data_dir, settings.disk_reserve_mib << 20).run,
                },
                send_browsers_away=send_browsers_away,
                keeper=keeper,
                dispatcher=dispatcher,
                desk=desk,
                copying=copying,
                verify_recordings=keeping.verify_ended,
            )
        finally:
            await pool.close()
    finally:
        library.close()
        judge.close()
        await history.close()


class _Targets:
    """The rows of the servers to watch."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def __call__(self) -> Sequence[fleet.Watch]:
        async with self._db.reading() as conn:
            return await fleet.targets(conn)


class _VerdictRecorder:
    """Writes down what became of servers, and raises the alarm for a changed host key."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def __call__(self, verdicts: Sequence[Verdict]) -> None:
        async with self._db.transaction() as conn:
            for verdict in sorted(verdicts, key=lambda one: one.server_id):  # in one order, whoever writes
                at = datetime.fromtimestamp(verdict.at, UTC)
                await fleet.set_status(conn, verdict.server_id, verdict.status, verdict.reason, verdict.detail, at)
        for verdict in verdicts:
            if verdict.status == "host_key_changed":
                await self._alarm(verdict.server_id)

    async def _alarm(self, server_id: str) -> None:
        async with self._db.transaction() as conn:
            # The newest is what the host has just shown; a key of another type may have been there all along.
            for key in (await hostkeys.offered(conn, server_id))[:1]:
                await trust.record_host_key_changed(conn, server_id, key)


class _FactRecorder:
    """Keeps what was found on servers."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def __call__(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        async with self._db.transaction() as conn:
            for server_id, document in sorted(facts.items(), key=lambda one: one[0]):  # in one order, whoever writes
                await fleet.set_facts(conn, server_id, document)


class _Explainer:
    """What a person reads about a server's reason, and the remedy."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def __call__(self, server_id: str, reason: str) -> tuple[str, str]:
        async with self._db.reading() as conn:
            server = await fleet.get(conn, server_id, actor=SYSTEM)
        explained = reasons.explain(reason, server.about(with_key=False))
        return explained.sentence, explained.remedy


class _Rail:
    """What the command policy says about a line that somebody is about to send in a terminal.

    A line that is only a part of a command, and what depends on who asks for how many servers, is left alone.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    async def __call__(self, line: str, server: fleet.Server, actor: Actor) -> Objection | None:
        verdict = await self._judge.judge(line, rulings.context_of("bash", [server], actor))
        if verdict.ruling is Ruling.ALLOW:
            return None
        for finding in verdict.findings:
            if finding.rule != "opaque.syntax" and finding.category not in {"context", "engine"}:
                return Objection(finding.rule, finding.why)
        return None


def _access(db: Database) -> Access:
    """What live sockets ask about whoever opened them."""

    async def authenticate(cookie: str | None, bearer: str | None) -> Actor | None:
        if bearer is not None:
            return await identity.by_token(db, bearer)
        return await identity.by_cookie(db, cookie) if cookie is not None else None

    async def still_valid(actor: Actor) -> Actor | None:
        async with db.reading() as conn:
            return await identity.actor_still_valid(conn, actor)

    async def visible_servers(actor: Actor) -> frozenset[str] | None:
        async with db.reading() as conn:
            return await fleet.visible_ids(conn, actor=actor)

    async def find_servers(actor: Actor, wanted: Collection[str]) -> frozenset[str]:
        async with db.reading() as conn:
            return await fleet.which_visible(conn, wanted, actor=actor)

    async def find_run(actor: Actor, run_id: str) -> frozenset[str] | None:
        async with db.reading() as conn:
            return await listing.servers_of(conn, run_id, actor=actor)

    async def actions_since(seq: int) -> Collection[str]:
        async with db.reading() as conn:
            return await audit_log.actions_since(conn, seq)

    return Access(authenticate, still_valid, visible_servers, find_servers, find_run, actions_since)


def _origins(settings: Settings) -> frozenset[str]:
    """Pages that may open a socket although their origin differs from the Host we see."""
    return frozenset(f"https://{host}" for host in settings.allowed_hosts)
