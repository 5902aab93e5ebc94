"""A run and its tasks, stored as the policy said: queued, waiting for a second person, or denied."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.auth.actor import Actor, audited
from server_monitor.db.ids import new_id
from server_monitor.db.tables import runs, tasks
from server_monitor.errors import Conflict
from server_monitor.fleet.selection import Chosen, Selector
from server_monitor.fleet.servers import Server
from server_monitor.ssh.vault import Vault
from server_monitor.tasks import causes, secrets
from server_monitor.tasks.rows import (
    NAMES_IN_RECORD,
)
from server_monitor.tasks.run import (
    APPROVAL_LASTS,
    OPEN,
    RETRIED,
    Order,
    Status,
)
from server_monitor.telemetry.logs import request_context


@dataclass(frozen=True, slots=True)
class Ruled:
    """What the policy said about a command, as it is stored. `ruling` is allow, needs_approval or deny."""

    ruling: str
    digest: str
    rule: str | None
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Placed:
    """A run that was stored, with its tasks: `(task id, server, status)` each."""

    run_id: str
    status: Status
    tasks: Sequence[tuple[str, Server, Status]]


@dataclass(frozen=True, slots=True)
class Failed:
    """A server on which a run did not succeed, by the name that it had then. Nobody knows of some whether its command
    is over.
    """

    name: str
    may_still_run: bool


async def place(  # noqa: PLR0917
    conn: AsyncConnection,
    order: Order,
    selector: Selector,
    chosen: Sequence[Chosen],
    ruled: Ruled,
    shell: str,
    *,
    vault: Vault,
    actor: Actor,
    now: datetime,
) -> Placed:
    """Store a run and its tasks: queued, waiting for approval, or denied, as the policy said.

    A denial is a value and not an error, because its record has to stay. Appends `task.create` or `task.denied`.
    The caller has made sure that the actor may run commands on each of the servers.
    """
    status = {"allow": Status.QUEUED, "needs_approval": Status.AWAITING_APPROVAL, "deny": Status.DENIED}[ruled.ruling]
    context = request_context.get()
    run_id = new_id()
    is_denied = status is Status.DENIED
    sealed = None if is_denied or not order.secrets else secrets.seal(vault, run_id, order.secrets)
    row = {
        "id": run_id,
        "command": order.command,
        "shell": shell,
        "user_id": actor.id,
        "user_name": actor.name,
        "token_id": actor.token_id,
        "request_id": context.request_id if context else run_id,
        "reason": order.reason,
        "retry_of": order.retry_of,
        "selector": selector.document(),
        "verdict": dict(ruled.document),
        "ruling": ruled.ruling,
        "digest": ruled.digest,
        "timeout_s": order.timeout_s,
        "max_parallel": order.max_parallel,
        "max_failures": order.max_failures,
        "canary": order.canary,
        "store_output": order.store_output,
        "secret_names": sorted(order.secrets),
        "secrets": sealed.data if sealed else None,
        "secrets_key": sealed.key_id if sealed else None,
        "tasks": len(chosen),
        "created_at": now,
        "expires_at": now + APPROVAL_LASTS if status is Status.AWAITING_APPROVAL else None,
        "finished_at": now if is_denied else None,
    }
    await conn.execute(insert(runs), [row])
    made = [(new_id(), one.server, status) for one in chosen]
    rows = [
        {
            "id": task_id,
            "run_id": run_id,
            "position": position,
            "server_id": server.id,
            "server_name": server.name,
            "account": server.username,
            "status": status,
            "cause": "policy" if is_denied else None,
            "created_at": now,
            "finished_at": now if is_denied else None,
        }
        for position, (task_id, server, _) in enumerate(made)
    ]
    if rows:
        await conn.execute(insert(tasks), rows)
    await log.append(conn, _placed_event(run_id, order, selector, made, ruled, actor))
    return Placed(run_id, status, made)


def _placed_event(  # noqa: PLR0917
    run_id: str,
    order: Order,
    selector: Selector,
    made: Sequence[tuple[str, Server, Status]],
    ruled: Ruled,
    actor: Actor,
) -> Event:
    is_denied = ruled.ruling == "deny"
    names = [server.name for _, server, _ in made]
    groups = sorted({group for _, server, _ in made for group in server.group_ids})
    meta: dict[str, Any] = {
        "command": order.command,
        "servers": names[:NAMES_IN_RECORD],
        "server_count": len(names),
        "selector": selector.document() if len(selector.servers) <= NAMES_IN_RECORD else {"servers": len(names)},
        "timeout_s": order.timeout_s,
        "verdict": ruled.ruling,
        "rule": ruled.rule,
        "engine": ruled.document.get("engine"),
        "digest": ruled.digest,
    }
    meta |= {"secret_names": sorted(order.secrets)} if order.secrets else {}
    meta |= {"reason": order.reason} if order.reason else {}
    meta |= {"retry_of": order.retry_of} if order.retry_of else {}
    return Event(
        "task.denied" if is_denied else "task.create",
        audited(actor),
        AuditTarget("run", run_id, None, groups[:NAMES_IN_RECORD]),
        outcome="denied" if is_denied else "success",
        reason=f"policy.{ruled.rule}"[:64] if is_denied and ruled.rule else None,
        meta=meta,
    )


async def retried_servers(conn: AsyncConnection, run_id: str) -> dict[str, Failed]:
    """The servers on which a run did not succeed, by id.

    Raises Conflict while it is not over, or when there are none.
    """
    columns = tasks.c.server_id, tasks.c.server_name, tasks.c.status, tasks.c.cause
    wanted = select(*columns).where(tasks.c.run_id == run_id).order_by(tasks.c.position)
    rows = (await conn.execute(wanted)).all()
    if any(Status(row.status) in OPEN for row in rows):
        raise Conflict("This run is not over yet.")
    unsure = {row.server_id for row in rows if row.status == Status.INTERRUPTED and row.cause in causes.MAY_STILL_RUN}
    retried = [row for row in rows if Status(row.status) in RETRIED]
    failed = {row.server_id: Failed(row.server_name, row.server_id in unsure) for row in retried}
    if not failed:
        raise Conflict("This run succeeded everywhere; there is nothing to try again.")
    return failed
