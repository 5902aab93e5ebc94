"""Replays judge up to 5,000 commands, so a person has one at a time."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server_monitor.auth.actor import Role
from server_monitor.db.engine import Database
from tests.support.api import Site, site_on
from tests.support.patience import PATIENCE_S
from tests.tasks.runs import add_servers, place


@pytest.fixture
async def site(db: Database, tmp_path: Path) -> AsyncIterator[Site]:
    async with site_on(db, tmp_path) as running:
        yield running


async def test_a_person_has_one_replay_at_a_time(site: Site) -> None:
    ada, grace = await site.person(Role.ADMIN), await site.person(Role.ADMIN)
    chosen = await add_servers(site.db, 1)
    for number in range(20):
        await place(site.db, chosen, command=f"echo {number}")

    async with asyncio.timeout(PATIENCE_S):
        while True:  # until the second asks while the first is under way
            *adas, graces = await asyncio.gather(
                *(one.send("POST", "/api/policy/replay", {}) for one in (ada, ada, grace))
            )
            assert graces.status_code == 200
            refused = [answer for answer in adas if answer.status_code != 200]
            if refused:
                break

    [answer] = refused
    assert answer.status_code == 429
    assert "a replay running" in answer.json()["detail"]
    assert answer.headers["Retry-After"]
    await ada.ask("POST", "/api/policy/replay", {})
