"""One claimed task on its host, from its start to its true result.

    claim → start script (or attach, where it may run already) → words of the host → outcome
                ↳ after half a second: follow, so that people see what it prints
                ↳ deadline or cancel: signal, and wait until the host says that it is gone
                ↳ connection cut: attach again and again, until the host can say what became of it
                ↳ cancel, and the host does not answer: not confirmed, and soon; before anything was sent: cancelled

The command itself never depends on any of this. See `wrapper.py` for the scripts.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Final

from server_monitor.errors import Unavailable, Unreachable
from server_monitor.ssh.pool import Target
from server_monitor.tasks import wrapper
from server_monitor.tasks.hosts import Channel, Hosts, say
from server_monitor.tasks.insisting import insist
from server_monitor.tasks.output import LiveOutput
from server_monitor.tasks.run import Claimed, Mode, Outcome, Status
from server_monitor.tasks.wrapper import Absent, Attached, Ended, Refused, Script, Signalled, Started, Word
from server_monitor.telemetry.logs import logger

log = logger(__name__)

CUT: Final = "connection_lost"
MOST_STATUS: Final = 255  # of a shell; SSH could say more
ENDED_BY_US: Final = frozenset({128 + 15, 128 + 9})  # the exit statuses of what TERM and KILL have ended
_DIED: Final = frozenset({CUT, "channel_refused"})
_BECAME: Final = {
    "cancelled": Status.CANCELLED,
    "timeout": Status.TIMEOUT,
    "console_stopped": Status.INTERRUPTED,
}


@dataclass(frozen=True, slots=True)
class Timing:
    """How long an execution waits for what. `give_up_s` is counted from the deadline of the command.

    `unanswered_s` is counted from the moment at which somebody wants the command to end: so long a host may leave us
    without an answer. A connection that was kept and is dead costs a connect timeout of it, and leaves time for a new
    one. A host that has answered gets `signal_s`, which it needs for TERM, five seconds, and KILL.
    """

    follow_after_s: float = 0.5
    follow_again_s: float = 1.0
    settle_s: float = 30.0  # for the last bytes, as long as none come
    signal_s: float = 30.0
    result_s: float = 10.0  # from the word that it is gone to the one about how it ended
    caught_up_s: float = 5.0  # for the first bytes of whoever reads along, where nobody knows how many there are
    signal_tries: int = 3
    unanswered_s: float = 15.0
    retry_first_s: float = 1.0
    retry_most_s: float = 30.0
    give_up_s: float = 3600.0


class NeverStarted(Exception):  # noqa: N818  # An outcome the dispatcher acts on.
    """The host has nothing of this task and was not started anew since it was claimed: it may be tried once more."""


class ClaimLost(Exception):  # noqa: N818
    """Somebody else holds the task by now. Whatever becomes of its command is theirs to say."""


class NeedsShell(Exception):  # noqa: N818
    """The host has no bash. Nothing was started."""


class _Conversation:
    """A channel whose words and output we read: news wakes whoever waits for it."""

    def __init__(self, key: str, live: LiveOutput | None, *, apart: bool) -> None:
        self.words: deque[Word] = deque()
        self.closed: str | None = None
        self.is_closed = False
        self.channel: Channel | None = None
        self._live = None if apart else live
        self._news = asyncio.Event()
        self._streams = {
            "stdout": wrapper.Stream(key, speaks_first=True),
            "stderr": wrapper.Stream(key, speaks_first=False),
        }
        self._at = {"stdout": 0, "stderr": 0}
        self._ends: dict[str, Ended] = {}

    def on_stdout(self, data: bytes) -> None:
        self._take("stdout", data)

    def on_stderr(self, data: bytes) -> None:
        self._take("stderr", data)

    def on_closed(self, reason: str | None) -> None:
        for name, stream in self._streams.items():
            self._add(name, stream.rest())
        self.closed, self.is_closed = reason, True
        self._news.set()

    async def next(self, within_s: float) -> Word | None:
        """The next word; None when the channel is closed or the time is up."""
        while not self.words:
            if self.is_closed:
                return None
            self._news.clear()
            try:
                async with asyncio.timeout(within_s):
                    await self._news.wait()
            except TimeoutError:
                return None
            if not self.words and not self.is_closed:
                return None  # somebody woke us: the caller looks at what has changed
        return self.words.popleft()

    def wake(self) -> None:
        self._news.set()

    def _take(self, name: str, data: bytes) -> None:
        output, words = self._streams[name].feed(data)
        self._add(name, output)
        for word in words:
            self._hear(name, word)

    def _hear(self, name: str, word: Word) -> None:
        """The end of output that came inline is heard once on each stream, and counts when it was heard on both."""
        if isinstance(word, Ended) and word.sizes is None:
            self._ends[name] = word
            if len(self._ends) < len(self._streams):
                return
        self.words.append(word)
        self._news.set()

    def _add(self, name: str, data: bytes) -> None:
        if data and self._live is not None:
            self._at[name] = self._live.add_at(name, self._at[name], data)


class _Follower:
    """Reads what the command prints on a channel of its own, from where we are."""

    def __init__(self, live: LiveOutput) -> None:
        self._live = live
        self._at = {name: live.taken_bytes(name) for name in live.streams}
        self.channel: Channel | None = None
        self.is_closed = False
        self.began_s = asyncio.get_running_loop().time()
        self.has_come = False
        self.on_news: Callable[[], None] = lambda: None

    @property
    def offsets(self) -> tuple[int, int]:
        return self._at["stdout"], self._at["stderr"]

    def on_stdout(self, data: bytes) -> None:
        self._take("stdout", data)

    def on_stderr(self, data: bytes) -> None:
        self._take("stderr", data)

    def on_closed(self, _reason: str | None) -> None:
        self.is_closed = True
        self.on_news()

    def end(self) -> None:
        if self.channel is not None:
            self.channel.close()

    def _take(self, name: str, data: bytes) -> None:
        self._at[name] = self._live.add_at(name, self._at[name], data)
        self.has_come = True
        self.on_news()


class Execution:
    """Runs one claim. `run` returns its outcome; `acknowledge` is called once that is stored."""

    def __init__(
        self,
        claim: Claimed,
        target: Target | None,
        hosts: Hosts,
        live: LiveOutput,
        *,
        file_bytes: int,
        note_mode: Callable[[Mode], Awaitable[bool]],
        note_ending: Callable[[str], Awaitable[bool]],
        secrets: Mapping[str, str],
        timing: Timing | None = None,
        may_attach: bool = True,
    ) -> None:
        self.claim = claim
        self._target = target
        self._hosts = hosts
        self._live = live
        self._file_bytes = file_bytes
        self._note_mode = note_mode
        self._note_ending = note_ending
        self._is_noted = False
        self._ending = claim.ending  # why a signal may be on its way: known before it is sent
        self._secrets = secrets
        self._timing = timing or Timing()
        self._may_attach = may_attach
        self._key = token_hex(wrapper.KEY_CHARACTERS // 2)
        self._loop = asyncio.get_running_loop()
        self._talk: _Conversation | None = None
        self._follower: _Follower | None = None
        self._follow_at_s = float("inf")
        self._mode = claim.mode or Mode.WRAPPED
        self._is_running = False
        self._stop_for: str | None = None  # why it is to end before its time
        self._stopping = asyncio.Event()
        self._stopped_at_s = float("inf")
        self._leaving: asyncio.Timeout | None = None  # of what is left undone when the command is to end
        self._grace_s = 0.0
        self._signalled: str | None = None
        self._deadline_s = self._loop.time() + self._left_s()
        self._shell = claim.shell

    @property
    def is_attached(self) -> bool:
        """Is the command ended with our connection?"""
        return self._mode is Mode.ATTACHED

    def cancel(self) -> None:
        """Somebody wants the command to end."""
        self._end_for("cancelled")

    def stop(self) -> None:
        """The console stops, and is set to end what it runs."""
        self._end_for("console_stopped")

    def _end_for(self, why: str) -> None:
        if self._stop_for is None:
            self._stop_for = why
            self._stopped_at_s = self._loop.time()
            self._stopping.set()
            if self._leaving is not None:
                self._leaving.reschedule(self._stopped_at_s + self._grace_s)
        if self._talk is not None:
            self._talk.wake()

    @asynccontextmanager
    async def _left_undone(self, grace_s: float) -> AsyncIterator[None]:
        """What is waited for in here is given up that long after somebody wants the command to end: TimeoutError."""
        until_s = None if self._stop_for is None else self._stopped_at_s + grace_s
        async with asyncio.timeout_at(until_s) as leaving:
            self._leaving, self._grace_s = leaving, grace_s
            try:
                yield
            finally:
                self._leaving = None

    @property
    def _unanswered_until_s(self) -> float:
        """When a host that has not answered by then counts as one that does not, once the command is to end."""
        return self._stopped_at_s + self._timing.unanswered_s

    async def refused(self, cause: str) -> Outcome:
        """The outcome of a command that was not started, for a reason of its host's."""
        became = Status.INTERRUPTED if cause == "never_started" else Status.FAILED
        return await self._ended(became, cause)

    def leave(self) -> None:
        """The console stops and the command goes on: let go of the channels."""
        self._end_follower()
        if self._talk is not None and self._talk.channel is not None:
            self._talk.channel.close()

    def acknowledge(self) -> None:
        """The result is stored: the host may remove what it kept of it."""
        if self._talk is not None and self._talk.channel is not None and not self._talk.is_closed:
            say(self._talk.channel, wrapper.ACK)  # after which the script reads no more and ends

    async def run(self, shell: str) -> Outcome:
        """The outcome of the command, run by bash or sh.

        Raises NeverStarted and NeedsShell, after which nothing runs, and ClaimLost, after which nothing may be done
        about it. Whoever is cancelled here leaves it running.
        """
        self._shell = shell
        try:
            if self.claim.is_taken_over:
                if self._mode is Mode.ATTACHED:
                    return await self._ended(Status.INTERRUPTED, "console_died")
                return await self._attached_again()
            return await self._started()
        finally:
            self._end_follower()

    # --- starting -------------------------------------------------------------------------------------------------

    async def _started(self) -> Outcome:
        script = wrapper.start(
            self._key,
            self.claim.task_id,
            self.claim.command,
            self._shell,
            self.claim.request_id,
            secrets=self._secrets,
            may_attach=self._may_attach,
        )
        try:
            # Until a channel is open nothing was sent that could run: then there is nothing to confirm.
            async with self._left_undone(0.0):
                talk = await self._begun(script)
        except Unreachable as error:
            return await self._ended(Status.FAILED, error.reason, str(error))
        except TimeoutError:
            assert self._stop_for is not None
            return await self._ended(_BECAME[self._stop_for], self._stop_for)
        self._deadline_s = self._loop.time() + self.claim.timeout_s
        while (word := await self._next(talk)) is None and not talk.is_closed:
            if self._loop.time() > min(self._deadline_s, self._unanswered_until_s):
                break
        match word:
            case Refused("noshell"):
                raise NeedsShell
            case Refused("nodir"):
                return await self._ended(Status.FAILED, "no_directory")
            case Attached():
                return await self._run_attached(talk)
            case Started():
                self._is_running = True
                return await self._watched(talk) or await self._attached_again()
            case _:  # `exists`, silence, or a cut: what became of it is asked on a new channel
                return await self._attached_again()

    async def _begun(self, script: Script) -> _Conversation:
        """The channel of the start script. A connection that was kept may have died unnoticed: a new one is then tried,
        which is safe, because a script does nothing before it has read its input, and that was not sent.
        """
        try:
            return await self._converse(script, apart=False)
        except Unreachable as error:
            if error.reason not in _DIED:
                raise
        return await self._converse(script, apart=False)

    async def _run_attached(self, talk: _Conversation) -> Outcome:
        """No directory on that host: the command runs on this channel and is ended with it."""
        self._mode = Mode.ATTACHED
        # Before the command begins, or a console after us would start it again.
        await self._hold(self._note_mode(self._mode))
        assert talk.channel is not None
        say(talk.channel, wrapper.GO)
        while not talk.is_closed:
            await talk.next(max(0.01, self._deadline_s - self._loop.time()))
            if self._stop_for or self._loop.time() > self._deadline_s:
                await self._end_attached(talk, self._stop_for or "timeout")
        status = talk.channel.exit_status
        if talk.closed is None and self._signalled is not None:
            return await self._ended(_BECAME[self._signalled], self._signalled, exit_code=status)
        if talk.closed is None and status is not None:
            return await self._by_exit_status(min(MOST_STATUS, status))
        if self._signalled is not None:
            return await self._unconfirmed(self._signalled)
        return await self._ended(Status.INTERRUPTED, CUT)

    async def _end_attached(self, talk: _Conversation, why: str) -> None:
        """Close its input, which ends it, and wait until its host says that its channel is over."""
        await self._hold(self._note_ending(why))
        if talk.is_closed:
            return  # It has ended by itself meanwhile.
        assert talk.channel is not None
        self._signalled = why
        talk.channel.write_eof()
        until_s = self._loop.time() + self._timing.signal_s
        while not talk.is_closed and self._loop.time() < until_s:
            await talk.next(until_s - self._loop.time())
        if not talk.is_closed:
            talk.channel.close()
            talk.on_closed(CUT)

    # --- watching -------------------------------------------------------------------------------------------------

    async def _watched(self, talk: _Conversation) -> Outcome | None:
        """The command runs and this channel will say how it ends; None when it was cut."""
        self._follow_at_s = self._loop.time() + self._timing.follow_after_s
        while True:
            word = await self._next(talk)
            if isinstance(word, Ended):
                return await self._finished(word)
            if isinstance(word, Absent):
                return await self._gone(word)
            if isinstance(word, Refused):
                return await self._ended(Status.FAILED, "no_directory")
            if word is None and talk.is_closed:
                return None
            if self._stop_for or self._loop.time() >= self._deadline_s:
                return await self._put_to_an_end(talk)
            if self._loop.time() >= self._follow_at_s:
                await self._follow()

    async def _next(self, talk: _Conversation) -> Word | None:
        until_s = min(self._deadline_s, self._follow_at_s, self._unanswered_until_s)
        return await talk.next(max(0.001, until_s - self._loop.time()))

    async def _follow(self) -> None:
        """Read along from where we are; tried again when it breaks.

        That the command runs is written down now, and not for the many that are over by then: whoever comes after us
        then knows that it has begun, whatever became of its directory.
        """
        if self.claim.mode is None and not self._is_noted:
            self._is_noted = True
            await self._hold(self._note_mode(self._mode))
        self._follow_at_s = self._loop.time() + self._timing.follow_again_s
        if self._follower is not None and not self._follower.is_closed:
            self._follow_at_s = float("inf")
            return
        follower = _Follower(self._live)
        follower.on_news = self._on_follower_news
        script = wrapper.follow(self._key, self.claim.task_id, *follower.offsets, self._file_bytes)
        try:
            follower.channel = await self._hosts.open(
                self._target, script, follower.on_stdout, follower.on_closed, follower.on_stderr
            )
        except (Unreachable, Unavailable) as error:
            log.info("task_not_followed", task_id=self.claim.task_id, cause=str(error))
            return
        self._follower = follower
        self._follow_at_s = float("inf")

    def _on_follower_news(self) -> None:
        if self._follower is not None and self._follower.is_closed:
            self._follow_at_s = self._loop.time() + self._timing.follow_again_s
        if self._talk is not None:
            self._talk.wake()

    def _end_follower(self) -> None:
        if self._follower is not None:
            self._follower.end()

    async def _finished(self, word: Ended) -> Outcome:
        self._is_running = False
        if word.sizes is not None and not await self._read_to_the_end(word):
            for spool in self._live.streams.values():
                spool.truncated = True
        return await self._by_exit_status(word.status)

    async def _read_to_the_end(self, word: Ended) -> bool:
        """Follow until every byte is here. False when some will not come."""
        assert word.sizes is not None
        idle_since_s = self._loop.time()
        while not word.cut and not self._has_all(word.sizes):
            before = self._offsets()
            await self._follow()
            await asyncio.sleep(0.02)
            if self._offsets() != before:
                idle_since_s = self._loop.time()
            elif self._loop.time() - idle_since_s > self._timing.settle_s:
                return False
        if not word.cut:
            return self._has_all(word.sizes)
        await self._read_what_comes()  # Its sizes mean nothing any more.
        return False

    async def _read_what_comes(self) -> None:
        """Follow until no more comes, where nobody knows how much there is."""
        seen = self._offsets()
        most = sum(seen) + 2 * self._file_bytes
        began_s = news_s = self._loop.time()
        while sum(seen) < most:
            await self._follow()
            await asyncio.sleep(0.1)
            now_s = self._loop.time()
            if self._offsets() != seen:
                seen, news_s = self._offsets(), now_s
            elif now_s - news_s >= self._timing.follow_again_s and self._has_caught_up(began_s, now_s):
                return

    def _has_caught_up(self, began_s: float, now_s: float) -> bool:
        """Would whoever reads along have said something by now? A busy host takes its time to begin with it."""
        reading_since_s = began_s
        if self._follower is not None and not self._follower.is_closed:
            reading_since_s = min(began_s, self._follower.began_s)
            if self._follower.has_come:
                return True
        return now_s - reading_since_s >= self._timing.caught_up_s

    def _offsets(self) -> tuple[int, int]:
        return self._live.taken_bytes("stdout"), self._live.taken_bytes("stderr")

    def _has_all(self, sizes: tuple[int, int]) -> bool:
        return all(have >= size for have, size in zip(self._offsets(), sizes, strict=True))

    async def _by_exit_status(self, status: int) -> Outcome:
        why = self._signalled or (self._ending if status in ENDED_BY_US else None)
        if why is not None:
            return await self._ended(_BECAME[why], why, exit_code=status)
        if status == 0:
            return await self._ended(Status.SUCCESS, None, exit_code=0)
        return await self._ended(Status.FAILED, "exit_status", exit_code=status)

    # --- ending it ------------------------------------------------------------------------------------------------

    async def _put_to_an_end(self, talk: _Conversation) -> Outcome | None:
        """Signal the command until the host says that it is gone, or that it had ended before.

        None when it had ended, and how has to be asked on a new channel.
        """
        why = self._stop_for or "timeout"
        await self._hold(self._note_ending(why))
        for attempt in range(self._timing.signal_tries):
            try:
                said = await self._signal()
            except TimeoutError:
                return await self._unconfirmed(why, "its host does not answer")
            if said == "ended" and attempt == 0:
                self._ending = None  # It had ended by itself.
            if said == "ended":
                return await self._result_after_all(talk)
            self._ending = why
            if said == "gone":
                self._signalled = why
                return await self._result_after_all(talk)
            if said == "still":
                break
            await asyncio.sleep(self._pause_s(attempt))
        return await self._unconfirmed(why)

    async def _unconfirmed(self, why: str, more: str = "") -> Outcome:
        detail = f"It was to end: {why}; {more}." if more else f"It was to end: {why}."
        return await self._ended(Status.INTERRUPTED, "not_confirmed", detail)

    async def _signal(self) -> str | None:
        """What the host says about it; None when it says nothing. Raises TimeoutError as `_asked` does."""
        async with self._asked(wrapper.signal(self._key, self.claim.task_id)) as talk:
            word = await talk.next(self._timing.signal_s) if talk is not None else None
        return word.what if isinstance(word, Signalled) else None

    @asynccontextmanager
    async def _asked(self, script: Script) -> AsyncIterator[_Conversation | None]:
        """A short conversation on a channel of its own; None when the host cannot be reached.

        Raises TimeoutError when it does not answer and the command is to end.
        """
        talk = _Conversation(self._key, None, apart=True)
        try:
            async with self._left_undone(self._timing.unanswered_s):
                await self._open(talk, script)
        except Unreachable:
            yield None
            return
        try:
            yield talk
        finally:
            if talk.channel is not None:
                talk.channel.close()

    async def _result_after_all(self, talk: _Conversation) -> Outcome | None:
        """The host says that it is gone: what remains is how it ended, if it could still write that down."""
        until_s = self._loop.time() + self._timing.result_s
        while (left_s := until_s - self._loop.time()) > 0:
            word = await talk.next(left_s)  # None also whenever more of its output comes
            if isinstance(word, Ended):
                return await self._finished(word)
            if isinstance(word, Absent):
                return await self._gone(word)  # KILL took the shell around it too.
            if word is None and talk.is_closed:
                break
        if self._signalled is None:
            return None
        return await self._ended(_BECAME[self._signalled], self._signalled)

    # --- finding it again -----------------------------------------------------------------------------------------

    async def _attached_again(self) -> Outcome:
        """Ask the host what became of it, until it answers."""
        attempt = tries = 0
        give_up_s = max(self._deadline_s, self._loop.time()) + self._timing.give_up_s
        while True:
            try:
                outcome = await self._asked_again()
                attempt = 0  # The host answers; it is the way there that does not hold.
            except Unreachable as error:
                is_another = error.reason in {"host_key_changed", "host_key_unknown"}
                outcome = await self._ended(Status.INTERRUPTED, error.reason, str(error)) if is_another else None
            if outcome is not None:
                return outcome
            if self._stop_for is not None:
                tries += 1
                if tries >= self._timing.signal_tries or self._loop.time() >= self._unanswered_until_s:
                    return await self._unconfirmed(self._stop_for, "its host cannot be reached")
            # Only here: however long the database was waited for, its host is asked once more.
            if self._loop.time() >= give_up_s:
                return await self._ended(Status.INTERRUPTED, "unreachable")
            await self._pause(attempt)
            attempt += 1

    async def _asked_again(self) -> Outcome | None:
        """What the host says this time; None when it was cut off before it said anything. Raises Unreachable."""
        try:
            async with self._left_undone(self._timing.unanswered_s):
                talk = await self._converse(wrapper.attach(self._key, self.claim.task_id), apart=True)
        except TimeoutError:
            assert self._stop_for is not None
            return await self._unconfirmed(self._stop_for, "its host does not answer")
        outcome = await self._reattached(talk)
        if outcome is None and self._stop_for is not None and self._loop.time() >= self._unanswered_until_s:
            return await self._unconfirmed(self._stop_for, "its host does not answer")
        return outcome

    async def _reattached(self, talk: _Conversation) -> Outcome | None:
        """What this channel tells; None when it was cut."""
        word: Word | None = None
        settled_s = self._loop.time() + self._timing.settle_s
        while word is None and not talk.is_closed:
            left_s = min(settled_s, self._unanswered_until_s) - self._loop.time()
            if left_s <= 0:
                break
            word = await talk.next(left_s)
        match word:
            case Started(age_s=age_s):
                self._is_running = True
                if self.claim.is_taken_over and age_s is not None:
                    self._deadline_s = self._loop.time() + self.claim.timeout_s - age_s
                return await self._watched(talk)
            case Ended():
                return await self._finished(word)
            case Absent():
                return await self._gone(word)
            case _:
                return None

    async def _gone(self, word: Absent) -> Outcome:
        same_boot = self.claim.boot_id == word.boot_id
        if word.why == "lost":
            await self._read_what_comes()
            why = self._signalled or self._ending
            if why is not None:
                return await self._ended(_BECAME[why], why)
            was_rebooted = self.claim.boot_id is not None and not same_boot
            return await self._ended(Status.INTERRUPTED, "host_rebooted" if was_rebooted else "vanished")
        if same_boot and not self._is_running and self.claim.mode is None:
            raise NeverStarted
        if self.claim.boot_id is None:
            return await self._ended(Status.INTERRUPTED, "cannot_tell")
        return await self._ended(Status.INTERRUPTED, "host_rebooted" if not same_boot else "vanished")

    def _left_s(self) -> float:
        """How much of its time a command has left by our clock; its host knows better, once it can be asked."""
        ran_s = (datetime.now(UTC) - self.claim.started_at).total_seconds()
        return self.claim.timeout_s - max(0.0, ran_s)

    async def _pause(self, attempt: int) -> None:
        """Before the host is asked again. Whoever wants the command to end does not wait for the end of a long one."""
        if self._stop_for is not None:
            await asyncio.sleep(self._pause_s(0))
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause_s(attempt)):
                await self._stopping.wait()

    def _pause_s(self, attempt: int) -> float:
        longest: float = min(self._timing.retry_most_s, self._timing.retry_first_s * 2 ** min(attempt, 10))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311  # Not a secret.

    async def _hold(self, noted: Awaitable[bool]) -> None:
        """Write something down about the claim, before the host hears of it. Raises ClaimLost."""
        if not await noted:
            raise ClaimLost

    # --- both -----------------------------------------------------------------------------------------------------

    async def _converse(self, script: Script, *, apart: bool) -> _Conversation:
        """Open the channel that tells how the command ends; its output counts unless it comes apart."""
        talk = _Conversation(self._key, self._live, apart=apart)
        await self._open(talk, script)
        self._talk = talk
        return talk

    async def _open(self, talk: _Conversation, script: Script) -> None:
        """Have a host run a script. A new connection takes the database, which is waited for."""

        async def opened() -> Channel:
            try:
                return await self._hosts.open(self._target, script, talk.on_stdout, talk.on_closed, talk.on_stderr)
            except Unavailable:
                self._excuse_the_host()
                raise

        talk.channel = await insist(opened)

    def _excuse_the_host(self) -> None:
        """It could not be asked, for a reason of ours: it is given its time anew."""
        if self._stop_for is None:
            return
        self._stopped_at_s = self._loop.time()
        if self._leaving is not None and not self._leaving.expired():
            self._leaving.reschedule(self._stopped_at_s + self._grace_s)

    async def left_behind(self) -> Outcome:
        """The outcome of a command that is not left to the next console: attached, or to be ended and not confirmed."""
        return await self._unconfirmed("console_stopped")

    async def _ended(
        self, status: Status, cause: str | None, detail: str | None = None, *, exit_code: int | None = None
    ) -> Outcome:
        finished_at = max(datetime.now(UTC), self.claim.started_at + timedelta(microseconds=1))
        return Outcome(
            claim=self.claim,
            status=status,
            finished_at=finished_at,
            cause=cause,
            detail=detail,
            exit_code=exit_code,
            mode=self._mode,
            output=await self._live.end(exit_code),
        )
