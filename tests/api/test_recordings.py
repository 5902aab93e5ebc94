"""The routes of recordings."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from server_monitor.auth.actor import Role
from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id
from server_monitor.db.tables import audit_records
from tests.support.api import Person, Site, site_on
from tests.support.recordings import Stage, contents, write


@pytest.fixture
async def site(db: Database, tmp_path: Path) -> AsyncIterator[Site]:
    async with site_on(db, tmp_path) as site:
        yield site


@pytest.fixture
def stage(site: Site) -> Stage:
    return Stage(site.db, site.library)


@pytest.fixture
async def auditor(site: Site) -> Person:
    return await site.person(Role.AUDITOR)


def at(session_id: str, what: str) -> str:
    return f"/api/terminal/sessions/{session_id}/{what}"


async def test_an_export_is_a_file_for_players(stage: Stage, auditor: Person) -> None:
    session = await stage.play(b"$ uptime\r\n", b"up 3 days\r\n")
    for form, version in (("v2", 2), ("v3", 3)):
        answer = await auditor.send("GET", at(session.id, "recording"), format=form)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/x-asciicast"
        assert answer.headers["content-disposition"] == f'attachment; filename="{session.id}.cast"'
        assert answer.headers["cache-control"] == "no-store"
        header, *events = [json.loads(line) for line in answer.text.split("\n") if line]
        assert header["version"] == version
        assert "".join(event[2] for event in events if event[1] == "o") == "$ uptime\r\nup 3 days\r\n"
    answer = await auditor.send("GET", at(session.id, "recording"), format="text")
    assert answer.text == "0:00:00  $ uptime\n0:00:00  up 3 days\n"
    assert (await auditor.send("GET", at(session.id, "recording"), format="v1")).status_code == 422


async def test_the_export_of_a_damaged_recording_is_called_so(stage: Stage, auditor: Person) -> None:
    session = await stage.play(b"one", b"two")
    write(session.path, contents(session.path)[:-1])
    answer = await auditor.send("GET", at(session.id, "recording"))
    assert answer.headers["content-disposition"] == f'attachment; filename="{session.id}-damaged.cast"'
    assert "damaged: " in answer.text
    assert (await auditor.get(f"/api/terminal/sessions/{session.id}"))["recording"] == "damaged"


async def test_a_replay_is_a_view_and_an_export_is_an_export(db: Database, stage: Stage, auditor: Person) -> None:
    session = await stage.play(b"x", is_over=False)
    answer = await auditor.send("GET", at(session.id, "replay"))
    assert answer.headers["content-type"] == "application/x-ndjson"
    await auditor.send("GET", at(session.id, "recording"))
    async with db.reading() as conn:
        actions = select(audit_records.c.action).where(audit_records.c.action.like("recording.%"))
        found = list(await conn.scalars(actions.order_by(audit_records.c.seq)))
    assert found == ["recording.view", "recording.export"]


async def test_a_verification_says_what_it_found(stage: Stage, auditor: Person) -> None:
    session = await stage.play(b"x")
    answer = await auditor.ask("POST", at(session.id, "verify"))
    assert answer == {
        "verdict": "intact",
        "findings": [],
        "chunks": session.progress.chunks,
        "head": session.progress.head.hex(),
        "bytes": session.progress.size_bytes,
    }
    write(session.path, contents(session.path) + b"more")
    answer = await auditor.ask("POST", at(session.id, "verify"))
    assert (answer["verdict"], answer["findings"][0]["code"]) == ("damaged", "extended")


async def test_a_search_lands_on_the_second(stage: Stage, auditor: Person) -> None:
    session = await stage.play(b"$ systemctl status\r\n")
    answer = await auditor.get("/api/terminal/search", q="systemctl")
    assert (await auditor.get("/api/terminal/search", q="systemctl", session_id=session.id))["items"] == answer["items"]
    assert (await auditor.get("/api/terminal/search", q="systemctl", session_id=new_id()))["items"] == []
    (hit,) = answer["items"]
    assert (hit["session_id"], hit["line"], hit["server_name"]) == (session.id, "$ systemctl status", "web01")
    assert 0 <= hit["at_s"] < 60
    assert (answer["next"], answer["is_complete"], answer["not_searched"]) == (None, True, 0)


async def test_sessions_are_listed_by_what_can_be_said_of_their_recordings(stage: Stage, auditor: Person) -> None:
    whole, changed, gone = [await stage.play(b"x") for _ in range(3)]
    write(changed.path, contents(changed.path) + b"more")
    gone.path.unlink()
    for session in (whole, changed, gone):
        await auditor.ask("POST", at(session.id, "verify"))

    async def listed(*recording: str) -> set[str]:
        return {one["id"] for one in (await auditor.get("/api/terminal/sessions", recording=recording))["items"]}

    assert await listed("damaged,missing") == {changed.id, gone.id}
    assert await listed("damaged", "missing") == {changed.id, gone.id}
    assert await listed("verified") == {whole.id}
    for wrong in ("", "lost", "damaged,,missing"):
        refused = await auditor.send("GET", "/api/terminal/sessions", recording=wrong)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "recording")


@pytest.mark.parametrize(
    "query", [{}, {"q": ""}, {"q": "x" * 300}, {"q": "x", "from": "yesterday"}, {"q": "x", "limit": 0}, {"q": "\0"}]
)
async def test_a_bad_question_is_refused(auditor: Person, query: dict[str, str]) -> None:
    assert (await auditor.send("GET", "/api/terminal/search", **query)).status_code == 422


@pytest.mark.parametrize("path", ["/api/terminal/sessions", "/api/terminal/search"])
@pytest.mark.parametrize(
    ("name", "at_time"), [("from", "0001-01-01T00:00:00+14:00"), ("to", "9999-12-31T23:59:59-14:00")]
)
async def test_a_time_beyond_the_calendar_is_refused_by_its_name(
    auditor: Person, path: str, name: str, at_time: str
) -> None:
    refused = await auditor.send("GET", path, q="x", **{name: at_time})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, name)


async def test_what_one_may_not_see_is_not_there(site: Site, stage: Stage) -> None:
    session = await stage.play(b"x")
    viewer = await site.person(Role.VIEWER)
    for method, what in (("GET", "recording"), ("GET", "replay"), ("POST", "verify")):
        assert (await viewer.send(method, at(session.id, what))).status_code == 404
    assert (await viewer.send("GET", "/api/terminal/search", q="x")).status_code == 403


@pytest.mark.parametrize("session_id", ["x", "%00", "01890000-0000-7000-8000-00000000dead", "..%2F..%2Fetc"])
async def test_there_is_no_recording_of_what_is_no_session(auditor: Person, session_id: str) -> None:
    for method, what in (("GET", "recording"), ("GET", "replay"), ("POST", "verify")):
        assert (await auditor.send(method, at(session_id, what))).status_code in {404, 405}


async def test_a_missing_recording_is_gone(stage: Stage, auditor: Person) -> None:
    session = await stage.play(b"x")
    session.path.unlink()
    answer = await auditor.send("GET", at(session.id, "recording"))
    assert (answer.status_code, answer.json()["code"]) == (410, "gone")
    assert await stage.state(session.id) == "missing"
