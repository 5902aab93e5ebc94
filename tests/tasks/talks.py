"""A script of the wrapper at work on this machine, or on one made of it: what it says, and what the command printed."""

import asyncio
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import psutil

from server_monitor.ssh import local
from server_monitor.tasks import wrapper
from server_monitor.tasks.wrapper import Ended, Script, Word
from tests.support.patience import PATIENCE_S


def lives(pid: int) -> bool:
    """Is there such a process that has not ended? One that nobody has waited for yet has."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Talk:
    """`out` and `err` are what the command printed; `heard` is all that came, in the order in which it came."""

    begun: ClassVar[list[Self]] = []  # by this test; what is left of them is cut off at its end

    def __init__(self, key: str) -> None:
        self.out = bytearray()
        self.err = bytearray()
        self.heard: list[tuple[str, bytes]] = []
        self.is_closed = False
        self._streams = {
            "out": wrapper.Stream(key, speaks_first=True),
            "err": wrapper.Stream(key, speaks_first=False),
        }
        self._words: deque[Word] = deque()
        self._ends = 0
        self._news = asyncio.Event()
        self.channel: local.LocalChannel | None = None

    @classmethod
    async def begin(cls, script: Script, key: str, home: Path, before: Sequence[str] = ()) -> Self:
        """Start a script; `before` are words to put before its own."""
        talk = cls(key)
        talk.channel = await local.open_channel(
            [*before, *script.words],
            lambda data: talk._take("out", data),
            talk._close,
            lambda data: talk._take("err", data),
            home=str(home),
            takes_all=True,
        )
        talk.channel.write(script.stdin)
        cls.begun.append(talk)
        return talk

    async def word(self) -> Word | None:
        """The next word, or None at the end. The end of what came inline is one word, and comes once on each stream."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._words and not self.is_closed:
                self._news.clear()
                await self._news.wait()
        return self._words.popleft() if self._words else None

    async def printed(self, out: bytes = b"", err: bytes = b"") -> None:
        """Until it has printed this much at least."""
        async with asyncio.timeout(PATIENCE_S):
            while not (bytes(self.out).endswith(out) and bytes(self.err).endswith(err)):
                self._news.clear()
                await self._news.wait()

    def acknowledge(self) -> None:
        assert self.channel is not None
        self.channel.write(wrapper.ACK)

    def go(self) -> None:
        """Let an attached command begin."""
        assert self.channel is not None
        self.channel.write(wrapper.GO)

    async def closed(self) -> None:
        """Close our side of its input, and wait until it has ended."""
        assert self.channel is not None
        self.channel.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            await self.channel.wait_closed()

    def cut(self) -> None:
        """The connection breaks."""
        assert self.channel is not None
        self.channel.close()

    def _take(self, name: str, data: bytes) -> None:
        self.heard.append((name, data))
        output, words = self._streams[name].feed(data)
        getattr(self, name).extend(output)
        for word in words:
            self._hear(word)
        self._news.set()

    def _hear(self, word: Word) -> None:
        if isinstance(word, Ended) and word.sizes is None:
            self._ends += 1
            if self._ends < 2:
                return
        self._words.append(word)

    def _close(self, _reason: str | None) -> None:
        self.out += self._streams["out"].rest()
        self.err += self._streams["err"].rest()
        self.is_closed = True
        self._news.set()
