"""The part of the console that runs tasks, alone: for a command line with no console beside it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import exists, select

from server_monitor.bus.memory import MemoryBus
from server_monitor.db.engine import Database
from server_monitor.db.tables import heartbeats
from server_monitor.lifecycle.instance import exclusive, is_held
from server_monitor.settings import Settings
from server_monitor.ssh.hardening import harden_process
from server_monitor.ssh.pool import Limits, Pool
from server_monitor.ssh.vault import Vault
from server_monitor.tasks import rulings
from server_monitor.tasks.dispatch import Dispatcher
from server_monitor.tasks.dispatch import Limits as TaskLimits
from server_monitor.tasks.hosts import Hosts
from server_monitor.tasks.leases import BEATS
from server_monitor.tasks.output import Outputs, Sizes

LEAVE_S: Final = 2.0  # for hosts to hear that their results are stored


@dataclass(frozen=True, slots=True)
class Worker:
    """What whoever waits for a run needs of it: hints that tasks moved on, what they print, and a way to hurry it."""

    bus: MemoryBus
    outputs: Outputs
    wake: Callable[[], None]


async def somebody_works(settings: Settings, db: Database) -> bool:
    """Does a console run, here or elsewhere on the same database, that will pick up what is queued?"""
    if is_held(settings.data_dir):
        return True
    living = datetime.now(UTC) - timedelta(seconds=settings.task_heartbeat_seconds * BEATS)
    elsewhere = exists().where(heartbeats.c.beat_at > living, heartbeats.c.owner != db.node)
    async with db.reading() as conn:
        return bool(await conn.scalar(select(elsewhere)))


async def work(settings: Settings, db: Database, until: Callable[[Worker], Awaitable[None]]) -> None:
    """Run what is queued until `until` returns. What runs then besides goes on on its hosts, for the next console.

    Holds the data directory meanwhile, so that no console starts. Raises Conflict when one runs.
    """
    harden_process()
    bus = MemoryBus()
    vault = Vault(settings.key_vault_master_key, settings.key_vault_previous_key)
    outputs = outputs_of(settings)
    limits = Limits(settings.connect_concurrency, settings.connect_timeout_seconds)
    with exclusive(settings.data_dir):
        pool = Pool(db, vault, limits, agent_socket=settings.ssh_auth_sock)
        rule = rulings.rule_of(rulings.judge_of(settings))
        hosts = Hosts(pool.open_channel)
        dispatcher = Dispatcher(db, db.node, hosts, outputs, vault, rule, bus, task_limits(settings))
        try:
            await dispatcher.recover()
            async with asyncio.TaskGroup() as tasks:
                working = tasks.create_task(dispatcher.run(), name="tasks")
                await until(Worker(bus, outputs, dispatcher.wake))
                await dispatcher.drain(LEAVE_S)
                async with db.transaction():
                    # Ended while nobody else is in one: cut off in its middle, it would take the connection with it.
                    working.cancel()
                    await asyncio.wait([working])
        finally:
            await pool.close()


def outputs_of(settings: Settings) -> Outputs:
    """Where the output of tasks is kept."""
    sizes = Sizes(settings.tasks_output_max_bytes, settings.tasks_output_disk_max_bytes)
    return Outputs(settings.data_dir / "tasks", sizes)


def task_limits(settings: Settings) -> TaskLimits:
    return TaskLimits(
        slots=settings.tasks_concurrent,
        per_server=settings.tasks_concurrent_per_server,
        heartbeat_s=settings.task_heartbeat_seconds,
        file_bytes=settings.tasks_output_disk_max_bytes,
        reattach=settings.tasks_on_shutdown == "reattach",
        give_up=timedelta(minutes=settings.task_stale_threshold_minutes),
    )
