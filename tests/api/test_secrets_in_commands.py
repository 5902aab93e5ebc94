"""A secret in a command stays with the run, for whoever may read it, and goes nowhere else."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from server_monitor.auth.actor import Role
from server_monitor.db.engine import Database
from tests.support.api import Site, site_on

COMMAND = "mysql -uroot -phunter2x -e 'select 1' && curl -u bob:hunter2x http://x/"


@pytest.fixture
async def site(db: Database, tmp_path: Path) -> AsyncIterator[Site]:
    async with site_on(db, tmp_path) as running:
        yield running


async def test_a_secret_in_a_command_is_in_no_record_and_in_no_export(site: Site) -> None:
    admin = await site.person(Role.ADMIN)
    new = {"name": "h1", "host": "127.0.0.1", "username": "x", "auth": {"type": "agent"}, "capability": "run"}
    server = await admin.ask("POST", "/api/servers", new, status=201)
    async with site.db.transaction() as conn:
        await conn.execute(text("UPDATE servers SET status = 'online', status_reason = NULL"))
    order = {"command": COMMAND, "reason": "the password=hunter2x was lost", "selector": {"servers": [server["id"]]}}
    run = await admin.ask("POST", "/api/tasks", order, status=202)
    denied = order | {"command": f"rm -rf /etc; {COMMAND}"}
    problem = await admin.ask("POST", "/api/tasks", denied, status=403)

    exports = [(await admin.send("GET", f"/api/export/audit/{kind}")).text for kind in ("csv", "json")]
    logs = (await admin.send("GET", "/api/audit-logs")).text

    assert all("task.create" in one and "task.denied" in one for one in (*exports, logs))
    assert not any("hunter2x" in one for one in (*exports, logs, problem["detail"]))
    assert (await admin.get(f"/api/runs/{run['run_id']}"))["command"] == COMMAND
