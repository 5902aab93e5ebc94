"""Rows of sessions on both databases: asked for, opened once, ended once, recovered, and seen by whom they concern."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, insert, select, update

from server_monitor.auth.actor import Actor, ActorKind, GroupId, Role, Scope
from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id
from server_monitor.db.tables import heartbeats, servers, terminal_sessions, users
from server_monitor.errors import Conflict, Denied, NotFound
from server_monitor.fleet.servers import Server
from server_monitor.terminal import sessions
from server_monitor.terminal.recording import Progress
from server_monitor.terminal.sessions import Filters, Rules, Session, TicketRefused
from server_monitor.terminal.states import Ending, Kept, Purpose, Size, Status
from tests.support import fleet
from tests.support.fleet import actions, records

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT_FIRST = Progress(0, b"\x01" * 32, 300)
AT_LAST = Progress(4, b"\x02" * 32, 4_000, 9_000)


async def operator(db: Database, groups: dict[GroupId, Role] | None = None) -> Actor:
    """Somebody who is logged in, with a row."""
    user_id = new_id()
    async with db.transaction() as conn:
        await conn.execute(insert(users).values(id=user_id, name=f"olga {user_id[-5:]}", role=None, created_at=NOW))
    return Actor(ActorKind.USER, user_id, "olga", None if groups else Role.OPERATOR, groups or {}, session_id=new_id())


async def host(db: Database, name: str = "web01", **values: object) -> Server:
    server = await fleet.add(db, name, **fleet.in_group(values.pop("group"))) if "group" in values else None
    server = server or await fleet.add(db, name, login=fleet.Login("password", password="correct horse"))
    async with db.transaction() as conn:
        changed = {"capability": "terminal", "status_reason": None, **values}
        await conn.execute(update(servers).where(servers.c.id == server.id).values(**changed))
    return server


async def asked(db: Database, actor: Actor, server: Server, at: datetime = NOW, **options: object) -> sessions.Ticket:
    async with db.transaction() as conn:
        return await sessions.ask(
            conn, server.id, Size(80, 24), None, rules=Rules(**options), request_id="r", actor=actor, now=at
        )


async def begun(db: Database, actor: Actor, server: Server, owner: str = "one") -> Session:
    ticket = await asked(db, actor, server)
    async with db.transaction() as conn:
        redeemed = await sessions.redeem(conn, ticket.session_id, ticket.secret, actor=actor, now=NOW)
    async with db.transaction() as conn:
        assert await sessions.begin(conn, redeemed.session, Size(80, 24), AT_FIRST, owner=owner, now=NOW)
    return sessions.session_of(await row(db, ticket.session_id))


def with_token(person: Actor, *scopes: Scope) -> Actor:
    """A token of this person."""
    return replace(person, kind=ActorKind.TOKEN, token_id=new_id(), session_id=None, scopes=frozenset(scopes))


async def row(db: Database, session_id: str):
    async with db.reading() as conn:
        return (await conn.execute(select(terminal_sessions).where(terminal_sessions.c.id == session_id))).one()


async def test_a_session_begins_and_ends_with_its_records(db: Database):
    actor, server = await operator(db), await host(db)
    session = await begun(db, actor, server)
    async with db.transaction() as conn:
        await sessions.note_heads(conn, [(session, Progress(2, b"\x03" * 32, 900, 700))])
    async with db.transaction() as conn:
        assert await sessions.end(conn, session, Ending(Status.CLOSED, "exited", 0), AT_LAST, now=NOW)

    found = await row(db, session.id)
    assert (found.status, found.cause, found.recording) == ("closed", "exited", "unverified")
    assert (found.chunks, found.head, found.recording_bytes, found.output_bytes) == (4, b"\x02" * 32, 4_000, 9_000)
    log = [one for one in await records(db) if one["action"].startswith("terminal.")]
    assert [one["action"] for one in log] == ["terminal.connect", "terminal.head", "terminal.disconnect"]
    assert [one["meta"]["head"] for one in log] == ["01" * 32, "03" * 32, "02" * 32]
    assert log[2]["cause"]["parent_seq"] == log[0]["seq"]


async def test_a_session_ends_once(db: Database):
    session = await begun(db, await operator(db), await host(db))
    async with db.transaction() as conn:
        assert await sessions.end(conn, session, Ending(Status.STOPPED, "stopped"), AT_LAST, now=NOW)
    async with db.transaction() as conn:
        assert not await sessions.end(conn, session, Ending(Status.CLOSED, "exited"), AT_LAST, now=NOW)

    assert (await row(db, session.id)).status == "stopped"
    assert (await actions(db)).count("terminal.disconnect") == 1


async def test_a_session_that_never_began_ends_without_records(db: Database):
    actor, server = await operator(db), await host(db)
    ticket = await asked(db, actor, server)
    async with db.transaction() as conn:
        assert await sessions.give_up_unused(conn, NOW + timedelta(seconds=29)) == 0
        assert await sessions.give_up_unused(conn, NOW + timedelta(seconds=30)) == 1

    assert (await row(db, ticket.session_id)).cause == "not_opened"
    assert not [one for one in await actions(db) if one.startswith("terminal.")]


async def test_a_session_that_was_stopped_meanwhile_does_not_begin(db: Database):
    actor, server = await operator(db), await host(db)
    ticket = await asked(db, actor, server)
    async with db.transaction() as conn:
        redeemed = await sessions.redeem(conn, ticket.session_id, ticket.secret, actor=actor, now=NOW)
    async with db.transaction() as conn:
        await sessions.end(conn, redeemed.session, Ending(Status.CLOSED, "closed"), None, now=NOW)
    async with db.transaction() as conn:
        assert not await sessions.begin(conn, redeemed.session, Size(80, 24), AT_FIRST, owner="one", now=NOW)
    assert "terminal.connect" not in await actions(db)


async def test_a_new_ticket_takes_the_place_of_the_one_before(db: Database):
    actor, server = await operator(db), await host(db)
    session = await begun(db, actor, server)
    async with db.transaction() as conn:
        first = await sessions.issue(conn, session.id, Purpose.ATTACH, actor=actor, now=NOW)
        second = await sessions.issue(conn, session.id, Purpose.ATTACH, actor=actor, now=NOW)
    with pytest.raises(TicketRefused):
        async with db.transaction() as conn:
            await sessions.redeem(conn, session.id, first.secret, actor=actor, now=NOW)
    async with db.transaction() as conn:
        found = await sessions.redeem(conn, session.id, second.secret, actor=actor, now=NOW)
    assert (found.session.id, found.purpose) == (session.id, Purpose.ATTACH)


@pytest.mark.parametrize("text", ["", "x", "\x00", "\ud800", "é" * 64])
async def test_texts_that_are_no_tickets_are_refused(db: Database, text: str):
    actor, server = await operator(db), await host(db)
    ticket = await asked(db, actor, server)
    with pytest.raises(TicketRefused):
        async with db.transaction() as conn:
            await sessions.redeem(conn, ticket.session_id, text, actor=actor, now=NOW)
    with pytest.raises(TicketRefused):
        async with db.transaction() as conn:
            await sessions.redeem(conn, text, ticket.secret, actor=actor, now=NOW)


async def test_no_ticket_is_given_for_a_session_that_is_over(db: Database):
    actor, server = await operator(db), await host(db)
    session = await begun(db, actor, server)
    async with db.transaction() as conn:
        await sessions.end(conn, session, Ending(Status.CLOSED, "exited"), AT_LAST, now=NOW)
    with pytest.raises(Conflict):
        async with db.transaction() as conn:
            await sessions.issue(conn, session.id, Purpose.ATTACH, actor=actor, now=NOW)


@pytest.mark.parametrize("scope", [Scope.READ, Scope.METRICS])
async def test_a_token_that_opens_no_terminals_neither_types_in_nor_stops_one(db: Database, scope: Scope):
    actor, server = await operator(db), await host(db)
    session = await begun(db, actor, server)
    refusal = NotFound if scope is Scope.METRICS else Denied

    async with db.transaction() as conn:
        with pytest.raises(refusal):
            await sessions.issue(conn, session.id, Purpose.ATTACH, actor=with_token(actor, scope), now=NOW)
        with pytest.raises(refusal):
            await sessions.record_stop(conn, session.id, None, actor=with_token(actor, scope))
        await sessions.issue(conn, session.id, Purpose.ATTACH, actor=with_token(actor, Scope.OPERATE), now=NOW)
        await sessions.record_stop(conn, session.id, None, actor=with_token(actor, Scope.OPERATE))


async def test_who_may_open_no_terminal_any_more_does_not_come_back_to_one(db: Database):
    actor, server = await operator(db), await host(db)
    session = await begun(db, actor, server)

    async with db.transaction() as conn:
        with pytest.raises(Denied):
            await sessions.issue(conn, session.id, Purpose.ATTACH, actor=replace(actor, role=Role.VIEWER), now=NOW)


async def test_a_ticket_that_a_token_asked_for_is_for_that_token(db: Database):
    actor, server = await operator(db), await host(db)
    session = await begun(db, actor, server)
    asking, other = with_token(actor, Scope.OPERATE), with_token(actor, Scope.READ)
    async with db.transaction() as conn:
        ticket = await sessions.issue(conn, session.id, Purpose.ATTACH, actor=asking, now=NOW)

    async with db.transaction() as conn:
        for somebody in (other, actor, None):
            with pytest.raises(TicketRefused):
                await sessions.redeem(conn, session.id, ticket.secret, actor=somebody, now=NOW)
        assert (await sessions.redeem(conn, session.id, ticket.secret, actor=asking, now=NOW)).actor == asking


async def test_the_sessions_of_dead_consoles_are_recovered_and_those_of_living_ones_not(db: Database):
    actor, server = await operator(db), await host(db)
    mine, dead, alive, unheard = [await begun(db, actor, server, o) for o in ("me", "dead", "alive", "unheard of")]
    async with db.transaction() as conn:
        for owner in ("dead", "alive"):  # We have not beaten yet ourselves.
            await conn.execute(insert(heartbeats).values(owner=owner, beat_at=NOW))

    async with db.transaction() as conn:
        later = await sessions.recover(conn, "me", dead=["dead", "me"], now=NOW)
    assert {one.id for one in later} == {dead.id, unheard.id}
    async with db.transaction() as conn:
        found = await sessions.recover(conn, "me", is_start=True, now=NOW)
    assert {one.id for one in found} == {mine.id}
    assert (await row(db, alive.id)).status == "active"
    assert (await row(db, mine.id)).cause == "console_died"


async def test_what_a_dead_console_left_is_settled_once(db: Database):
    session = await begun(db, await operator(db), await host(db), "me")
    async with db.transaction() as conn:
        await sessions.recover(conn, "me", is_start=True, now=NOW)
    async with db.reading() as conn:
        assert [one.id for one in await sessions.unsettled(conn, "me")] == [session.id]
        assert await sessions.unsettled(conn, "somebody else") == []
    for _ in range(2):
        async with db.transaction() as conn:
            await sessions.settle(conn, session, AT_LAST)

    assert (await row(db, session.id)).recording == "unverified"
    ends = [one for one in await records(db) if one["action"] == "terminal.disconnect"]
    assert [(one["outcome"], one["meta"]["head"]) for one in ends] == [("unknown", "02" * 32)]


async def test_a_session_is_seen_by_whoever_opened_it_and_whoever_may_read_its_recording(db: Database):
    server = await host(db)
    group = await fleet.add_group(db, "web", [server])
    actor, other = await operator(db, {group.id: Role.OPERATOR}), await operator(db)
    session = await begun(db, actor, server)
    async with db.transaction() as conn:
        await conn.execute(delete(servers).where(servers.c.id == server.id))
    auditor = fleet.member(group, Role.AUDITOR)
    stranger = fleet.member(await fleet.add_group(db, "other"), Role.AUDITOR)

    async def seen(by: Actor) -> list[str]:
        async with db.reading() as conn:
            rows, following = await sessions.page(conn, Filters(), 10, None, actor=by)
        assert following is None
        return [one.id for one in rows]

    for who in (actor, auditor, fleet.ADMIN):
        assert await seen(who) == [session.id]
    assert await seen(with_token(actor, Scope.READ)) == [session.id]
    for who in (other, stranger, fleet.VIEWER, fleet.NOBODY, with_token(actor, Scope.METRICS)):
        assert await seen(who) == []
        async with db.reading() as conn:
            with pytest.raises(NotFound):
                await sessions.get(conn, session.id, actor=who)


async def test_pages_hold_every_session_once_newest_first(db: Database):
    actor, server = await operator(db), await host(db)
    made = [(await asked(db, actor, server, NOW + timedelta(seconds=n // 2))).session_id for n in range(7)]
    found, before = [], None
    while True:
        async with db.reading() as conn:
            rows, before = await sessions.page(conn, Filters(status="active"), 2, before, actor=fleet.ADMIN)
        found += [(one.created_at, one.id) for one in rows]
        if before is None:
            break

    assert sorted(found, reverse=True) == found
    assert {one for _, one in found} == set(made)
    async with db.reading() as conn:
        narrow = Filters(user_id=actor.id, server_id=server.id, from_at=NOW + timedelta(seconds=3))
        rows, _ = await sessions.page(conn, narrow, 10, None, actor=fleet.ADMIN)
    assert [one.id for one in rows] == [made[6]]


async def test_a_list_is_narrowed_to_what_can_be_said_of_the_recordings(db: Database):
    actor, server = await operator(db), await host(db)
    kept = {}
    for state in Kept:
        kept[state] = (await begun(db, actor, server)).id
        async with db.transaction() as conn:
            one = update(terminal_sessions).where(terminal_sessions.c.id == kept[state])
            await conn.execute(one.values(recording=state))
    await asked(db, actor, server)  # it has no recording, although its row says that one is open

    for wanted in ([Kept.DAMAGED, Kept.MISSING], [Kept.OPEN], []):
        async with db.reading() as conn:
            rows, _ = await sessions.page(conn, Filters(recording=wanted), 10, None, actor=fleet.ADMIN)
        assert {one.id for one in rows} == {kept[state] for state in wanted}
