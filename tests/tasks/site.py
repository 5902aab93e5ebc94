"""Consoles without HTTP: a database, SSH connections and dispatchers, and servers that are real hosts."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Row, select, update

from server_monitor.auth.actor import Actor, os_user
from server_monitor.bus.memory import MemoryBus
from server_monitor.db.engine import Database
from server_monitor.db.tables import facts, servers
from server_monitor.errors import Unavailable
from server_monitor.fleet.servers import Server, listing
from server_monitor.ssh.pool import Limits as PoolLimits
from server_monitor.ssh.pool import Pool
from server_monitor.tasks import cancelling
from server_monitor.tasks import listing as task_listing
from server_monitor.tasks.dispatch import Dispatcher, Limits
from server_monitor.tasks.hosts import Hosts
from server_monitor.tasks.output import Outputs, Sizes
from server_monitor.tasks.placing import Placed, Ruled
from tests.ssh.conftest import Fleet, key_of
from tests.support.fleet import VAULT
from tests.support.patience import PATIENCE_S
from tests.support.sshd import Sshd, Sshds
from tests.tasks.runs import place, task_rows

ASKER = os_user("tests")


async def allow(
    _command: str, _shell: str, _servers: Sequence[Server], _actor: Actor, _secret_names: Collection[str]
) -> Ruled:
    """A policy that lets everything pass."""
    return Ruled("allow", "sha256:0123", None, {"verdict": "allow"})


class Site:
    """`start` makes a host and the server for it; `worker` a dispatcher that runs until its block is left."""

    def __init__(self, db: Database, sshds: Sshds, directory: Path, *, sizes: Sizes = Sizes()) -> None:  # noqa: B008
        self.db = db
        self.sshds = sshds
        self.outputs = Outputs(directory, sizes)
        self.fleet = Fleet(db, VAULT)
        self._pools: list[Pool] = []

    async def start(
        self, machine: Callable[[Path], Sequence[str]] | None = None, *, port: int | None = None
    ) -> tuple[Sshd, Server]:
        """A host, and the server that stands for it: at capability run, its boot id known. `port` is a proxy's."""
        host = await asyncio.to_thread(self.sshds.start, machine=machine)
        return host, await self.add(host, port=port)

    async def add(self, host: Sshd, *, port: int | None = None) -> Server:
        target = await self.fleet.add_sshd(host)
        async with self.db.transaction() as conn:
            row = update(servers).where(servers.c.id == target.server_id)
            await conn.execute(row.values(capability="run", port=port or host.port))
            document = {"boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip()}  # noqa: ASYNC240
            known = facts.insert().values(server_id=target.server_id, document=document, found_at=datetime.now(UTC))
            await conn.execute(known)
            return next(one for one in await listing(conn, actor=ASKER) if one.id == target.server_id)

    async def trust_anew(self, host: Sshd, server: Server) -> None:
        async with self.db.reading() as conn:
            row = (await conn.execute(select(servers).where(servers.c.id == server.id))).one()
        target = replace(await self._target_of(row), port=row.port)
        await self.fleet.trust(target, key_of(host))

    @asynccontextmanager
    async def worker(self, owner: str = "one", **limits: Any) -> AsyncIterator[Dispatcher]:
        """A console that works, with connections of its own; it dies at the end of the block, as with kill -9."""
        async with self.dispatcher(owner, **limits) as dispatcher:
            running = asyncio.create_task(dispatcher.run())
            try:
                yield dispatcher
                assert not running.done(), running
            finally:
                await self._kill(running)
                if not running.cancelled() and running.exception() is not None:
                    raise running.exception() or AssertionError

    async def _kill(self, running: "asyncio.Task[None]") -> None:
        """While it is in no transaction: cut off in its middle, it would take the connection with it."""
        with suppress(Unavailable):
            async with self.db.transaction():
                running.cancel()
                await asyncio.wait([running])
        running.cancel()
        await asyncio.wait([running])

    @asynccontextmanager
    async def dispatcher(self, owner: str = "one", **limits: Any) -> AsyncIterator[Dispatcher]:
        async with AsyncExitStack() as stack:
            pool = Pool(self.db, VAULT, PoolLimits(connect_timeout_s=PATIENCE_S))
            stack.push_async_callback(pool.close)
            made = Dispatcher(
                self.db, owner, Hosts(pool.open_channel), self.outputs, VAULT, allow, MemoryBus(), Limits(**limits)
            )
            await made.recover()
            yield made

    async def place(self, *chosen: Server, command: str, **given: Any) -> Placed:
        return await place(self.db, chosen, actor=ASKER, **{"command": command, "timeout_s": 600, **given})

    async def run(self, dispatcher: Dispatcher, *chosen: Server, command: str, **given: Any) -> Sequence[Row[Any]]:
        """Run a command, and return its tasks once all have ended."""
        placed = await self.place(*chosen, command=command, **given)
        dispatcher.wake()
        return await self.ended(placed)

    async def ended(self, placed: Placed) -> Sequence[Row[Any]]:
        return await self.until(placed, lambda rows: all(row.finished_at is not None for row in rows))

    async def running(self, placed: Placed) -> Sequence[Row[Any]]:
        return await self.until(placed, lambda rows: all(row.status == "running" for row in rows))

    async def until(self, placed: Placed, reached: Callable[[Sequence[Row[Any]]], bool]) -> Sequence[Row[Any]]:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not reached(rows := await task_rows(self.db, placed)):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError([(row.server_name, row.status, row.cause, row.detail) for row in rows]) from None
        return rows

    async def cancel(self, placed: Placed, dispatcher: Dispatcher) -> None:
        async with self.db.transaction() as conn:
            await cancelling.cancel_run(conn, placed.run_id, actor=ASKER, now=datetime.now(UTC))
        dispatcher.wake()

    async def output(self, row: Row[Any]) -> tuple[bytes, bytes]:
        """All that is kept of what a task printed."""
        kept = await self.kept(row)
        found = []
        for stream in ("stdout", "stderr"):
            path = self.outputs.path(row.id, stream)
            found.append(path.read_bytes() if path.exists() else bytes(getattr(kept, stream)))
        return found[0], found[1]

    async def kept(self, row: Row[Any]) -> Row[Any]:
        async with self.db.reading() as conn:
            kept = await task_listing.output(conn, row.id)
        assert kept is not None
        return kept

    async def close(self) -> None:
        """End the commands that still run on the hosts."""
        for host in self.sshds.all:
            for pid in host.home.glob(".local/state/server-monitor/tasks/*/pid"):
                with suppress(FileNotFoundError, ProcessLookupError):  # Its host may be tidying up right now.
                    words = pid.read_text().split()
                    if words and psutil.pid_exists(int(words[0])):
                        os.killpg(int(words[0]), signal.SIGKILL)


def count(host: Sshd) -> Mapping[str, int]:
    """How often each task ran on this host, by the file that `COUNT` appends to."""
    path = host.home / "count"
    lines = path.read_text().split() if path.exists() else []
    return {task_id: lines.count(task_id) for task_id in lines}


COUNT = "echo $SERVER_MONITOR_TASK_ID >>~/count"
