"""Runs migrations on the connection that `db/migrate.py` hands over."""

from alembic import context

from server_monitor.db.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=False, transactional_ddl=True)
context.run_migrations()
