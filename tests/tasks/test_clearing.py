"""Which queued runs may still begin when there is room for them."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete, insert, update

from server_monitor.auth.actor import Actor, Role
from server_monitor.db.engine import Database
from server_monitor.db.tables import grants, runs, servers, users
from server_monitor.fleet.selection import Selector
from server_monitor.fleet.servers import Server
from server_monitor.tasks import approval, asking, claims, waiting
from server_monitor.tasks.clearing import Clearing, Rule
from server_monitor.tasks.judge import Judge
from server_monitor.tasks.placing import Placed, Ruled
from server_monitor.tasks.policy.decide import RuleSet
from server_monitor.tasks.rulings import rule_of
from server_monitor.tasks.run import Order
from server_monitor.tasks.shell_parser import ShellParser
from tests.support.fleet import VAULT, add_group, member
from tests.support.patience import PATIENCE_S
from tests.tasks.runs import GRACE, add_servers, place, place_in, run_row, set_server, statuses, task_rows
from tests.tasks.site import ASKER


def real_rule(rules: RuleSet) -> Rule:
    """The console's own, however long the parser takes."""
    return rule_of(Judge(rules, ShellParser(deadline_s=PATIENCE_S)))


@dataclass(slots=True)
class Asked:
    """The policy, where what runs on several hosts takes a second person; it counts how often it is asked."""

    rule: Rule = field(default_factory=lambda: real_rule(RuleSet(approve_above_hosts=1)))
    times: int = 0

    async def __call__(
        self, command: str, shell: str, on: Sequence[Server], actor: Actor, secret_names: Collection[str]
    ) -> Ruled:
        self.times += 1
        return await self.rule(command, shell, on, actor, secret_names)


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
async def pair(db: Database) -> list[Server]:
    """Two servers whose host keys are known."""
    made = await add_servers(db, 2)
    for server in made:
        await set_server(db, server, status="online", status_reason=None)
    return made


@pytest.fixture
async def approved(db: Database, asked: Asked, pair: list[Server]) -> Placed:
    """A run on two servers that a second person has approved."""
    selector = Selector(servers=[server.id for server in pair])
    placed = await asking.ask(db, asked, VAULT, Order("uptime", 60), selector, actor=ASKER)
    async with db.transaction() as conn:
        await approval.approve(conn, placed.run_id, None, actor=GRACE, now=datetime.now(UTC))
    return placed


async def cleared(clearing: Clearing, *, slots: int = 1_000, after_s: float = 0) -> Sequence[str]:
    """What is cleared in one turn, so many seconds after now."""
    found = await clearing.clear(asyncio.get_running_loop().time() + after_s, slots=slots, per_server=1)
    return found.run_ids


async def test_what_was_approved_and_is_as_it_was_begins(db: Database, asked: Asked, approved: Placed) -> None:
    assert await cleared(Clearing(db, asked, PATIENCE_S)) == [approved.run_id]


async def test_an_approval_does_not_hold_for_another_account(
    db: Database, asked: Asked, approved: Placed, pair: list[Server]
) -> None:
    await set_server(db, pair[1], username="deploy")

    assert await cleared(Clearing(db, asked, PATIENCE_S)) == []
    assert await statuses(db, approved) == ["denied"] * 2
    assert {row.cause for row in await task_rows(db, approved)} == {"policy_changed"}


@pytest.mark.parametrize("change", [{"command": "uptime -p"}, {"shell": "sh"}])
async def test_an_approval_does_not_hold_for_another_text_or_shell(
    db: Database, asked: Asked, approved: Placed, change: dict[str, str]
) -> None:
    async with db.transaction() as conn:
        await conn.execute(update(runs).values(**change))

    assert await cleared(Clearing(db, asked, PATIENCE_S)) == []
    assert await statuses(db, approved) == ["denied"] * 2


async def test_a_server_that_is_gone_takes_the_approval_from_no_other(
    db: Database, asked: Asked, approved: Placed, pair: list[Server]
) -> None:
    async with db.transaction() as conn:
        await conn.execute(delete(servers).where(servers.c.id == pair[0].id))

    assert await cleared(Clearing(db, asked, PATIENCE_S)) == [approved.run_id]
    assert await statuses(db, approved) == ["skipped", "queued"]


async def test_what_was_approved_for_bash_does_not_pass_in_sh(db: Database, asked: Asked, approved: Placed) -> None:
    async with db.reading() as conn:
        run = await waiting.asked(conn, approved.run_id)
    assert run is not None
    clearing = Clearing(db, asked, PATIENCE_S)

    assert await clearing.passes(run, "bash")
    assert not await clearing.passes(run, "sh")


