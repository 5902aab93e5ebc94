"""Words are found in recordings, at the second at which they were shown."""

import json
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select

from server_monitor.auth.actor import Actor, ActorKind, GroupId, Role
from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id
from server_monitor.db.tables import audit_records
from server_monitor.errors import Denied, Invalid
from server_monitor.terminal import casting
from server_monitor.terminal.chain import frame, header, next_head, parse
from server_monitor.terminal.events import Event
from server_monitor.terminal.library import Library
from server_monitor.terminal.searching import Hit, Question, Searching
from tests.support.patience import PATIENCE_S
from tests.support.recordings import KEYRING, Session, Stage, contents, opening, write

AUDITOR = Actor(ActorKind.USER, new_id(), "aud", Role.AUDITOR)
SECRET = SecretStr("a secret for tests that is long enough")


@pytest.fixture
def search(db: Database, library: Library) -> Searching:
    return Searching(db, library, SECRET, budget_s=PATIENCE_S)


async def hits(search: Searching, words: str, actor: Actor = AUDITOR, **narrowed: Any) -> list[Hit]:
    """All there are, page by page."""
    question = Question(words, **narrowed)
    found, following = await search.search(question, 2, None, actor=actor)
    everything = list(found.hits)
    while following is not None:
        found, following = await search.search(question, 2, following, actor=actor)
        everything += found.hits
    return everything


def rewritten(session: Session, events: list[Event]) -> None:
    """The file of a session, with these events at their own times, five to a chunk."""
    key = KEYRING.make(session.id)
    data = header(opening(session.id), key.wrapped, key.wrapped_by)
    head = parse(data).head
    for number, start in enumerate(range(0, len(events), 5), 1):
        part = events[start : start + 5]
        sealed = key.seal(casting.packed(casting.Stand(part[0].at_us, 80, 24), part), head)
        head = next_head(head, number, sealed)
        data += frame(sealed)
    write(session.path, data)


def at(second: float, output: bytes) -> Event:
    return Event(int(second * 1_000_000), "o", output)


async def test_a_word_typed_with_corrections_is_found_at_the_second_of_its_last_letter(
    stage: Stage, search: Searching
) -> None:
    session = await stage.play(b"x")
    typed = [at(1 + number, bytes([letter])) for number, letter in enumerate(b"$ systen")]
    rewritten(
        session,
        [
            *typed,
            at(10, b"\b\x1b[K"),
            at(11, b"m"),
            at(12.5, b"c"),
            at(13, b"t"),
            at(14.25, b"l"),
            at(15, b" "),
            at(16, b"status"),
        ],
    )
    (hit,) = await hits(search, "systemctl")
    assert (hit.session_id, hit.at_s, hit.line) == (session.id, 14.25, "$ systemctl")
    assert (hit.server_name, hit.user_name) == ("web01", "olga")


async def test_a_word_is_found_inside_colours_and_whatever_its_case(stage: Stage, search: Searching) -> None:
    session = await stage.play(b"x")
    rewritten(session, [at(3, b"run \x1b[1;31mSystem\x1b[0mctl now\r\n")])
    (hit,) = await hits(search, "systemCTL")
    assert (hit.at_s, hit.line) == (3, "run Systemctl now")


async def test_a_word_in_a_full_screen_program_is_found(stage: Stage, search: Searching) -> None:
    """Drawn in pieces, at places, with what was there before."""
    session = await stage.play(b"x")
    rewritten(
        session,
        [
            at(1, b"\x1b[?1049h\x1b[2J\x1b[10;20Hctl restart"),
            at(7, b"\x1b[3;1Hsomething else"),
            at(9, b"\x1b[10;14H\x1b[7msystem\x1b[m"),
            at(20, b"\x1b[10;40H!"),
            at(30, b"\x1b[?1049l"),
        ],
    )
    (hit,) = await hits(search, "systemctl restart")
    assert (hit.at_s, hit.line) == (9, "systemctl restart")


async def test_the_same_word_is_found_each_time_it_is_shown_anew(stage: Stage, search: Searching) -> None:
    session = await stage.play(b"x")
    rewritten(session, [at(number, b"$ systemctl\r\n") for number in range(1, 8)])
    assert [hit.at_s for hit in await hits(search, "systemctl")] == [1, 2, 3, 4, 5, 6, 7]


