"""Tidies up on hosts: tombstones of yesterday, and what nobody has come back for in a week.

A host is swept once a day at most, some time after a command ran on it, so that it costs a run nothing.
"""

import asyncio
from secrets import token_hex
from typing import Final

from server_monitor.errors import Unavailable, Unreachable
from server_monitor.ssh.pool import Target
from server_monitor.tasks import wrapper
from server_monitor.tasks.hosts import Hosts
from server_monitor.telemetry.logs import logger

log = logger(__name__)

EVERY_S: Final = 24 * 3600.0
AT_ONCE: Final = 20
WITHIN_S: Final = 30.0


class Sweeper:
    """Remembers which hosts have been used, and sweeps a few of them at a time."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._swept: dict[str, float] = {}
        self._due: dict[str, Target | None] = {}

    def used(self, server_id: str, target: Target | None, now_s: float) -> None:
        """A command ran on this server."""
        if now_s - self._swept.get(server_id, -EVERY_S) >= EVERY_S:
            self._due[server_id] = target

    async def sweep_some(self, now_s: float) -> None:
        """Sweep a few of the hosts that are due, and forget those that have not been used for long."""
        self._swept = {one: at for one, at in self._swept.items() if now_s - at < EVERY_S}
        chosen = dict(list(self._due.items())[:AT_ONCE])
        for server_id in chosen:
            del self._due[server_id]
            self._swept[server_id] = now_s
        async with asyncio.TaskGroup() as tasks:
            for server_id, target in chosen.items():
                tasks.create_task(self._sweep(server_id, target))

    async def _sweep(self, server_id: str, target: Target | None) -> None:
        closed = asyncio.Event()
        try:
            async with asyncio.timeout(WITHIN_S):
                script = wrapper.sweep(token_hex(wrapper.KEY_CHARACTERS // 2))
                channel = await self._hosts.open(target, script, lambda _: None, lambda _: closed.set())
                try:
                    await closed.wait()
                finally:
                    channel.close()
        except (Unreachable, Unavailable, TimeoutError) as error:
            log.info("host_not_swept", server_id=server_id, cause=str(error) or "it took too long")
        except Exception:  # One host's, whatever it is: the others are swept, and tasks go on.
            log.exception("host_not_swept", server_id=server_id)
