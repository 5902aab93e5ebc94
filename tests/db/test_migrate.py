"""Migrations and tables say the same, and the audit log guards itself."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

import server_monitor.db
from server_monitor.audit import log
from server_monitor.audit.chain import Event
from server_monitor.auth.actor import Actor, audited
from server_monitor.db import migrate
from server_monitor.db.engine import Database
from server_monitor.db.tables import metadata
from server_monitor.errors import Unavailable


async def test_migrations_lead_to_the_declared_tables(db: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))

    async with db.reading() as conn:
        assert await conn.run_sync(differences) == []


def test_the_newest_migration_is_the_one_the_program_expects() -> None:
    scripts = ScriptDirectory(str(Path(server_monitor.db.__file__).with_name("migrations")))

    assert scripts.get_current_head() == migrate.HEAD


async def test_upgrading_twice_changes_nothing(db: Database) -> None:
    await migrate.upgrade(db)

    assert await migrate.version(db) == migrate.HEAD


async def test_a_database_of_a_newer_program_is_refused(db: Database) -> None:
    async with db.transaction() as conn:
        await conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(Unavailable, match="install the newer program"):
        await migrate.upgrade(db)


@pytest.mark.parametrize("statement", ["UPDATE audit_records SET action = 'x'", "DELETE FROM audit_records"])
async def test_the_database_refuses_to_touch_a_record(db: Database, admin: Actor, statement: str) -> None:
    async with db.transaction() as conn:
        await log.append(conn, Event("auth.login", audited(admin)))

    with pytest.raises(DBAPIError, match="audit records are never"):
        async with db.transaction() as conn:
            await conn.execute(text(statement))
