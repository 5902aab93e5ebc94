"""Brings a database to this version of the program."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.db.engine import Database
from server_monitor.errors import Unavailable

HEAD = "0006"  # the newest migration; a test holds it against the files


async def version(db: Database) -> str | None:
    """The migration that the database stands at; None for an empty one."""
    async with db.reading() as conn:
        return await conn.run_sync(_version)


async def upgrade(db: Database) -> None:
    """Run the migrations that are missing, each in a transaction. Raises Unavailable for a newer database."""
    current = await version(db)
    if current == HEAD:
        return
    if current is not None and current > HEAD:
        raise Unavailable(
            f"The database is at version {current} and this program knows {HEAD}: install the newer program, "
            "or restore the backup that was made before the upgrade."
        )
    async with db.migrating() as conn:
        await _run(conn)


async def prepare(db: Database) -> None:
    """Bring SQLite to this version; of PostgreSQL, which several programs may share, only require it.

    Raises Unavailable when somebody has to run `server-monitor migrate` first.
    """
    if db.dialect == "sqlite":
        await upgrade(db)
    elif await version(db) != HEAD:
        raise Unavailable("The database is not at this program's version: run `server-monitor migrate`.")


async def _run(conn: AsyncConnection) -> None:
    # Alembic takes a fifth of a second to import, and is only wanted when something is to be migrated.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")

    def run(connection: Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    await conn.run_sync(run)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
