"""What a person types, on its way to the shell: in order, in bounds, and held at an Enter that has to be asked about.

Where the guard rail knows the line, the Enter behind it waits until the policy has been asked, which takes
milliseconds. Only when the policy objects does it wait for the person. Keys before it are sent at once, and so is
Ctrl-C.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from server_monitor.terminal import frames
from server_monitor.terminal.guard import Guard
from server_monitor.terminal.shell import Shell

PENDING_BYTES: Final = 262_144  # typed, and not sent yet
# Sent, and not taken by the host yet. A channel says that it is writable again only after it had more than this.
UNSENT_BYTES: Final = 65_536
ECHO_S: Final = 0.2  # how long an Enter waits for the echo of what was typed before it
JUDGE_S: Final = 3.0  # how long the policy may take; a rail that hangs is none
ANSWER_S: Final = 120.0

_INTERRUPT: Final = b"\x03"


@dataclass(frozen=True, slots=True)
class Objection:
    """What the policy says about a line that is about to be sent."""

    rule: str
    sentence: str


ObjectTo = Callable[[str], Awaitable[Objection | None]]
"""The line -> why it should not be sent without a question, or None."""

Ask = Callable[[str], bool]
"""Puts the question to the person; False when nobody is there."""


class Typing:
    """The keys of one session. `run` until cancelled; `open` once there is a shell."""

    def __init__(self, object_to: ObjectTo, ask: Ask, mark: Callable[[str], None]) -> None:
        self._ask = ask
        self._object_to = object_to
        self._mark = mark
        self._loop = asyncio.get_running_loop()
        self._guard = Guard()
        self._shell: Shell | None = None
        self._pending = bytearray()
        self._is_looking = False  # an Enter is being looked at
        self._question: asyncio.Future[bool] | None = None
        self._asked_s = 0.0
        self._typed_s = 0.0
        self._enter = asyncio.Event()
        self._echo = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def has_room(self) -> bool:
        return len(self._pending) < PENDING_BYTES

    @property
    def is_full_screen(self) -> bool:
        return self._guard.is_full_screen

    @property
    def is_held(self) -> bool:
        return self._question is not None

    async def room(self, timeout_s: float) -> None:
        """Until more can be taken. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not self.has_room:
                self._room.clear()
                await self._room.wait()

    def open(self, shell: Shell) -> None:
        self._shell = shell
        shell.on_writable = self._flow
        self._flow()

    def typed(self, data: bytes) -> None:
        self._typed_s = self._loop.time()
        if self._question is not None and _INTERRUPT in data:
            self.drop()  # It is an answer too.
            data = data[data.rindex(_INTERRUPT) :]
        self._pending += data
        self._flow()

    def shown(self, data: bytes) -> None:
        """What the shell printed."""
        self._guard.shown(data)
        if self._is_looking:
            self._echo.set()

    def answer(self, *, is_yes: bool) -> None:
        """What the person says to the question, if there is one."""
        if self._question is not None and not self._question.done():
            self._question.set_result(is_yes)
            if not is_yes:
                self._pending.clear()  # The Enter, and what was typed behind it.

    def drop(self) -> None:
        """Do not send what is held."""
        self.answer(is_yes=False)

    def tick(self, now_s: float) -> None:
        if self._question is not None and now_s - self._asked_s > ANSWER_S:
            self.drop()

    async def run(self) -> None:
        """Look at the Enters that wait."""
        while True:
            await self._enter.wait()
            self._enter.clear()
            if await self._looked_at():
                if self._guard.was_hidden:
                    self._mark("no-echo")
                self._send_enter()
            self._is_looking = False
            self._flow()

    # --- sending --------------------------------------------------------------------------------------------------

    def _flow(self) -> None:
        """Send what may be sent, up to the next Enter that has to be looked at."""
        shell = self._shell
        while self._pending and shell is not None and not self._is_looking and shell.unsent_bytes <= UNSENT_BYTES:
            end = self._line_end()
            if end != 0:
                self._send(UNSENT_BYTES if end < 0 else min(end, UNSENT_BYTES))
            elif self._must_be_looked_at():
                self._is_looking = True
                self._enter.set()
            else:
                self._send_enter()
        if self.has_room:
            self._room.set()

    def _line_end(self) -> int:
        """Where the next Enter stands in what waits; -1 when there is none."""
        found = [place for key in b"\r\n" if (place := self._pending.find(key)) >= 0]
        return min(found, default=-1)

    def _must_be_looked_at(self) -> bool:
        # Several lines at once are a paste, about which the page has asked already; their echo would have to be waited
        # for after each.
        is_last = len(self._pending) == 1
        return is_last and (self._guard.line is not None or self._guard.awaits_echo)

    def _send(self, count: int) -> None:
        assert self._shell is not None
        data = bytes(self._pending[:count])
        del self._pending[:count]
        self._guard.typed(data)
        self._shell.write(data)

    def _send_enter(self) -> None:
        assert self._shell is not None
        data = bytes(self._pending[:1])
        del self._pending[:1]
        self._guard.entered()
        self._shell.write(data)

    # --- looking --------------------------------------------------------------------------------------------------

    async def _looked_at(self) -> bool:
        """May the Enter that waits be sent?"""
        await self._echoed()
        line = self._guard.line
        if line is None:
            return True
        try:
            async with asyncio.timeout(JUDGE_S):
                objection = await self._object_to(line)
        except TimeoutError:
            return True
        return objection is None or await self._answered(line, objection)

    async def _echoed(self) -> None:
        """Until all that was typed has come back, or would have."""
        try:
            async with asyncio.timeout(max(0.0, self._typed_s + ECHO_S - self._loop.time())):
                while self._guard.awaits_echo:
                    self._echo.clear()
                    await self._echo.wait()
        except TimeoutError:
            pass

    async def _answered(self, line: str, objection: Objection) -> bool:
        self._question = self._loop.create_future()
        self._asked_s = self._loop.time()
        try:
            if not self._ask(frames.guard(line, objection.rule, objection.sentence)):
                self.drop()
            return await self._question
        finally:
            self._question = None
