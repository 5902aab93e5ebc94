"""One running session: the shell, its recording, the browser that types and those that look on.

    browser ── typed ──▶ Typing ──▶ shell ──▶ recorder
       ▲                                 └──▶ backlog ──▶ link of each browser
       └── as fast as it draws: what it has not drawn yet is little, or the shell waits

What the shell prints is recorded and shown in the same call, so nothing is shown that was not handed to the recorder.
Memory is bounded: the shell is paused while the browser that types has not drawn what it was sent, while the disk does
not keep up, and while nobody is there and the backlog is full. A browser that looks on never makes the shell wait; one
that falls behind the backlog begins anew with what is held.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from server_monitor.auth.actor import Actor
from server_monitor.telemetry import metrics
from server_monitor.terminal import frames
from server_monitor.terminal.backlog import Backlog
from server_monitor.terminal.recording import Recorder
from server_monitor.terminal.sessions import Session
from server_monitor.terminal.shell import Shell
from server_monitor.terminal.states import CAUSES, Ending, Size, Status
from server_monitor.terminal.typed import ObjectTo, Typing

FRAME_BYTES: Final = 65_536
NOTICES: Final = 64  # that wait for one browser; the oldest go first
NORMAL, GOING_AWAY, POLICY_VIOLATION, REPLACED = 1000, 1001, 1008, 4409


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a session. 0 seconds is no bound."""

    idle_s: float = 1_800.0
    longest_s: float = 43_200.0
    warn_s: float = 60.0
    return_s: float = 60.0  # for a browser that went away
    room_s: float = 15.0  # how long a host may take no input before the browser that types is sent away
    unseen_bytes: int = 524_288  # sent to the browser that types, and not drawn yet
    backlog_bytes: int = 262_144


@dataclass(frozen=True, slots=True)
class Close:
    """The last thing that a browser is sent: a text frame, if any, and then the code of the socket's end."""

    code: int
    reason: str
    message: str | None = None


class Link:
    """One browser's side of a session."""

    def __init__(self, actor: Actor, name: str, *, is_watching: bool) -> None:
        self.actor = actor
        self.name = name
        self.is_watching = is_watching
        self.at = 0  # what it has been sent of the shell
        self.drawn = 0
        self.is_stuck = False  # its frames are not read, because the host takes no input; nor are its acks
        self.notices: deque[str] = deque(maxlen=NOTICES)
        self.close: Close | None = None
        self.news = asyncio.Event()

    def notice(self, text: str) -> None:
        self.notices.append(text)
        self.news.set()

    def end(self, close: Close) -> None:
        self.close = self.close or close
        self.news.set()


