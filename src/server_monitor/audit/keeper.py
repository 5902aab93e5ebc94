"""Makes checkpoints as long as the console runs."""

import asyncio
from datetime import UTC, datetime

from server_monitor.audit import checkpoints, log
from server_monitor.audit.checkpoints import Made, Signer
from server_monitor.db.engine import Database
from server_monitor.errors import Unavailable
from server_monitor.telemetry.logs import logger

LOOK_EVERY_S = 1.0

_log = logger(__name__)


class Keeper:
    """Looks at the log every second and signs it when a checkpoint is due."""

    def __init__(self, db: Database, signer: Signer) -> None:
        self._db = db
        self._signer = signer

    async def run(self) -> None:
        while True:
            try:
                await self.look()
            except Unavailable as error:
                _log.warning("checkpoint_delayed", cause=str(error))
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self, now: datetime | None = None) -> Made | None:
        """Make a checkpoint if one is due; returns it."""
        now = now or datetime.now(UTC)
        async with self._db.reading() as conn:
            newest = await checkpoints.newest(conn)
            size = await log.size(conn)
            actions = await log.actions_since(conn, newest.size) if newest and size > newest.size else ()
        why = checkpoints.why_due(newest, size, actions, now)
        return None if why is None else await self.sign(why, now)

    async def sign(self, why: str, now: datetime | None = None) -> Made:
        """Make a checkpoint now."""
        async with self._db.transaction() as conn:
            return await checkpoints.make(conn, self._signer, why, now or datetime.now(UTC))
