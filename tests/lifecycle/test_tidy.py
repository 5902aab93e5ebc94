"""What is put in order by itself: credentials under the newest key, no history without a server."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import delete

from server_monitor.db.engine import Database
from server_monitor.db.tables import servers as server_rows
from server_monitor.fleet import servers
from server_monitor.lifecycle.tidy import Tidy
from server_monitor.series.sample import Sample
from server_monitor.series.store import History
from server_monitor.series.tiers import Tiers
from server_monitor.ssh import vault as secrets
from server_monitor.ssh.vault import Vault
from server_monitor.tasks.output import Outputs, Sizes

LOST = SecretStr("lost master key with enough entropy")
OLD, NEW = SecretStr("old master key with enough entropy"), SecretStr("new master key with enough entropy")


@pytest.fixture
async def history(tmp_path: Path) -> AsyncIterator[History]:
    opened = await History.open(tmp_path / "history.sqlite3", Tiers())
    yield opened
    await opened.close()


def tidy(db: Database, vault: Vault, history: History) -> Tidy:
    return Tidy(db, vault, history, Outputs(Path("unused"), Sizes()), timedelta(days=90))


async def test_the_previous_master_key_can_be_retired(sqlite_db: Database, history: History) -> None:
    async with sqlite_db.transaction() as conn:
        credential = await secrets.add_password(conn, Vault(OLD), "web01", "hunter2-hunter2")

    await tidy(sqlite_db, Vault(NEW, OLD), history).rewrap_credentials()

    async with sqlite_db.reading() as conn:
        opened = await secrets.load(conn, Vault(NEW), credential.id)
    assert opened.password == "hunter2-hunter2"


async def test_a_secret_that_does_not_open_holds_up_nothing_else(sqlite_db: Database, history: History) -> None:
    async with sqlite_db.transaction() as conn:
        await secrets.add_password(conn, Vault(LOST), "lost", "hunter2-hunter2")
        credential = await secrets.add_password(conn, Vault(OLD, LOST), "web01", "hunter2-hunter2")

    await tidy(sqlite_db, Vault(NEW, OLD), history).rewrap_credentials()

    async with sqlite_db.reading() as conn:
        assert (await secrets.load(conn, Vault(NEW), credential.id)).password == "hunter2-hunter2"


async def test_a_removed_server_takes_its_history_with_it(sqlite_db: Database, history: History) -> None:
    async with sqlite_db.transaction() as conn:
        kept = await servers.ensure_local(conn)
        gone = await servers.insert_server(
            conn, name="gone", host="gone.example", port=22, username="u", auth="agent", status="unknown"
        )
    history.append([Sample(server_id, 1_000.0, {"cpu_percent": 1.0}) for server_id in (kept, gone)])
    await history.flush()
    async with sqlite_db.transaction() as conn:
        await conn.execute(delete(server_rows).where(server_rows.c.id == gone))

    await tidy(sqlite_db, Vault(NEW), history).forget_removed_servers()

    assert set(history.latest_all()) == {kept}
    assert await history.series(gone) == []
