"""May queued runs still begin? Who asked, what the policy says, and the servers may all have changed since.

A run is looked at when there is room for a task of it, and again after a few seconds while some of it is still queued.
An approval holds for what was approved: this command, in this shell, under the account that each server had then.
Servers that are gone since take nothing from the others.
"""

import hashlib
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.auth import users
from server_monitor.auth.actor import Actor, ActorKind, Permission, Role, allows
from server_monitor.db.engine import Database
from server_monitor.errors import Unavailable
from server_monitor.fleet.servers import Server, existing
from server_monitor.tasks import claims, waiting
from server_monitor.tasks.placing import Ruled
from server_monitor.tasks.policy.verdict import Context, digest_of
from server_monitor.tasks.waiting import Waiting
from server_monitor.telemetry.logs import logger

log = logger(__name__)

LASTS_S: Final = 5.0
TURN_S: Final = 0.2  # after so long no further run is looked at in the same turn
PASSED_MAX: Final = 10_000  # verdicts that are remembered

Rule = Callable[[str, str, Sequence[Server], Actor, Collection[str]], Awaitable[Ruled]]
"""command, shell, servers, asker, names of the secrets -> what the policy says."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """Runs that may begin. `is_all` says that no other run has to be looked at before something happens."""

    run_ids: Sequence[str]
    is_all: bool


class Clearing:
    """Which runs may begin now. The rules stay the same while it lives, so what passed once passes again."""

    def __init__(self, db: Database, rule: Rule, turn_s: float = TURN_S) -> None:
        self._db = db
        self._turn_s = turn_s
        self._rule = rule
        self._cleared: dict[str, float] = {}
        self._passed: dict[bytes, None] = {}  # digests of all that a verdict rests on

    def known(self, now_s: float) -> list[str]:
        """The runs that were looked at lately and found good."""
        self._cleared = {run_id: at for run_id, at in self._cleared.items() if now_s - at < LASTS_S}
        return list(self._cleared)

    async def clear(self, now_s: float, *, slots: int, per_server: int) -> Cleared:
        """Look at runs that are not known, as far as there is room for their tasks, and for no longer than a turn."""
        known = self.known(now_s)
        async with self._db.reading() as conn:
            others = await waiting.run_ids(conn, known, per_server)
            wanted = await claims.next_runs(conn, others, slots=slots, per_server=per_server) if others else []
        good: list[str] = []
        for place, run_id in enumerate(wanted):
            if place and get_running_loop().time() - now_s > self._turn_s:
                return Cleared(good, is_all=False)
            if await self._is_good(run_id):
                self._cleared[run_id] = now_s
                good.append(run_id)
        # Whatever stood behind a run that was not good has room now.
        return Cleared(good, is_all=len(good) == len(wanted))

    async def _is_good(self, run_id: str) -> bool:
        async with self._db.reading() as conn:
            run = await waiting.asked(conn, run_id)
            if run is None:
                return False
            actor = await _asker(run, conn)
            servers = await existing(conn, run.accounts)
        cause = await self._objection(run, actor, servers)
        fit = {server.id for server in servers if server.enabled and server.capability != "observe"}
        if cause is not None:
            async with self._db.transaction() as conn:
                await waiting.withdraw(conn, run_id, cause, datetime.now(UTC))
        elif not run.queued_ids <= fit:
            async with self._db.transaction() as conn:
                await waiting.skip_unfit(conn, run_id, datetime.now(UTC))
        return cause is None and not run.queued_ids.isdisjoint(fit)

    async def _objection(self, run: Waiting, actor: Actor | None, servers: Sequence[Server]) -> str | None:
        """Why the run may not begin any more, as a cause."""
        due = [server for server in servers if server.id in run.queued_ids]
        if actor is None or not all(allows(actor, Permission.TASK_RUN, server.group_ids) for server in due):
            return "user_gone"
        if not due:
            return None  # Its servers are gone, which ends its tasks in a way of their own.
        is_bound = run.ruling == "allow" or (run.decision == "approve" and _is_as_approved(run, due))
        try:
            return None if is_bound and await self._passes(run, run.shell, actor, servers) else "policy_changed"
        except Unavailable:
            raise
        except Exception:  # One run's, whatever it is: what cannot be judged may not begin, and the others go on.
            log.exception("run_not_judged", run_id=run.run_id)
            return "not_judged"

    async def passes(self, run: Waiting, shell: str) -> bool:
        """Does the policy let the run's command pass when this shell runs it?"""
        async with self._db.reading() as conn:
            actor = await _asker(run, conn)
            servers = await existing(conn, run.accounts)
        return actor is not None and await self._passes(run, shell, actor, servers)

    async def _passes(self, run: Waiting, shell: str, actor: Actor, servers: Sequence[Server]) -> bool:
        is_approved = run.decision == "approve" and shell == run.shell  # by somebody who looked at that shell
        key = _key(run, shell, actor, servers, is_approved=is_approved)
        if key in self._passed:
            return True
        ruled = await self._rule(run.command, shell, servers, actor, run.secret_names)
        if ruled.ruling != "allow" and not (ruled.ruling == "needs_approval" and is_approved):
            return False
        if len(self._passed) >= PASSED_MAX:
            del self._passed[next(iter(self._passed))]
        self._passed[key] = None
        return True


def _is_as_approved(run: Waiting, due: Sequence[Server]) -> bool:
    """Is what would begin on these servers what the approver saw?"""
    accounts = set(run.accounts.values())
    user = next(iter(accounts)) if len(accounts) == 1 else ""
    context = Context(shell="sh" if run.shell == "sh" else "bash", user=user, host_ids=tuple(run.accounts))
    is_same_text = digest_of(run.command, context) == run.digest
    return is_same_text and all(server.username == run.accounts[server.id] for server in due)


def _key(run: Waiting, shell: str, actor: Actor, servers: Sequence[Server], *, is_approved: bool) -> bytes:
    """A digest of all that the policy looks at."""
    on = sorted((one.id, one.username, one.group_ids, sorted(one.labels.items())) for one in servers)
    seen = (run.command, shell, run.secret_names, actor.role, is_approved, on)
    return hashlib.sha256(repr(seen).encode("utf-8", "surrogatepass")).digest()


async def _asker(run: Waiting, conn: AsyncConnection) -> Actor | None:
    """Whoever asked, with the rights they have now. Who runs our commands on the console's machine administers it."""
    if run.user_id is None:
        return Actor(ActorKind.OS_USER, None, run.user_name, Role.ADMIN)
    return await users.actor_of(conn, run.user_id)