class Bridge:
    """One session, from its opening to its end. Everything but `run` and `next` returns at once."""

    def __init__(self, session: Session, size: Size, limits: Limits, object_to: ObjectTo) -> None:
        self.session = session
        self.size = size
        self.ending: Ending | None = None
        self.on_ended: Callable[[], None] = lambda: None  # told at once, by whoever ends it
        self.noted_chunks = 0  # of the recording, in the audit log
        self.typed_with: set[str] = set()  # the logins of those who typed since these were last noted as in use
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._backlog = Backlog(limits.backlog_bytes)
        self._typing = Typing(object_to, self._ask_typist, self._mark)
        self._shell: Shell | None = None
        self._recorder: Recorder | None = None
        self._is_shell_gone = False
        self._gone_for: str | None = None
        self._is_paused = False
        self._drawn = 0  # by the browser that types, or the last one that did
        self._typist: Link | None = None
        self._watchers: list[Link] = []
        self._over = asyncio.Event()
        self._began_s = self._typed_s = self._gone_s = self._loop.time()
        self._warned: set[str] = set()

    # --- opening ---------------------------------------------------------------------------------------------------

    @property
    def recorder(self) -> Recorder | None:
        return self._recorder

    @property
    def watchers(self) -> list[Link]:
        return list(self._watchers)

    @property
    def is_attached(self) -> bool:
        """Does a browser that types have it, or does it wait for one to come back?"""
        return self._typist is not None

    @property
    def held_bytes(self) -> int:
        """What of the shell's output is in memory, for browsers that have not drawn it or may want it again."""
        return self._backlog.end - self._backlog.start

    @property
    def is_held(self) -> bool:
        """Does a line wait for the answer to the guard rail's question?"""
        return self._typing.is_held

    def record_with(self, recorder: Recorder) -> None:
        """From here on everything is recorded; before this nothing may be printed."""
        self._recorder = recorder
        recorder.on_progress = lambda _progress: self._choose_flow()
        recorder.on_failed = lambda failure: self.end(Ending(Status.INTERRUPTED, "not_recorded", detail=str(failure)))

    def open(self, shell: Shell) -> None:
        """The shell runs: whoever waits is told."""
        self._shell = shell
        if self.ending is not None:
            shell.close()
            return
        if self._is_shell_gone:
            self.on_closed(self._gone_for)
        self._began_s = self._typed_s = self._loop.time()
        self._typing.open(shell)
        self._choose_flow()
        for link in self.links:
            self._restart(link, 0)

    async def run(self) -> Ending:
        """Until the session is over."""
        async with asyncio.TaskGroup() as tasks:
            typing = tasks.create_task(self._typing.run())
            await self._over.wait()
            typing.cancel()
        assert self.ending is not None
        return self.ending

    def end(self, ending: Ending) -> None:
        """End the session; the first reason counts. Nothing is typed or shown from here on."""
        if self.ending is not None:
            return
        self.ending = ending
        if self._shell is not None:
            self._shell.close()
        self._over.set()
        self.on_ended()

    def say_closed(self, code: int = NORMAL) -> None:
        """Tell every browser how it ended, after the last bytes."""
        assert self.ending is not None
        cause = self.ending.cause
        sentence = self.ending.detail or CAUSES.get(cause, f"The server could not be used: {cause}.")
        close = Close(code, cause, frames.closed(cause, sentence, self.ending.exit_status))
        for link in self.links:
            link.end(close)

    # --- the shell -------------------------------------------------------------------------------------------------

    def on_output(self, data: bytes) -> None:
        """What the shell prints, as it comes."""
        if self.ending is not None:
            return
        assert self._recorder is not None
        self._recorder.output(data)
        self._backlog.add(data)
        self._typing.shown(data)
        metrics.terminal_output_bytes.inc(len(data))
        self._choose_flow()
        for link in self.links:
            link.news.set()

    def on_closed(self, reason: str | None) -> None:
        """The shell is gone: by itself, or cut off for a reason."""
        shell = self._shell
        if shell is None:  # So quickly that we have not heard of its opening.
            self._is_shell_gone, self._gone_for = True, reason
        elif reason is None and (shell.exit_status is not None or shell.exit_signal is not None):
            self.end(Ending(Status.CLOSED, "exited", shell.exit_status))
        else:
            self.end(Ending(Status.INTERRUPTED, reason or "connection_lost"))

    def _choose_flow(self) -> None:
        """Read from the shell, or let it wait."""
        if self._shell is None or self._recorder is None or self.ending is not None:
            return
        typist = self._typist
        drawn = typist.at if typist is not None and typist.is_stuck else self._drawn
        most = self._limits.backlog_bytes if typist is None else self._limits.unseen_bytes
        unseen = self._backlog.end - drawn
        self._backlog.forget(drawn)
        must_wait = unseen > (most // 2 if self._is_paused else most) or self._recorder.is_behind
        if must_wait == self._is_paused:
            return
        self._is_paused = must_wait
        if must_wait:
            metrics.terminal_pauses.inc()
            self._shell.pause()
        else:
            self._shell.resume()

    # --- browsers --------------------------------------------------------------------------------------------------

    @property
    def links(self) -> list[Link]:
        """Every browser that is there."""
        return [*self._watchers, *([self._typist] if self._typist else ())]

    def attach(self, link: Link, have: int) -> None:
        """A browser comes; it has drawn `have` bytes already. One that typed before it is sent away."""
        if link.is_watching:
            self._watchers.append(link)
            self._mark(f"watched by {link.name}")
            self._tell_watched()
        else:
            if self._typist is not None:
                self._typist.end(Close(REPLACED, "opened elsewhere"))
            if self._shell is not None:
                self._mark("reconnected")
            self._typist = link
            self._typed_s = self._loop.time()
            self._warned.discard("idle")
            self._tell_watched()
        if self._shell is not None:
            self._restart(link, have)
        self._choose_flow()

    def detach(self, link: Link) -> None:
        """A browser is gone."""
        if link is self._typist:
            self._typist = None
            self._gone_s = self._loop.time()
            self._typing.drop()
            self._choose_flow()
        elif link in self._watchers:
            self._watchers.remove(link)
            self._tell_watched()

    def send_away(self, link: Link) -> None:
        """End a browser that may not be here any more; what it still types goes nowhere."""
        link.end(Close(POLICY_VIOLATION, "not permitted"))
        self.detach(link)

    async def next(self, link: Link) -> str | bytes | Close:
        """What to send to this browser next."""
        while True:
            if link.notices:
                return link.notices.popleft()
            if link.close is not None and link.close.message is None:
                return link.close  # It is sent away, and a flood is no reason to stay.
            if self._may_send(link):
                if link.at < self._backlog.start:
                    self._restart(link, -1)  # It looks on, and does not keep up.
                    continue
                data = self._backlog.read(link.at, FRAME_BYTES)
                link.at += len(data)
                return data
            if link.close is not None:
                return link.close
            link.news.clear()
            await link.news.wait()

    def obey(self, link: Link, frame: frames.Frame) -> None:
        """Do what a text frame asks for. Raises MalformedError for what this browser cannot mean."""
        if isinstance(frame, frames.Ack):
            self._acknowledge(link, frame.at)
        elif link is not self._typist:
            return
        elif isinstance(frame, frames.Resize):
            self._resize(frame.size)
        elif isinstance(frame, frames.Answer):
            self._typing.answer(is_yes=frame.is_yes)
        elif isinstance(frame, frames.Leave):
            self.end(Ending(Status.CLOSED, "closed"))
        else:
            raise frames.MalformedError("a ticket is shown once")

    async def typed(self, link: Link, data: bytes) -> None:
        """Take in what was typed; waits while the host does not take what was typed before.

        Raises TimeoutError when it takes nothing for too long.
        """
        if link is not self._typist or self.ending is not None:
            return
        self._typed_s = self._loop.time()
        self._warned.discard("idle")
        if link.actor.session_id is not None:
            self.typed_with.add(link.actor.session_id)
        self._typing.typed(data)
        if not self._typing.has_room:
            link.is_stuck = True
            self._choose_flow()
            try:
                await self._typing.room(self._limits.room_s)
            finally:
                link.is_stuck = False

    def _may_send(self, link: Link) -> bool:
        # For the browser that types the shell is paused instead; here that would only be a second bound.
        if link.at == self._backlog.end or self._shell is None:
            return False
        return not link.is_watching or link.at - link.drawn < self._limits.unseen_bytes

    def _acknowledge(self, link: Link, at: int) -> None:
        if at > link.at:
            raise frames.MalformedError("it cannot have drawn what it was not sent")
        link.drawn = max(link.drawn, at)
        if link is self._typist:
            self._drawn = max(self._drawn, at)
            self._choose_flow()
        else:
            link.news.set()

    def _restart(self, link: Link, have: int) -> None:
        """Send this browser what it lacks, or, where that is not held any more, a fresh screen."""
        can_go_on = self._backlog.start <= have <= self._backlog.end and (have > 0 or self._backlog.start == 0)
        link.at = link.drawn = have if can_go_on else self._backlog.beginning()
        if link is self._typist:
            self._drawn = link.at
        is_reset = not can_go_on
        modes = self._backlog.modes.restored() if is_reset else ""
        link.notice(frames.ready(self.session.id, self.size, link.at, is_reset=is_reset, modes=modes))
        if is_reset and link is self._typist and self._typing.is_full_screen:
            self._redraw()

    def _redraw(self) -> None:
        """A program that has the whole screen draws it anew when its size changes."""
        assert self._shell is not None
        self._shell.resize(self.size.cols, max(1, self.size.rows - 1))
        self._shell.resize(self.size.cols, self.size.rows)

    def _resize(self, size: Size) -> None:
        if size == self.size or self._shell is None or self._recorder is None or self.ending is not None:
            return
        self.size = size
        self._shell.resize(size.cols, size.rows)
        self._recorder.resized(size.cols, size.rows)
        for link in self._watchers:
            link.notice(frames.resized(size))

    def _tell_watched(self) -> None:
        if self._typist is not None:
            self._typist.notice(frames.watched([link.name for link in self._watchers]))

    def _mark(self, label: str) -> None:
        if self._recorder is not None and self.ending is None:
            self._recorder.mark(label)

    # --- time ------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Ask the clock: is the time over, does it run out soon, has the browser been away too long?"""
        if self._shell is None or self.ending is not None:
            return
        now_s = self._loop.time()
        limits = self._limits
        self._count_down("idle", "idle", self._typed_s, limits.idle_s, now_s)
        self._count_down("time", "max_time", self._began_s, limits.longest_s, now_s)
        if self._typist is None and now_s - self._gone_s >= limits.return_s:
            self.end(Ending(Status.INTERRUPTED, "browser_gone"))
        self._typing.tick(now_s)

    def _count_down(self, name: str, cause: str, since_s: float, most_s: float, now_s: float) -> None:
        if most_s <= 0:
            return
        left_s = since_s + most_s - now_s
        if left_s <= 0:
            self.end(Ending(Status.TIMEOUT, cause))
        elif left_s <= min(self._limits.warn_s, most_s / 2) and name not in self._warned and self._typist is not None:
            self._warned.add(name)
            self._typist.notice(frames.warning(name, round(left_s)))

    def _ask_typist(self, text: str) -> bool:
        """Send the guard rail's question. False when nobody is there to answer."""
        if self._typist is None:
            return False
        self._typist.notice(text)
        return True
