"""Runs over HTTP: what printed the same, who sees what of a run that spans groups, and trying again what is left."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, update

from server_monitor.auth.actor import Role
from server_monitor.db.engine import Database
from server_monitor.db.tables import api_tokens, group_members, groups, servers, task_output, tasks
from server_monitor.fleet.servers import Server
from server_monitor.tasks.placing import Placed
from server_monitor.tasks.run import Status
from tests.support.api import Site, site_on
from tests.tasks.runs import add_servers, claim, place, succeed, task_rows


@pytest.fixture
async def site(db: Database, tmp_path: Path) -> AsyncIterator[Site]:
    async with site_on(db, tmp_path) as running:
        yield running


async def end(db: Database, placed: Placed, printed: list[bytes], status: str = "success") -> None:
    """Every task has ended, and printed this."""
    now = datetime.now(UTC)
    rows = [
        {
            "task_id": row.id,
            "stdout": out[:65_536],
            "stderr": b"",
            "stdout_bytes": len(out),
            "stderr_bytes": 0,
            "truncated": False,
            "digest": hashlib.sha256(out).digest(),
        }
        for row, out in zip(await task_rows(db, placed), printed, strict=True)
    ]
    async with db.transaction() as conn:
        ended = {"status": status, "exit_code": 0, "started_at": now, "finished_at": now}
        await conn.execute(update(tasks).where(tasks.c.run_id == placed.run_id).values(**ended))
        await conn.execute(insert(task_output), rows)


async def test_a_group_beyond_those_that_come_with_text_says_that_it_printed_something(site: Site) -> None:
    admin = await site.person(Role.ADMIN)
    placed = await place(site.db, await add_servers(site.db, 205))
    await end(site.db, placed, [f"up {number} days\n".encode() for number in range(205)])

    found = (await admin.get(f"/api/runs/{placed.run_id}/outputs"))["items"]

    assert [group["stdout"] is None for group in found] == [False] * 200 + [True] * 5
    last = found[-1]
    assert last["stdout_bytes"] > last["stdout_sent_bytes"] == 0
    more = await admin.get(f"/api/tasks/{last['tasks'][0]['id']}")
    assert more["stdout_sent_bytes"] == last["stdout_bytes"] == len(more["stdout"])


async def test_a_long_output_says_how_much_of_it_was_sent(site: Site) -> None:
    admin = await site.person(Role.ADMIN)
    placed = await place(site.db, await add_servers(site.db, 1))
    await end(site.db, placed, [b"\xff" * 100_000])

    [group] = (await admin.get(f"/api/runs/{placed.run_id}/outputs"))["items"]
    task = await admin.get(f"/api/tasks/{group['tasks'][0]['id']}")

    assert (group["stdout_sent_bytes"], task["stdout_sent_bytes"], group["stdout_bytes"]) == (16_384, 65_536, 100_000)
    assert len(group["stdout"]) == 16_384
    assert group["stderr"] == "", "of what printed nothing, nothing is missing"


async def two_groups(site: Site, status: str = "failed") -> tuple[list[Server], list[str], Placed]:
    """Two servers, each in a group of its own, the groups, and a run on both that is over."""
    chosen = await add_servers(site.db, 2)
    ids = [f"00000000-0000-7000-8000-0000000000a{number}" for number in range(2)]
    async with site.db.transaction() as conn:
        made = [
            {"id": one, "name": one, "description": "", "labels": {}, "created_at": datetime.now(UTC)} for one in ids
        ]
        await conn.execute(insert(groups), made)
        members = [{"group_id": one, "server_id": server.id} for one, server in zip(ids, chosen, strict=True)]
        await conn.execute(insert(group_members), members)
        await conn.execute(update(servers).values(status="online", status_reason=None))
    placed = await place(site.db, chosen)
    await end(site.db, placed, [b"no\n"] * 2, status)
    return chosen, ids, placed


async def test_a_retry_leaves_out_what_is_gone_and_says_so(site: Site) -> None:
    admin = await site.person(Role.ADMIN)
    chosen, _, placed = await two_groups(site)
    async with site.db.transaction() as conn:
        await conn.execute(delete(servers).where(servers.c.id == chosen[1].id))

    again = await admin.ask("POST", f"/api/runs/{placed.run_id}/retry-failed", {}, status=202)

    assert [task["server_id"] for task in again["tasks"]] == [chosen[0].id]
    [left_out] = again["left_out"]
    assert (left_out["server_name"], "deleted" in left_out["sentence"]) == (chosen[1].name, True)


@pytest.mark.parametrize("cause", ["not_confirmed", "unreachable", "connection_lost", "cannot_tell"])
async def test_a_retry_leaves_out_where_the_command_may_still_run(site: Site, cause: str) -> None:
    admin = await site.person(Role.ADMIN)
    chosen, _, placed = await two_groups(site)
    async with site.db.transaction() as conn:
        unsure = update(tasks).values(status=Status.INTERRUPTED, cause=cause)
        await conn.execute(unsure.where(tasks.c.server_id == chosen[1].id))

    again = await admin.ask("POST", f"/api/runs/{placed.run_id}/retry-failed", {}, status=202)

    assert [task["server_id"] for task in again["tasks"]] == [chosen[0].id]
    [left_out] = again["left_out"]
    assert (left_out["server_name"], "may still run" in left_out["sentence"]) == (chosen[1].name, True)


async def test_a_retry_of_a_run_beyond_ones_groups_tries_ones_own(site: Site) -> None:
    chosen, ids, placed = await two_groups(site)
    operator = await site.person(None, {ids[0]: Role.OPERATOR})

    again = await operator.ask("POST", f"/api/runs/{placed.run_id}/retry-failed", {}, status=202)

    assert [task["server_id"] for task in again["tasks"]] == [chosen[0].id]
    [left_out] = again["left_out"]
    assert left_out["server_id"] is None
    assert chosen[1].name not in str(again)


async def test_a_retry_with_no_server_left_is_refused(site: Site) -> None:
    admin = await site.person(Role.ADMIN)
    chosen, _, placed = await two_groups(site)
    async with site.db.transaction() as conn:
        await conn.execute(delete(servers).where(servers.c.id == chosen[1].id))
        await conn.execute(update(servers).values(capability="observe"))

    problem = await admin.ask("POST", f"/api/runs/{placed.run_id}/retry-failed", {}, status=422)

    assert "capability observe" in problem["detail"]
    assert chosen[1].name in problem["detail"]


async def test_whoever_sees_a_part_of_a_run_is_told_nothing_of_the_rest(site: Site) -> None:
    chosen, ids, placed = await two_groups(site)
    operator = await site.person(None, {ids[0]: Role.OPERATOR})

    run = await operator.get(f"/api/runs/{placed.run_id}")
    [listed] = (await operator.get("/api/runs"))["items"]

    assert run["selector"]["servers"] == [chosen[0].id]
    assert run["progress"]["total"] == listed["progress"]["total"] == 1
    assert chosen[1].id not in str(run)


async def test_a_task_that_one_may_not_see_cannot_be_told_from_none(site: Site) -> None:
    _, ids, placed = await two_groups(site)
    operator = await site.person(None, {ids[0]: Role.OPERATOR})
    foreign = (await task_rows(site.db, placed))[1].id

    for method, path in (("GET", f"/api/tasks/{foreign}"), ("POST", f"/api/tasks/{foreign}/cancel")):
        problem: Any = await operator.ask(method, path, status=404)
        assert problem["code"] == "not_found"


async def test_a_run_can_be_waited_for(site: Site) -> None:
    admin = await site.person(Role.ADMIN)
    placed = await place(site.db, await add_servers(site.db, 1))

    waiting = asyncio.create_task(admin.get(f"/api/runs/{placed.run_id}", wait_s=30))
    [claimed] = await claim(site.db, placed)
    await succeed(site.db, claimed)
    run = await waiting

    assert run["finished_at"] is not None
    assert run["progress"]["by_status"] == {"success": 1}
    assert (await admin.get(f"/api/runs/{placed.run_id}", wait_s=30))["finished_at"] == run["finished_at"]
    for wrong in ("31", "-1", "nan", "soon"):
        problem = await admin.ask("GET", f"/api/runs/{placed.run_id}", status=422, wait_s=wrong)
        assert [error["field"] for error in problem["errors"]] == ["wait_s"]


async def test_whoever_loses_their_token_while_they_wait_is_told_nothing(site: Site) -> None:
    admin = await site.person(Role.ADMIN)
    placed = await place(site.db, await add_servers(site.db, 1))
    [claimed] = await claim(site.db, placed)
    waiting = asyncio.create_task(admin.send("GET", f"/api/runs/{placed.run_id}", wait_s=30))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done

    async with site.db.transaction() as conn:
        await conn.execute(delete(api_tokens).where(api_tokens.c.user_id == admin.id))
    await succeed(site.db, claimed)

    assert (await waiting).status_code == 401
