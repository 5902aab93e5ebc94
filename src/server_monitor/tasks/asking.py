"""What a person asks for: a command for some servers, looked at before anything starts, and then placed as a run."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from server_monitor.auth.actor import Actor, Permission, groups_allowing
from server_monitor.db.engine import Database
from server_monitor.errors import Conflict, Denied, FieldError, Invalid
from server_monitor.fleet import selection
from server_monitor.fleet import servers as server_rows
from server_monitor.fleet.selection import OBSTACLES, Chosen, Selector
from server_monitor.fleet.servers import Server
from server_monitor.ssh.vault import Vault
from server_monitor.tasks import listing, placing, rows
from server_monitor.tasks.clearing import Rule
from server_monitor.tasks.placing import Failed, Placed, Ruled
from server_monitor.tasks.run import SERVERS_MAX, Order

LEFT_OUT_TOLD = 3
GONE = "This server has been deleted, or is not yours to see any more."
MAY_STILL_RUN = "The command may still run there. Look at the server first, and name it in a new run."
SHELL = "bash"  # what a command is judged for; a host without it is judged again, for its sh


@dataclass(frozen=True, slots=True)
class Preview:
    """What would happen: where the command would run, where not and why, and what the policy says."""

    fit: Sequence[Chosen]
    unfit: Sequence[Chosen]
    ruled: Ruled


async def preview(
    db: Database, rule: Rule, command: str, selector: Selector, secret_names: Collection[str] = (), *, actor: Actor
) -> Preview:
    """Raises Invalid for a selector that means nothing, and Denied for whoever may run commands nowhere."""
    _require_anywhere(actor)
    async with db.reading() as conn:
        chosen = await selection.choose(conn, selector, actor=actor)
    fit = [one for one in chosen if one.obstacle is None]
    ruled = await rule(command, SHELL, [one.server for one in fit], actor, secret_names)
    return Preview(fit, [one for one in chosen if one.obstacle is not None], ruled)


async def ask(db: Database, rule: Rule, vault: Vault, order: Order, selector: Selector, *, actor: Actor) -> Placed:
    """Place a run. A command that the policy denies is placed as denied, with its record.

    Servers named one by one must all be fit; of groups and labels those that are not are left out.
    Raises Invalid with every mistake, Denied, and Conflict when no server is left.
    """
    order = order.checked()
    seen = await preview(db, rule, order.command, selector, order.secrets.keys(), actor=actor)
    _require_named(seen, selector)
    if not seen.fit:
        raise Conflict(_none_left(seen))
    if len(seen.fit) > SERVERS_MAX:
        raise Invalid.one("selector", f"means {len(seen.fit):,} servers; {SERVERS_MAX:,} is the most for one run")
    order = replace(order, canary=min(order.canary, len(seen.fit)))
    async with db.transaction() as conn:
        return await placing.place(
            conn, order, selector, seen.fit, seen.ruled, SHELL, vault=vault, actor=actor, now=datetime.now(UTC)
        )


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A server on which a run is not tried again, and why. Those that the asker may not see are one without a name."""

    server_id: str | None
    server_name: str | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Retried:
    placed: Placed
    left_out: Sequence[LeftOut]


async def retry(
    db: Database, rule: Rule, vault: Vault, run_id: str, secrets: Mapping[str, str], *, actor: Actor
) -> Retried:
    """Ask again for what a run did, where it did not succeed and where the asker may still run commands.

    Where the command may still run it is not asked for: a person looks at the host first, and names it in a new run.

    The run's secrets are gone, so they are given again. Raises as `ask` does, and Invalid when no server is left.
    """
    async with db.reading() as conn:
        run = await rows.get_run(conn, run_id, actor=actor)
        failed = await placing.retried_servers(conn, run_id)
        seen = await listing.servers_of(conn, run_id, actor=actor)
        there = {server.id: server for server in await server_rows.listing(conn, actor=actor)}
    _require_anywhere(actor)
    if missing := sorted(set(run.secret_names) - secrets.keys()):
        raise Invalid([FieldError(f"secrets.{name}", "is needed again; it was not kept") for name in missing])
    left_out = _left_out(failed, seen, there, actor)
    left = {one.server_id for one in left_out}
    again = [one for one in failed if one in there and one not in left]
    if not again:
        words = "; ".join(f"{one.server_name or 'others'}: {one.sentence}" for one in left_out[:LEFT_OUT_TOLD])
        raise Invalid.one("servers", f"none of those that failed can be tried again. {words}")
    order = Order(
        command=run.command,
        timeout_s=run.timeout_s,
        max_parallel=run.max_parallel,
        max_failures=run.max_failures,
        canary=0,
        store_output=run.store_output,
        reason=run.reason,
        retry_of=run_id,
        secrets=secrets,
    )
    placed = await ask(db, rule, vault, order, Selector(servers=again), actor=actor)
    return Retried(placed, left_out)


def _left_out(
    failed: Mapping[str, Failed], seen: Collection[str] | None, there: Mapping[str, Server], actor: Actor
) -> list[LeftOut]:
    """`seen` are the servers whose tasks of the run the asker may see; None for all."""
    found: list[LeftOut] = []
    for server_id, one in failed.items():
        if server_id not in there:
            if seen is None or server_id in seen:
                found.append(LeftOut(server_id, one.name, GONE))
        elif obstacle := selection.obstacle(there[server_id], actor):
            found.append(LeftOut(server_id, one.name, OBSTACLES[obstacle]))
        elif one.may_still_run:
            found.append(LeftOut(server_id, one.name, MAY_STILL_RUN))
    unseen = sum(seen is not None and server_id not in seen and server_id not in there for server_id in failed)
    if unseen:
        found.append(LeftOut(None, None, f"{unseen:,} more of the run's servers are not yours to see."))
    return found


def _require_anywhere(actor: Actor) -> None:
    allowed = groups_allowing(actor, Permission.TASK_RUN)
    if allowed is not None and not allowed:
        raise Denied(f"This takes the permission {Permission.TASK_RUN.value}.")


def _require_named(seen: Preview, selector: Selector) -> None:
    named = [one for one in seen.unfit if one.server.id in set(selector.servers)]
    if not named:
        return
    first = named[0]
    assert first.obstacle is not None
    words = f"{first.server.name}: {OBSTACLES[first.obstacle]}"
    words += f" ({len(named) - 1:,} more servers cannot take it either.)" if len(named) > 1 else ""
    raise Denied(words) if first.obstacle in {"not_permitted", "capability"} else Conflict(words)


def _none_left(seen: Preview) -> str:
    if not seen.unfit:
        return "No server matches; nothing was started."
    first = seen.unfit[0]
    assert first.obstacle is not None
    return f"None of {len(seen.unfit):,} servers can take it. {first.server.name}: {OBSTACLES[first.obstacle]}"
