"""The HTTP application in this process, on a real database, with people who each hold a token."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
from pydantic import SecretStr
from sqlalchemy import insert

from server_monitor.api import app as api
from server_monitor.api.deps import Console
from server_monitor.api.health import Readiness
from server_monitor.api.middleware import Edge
from server_monitor.api.roster import Roster
from server_monitor.audit import checkpoints
from server_monitor.audit.archive import Archive
from server_monitor.audit.housekeeping import Housekeeping, rules_of
from server_monitor.audit.verifying import Verifying
from server_monitor.auth import credentials
from server_monitor.auth.actor import Role, os_user
from server_monitor.auth.login import Logins
from server_monitor.bus.memory import MemoryBus
from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id
from server_monitor.db.tables import grants, users
from server_monitor.lifecycle.wiring import routers
from server_monitor.series.store import History
from server_monitor.series.tiers import Tiers
from server_monitor.settings import Settings
from server_monitor.ssh.pool import Limits, Pool
from server_monitor.tasks import rulings
from server_monitor.tasks.dispatch import Dispatcher
from server_monitor.tasks.dispatch import Limits as TaskLimits
from server_monitor.tasks.hosts import Hosts
from server_monitor.tasks.output import Outputs, Sizes
from server_monitor.tasks.patience import Patience
from server_monitor.terminal.bridge import Limits as TerminalLimits
from server_monitor.terminal.desk import Desk
from server_monitor.terminal.files import Copying
from server_monitor.terminal.library import Library
from server_monitor.terminal.searching import Searching
from server_monitor.terminal.sessions import Rules as TerminalRules
from server_monitor.terminal.shell import opener
from tests.support.fleet import VAULT
from tests.support.patience import PATIENCE_S
from tests.support.recordings import KEYRING

SECRET = SecretStr("a secret for tests that is long enough")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a token; every answer that is no error is decoded."""

    id: str
    client: httpx2.AsyncClient
    token: str

    async def send(self, method: str, path: str, body: object = None, **query: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return await self.client.request(method, path, json=body, params=query, headers=headers)

    async def get(self, path: str, **query: Any) -> Any:
        return await self.ask("GET", path, **query)

    async def ask(self, method: str, path: str, body: object = None, *, status: int = 200, **query: Any) -> Any:
        """The decoded answer, which has to have this status."""
        answer = await self.send(method, path, body, **query)
        assert answer.status_code == status, (answer.status_code, answer.text)
        return answer.json() if answer.content else None


@dataclass(frozen=True, slots=True)
class Site:
    """One console without its loops."""

    db: Database
    history: History
    pool: Pool
    client: httpx2.AsyncClient
    library: Library

    async def person(self, role: Role | None, groups: Mapping[str, Role] | None = None) -> Person:
        """A new user with a global role, roles in groups, and a token that may do all they may."""
        user_id = new_id()
        async with self.db.transaction() as conn:
            row = {"id": user_id, "name": f"user {user_id}", "role": role, "created_at": datetime.now(UTC)}
            await conn.execute(insert(users).values(**row))
            for group_id, group_role in (groups or {}).items():
                await conn.execute(insert(grants).values(group_id=group_id, user_id=user_id, role=group_role))
            made = await credentials.create(conn, user_id, "tests", ["admin"], actor=os_user("tests"))
        return Person(user_id, self.client, made.secret)


@asynccontextmanager
async def site_on(db: Database, directory: Path, *, agent_socket: str | None = None) -> AsyncIterator[Site]:
    history = await History.open(directory / "history.sqlite3", Tiers())
    pool = Pool(db, VAULT, Limits(connect_timeout_s=PATIENCE_S), agent_socket=agent_socket)
    signer = checkpoints.load_signer(directory, db.node)
    settings = Settings()
    archive = Archive(f"file://{directory}/archive")
    housekeeping = Housekeeping(db, signer, archive, rules_of(settings), directory)
    roster = Roster(db, history)
    verifying = Verifying(db, settings.database, signer)
    judge = rulings.judge_of(settings)
    rule, outputs = rulings.rule_of(judge), Outputs(directory / "tasks", Sizes())
    dispatcher = Dispatcher(db, db.node, Hosts(pool.open_channel), outputs, VAULT, rule, MemoryBus(), TaskLimits())
    library = Library(db, directory / "recordings", KEYRING)
    desk = Desk(
        db,
        db.node,
        MemoryBus(),
        opener(db, pool),
        library.begin,
        library.settle,
        _nothing_is_dangerous,
        _nothing_happened,
        TerminalLimits(),
        TerminalRules(),
    )
    console = Console(
        settings,
        db,
        Logins(db, SECRET),
        history,
        pool,
        VAULT,
        roster,
        signer,
        lambda _: (),
        housekeeping,
        verifying,
        judge,
        rule,
        outputs,
        dispatcher,
        Patience(db, MemoryBus()),
        desk,
        library,
        Searching(db, library, SECRET, budget_s=PATIENCE_S),
        Copying(db, pool, settings.file_transfer_max_bytes),
    )
    limits = {"/api/servers/import": 8 * 1024 * 1024}
    edge = Edge(proxies=(), hosts={"console"}, body_limits=limits, upload_limit_bytes=settings.file_transfer_max_bytes)
    app = api.make_app(console, edge, Readiness(), routers(), {})
    transport = httpx2.ASGITransport(app=app)
    try:
        async with httpx2.AsyncClient(transport=transport, base_url="http://console") as client:
            yield Site(db, history, pool, client, library)
    finally:
        await pool.close()
        library.close()
        judge.close()
        await history.close()


async def _nothing_is_dangerous(*_asked: object) -> None:
    return None


async def _nothing_happened(_seq: int) -> list[str]:
    return []
