"""One server, for ever: greet the probe, ask, turn answers into values, judge what goes wrong, back off.

A collector is a state machine without a task of its own: the supervisor beats it once a second and the channel calls
it with what arrives. Between two beats of a thousand servers nothing is scheduled and nothing is allocated for them.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Final, Protocol

from server_monitor.collect import linux
from server_monitor.collect.lines import (
    PROTOCOL_VERSION,
    Assembler,
    Filesystem,
    FloodError,
    Hello,
    OwnCost,
    Partial,
    ProcessCount,
    Reading,
    Unable,
    decode,
    printable,
)
from server_monitor.collect.questions import Questions
from server_monitor.collect.tally import ClockStandsStillError, Tally
from server_monitor.telemetry import metrics
from server_monitor.telemetry.logs import logger

log = logger(__name__)

# Shell start files of the account run before the probe, and some of them take their time.
HELLO_DEADLINE_S: Final = 60.0
HELLO_SLOW_AFTER_S: Final = 10.0
SLOW_AFTER_S: Final = 5.0
LOST_AFTER_S: Final = 20.0
FIRST_RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 60.0
PATIENT_RETRY_S: Final = 600.0
GREETING_LINES: Final = 200
DEGRADED_AFTER_BAD_LINES: Final = 5
CUT_OFF_AFTER_BAD_LINES: Final = 20
DEAREST_PROBE_PERCENT: Final = 1.0
LARGEST_SLOWDOWN: Final = 16
CLOCK_SKEW_S: Final = 60.0
COMPLAINT_LIMIT_BYTES: Final = 512
NEVER: Final = float("-inf")

# Retrying these would be pestering, or helping an attacker; the server's row has to change first.
_WAITS_FOR_A_PERSON: Final = frozenset({"host_key_unknown", "host_key_changed"})
_PATIENT: Final = frozenset({"auth_failed", "credential_missing", "weak_algorithms", "no_awk", "no_proc"})
_STATUS_OF: Final = {
    "host_key_unknown": "unknown",
    "host_key_changed": "host_key_changed",
    "auth_failed": "auth_failed",
    "credential_missing": "auth_failed",
    "no_awk": "degraded",
    "no_proc": "degraded",
    "probe_failed": "degraded",
    "channel_refused": "degraded",
    "flood": "degraded",
    "protocol_error": "degraded",
}


class Channel(Protocol):
    """What a probe is spoken to through: an SSH channel, or a pipe on this machine."""

    def write(self, data: bytes) -> None:
        """Send without waiting. Raises OSError when the other end is gone."""

    def close(self) -> None:
        """End the probe."""


class Listener(Protocol):
    """Who hears of what a collector finds. Called within a callback of the channel, so none may wait."""

    def sampled(self, server_id: str, at: float, values: dict[str, float]) -> None: ...

    def judged(self, server_id: str, status: str, reason: str | None, detail: str | None) -> None: ...

    def greeted(self, server_id: str, hello: Hello) -> None: ...

    def lost(self, server_id: str) -> None:
        """The connection has to be closed as a whole: nothing came back through it."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """Seconds since some start, never set back; and Unix seconds."""

    monotonic: Callable[[], float] = time.monotonic
    unix: Callable[[], float] = time.time


class Phase(Enum):
    WAITING = "waiting"
    CONNECTING = "connecting"
    GREETING = "greeting"
    COLLECTING = "collecting"
    STOPPED = "stopped"


class Callbacks:
    """What a channel calls. They belong to one attempt: what a closed channel still says is not heard."""

    __slots__ = ("on_closed", "on_data", "on_stderr")

    def __init__(self, collector: "Collector", attempt: int) -> None:
        self.on_data: Callable[[bytes], None] = partial(collector.received, attempt)
        self.on_closed: Callable[[str | None], None] = partial(collector.closed, attempt)
        self.on_stderr: Callable[[bytes], None] = partial(collector.complained, attempt)


class Collector:
    """What is known of one server between two answers. `now` is the monotonic clock throughout."""

    __slots__ = (
        "_asked_at",
        "_assembler",
        "_attempt",
        "_bad_lines",
        "_boot_id",
        "_channel",
        "_clocks",
        "_closed_early",
        "_complaint",
        "_failures",
        "_fresh",
        "_greeting_lines",
        "_jitter",
        "_listener",
        "_opened_at",
        "_questions",
        "_skewed",
        "_slowdown",
        "_status",
        "_tally",
        "_top_at_s",
        "_unanswered",
        "detailed",
        "phase",
        "retry_at",
        "server_id",
        "slot",
        "top",
        "watched",
    )

    def __init__(
        self, server_id: str, listener: Listener, clocks: Clocks, jitter: random.Random, *, slot: int = 0
    ) -> None:
        self.server_id = server_id
        self.slot = slot
        self.phase = Phase.WAITING
        self.retry_at = 0.0
        self.watched = False
        self.detailed = False
        self.top: list[linux.ProcessUse] = []
        self._top_at_s: float | None = None
        self._listener = listener
        self._clocks = clocks
        self._jitter = jitter
        self._attempt = 0
        self._failures = 0
        self._slowdown = 1
        self._status: tuple[str, str | None] | None = None
        self._boot_id = ""
        self._tally = Tally()
        self._questions = Questions()
        self._forget_connection()

    def _forget_connection(self) -> None:
        self._channel: Channel | None = None
        self._assembler = Assembler()
        self._tally.begin()
        self._questions.begin()
        self._unanswered = False
        self._asked_at = NEVER
        self._opened_at = NEVER
        self._bad_lines = 0
        self._greeting_lines = 0
        self._complaint = b""
        self._closed_early = False
        self._skewed = False
        self._fresh = True

    # --- connecting ---------------------------------------------------------------------------------------------

    def connecting(self) -> Callbacks:
        """Begin an attempt; the channel that comes of it gets these callbacks."""
        self._attempt += 1
        self._forget_connection()
        self.phase = Phase.CONNECTING
        return Callbacks(self, self._attempt)

    def opened(self, channel: Channel) -> None:
        """The attempt succeeded. The hello may already have come, and so may the end."""
        if self.phase in (Phase.STOPPED, Phase.WAITING):
            channel.close()
            return
        self._channel = channel
        self._opened_at = self._clocks.monotonic()
        if self._closed_early:
            self._fail("probe_failed", self._last_words())
        elif self.phase is Phase.COLLECTING:
            self._ask(self._opened_at)
        else:
            self.phase = Phase.GREETING

    def failed(self, reason: str, detail: str) -> None:
        """The attempt failed; `reason` is a code of `fleet/reasons.py`."""
        if self.phase is not Phase.STOPPED:
            self._fail(reason, detail)

    def stop(self) -> None:
        """Never ask again, and end the probe."""
        channel = self._channel
        self.phase = Phase.STOPPED
        self._attempt += 1
        self._forget_connection()
        if channel is not None:
            channel.close()

    def _fail(self, reason: str, detail: str | None) -> None:
        """Give this connection up, say why, and settle when to try again."""
        channel = self._channel
        self._forget_connection()
        self.phase = Phase.WAITING
        self._attempt += 1
        if channel is not None:
            channel.close()
        self.retry_at = self._clocks.monotonic() + self._retry_after_s(reason)
        self._failures += 1
        metrics.collector_failures.labels(reason).inc()
        self._judge(_STATUS_OF.get(reason, "offline"), reason, detail)

    def _retry_after_s(self, reason: str) -> float:
        if reason in _WAITS_FOR_A_PERSON:
            return float("inf")
        if reason in _PATIENT:
            return PATIENT_RETRY_S * self._jitter.uniform(0.8, 1.2)
        longest = min(FIRST_RETRY_S * 2.0 ** min(self._failures, 10), LONGEST_RETRY_S)
        return longest * self._jitter.uniform(0.5, 1.0)

    def _judge(self, status: str, reason: str | None = None, detail: str | None = None) -> None:
        if self._status != (status, reason):
            self._status = (status, reason)
            self._listener.judged(self.server_id, status, reason, detail)

    # --- asking -------------------------------------------------------------------------------------------------

    def beat(self, now: float, second: int, idle_interval_s: int) -> None:
        """Once a second: ask when it is time, and judge what was not answered. `second` counts the beats."""
        if self.phase is Phase.COLLECTING and self._channel is not None:
            if self._unanswered:
                self._judge_silence(now - self._asked_at)
            elif self._is_due(second, self._interval_s(idle_interval_s)):
                self._ask(now)
        elif self.phase is Phase.GREETING:
            self._judge_greeting(now - self._opened_at)

    def _interval_s(self, idle_interval_s: int) -> int:
        return (1 if self.watched else idle_interval_s) * self._slowdown

    def _is_due(self, second: int, interval_s: int) -> bool:
        # Rates take two readings, and a server that has just come back is shown as soon as possible.
        return self._fresh or (second + self.slot) % interval_s == 0

    def _judge_silence(self, silent_s: float) -> None:
        if silent_s >= LOST_AFTER_S:
            self._fail("connection_lost", f"no answer for {silent_s:.0f} s")
            self._listener.lost(self.server_id)
        elif silent_s >= SLOW_AFTER_S:
            self._judge("degraded", "slow", f"no answer for {silent_s:.0f} s")

    def _judge_greeting(self, silent_s: float) -> None:
        if silent_s >= HELLO_DEADLINE_S:
            self._fail("probe_failed", self._last_words() or "the probe said nothing")
        elif silent_s >= HELLO_SLOW_AFTER_S:
            self._judge("degraded", "slow", f"the probe has said nothing for {silent_s:.0f} s")

    def _ask(self, now: float) -> None:
        assert self._channel is not None
        self._assembler.refill()
        self._unanswered = True
        self._asked_at = now
        try:
            question = self._questions.next(
                now, detailed=self.detailed, skewed=self._skewed, filling=self._tally.is_filling
            )
            self._channel.write(question)
        except OSError as error:
            self._fail("connection_lost", str(error))

    # --- hearing ------------------------------------------------------------------------------------------------

    def received(self, attempt: int, data: bytes) -> None:
        """Called by the channel with bytes as they come."""
        if attempt != self._attempt:
            return
        try:
            lines = self._assembler.feed(data)
        except FloodError:
            self._cut_off()
            return
        for line in lines:
            if attempt != self._attempt:
                return
            self._take(line)

    def complained(self, attempt: int, data: bytes) -> None:
        """Called by the channel with the standard error; the last of it explains a probe that ends.

        It has no budget of its own: a host that floods one stream or the other costs us the same.
        """
        if attempt != self._attempt:
            return
        self._complaint = (self._complaint + data)[-COMPLAINT_LIMIT_BYTES:]
        try:
            self._assembler.charge(len(data))
        except FloodError:
            self._cut_off()

    def _cut_off(self) -> None:
        self._fail("flood", "more than any answer can hold came at once")

    def closed(self, attempt: int, reason: str | None) -> None:
        """Called by the channel at its end: with a reason code when it was cut off, with None when the probe ended."""
        if attempt != self._attempt:
            return
        if self._channel is None:
            self._closed_early = True
        elif reason is not None:
            self._fail(reason, None)
        else:
            self._fail("probe_failed", self._last_words())

    def _last_words(self) -> str | None:
        words = self._complaint.decode("utf-8", "replace").strip()
        return printable(words.replace("\n", " ")) or None

    def _take(self, line: bytes) -> None:
        match decode(line):
            case Reading() as reading if self._unanswered:
                self._read(reading)
            case Partial(reading, dropped) if self._unanswered:
                metrics.probe_sections_refused.inc(dropped)
                self._read(reading)
            case Filesystem() | ProcessCount() as found if self._questions.expects_background_line():
                self._found(found)
            case Hello() as hello if self._questions.expects_hello:
                self._greet(hello)
            case Unable(reason):
                self._fail(reason, None)
            case _:
                self._refuse()

    def _refuse(self) -> None:
        """A line that the probe does not write. Before the hello it is most likely from a login script."""
        if self.phase is not Phase.COLLECTING:
            self._greeting_lines += 1
            if self._greeting_lines > GREETING_LINES:
                self._fail("protocol_error", "no hello among the first lines")
            return
        metrics.probe_lines_refused.inc()
        self._unanswered = False
        self._bad_lines += 1
        if self._bad_lines >= CUT_OFF_AFTER_BAD_LINES:
            self._fail("protocol_error", "only lines that the probe does not write")
        elif self._bad_lines >= DEGRADED_AFTER_BAD_LINES:
            self._judge("degraded", "protocol_error", "lines that the probe does not write")

    def _greet(self, hello: Hello) -> None:
        if hello.version != PROTOCOL_VERSION:
            self._fail("protocol_error", f"probe protocol {hello.version}")
            return
        if self._boot_id and hello.boot_id != self._boot_id:
            self._rebooted()
        self._boot_id = hello.boot_id
        self._skewed = self._clock_is_off(hello)
        now = self._clocks.monotonic()
        self._questions.greeted(now)
        self._listener.greeted(self.server_id, hello)
        if self.phase is Phase.COLLECTING:
            return
        self.phase = Phase.COLLECTING
        if self._channel is not None:
            self._ask(now)

    def _clock_is_off(self, hello: Hello) -> bool:
        if hello.booted_at is None or hello.uptime_s is None:
            return False
        return abs(hello.booted_at + hello.uptime_s - self._clocks.unix()) > CLOCK_SKEW_S

    def _rebooted(self) -> None:
        metrics.server_reboots.inc()
        log.info("server_rebooted", server_id=self.server_id)

    def _found(self, found: Filesystem | ProcessCount) -> None:
        if isinstance(found, Filesystem) and self._questions.expects_filesystems:
            self._questions.expects_filesystems = False
            self._tally.forget_filesystems()
        self._tally.found(found, self._asked_at)

    # --- values -------------------------------------------------------------------------------------------------

    def _read(self, reading: Reading) -> None:
        self._unanswered = False
        if reading.own is not None:
            self._weigh(reading.own, reading.uptime_s)
        if reading.top is not None:
            elapsed_s = None if self._top_at_s is None else reading.uptime_s - self._top_at_s
            self.top = linux.process_uses(reading.top, elapsed_s)
            self._top_at_s = reading.uptime_s
        try:
            values = self._tally.read(reading, self._asked_at)
        except linux.CounterResetError:
            self._rebooted()
            return
        except ClockStandsStillError:
            # The second question may follow the first one closely; after that, this is no clock.
            if not self._fresh:
                self._refuse()
            return
        if values is not None:
            self._deliver(values)

    def _deliver(self, values: dict[str, float]) -> None:
        self._fresh = False
        self._failures = 0
        self._bad_lines = 0
        self._judge("degraded" if self._skewed else "online", "clock_skew" if self._skewed else None)
        self._listener.sampled(self.server_id, self._clocks.unix(), values)

    def _weigh(self, own: OwnCost, uptime_s: float) -> None:
        """Keep the probe's own cost below one percent of a core, by asking less often."""
        percent = self._tally.weigh(own, uptime_s)
        if percent is None:
            return
        if percent > DEAREST_PROBE_PERCENT:
            self._slowdown = min(self._slowdown * 2, LARGEST_SLOWDOWN)
        elif percent < DEAREST_PROBE_PERCENT / 4 and self._slowdown > 1:
            self._slowdown //= 2
