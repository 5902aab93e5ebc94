"""The worker: claims queued tasks, runs each on its host, and stores how it ended.

Everything is stored in *turns*: one transaction takes in whatever has ended since the last one and claims what can
begin now, so a thousand short tasks cost tens of commits and not thousands. A turn is taken when something has
happened, and every two seconds otherwise. What one turn could not store, the next one stores; until then the task
counts as running.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.bus.contract import Bus, Subject, TasksChanged, TaskState
from server_monitor.db.engine import Database
from server_monitor.errors import Unavailable
from server_monitor.fleet import servers as fleet
from server_monitor.ssh.pool import Target
from server_monitor.ssh.vault import Vault, VaultUnreadable
from server_monitor.tasks import approval, cancelling, claims, endings, rows, secrets, waiting
from server_monitor.tasks.clearing import Clearing, Rule
from server_monitor.tasks.execution import ClaimLost, Execution, NeedsShell, NeverStarted, Timing
from server_monitor.tasks.hosts import Hosts
from server_monitor.tasks.insisting import RETRY_S, insist
from server_monitor.tasks.leases import BEATS, Leases
from server_monitor.tasks.output import Outputs
from server_monitor.tasks.run import Claimed, Outcome, Status
from server_monitor.tasks.sweeping import Sweeper
from server_monitor.tasks.turnstile import Turnstile
from server_monitor.telemetry import metrics
from server_monitor.telemetry.logs import logger

log = logger(__name__)

TURN_EVERY_S: Final = 2.0
GATHER_S: Final = 0.005  # what ends within this time shares a transaction
AT_ONCE: Final = 16  # tasks that begin, or are acknowledged, before somebody else is served
HOUSEKEEPING_EVERY_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Limits:
    slots: int = 1_000  # tasks that run at once, on all servers
    per_server: int = 1
    heartbeat_s: float = 5.0
    file_bytes: int = 1_073_741_824
    reattach: bool = True  # commands outlive the console's own stop
    ending_s: float = 7.0  # what ending a command may take: five seconds from TERM to KILL, and the words about it
    give_up: timedelta = timedelta(minutes=60)


class Dispatcher:
    """Runs tasks for this instance. `recover` before anything else, then `run` until cancelled."""

    def __init__(  # noqa: PLR0917
        self,
        db: Database,
        owner: str,
        hosts: Hosts,
        outputs: Outputs,
        vault: Vault,
        rule: Rule,
        bus: Bus,
        limits: Limits,
    ) -> None:
        self._db = db
        self._owner = owner
        self._hosts = hosts
        self._outputs = outputs
        self._vault = vault
        self._bus = bus
        self._limits = limits
        self._clearing = Clearing(db, rule)
        self._sweeper = Sweeper(hosts)
        self._turnstile = Turnstile(AT_ONCE)
        self._executions: dict[str, Execution] = {}
        self._running: dict[str, asyncio.Task[None]] = {}  # by task; one claim of each at a time
        self._ended: dict[tuple[str, int], tuple[Outcome, asyncio.Future[bool]]] = {}  # by claim
        self._adopted: list[Claimed] = []  # claimed, and not begun yet
        self._turning = asyncio.Lock()
        self._news = asyncio.Event()
        self._leases = Leases()
        self._deaths = asyncio.Event()
        self._beaten_s = 0.0  # before our last sign of life became durable
        self._is_draining = False
        self._is_leaving = False

    # --- from outside ---------------------------------------------------------------------------------------------

    @property
    def dead(self) -> frozenset[str]:
        """Consoles that have given no sign of life for three of ours."""
        return self._leases.dead

    def wake(self) -> None:
        """There is something new to look for."""
        self._news.set()

    async def recover(self) -> int:
        """Claim what was running when this console last died; returns how many tasks. They are attached by `run`."""
        began_s = asyncio.get_running_loop().time()
        async with self._db.transaction() as conn:
            await claims.beat(conn, self._owner, datetime.now(UTC))
            self._adopted = await claims.take_over(conn, self._owner, is_start=True)
        self._beaten_s = began_s
        metrics.tasks_recovered.inc(len(self._adopted))
        return len(self._adopted)

    async def run(self) -> None:
        """Work until cancelled."""
        with self._bus.subscribe(Subject.CHANGED, queue_size=1) as changes:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._take_turns(tasks), name="tasks turns")
                tasks.create_task(self._beat_for_ever(), name="tasks heartbeat")
                tasks.create_task(self._keep_house(), name="tasks housekeeping")
                async for _ in changes:
                    self._news.set()

    async def drain(self, within_s: float) -> None:
        """Begin nothing more, give what runs its time, then leave it to the next start, or end it if so chosen."""
        self._is_draining = True
        grace_s = max(0.0, within_s - self._limits.ending_s) if self._to_be_ended() else within_s
        await self._wait_for_ends(grace_s)
        if to_be_ended := self._to_be_ended():
            for execution in to_be_ended:
                execution.stop()
            await self._wait_for_ends(within_s - grace_s)
        self._is_leaving = True
        for running in self._running.values():
            running.cancel()
        if self._running:
            await asyncio.wait(self._running.values())
        await self._turn_or_later()

    def _to_be_ended(self) -> Sequence[Execution]:
        """What does not go on without this console."""
        return [one for one in self._executions.values() if one.is_attached or not self._limits.reattach]

    async def _wait_for_ends(self, within_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._running:
                    await asyncio.wait(self._running.values())

    # --- turns ----------------------------------------------------------------------------------------------------

    async def _take_turns(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            begun = await self._turn_or_later()
            for claim, target in begun:
                self._begin(tasks, claim, target)
            with suppress(TimeoutError):
                async with asyncio.timeout(TURN_EVERY_S):
                    await self._news.wait()
            await asyncio.sleep(GATHER_S)
            self._news.clear()

    async def _turn_or_later(self) -> Sequence[tuple[Claimed, Target | None]]:
        """One turn; when the database takes nothing, everything stays as it is for the next."""
        try:
            async with self._turning:
                begun = await self._turn()
        except Unavailable as error:
            log.warning("tasks_not_stored", cause=str(error), waiting=len(self._ended))
        except Exception:  # One row's, perhaps: whatever runs goes on, and is stored once this has been mended.
            log.exception("tasks_turn_failed", waiting=len(self._ended))
        else:
            return begun
        await asyncio.sleep(RETRY_S)
        self._news.set()
        return ()

    async def _turn(self) -> Sequence[tuple[Claimed, Target | None]]:
        now_s = asyncio.get_running_loop().time()
        slots = 0 if self._is_draining else self._limits.slots - len(self._running)
        # What has ended waits for nothing, least of all for verdicts.
        slots -= await self._store(slots, self._clearing.known(now_s))
        if slots > 0:
            cleared = await self._clearing.clear(now_s, slots=slots, per_server=self._limits.per_server)
            await self._store(slots, cleared.run_ids)
            if not cleared.is_all:
                self._news.set()
        count, newest = len(self._adopted), {claim.task_id: claim for claim in self._adopted}
        held = [claim for claim in newest.values() if self._is_held(claim)]
        begun = [claim for claim in newest.values() if claim not in held]
        async with self._db.reading() as conn:
            for task_id in await cancelling.to_be_cancelled(conn, self._owner):
                if task_id in self._executions:
                    self._executions[task_id].cancel()
            targets = await fleet.targets_of(conn, [claim.server_id for claim in begun]) if begun else {}
        self._adopted[:count] = held
        for claim in begun:
            if claim.server_id not in targets:
                self._settle(_without_server(claim))
        return [(claim, targets[claim.server_id]) for claim in begun if claim.server_id in targets]

    def _is_held(self, claim: Claimed) -> bool:
        """Is an older claim of the same task, which is void, still at work here? It is told to stop."""
        older = self._running.get(claim.task_id)
        if older is not None:
            older.cancel()
        return older is not None

    async def _store(self, slots: int, cleared: Sequence[str]) -> int:
        """Store how tasks have ended, and claim as many of the cleared runs as there are slots; returns how many."""
        ended = list(self._ended.values())
        if not ended and (slots <= 0 or not cleared):
            return 0
        async with self._db.transaction() as conn:
            held = await endings.finish(conn, [outcome for outcome, _ in ended])
            per_server, now = self._limits.per_server, datetime.now(UTC)
            claimed = await claims.claim(
                conn, self._owner, slots=slots, per_server=per_server, cleared=cleared, now=now
            )
        self._adopted += claimed
        for outcome, stored in ended:
            del self._ended[outcome.claim.key]
            if not stored.done():  # Whoever waited for it may have been told to stop.
                stored.set_result(any(outcome.claim is one.claim for one in held))
        self._tell(held, claimed)
        return len(claimed)

    def _tell(self, ended: Sequence[Outcome], claimed: Sequence[Claimed]) -> None:
        if not (ended or claimed):
            return
        states = [_state(one.claim, one.status, one.cause, one.exit_code) for one in ended]
        states += [_state(claim, Status.RUNNING, None, None) for claim in claimed]
        self._bus.publish(Subject.TASKS, TasksChanged(tuple(states)))

    # --- one task -------------------------------------------------------------------------------------------------

    def _begin(self, tasks: asyncio.TaskGroup, claim: Claimed, target: Target | None) -> None:
        running = tasks.create_task(self._execute(claim, target), name=f"task {claim.task_id}")
        self._running[claim.task_id] = running
        running.add_done_callback(lambda _: self._running.pop(claim.task_id))

    async def _execute(self, claim: Claimed, target: Target | None) -> None:
        """Whatever goes wrong with one task ends that task, and never the others with it."""
        await self._turnstile.passed()
        try:
            await self._carry_out(claim, target)
        except Exception:
            log.exception("task_failed_here", task_id=claim.task_id)
            self._settle(_unstartable(claim, Status.INTERRUPTED, "console_failed"))

    async def _carry_out(self, claim: Claimed, target: Target | None) -> None:
        try:
            values = secrets.unseal(self._vault, claim.run_id, claim.sealed) if claim.sealed else {}
        except VaultUnreadable as error:
            # Nor may its output be read on: nobody could tell what of it to mask.
            log.warning("task_secrets_unreadable", task_id=claim.task_id, cause=str(error))
            self._settle(_unstartable(claim, _unbegun(claim), "secrets_unreadable"))
            return
        opened = self._outputs.resume if claim.is_taken_over else self._outputs.begin
        masked = [value.encode() for value in values.values()]
        live = await opened(claim.task_id, is_stored=claim.store_output, secrets=masked)

        execution = Execution(
            claim,
            target,
            self._hosts,
            live,
            file_bytes=self._limits.file_bytes,
            note_mode=lambda mode: self._note(partial(claims.note_mode, claimed=claim, mode=mode)),
            note_ending=lambda why: self._note(partial(claims.note_ending, claimed=claim, why=why)),
            secrets=values,
            timing=Timing(give_up_s=self._limits.give_up.total_seconds()),
        )
        self._executions[claim.task_id] = execution
        metrics.tasks_running.set(len(self._executions))
        try:
            with rows.acting_for(claim.request_id):
                outcome = await self._outcome(execution, claim)
                if outcome is None or not await self._stored(outcome):
                    execution.leave()
                else:
                    await self._turnstile.passed()
                    execution.acknowledge()
                    self._sweeper.used(claim.server_id, target, asyncio.get_running_loop().time())
        except asyncio.CancelledError:
            if not self._is_leaving:
                raise
            execution.leave()
            if execution.is_attached or not self._limits.reattach:
                self._settle(await execution.left_behind())
        finally:
            del self._executions[claim.task_id]
            metrics.tasks_running.set(len(self._executions))
            self._outputs.forget(claim.task_id)
            self._news.set()

    async def _outcome(self, execution: Execution, claim: Claimed) -> Outcome | None:
        """How it ended; None when it goes back into the queue because it never began, or is somebody else's by now."""
        try:
            return await self._explained(await execution.run(claim.shell))
        except NeedsShell:
            if await insist(partial(self._passes_in_sh, claim)):
                return await self._explained(await execution.run("sh"))
            return await execution.refused("no_bash")
        except ClaimLost:
            self._say_lost(claim)
            return None
        except NeverStarted:
            if await insist(partial(self._requeued, claim)):
                return None
            return await execution.refused("never_started")

    async def _explained(self, outcome: Outcome) -> Outcome:
        """The same, unless a host counts as unknown because its server was removed, and with it its keys."""
        if outcome.cause != "host_key_unknown" or await insist(partial(self._is_known, outcome.claim)):
            return outcome
        cause = "server_removed" if outcome.status is Status.INTERRUPTED else "server_unfit"
        return replace(outcome, cause=cause, detail=None)

    async def _is_known(self, claim: Claimed) -> bool:
        async with self._db.reading() as conn:
            return bool(await fleet.targets_of(conn, [claim.server_id]))

    async def _note(self, write: Callable[[AsyncConnection], Awaitable[bool]]) -> bool:
        """Write something down about a claim; False when it is lost.

        The database's answer was true when it was given. Without a sign of life of ours since, because the answer was
        long on its way or this process stood still, somebody else may hold the claim by now: it is asked again.
        """

        async def noted() -> bool:
            async with self._db.transaction() as conn:
                return await write(conn)

        while await insist(noted):
            if asyncio.get_running_loop().time() - self._beaten_s < self._limits.heartbeat_s * BEATS:
                return True
            await asyncio.sleep(RETRY_S)
        return False

    @staticmethod
    def _say_lost(claim: Claimed) -> None:
        log.warning("task_claim_lost", task_id=claim.task_id, fence=claim.fence)

    async def _requeued(self, claim: Claimed) -> bool:
        """False when it has been put back before, or when its host may have been looked for in another place."""
        async with self._db.transaction() as conn:
            return await claims.is_where_it_was(conn, claim) and await claims.requeue(conn, claim)

    async def _passes_in_sh(self, claim: Claimed) -> bool:
        """The host has no bash; what its sh makes of the same text has to be judged on its own."""
        async with self._db.reading() as conn:
            asked = await waiting.asked(conn, claim.run_id)
        return asked is not None and await self._clearing.passes(asked, "sh")

    async def _stored(self, outcome: Outcome) -> bool:
        """True once the outcome is durable; False when the claim had passed to somebody else."""
        is_held = await self._settle(outcome)
        if not is_held:
            self._say_lost(outcome.claim)
        return is_held

    def _settle(self, outcome: Outcome) -> "asyncio.Future[bool]":
        """Have it stored, unless an outcome of the same claim waits for that: what was known first is true."""
        new: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        _, stored = self._ended.setdefault(outcome.claim.key, (outcome, new))
        self._news.set()
        return stored

    # --- beside ---------------------------------------------------------------------------------------------------

    async def _beat_for_ever(self) -> None:
        while True:
            began_s = asyncio.get_running_loop().time()
            with suppress(Unavailable):
                async with self._db.transaction() as conn:
                    await claims.beat(conn, self._owner, datetime.now(UTC))
                    beats = await claims.beats(conn)
                self._beaten_s = began_s
                if self._leases.look(beats):
                    self._deaths.set()
            await asyncio.sleep(self._limits.heartbeat_s)

    async def _keep_house(self) -> None:
        """Close what nobody approved in time, take over from instances that no longer beat, and tidy up on hosts."""
        while True:
            now = datetime.now(UTC)
            try:
                async with self._db.transaction() as conn:
                    await approval.expire(conn, now)
                    await rows.finish_overdue(conn, now)
                    await claims.forget_heartbeats(conn, self._leases.dead, now - timedelta(days=1))
                await self._bury()
            except Unavailable as error:
                log.warning("tasks_housekeeping_failed", cause=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(HOUSEKEEPING_EVERY_S):
                    await self._deaths.wait()
            self._deaths.clear()
            await self._sweeper.sweep_some(asyncio.get_running_loop().time())

    async def _bury(self) -> None:
        """Take over from instances that no longer beat, and what is ours without our knowing. Raises Unavailable.

        Not while a turn claims tasks: those are ours, and not known here yet.
        """
        async with self._turning:
            ended = (outcome.claim.task_id for outcome, _ in self._ended.values())
            held = {*self._running, *(claim.task_id for claim in self._adopted), *ended}
            async with self._db.transaction() as conn:
                strayed = await claims.strayed(conn, self._owner, held)
                taken = await claims.take_over(conn, self._owner, dead=self._leases.dead, strayed=strayed)
            self._adopted += taken
        metrics.tasks_recovered.inc(len(taken))
        self._news.set()


def _without_server(claim: Claimed) -> Outcome:
    """No target is not the console's own machine: the server was removed between the claim and now."""
    return _unstartable(claim, _unbegun(claim), "server_removed" if claim.is_taken_over else "server_unfit")


def _unbegun(claim: Claimed) -> Status:
    """What becomes of a task that this console does nothing about: one before us may have begun with it."""
    return Status.INTERRUPTED if claim.is_taken_over else Status.FAILED


def _unstartable(claim: Claimed, status: Status, cause: str) -> Outcome:
    finished_at = max(datetime.now(UTC), claim.started_at + timedelta(microseconds=1))
    return Outcome(claim, status, finished_at, cause, mode=claim.mode)


def _state(claim: Claimed, status: Status, cause: str | None, exit_code: int | None) -> TaskState:
    return TaskState(claim.task_id, claim.run_id, claim.server_id, status.value, cause, exit_code)
