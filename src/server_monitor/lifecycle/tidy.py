"""What has to be put in order now and then, by whoever knows both sides of it."""

import asyncio
from datetime import UTC, datetime, timedelta

from server_monitor.db.engine import Database
from server_monitor.errors import Unavailable
from server_monitor.fleet import servers
from server_monitor.series.store import History
from server_monitor.ssh.vault import Vault, rewrap_some
from server_monitor.tasks import retention
from server_monitor.tasks.output import Outputs
from server_monitor.telemetry.logs import logger

EVERY_S = 600.0

log = logger(__name__)


class Tidy:
    """Wraps credentials with the newest master key, and forgets the history of servers that are gone and old runs."""

    def __init__(self, db: Database, vault: Vault, history: History, outputs: Outputs, keep_runs: timedelta) -> None:
        self._db = db
        self._vault = vault
        self._history = history
        self._outputs = outputs
        self._keep_runs = keep_runs

    async def run(self) -> None:
        while True:
            for step in (self.rewrap_credentials, self.forget_removed_servers, self.forget_old_runs):
                try:
                    await step()
                except Unavailable as error:
                    log.warning("tidying_delayed", cause=str(error))
            await asyncio.sleep(EVERY_S)

    async def rewrap_credentials(self) -> None:
        """After this, KEY_VAULT_PREVIOUS_KEY is needed no longer."""
        count = 0
        unreadable: list[str] = []
        next_id: str | None = ""
        while next_id is not None:
            async with self._db.transaction() as conn:
                part = await rewrap_some(conn, self._vault, next_id)
            count += part.done
            unreadable += part.unreadable
            next_id = part.next_id
        if count:
            log.info("credentials_rewrapped", count=count)
        if unreadable:
            log.error(
                "credentials_unreadable",
                count=len(unreadable),
                first=unreadable[0],
                remedy="set KEY_VAULT_PREVIOUS_KEY to the key that they were stored under, or store them again",
            )

    async def forget_removed_servers(self) -> None:
        """A server that was removed at the command line takes its history with it too, only later."""
        known = set(self._history.latest_all())  # read first: a server has a row before it has a sample
        async with self._db.reading() as conn:
            there = {watch.server_id for watch in await servers.targets(conn)}
        for server_id in known - there:
            await self._history.forget(server_id)

    async def forget_old_runs(self) -> None:
        """What was run longer ago than TASKS_RETENTION_DAYS goes, with all that it printed."""
        count = await retention.forget(self._db, self._outputs, datetime.now(UTC) - self._keep_runs)
        if count:
            log.info("old_tasks_forgotten", count=count)
