"""The list of servers as every open browser asks for it."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from server_monitor.api.roster import Roster
from server_monitor.auth.actor import Actor, ActorKind, GroupId, Role
from server_monitor.db.engine import Database
from server_monitor.fleet import changes, groups, servers
from server_monitor.fleet.changes import Edit
from server_monitor.series.sample import Sample
from server_monitor.series.store import History
from server_monitor.series.tiers import Tiers
from tests.support.fleet import ADMIN, NOBODY, VAULT, VIEWER, add, add_group, member
from tests.support.patience import PATIENCE_S


@pytest.fixture
async def history(tmp_path: Path) -> AsyncIterator[History]:
    opened = await History.open(tmp_path / "history.sqlite3", Tiers())
    try:
        yield opened
    finally:
        await opened.close()


async def items(roster: Roster, actor: Actor = ADMIN) -> list[dict[str, Any]]:
    return list(orjson.loads(await roster.page(1_000, None, actor=actor))["items"])


async def test_what_somebody_has_changed_is_in_the_next_answer(sqlite_db: Database, history: History) -> None:
    roster = Roster(sqlite_db, history)
    assert await items(roster) == []
    made = await add(sqlite_db, "web1")
    assert [item["name"] for item in await items(roster)] == ["web1"]
    async with sqlite_db.transaction() as conn:
        await changes.edit(conn, VAULT, made.id, Edit(name="web2"), actor=ADMIN)
    assert [item["name"] for item in await items(roster)] == ["web2"]
    group = await add_group(sqlite_db, "web", [made])
    assert (await items(roster))[0]["groups"] == [{"id": group.id, "name": "web"}]
    async with sqlite_db.transaction() as conn:
        await groups.remove(conn, group.id, actor=ADMIN)
        await changes.remove(conn, made.id, actor=ADMIN)
    assert await items(roster) == []


async def test_each_sample_is_in_the_next_answer(sqlite_db: Database, history: History) -> None:
    roster = Roster(sqlite_db, history)
    made = await add(sqlite_db, "web1")
    await add(sqlite_db, "web2")
    now = time.time()
    for number in range(3):
        history.append([Sample(made.id, now + number, {"cpu_percent": float(number)})])
        first, second = await items(roster)
        assert first["latest"]["cpu_percent"] == number
        assert second["latest"] is None


async def test_what_the_collectors_find_out_is_there_within_a_second(sqlite_db: Database, history: History) -> None:
    roster = Roster(sqlite_db, history)
    made = await add(sqlite_db, "web1")
    assert (await items(roster))[0]["status"] == "unknown"
    async with sqlite_db.transaction() as conn:
        await servers.set_status(conn, made.id, "online", None, None, datetime.now(UTC))
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if (await items(roster))[0]["status"] == "online":
                break
            await asyncio.sleep(0.05)  # The list is asked again, as a browser does.


async def test_the_list_shows_what_the_actor_may_see_and_no_more(db: Database, history: History) -> None:
    """The list in memory and the condition in SQL say the same of everybody."""
    roster = Roster(db, history)
    made = [await add(db, name) for name in ("a", "b", "c", "d")]
    one, two = await add_group(db, "one", made[:2]), await add_group(db, "two", made[1:3])
    both: dict[GroupId, Role] = {one.id: Role.VIEWER, two.id: Role.AUDITOR}
    everybody = (ADMIN, VIEWER, NOBODY, member(one, Role.OPERATOR), Actor(ActorKind.USER, "x", "x", None, both))
    for actor in everybody:
        async with db.reading() as conn:
            allowed = [server.name for server in await servers.listing(conn, actor=actor)]
        assert [item["name"] for item in await items(roster, actor)] == allowed


async def test_many_who_ask_at_once_each_get_the_whole_list(sqlite_db: Database, history: History) -> None:
    roster = Roster(sqlite_db, history)
    for number in range(5):
        await add(sqlite_db, f"web{number}")
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(items(roster)) for _ in range(50)]
    assert {len(one.result()) for one in asked} == {5}


async def test_names_that_would_break_json_do_not(sqlite_db: Database, history: History) -> None:
    name = 'a"b\\c},{"id":"x'
    await add(sqlite_db, name, host="10.0.0.1")
    (only,) = await items(Roster(sqlite_db, history))
    assert only["name"] == name
