"""Finds words in recordings, and the second at which they were shown.

Recordings are read as they are, newest session first; there is no index that would have to be kept as safe as they are.
So a question takes a bounded time and answers with what it has found, and where to go on.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from pydantic import SecretStr
from sqlalchemy import Row, and_, or_, select

from server_monitor.audit import cursor, log
from server_monitor.audit.chain import AuditTarget, timestamp
from server_monitor.audit.chain import Event as Record
from server_monitor.auth.actor import Actor, Permission, allows, audited, groups_allowing
from server_monitor.db.engine import Database
from server_monitor.db.ids import is_id
from server_monitor.db.tables import terminal_sessions
from server_monitor.errors import Denied, Invalid, NotFound, TooMany, Unavailable
from server_monitor.terminal.events import Event
from server_monitor.terminal.library import Library
from server_monitor.terminal.recording import Damaged
from server_monitor.terminal.text import Screen, draw

BUDGET_S: Final = 2.0
LIMIT: Final = 50
LIMIT_MAX: Final = 200
LONGEST: Final = 200  # characters of what is looked for
LINE: Final = 500  # characters of a line that is shown
ROWS: Final = 50
SLICE_BYTES: Final = 4_096  # drawn in a millisecond
WARM_CHUNKS: Final = 8  # read before the place where a search goes on, so that the screen is what it was
_PURPOSE: Final = b"server-monitor recording search cursor 1\n"
_T = terminal_sessions


@dataclass(frozen=True, slots=True)
class Question:
    """What is looked for, and in which sessions; None does not narrow."""

    q: str
    from_at: datetime | None = None
    to_at: datetime | None = None
    server_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None

    def document(self) -> dict[str, Any]:
        """The parts that say something, as text."""
        return {
            name: timestamp(value) if isinstance(value, datetime) else value
            for name, value in asdict(self).items()
            if value is not None
        }


@dataclass(frozen=True, slots=True)
class Place:
    """Where a search goes on: in this session (or behind it, when `chunk` is 0), after so many hits of this chunk."""

    created_at: str
    session_id: str
    chunk: int = 0
    skip: int = 0


@dataclass(frozen=True, slots=True)
class Hit:
    """A line that came to hold what was looked for, so many seconds after the session began."""

    session_id: str
    server_name: str
    user_name: str
    started_at: datetime
    at_s: float
    line: str


@dataclass(frozen=True, slots=True)
class Found:
    """What was found up to `place`; None: that is all.

    `not_searched` counts recordings that could not be read to their end.
    """

    hits: Sequence[Hit]
    place: Place | None
    not_searched: int


@dataclass(frozen=True, slots=True)
class _Scanned:
    """Hits as (at_us, line), and where to go on in the same recording.

    It is not whole when it could not be read to its end.
    """

    hits: Sequence[tuple[int, str]]
    chunk: int = 0
    skip: int = 0
    is_whole: bool = True


class Searching:
    """One search at a time: each takes a processor while it lasts."""

    def __init__(self, db: Database, library: Library, secret: SecretStr, budget_s: float = BUDGET_S) -> None:
        self._db = db
        self._library = library
        self._secret = secret
        self._budget_s = budget_s
        self._turn = asyncio.Lock()

    async def search(
        self, question: Question, limit: int, text: str | None, *, actor: Actor
    ) -> tuple[Found, str | None]:
        """A page of hits, and the cursor of the next. Appends `recording.search` before the first page is looked for.

        Raises Denied, Invalid, TooMany and Unavailable.
        """
        if groups_allowing(actor, Permission.RECORDING_READ) == frozenset():
            raise Denied(f"This takes the permission {Permission.RECORDING_READ.value}.")
        words = question.q.strip()
        if not 1 <= len(words) <= LONGEST or not words.isprintable():
            raise Invalid.one("q", f"must be 1 to {LONGEST} printable characters")
        place = self._opened(text, question, actor) if text is not None else None
        if self._turn.locked():
            raise TooMany("Another search is running; try again when it has ended.", 2)
        async with self._turn:
            if place is None:
                await self._record(question, actor)
            found = await self._search(question, words.lower(), limit, place, actor)
        return found, None if found.place is None else self._sealed(found.place, question, actor)

    async def _record(self, question: Question, actor: Actor) -> None:
        event = Record(
            "recording.search", audited(actor), AuditTarget("recordings", self._db.node), meta=question.document()
        )
        async with self._db.transaction() as conn:
            await log.append(conn, event)

    async def _search(self, question: Question, words: str, limit: int, place: Place | None, actor: Actor) -> Found:
        deadline_s = time.monotonic() + self._budget_s
        hits: list[Hit] = []
        not_searched = 0
        while rows := await self._rows(question, place):
            for row in rows:
                begin = place if place is not None and place.session_id == row.id else Place("", row.id)
                place = Place(timestamp(row.created_at), row.id)
                if row.started_at is None or not allows(actor, Permission.RECORDING_READ, row.groups):
                    continue
                scanned = await asyncio.to_thread(scan, self._library, words, begin, deadline_s, limit - len(hits))
                not_searched += not scanned.is_whole
                hits += [_hit(row, at_us, line) for at_us, line in scanned.hits]
                if scanned.chunk:
                    return Found(hits, Place(place.created_at, row.id, scanned.chunk, scanned.skip), not_searched)
                if time.monotonic() >= deadline_s or len(hits) >= limit:
                    return Found(hits, place, not_searched)
        return Found(hits, None, not_searched)

    async def _rows(self, question: Question, place: Place | None) -> Sequence[Row[Any]]:
        """The next sessions, newest first, from the place on."""
        equal = {
            _T.c.server_id: question.server_id,
            _T.c.user_id: question.user_id,
            _T.c.id: question.session_id,
        }
        if not all(value is None or is_id(value) for value in equal.values()):
            return ()
        conditions = [column == value for column, value in equal.items() if value is not None]
        if question.from_at is not None:
            conditions.append(or_(_T.c.finished_at.is_(None), _T.c.finished_at >= question.from_at))
        if question.to_at is not None:
            conditions.append(_T.c.created_at < question.to_at)
        if place is not None:
            at = datetime.fromisoformat(place.created_at)
            within = _T.c.id <= place.session_id if place.chunk else _T.c.id < place.session_id
            conditions.append(or_(_T.c.created_at < at, and_(_T.c.created_at == at, within)))
        wanted = select(_T).where(*conditions).order_by(_T.c.created_at.desc(), _T.c.id.desc()).limit(ROWS)
        async with self._db.reading() as conn:
            return (await conn.execute(wanted)).all()

    def _sealed(self, place: Place, question: Question, actor: Actor) -> str:
        document = {"place": asdict(place), "question": question.document(), "user": _user_of(actor)}
        return cursor.signed(orjson.dumps(document), _PURPOSE, self._secret)

    def _opened(self, text: str, question: Question, actor: Actor) -> Place:
        said = orjson.loads(cursor.unsigned(text, _PURPOSE, self._secret))
        if said["user"] != _user_of(actor):
            raise Invalid.one("cursor", "belongs to somebody else; leave it out to begin at the first page")
        if said["question"] != question.document():
            raise Invalid.one("cursor", "belongs to another question; repeat that of the first page")
        return Place(**said["place"])


def scan(library: Library, words: str, begin: Place, deadline_s: float, most: int) -> _Scanned:
    """Look through one recording for at most so many hits; `words` are in lower case. Blocks."""
    first = max(1, begin.chunk)
    hits: list[tuple[int, str]] = []
    screen: Screen | None = None
    try:
        for part in library.parts(begin.session_id, max(1, first - WARM_CHUNKS)):
            if screen is None:
                screen = Screen(part.stand.cols, part.stand.rows)
            shown = _shown(part.events, screen, words)
            if part.number < first:
                continue
            skip = begin.skip if part.number == first else 0
            room = most - len(hits)
            hits += shown[skip : skip + room]
            if len(shown) - skip > room:
                return _Scanned(hits, part.number, skip + room)
            if time.monotonic() >= deadline_s or len(hits) >= most:
                return _Scanned(hits, part.number + 1)
    except (NotFound, Damaged, Unavailable):
        return _Scanned(hits, is_whole=False)
    return _Scanned(hits)


def _shown(events: Sequence[Event], screen: Screen, words: str) -> list[tuple[int, str]]:
    """The lines that come to hold the words, each once in a second."""
    found: list[tuple[int, str]] = []
    last = (-1, "")
    for event in events:
        for slice_ in _slices(event):
            draw(screen, slice_)
            time.sleep(0)  # Otherwise whatever else the console does waits five milliseconds for each of its turns.
        for text, was in screen.changes():
            if words in text.lower() and words not in was.lower():
                this = (event.at_us // 1_000_000, text)
                if this != last:
                    found.append((event.at_us, text))
                last = this
    return found


def _slices(event: Event) -> Iterator[Event]:
    for start in range(0, max(1, len(event.data)), SLICE_BYTES):
        yield Event(event.at_us, event.code, event.data[start : start + SLICE_BYTES])


def _hit(row: Row[Any], at_us: int, line: str) -> Hit:
    return Hit(row.id, row.server_name, row.user_name, row.started_at, at_us / 1_000_000, line.strip()[:LINE])


def _user_of(actor: Actor) -> str:
    return actor.id or f"{actor.kind.value} {actor.name}"
