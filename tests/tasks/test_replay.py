"""Rules held against the runs of the last days."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from server_monitor.auth.actor import Actor
from server_monitor.db.engine import Database
from server_monitor.db.tables import servers
from server_monitor.fleet.selection import Chosen, Selector
from server_monitor.fleet.servers import Server
from server_monitor.tasks import placing
from server_monitor.tasks.judge import Judge
from server_monitor.tasks.policy.decide import RuleSet
from server_monitor.tasks.policy.patterns import compiled
from server_monitor.tasks.replay import replay
from server_monitor.tasks.rulings import rule_of
from server_monitor.tasks.run import Order
from server_monitor.tasks.shell_parser import ShellParser
from tests.support.fleet import ADMIN, VAULT
from tests.support.patience import PATIENCE_S
from tests.tasks.runs import add_servers

SINCE = timedelta(days=1)
ABOVE_TWO = RuleSet(approve_above_hosts=2)


async def run(db: Database, rules: RuleSet, command: str, on: list[Server], *, secrets: tuple[str, ...] = ()) -> str:
    """A run as the console takes it, with the verdict on it."""
    judge = Judge(rules, ShellParser(deadline_s=PATIENCE_S))
    actor: Actor = ADMIN
    try:
        ruled = await rule_of(judge)(command, "bash", on, actor, secrets)
    finally:
        judge.close()
    order = replace(Order(command=command, timeout_s=60), secrets=dict.fromkeys(secrets, "x"))
    selector, chosen = Selector(servers=[server.id for server in on]), [Chosen(server, None) for server in on]
    async with db.transaction() as conn:
        await placing.place(
            conn, order, selector, chosen, ruled, "bash", vault=VAULT, actor=actor, now=datetime.now(UTC)
        )
    return ruled.ruling


@pytest.fixture
async def hosts(sqlite_db: Database) -> list[Server]:
    """Three servers that root runs commands on."""
    return await add_servers(sqlite_db, 3)


async def test_the_same_rules_change_nothing(sqlite_db: Database, hosts: list[Server]) -> None:
    """The account, the secrets, how many hosts and their labels are what they were when the run was asked for."""
    rulings = [
        await run(sqlite_db, ABOVE_TWO, "chmod -R 700 ~", hosts[:1]),
        await run(sqlite_db, ABOVE_TWO, 'rm -rf "$API_TOKEN"/cache', hosts[:1], secrets=("API_TOKEN",)),
        await run(sqlite_db, ABOVE_TWO, 'rm -rf "$API_TOKEN"/cache', hosts[:1]),
        await run(sqlite_db, ABOVE_TWO, "uptime", hosts[:1]),
        await run(sqlite_db, ABOVE_TWO, "uptime", hosts),
    ]
    assert len(set(rulings)) == 3

    assert await replay(sqlite_db, ABOVE_TWO, datetime.now(UTC) - SINCE, actor=ADMIN) == (5, [])


async def test_a_label_counts_as_it_was(sqlite_db: Database, hosts: list[Server]) -> None:
    labelled = [replace(hosts[0], labels={"policy": "approve"})]
    assert await run(sqlite_db, RuleSet(), "uptime", labelled) == "needs_approval"
    async with sqlite_db.transaction() as conn:
        await conn.execute(servers.delete())

    assert await replay(sqlite_db, RuleSet(), datetime.now(UTC) - SINCE, actor=ADMIN) == (1, [])


async def test_a_denied_pattern_shows_what_it_would_have_stopped(sqlite_db: Database, hosts: list[Server]) -> None:
    await run(sqlite_db, RuleSet(), "uptime", hosts[:1])
    await run(sqlite_db, RuleSet(), "df -h", hosts[:1])

    count, changed = await replay(sqlite_db, RuleSet(deny=compiled(["^df"])), datetime.now(UTC) - SINCE, actor=ADMIN)

    assert count == 2
    assert [(one.run.command, one.now.rule) for one in changed] == [("df -h", "user.deny")]
