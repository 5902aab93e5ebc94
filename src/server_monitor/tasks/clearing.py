"""May queued runs still begin? Who asked, what the policy says, and the servers may all have changed since.

A run is looked at when its turn comes, and again every few seconds while some of it is still queued.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.auth import users
from server_monitor.auth.actor import Actor, ActorKind, Permission, Role, allows
from server_monitor.db.engine import Database
from server_monitor.fleet.selection import groups_of
from server_monitor.fleet.servers import Server, listing
from server_monitor.tasks import waiting
from server_monitor.tasks.placing import Ruled
from server_monitor.tasks.waiting import Waiting

LASTS_S: Final = 5.0

Rule = Callable[[str, str, Sequence[Server], Actor, Collection[str]], Awaitable[Ruled]]
"""command, shell, servers, asker, names of the secrets -> what the policy says."""


class Clearing:
    """Which runs may begin now. `run_ids` are those that were looked at lately and found good."""

    def __init__(self, db: Database, rule: Rule) -> None:
        self._db = db
        self._rule = rule
        self._cleared: dict[str, float] = {}

    async def run_ids(self, now_s: float) -> list[str]:
        """The runs that may begin, after looking at those that are new or whose turn it is again."""
        self._cleared = {run_id: at for run_id, at in self._cleared.items() if now_s - at < LASTS_S}
        async with self._db.reading() as conn:
            found = await waiting.waiting_runs(conn, self._cleared)
        for run in found:
            if await self._is_good(run):
                self._cleared[run.run_id] = now_s
        return list(self._cleared)

    async def _is_good(self, run: Waiting) -> bool:
        cause = await self._objection(run)
        async with self._db.transaction() as conn:
            if cause is not None:
                await waiting.withdraw(conn, run.run_id, cause, datetime.now(UTC))
            else:
                await waiting.skip_unfit(conn, run.run_id, datetime.now(UTC))
        return cause is None

    async def _objection(self, run: Waiting) -> str | None:
        """Why the run may not begin any more, as a cause."""
        async with self._db.reading() as conn:
            actor = await _asker(run, conn)
            if actor is None:
                return "user_gone"
            groups = await groups_of(conn, run.server_ids)
            if not all(allows(actor, Permission.TASK_RUN, groups.get(one, ())) for one in run.server_ids):
                return "user_gone"
        is_approved = run.ruling == "allow" or run.decision == "approve"
        return None if is_approved and await self._passes(run, run.shell, actor) else "policy_changed"

    async def passes(self, run: Waiting, shell: str) -> bool:
        """Does the policy let the run's command pass when this shell runs it?"""
        async with self._db.reading() as conn:
            actor = await _asker(run, conn)
        return actor is not None and await self._passes(run, shell, actor)

    async def _passes(self, run: Waiting, shell: str, actor: Actor) -> bool:
        meant = set(run.server_ids)
        async with self._db.reading() as conn:
            servers = [server for server in await listing(conn, actor=actor) if server.id in meant]
        ruled = await self._rule(run.command, shell, servers, actor, run.secret_names)
        return ruled.ruling == "allow" or (ruled.ruling == "needs_approval" and run.decision == "approve")


async def _asker(run: Waiting, conn: AsyncConnection) -> Actor | None:
    """Whoever asked, with the rights they have now. Who runs our commands on the console's machine administers it."""
    if run.user_id is None:
        return Actor(ActorKind.OS_USER, None, run.user_name, Role.ADMIN)
    return await users.actor_of(conn, run.user_id)