async def test_pages_neither_repeat_nor_miss_a_hit(stage: Stage, search: Searching) -> None:
    """Whatever the page ends in: a chunk, a session."""
    sessions = [await stage.play(b"x") for _ in range(3)]
    for session in sessions:
        rewritten(session, [at(number, b"word %d\r\n" % number) for number in range(1, 24)])
    found = [(hit.session_id, hit.at_s) for hit in await hits(search, "word")]
    assert found == [(session.id, number) for session in reversed(sessions) for number in range(1, 24)]


async def test_a_search_takes_a_bounded_time_and_goes_on(stage: Stage, db: Database, library: Library) -> None:
    """With no time at all each answer still brings it forward by a chunk."""
    hurried = Searching(db, library, SECRET, budget_s=0)
    session = await stage.play(b"x")
    rewritten(session, [at(number, b"line %d\r\n" % number) for number in range(1, 40)])
    found, following = await hurried.search(Question("line 38"), 50, None, actor=AUDITOR)
    assert (found.hits, following is None) == ([], False)
    assert [hit.at_s for hit in await hits(hurried, "line 38")] == [38]


async def test_only_what_one_may_see_is_searched(stage: Stage, search: Searching) -> None:
    group = GroupId(new_id())
    theirs = await stage.play(b"word of theirs", groups=[group])
    await stage.play(b"word of others")
    auditor = Actor(ActorKind.USER, new_id(), "eve", None, {group: Role.AUDITOR})

    assert [hit.session_id for hit in await hits(search, "word", auditor)] == [theirs.id]
    with pytest.raises(Denied):
        await hits(search, "word", Actor(ActorKind.USER, new_id(), "o", Role.OPERATOR))


async def test_a_search_is_narrowed(stage: Stage, search: Searching) -> None:
    server = new_id()
    wanted = await stage.play(b"word", server_id=server)
    old = await stage.play(b"word", ended_days_ago=30)
    assert [hit.session_id for hit in await hits(search, "word", server_id=server)] == [wanted.id]
    assert [hit.session_id for hit in await hits(search, "word", session_id=wanted.id)] == [wanted.id]
    assert await hits(search, "word", session_id=new_id()) == []
    assert await hits(search, "word", session_id="\0") == []
    assert await hits(search, "word", server_id="\0") == []
    assert await hits(search, "word", user_id=new_id()) == []
    boundary = (await hits(search, "word"))[0].started_at
    assert old.id not in {hit.session_id for hit in await hits(search, "word", from_at=boundary)}
    assert {hit.session_id for hit in await hits(search, "word", to_at=boundary)} == {old.id}


async def test_a_search_is_recorded_once_whatever_its_pages(db: Database, stage: Stage, search: Searching) -> None:
    for _ in range(5):
        await stage.play(b"word")
    await hits(search, "word")
    async with db.reading() as conn:
        found = select(audit_records.c.body).where(audit_records.c.action == "recording.search")
        (body,) = await conn.scalars(found)
    assert json.loads(body)["meta"] == {"q": "word"}


async def test_a_cursor_goes_on_with_its_own_question_only(db: Database, stage: Stage, search: Searching) -> None:
    for _ in range(3):
        await stage.play(b"word")
    _, following = await search.search(Question("word"), 1, None, actor=AUDITOR)
    assert following is not None
    with pytest.raises(Invalid):
        await search.search(Question("other"), 1, following, actor=AUDITOR)
    with pytest.raises(Invalid):
        await search.search(Question("word"), 1, following, actor=Actor(ActorKind.USER, new_id(), "b", Role.ADMIN))
    with pytest.raises(Invalid):
        await search.search(Question("word"), 1, following[:-2] + "AA", actor=AUDITOR)
    async with db.reading() as conn:
        searches = select(func.count()).where(audit_records.c.action == "recording.search")
        assert await conn.scalar(searches) == 1


async def test_what_cannot_be_read_is_counted_and_the_rest_is_found(stage: Stage, search: Searching) -> None:
    good, damaged, missing = [await stage.play(b"word", b"and more") for _ in range(3)]
    data = bytearray(contents(damaged.path))
    data[-1] ^= 1
    write(damaged.path, bytes(data))
    missing.path.unlink()
    found, _ = await search.search(Question("word"), 50, None, actor=AUDITOR)
    assert {hit.session_id for hit in found.hits} == {good.id, damaged.id}
    assert found.not_searched == 2


@pytest.mark.parametrize("words", ["", "  ", "x" * 201, "a\0b", "a\nb"])
async def test_a_question_that_cannot_be_answered_is_refused(search: Searching, words: str) -> None:
    with pytest.raises(Invalid):
        await search.search(Question(words), 50, None, actor=AUDITOR)