@pytest.fixture
async def operator(db: Database, pair: list[Server]) -> Actor:
    """Somebody who may run commands on the two servers because of their group."""
    group = await add_group(db, "web", pair)
    gus = member(group, Role.OPERATOR)
    async with db.transaction() as conn:
        await conn.execute(insert(users).values(id=gus.id, name=gus.name, created_at=datetime.now(UTC)))
        await conn.execute(insert(grants).values(user_id=gus.id, group_id=group.id, role=Role.OPERATOR))
    return gus


async def test_a_server_that_is_gone_takes_no_right_from_whoever_asked(
    db: Database, pair: list[Server], operator: Actor
) -> None:
    placed = await place(db, pair, actor=operator)
    async with db.transaction() as conn:
        await conn.execute(delete(servers).where(servers.c.id == pair[0].id))

    assert await cleared(Clearing(db, real_rule(RuleSet()), PATIENCE_S)) == [placed.run_id]
    assert [row.cause for row in await task_rows(db, placed)] == ["server_unfit", None]


async def test_whoever_may_run_nothing_there_any_more_has_their_run_withdrawn(
    db: Database, asked: Asked, pair: list[Server], operator: Actor
) -> None:
    placed = await place(db, pair, actor=operator)
    async with db.transaction() as conn:
        await conn.execute(delete(grants))

    assert await cleared(Clearing(db, asked, PATIENCE_S)) == []
    assert {row.cause for row in await task_rows(db, placed)} == {"user_gone"}


async def test_a_thousand_runs_that_wait_for_one_server_hold_nobody_on_another(
    db: Database, asked: Asked, pair: list[Server]
) -> None:
    """Of the thousand only the one is looked at that has room."""
    one, other = pair
    async with db.transaction() as conn:
        for number in range(1_000):
            await place_in(conn, [one], actor=ASKER, command=f"echo {number}")
    alone = await place(db, [other], actor=replace(ASKER, name="somebody else"))
    clearing = Clearing(db, asked, PATIENCE_S)

    found = await cleared(clearing)
    async with db.transaction() as conn:
        begun = await claims.claim(conn, "one", slots=10, per_server=1, cleared=found, now=datetime.now(UTC))

    assert [claim.server_id for claim in begun] == [one.id, other.id]
    assert begun[1].run_id == alone.run_id
    assert (await cleared(clearing), asked.times) == ([], 2)


async def test_no_more_runs_are_looked_at_than_there_are_slots(db: Database, asked: Asked) -> None:
    for server in await add_servers(db, 5):
        await place(db, [server], actor=ASKER)

    assert len(await cleared(Clearing(db, asked, PATIENCE_S), slots=3)) == 3
    assert asked.times == 3


async def test_a_turn_whose_time_is_over_leaves_the_others_to_the_next(db: Database, asked: Asked) -> None:
    for server in await add_servers(db, 3):
        await place(db, [server], actor=ASKER)
    clearing, now_s = Clearing(db, asked, turn_s=0.5), asyncio.get_running_loop().time

    found = await clearing.clear(now_s() - 1, slots=10, per_server=1)
    turns = [len(found.run_ids)]
    while not found.is_all:
        found = await clearing.clear(now_s(), slots=10, per_server=1)
        turns.append(len(found.run_ids))

    assert turns[0] == 1
    assert sum(turns) == 3


async def test_what_passed_is_looked_at_again_and_costs_no_verdict(
    db: Database, asked: Asked, pair: list[Server]
) -> None:
    placed = await place(db, pair[:1], actor=ASKER)
    clearing = Clearing(db, asked, PATIENCE_S)
    first = await cleared(clearing)
    again = await cleared(clearing, after_s=6)
    await set_server(db, pair[0], username="deploy")
    changed = await cleared(clearing, after_s=12)

    assert first == again == changed == [placed.run_id]
    assert asked.times == 2
    assert (await run_row(db, placed)).finished_at is None


async def test_a_run_that_cannot_be_judged_is_withdrawn_and_holds_no_other(db: Database, pair: list[Server]) -> None:
    async def rule(
        command: str, shell: str, on: Sequence[Server], actor: Actor, secret_names: Collection[str]
    ) -> Ruled:
        if command == "true":
            raise RecursionError
        return Ruled("allow", "sha256:0123", None, {"verdict": "allow"})

    bad = await place(db, pair[:1], command="true", actor=ASKER)
    good = await place(db, pair[1:], actor=ASKER)

    assert await cleared(Clearing(db, rule, PATIENCE_S)) == [good.run_id]
    [row] = await task_rows(db, bad)
    assert (row.status, row.cause) == ("denied", "not_judged")
