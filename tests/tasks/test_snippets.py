"""Saved commands."""

from typing import Any

import pytest

from server_monitor.auth.actor import Role
from server_monitor.db.engine import Database
from server_monitor.errors import Conflict, Denied, Invalid, NotFound
from server_monitor.tasks import snippets
from server_monitor.tasks.snippets import SNIPPETS_MAX, Edit, NewSnippet, Parameter, Snippet
from tests.support.fleet import ADMIN, NOBODY, VIEWER, actions, add_group, member, records

UNIT = Parameter("unit", "Unit", "nginx", r"[a-z@.-]+")
RESTART = NewSnippet("restart", "systemctl restart {{unit}}", "A unit, now", [UNIT])


async def create(db: Database, new: NewSnippet = RESTART, **who: Any) -> Snippet:
    async with db.transaction() as conn:
        return await snippets.create(conn, new, actor=who.get("actor", ADMIN))


async def mistakes(db: Database, **given: Any) -> list[tuple[str, str]]:
    """What is said of a snippet that is wrong in the given fields."""
    fields = {"name": "restart", "command": "true", **given}
    with pytest.raises(Invalid) as refused:
        await create(db, NewSnippet(**fields))
    return [(error.field, error.message) for error in refused.value.errors]


async def test_a_snippet_is_saved_changed_and_deleted_each_with_its_record(db: Database) -> None:
    made = await create(db)
    assert (made.name, made.created_by, list(made.parameters)) == ("restart", "ada", [UNIT])
    async with db.transaction() as conn:
        changed = await snippets.edit(conn, made.id, Edit(command="service {{unit}} restart"), actor=ADMIN)
    assert changed.updated_at > made.updated_at
    async with db.reading() as conn:
        assert await snippets.get(conn, made.id, actor=ADMIN) == changed
        assert await snippets.listing(conn, actor=ADMIN) == [changed]
    async with db.transaction() as conn:
        await snippets.edit(conn, made.id, Edit(name=" restart "), actor=ADMIN)
        await snippets.remove(conn, made.id, actor=ADMIN)
    async with db.reading() as conn:
        assert await snippets.listing(conn, actor=ADMIN) == []

    assert await actions(db) == ["snippet.create", "snippet.update", "snippet.delete"]
    assert [one["p"] for one in (await records(db))[1]["change"]["paths"]] == ["command"]


async def test_names_are_taken_once(db: Database) -> None:
    await create(db)
    other = await create(db, NewSnippet("other", "true"))
    with pytest.raises(Conflict):
        await create(db)
    with pytest.raises(Conflict):
        async with db.transaction() as conn:
            await snippets.edit(conn, other.id, Edit(name="restart"), actor=ADMIN)


async def test_placeholders_and_parameters_belong_together(sqlite_db: Database) -> None:
    (only,) = await mistakes(sqlite_db, command="kill {{pid}} {{pid}}")
    assert only == ("command", "{{pid}} has no parameter of this name; add one, or take it out.")
    (only,) = await mistakes(sqlite_db, parameters=[UNIT])
    assert only == ("parameters.0.name", "The command has no {{unit}}; put it there, or take the parameter out.")
    (only,) = await mistakes(sqlite_db, command="echo {{unit}}", parameters=[UNIT, UNIT])
    assert only == ("parameters.1.name", "There is a parameter unit already.")


async def test_braces_that_are_no_placeholder_are_left_to_the_command(sqlite_db: Database) -> None:
    command = "docker ps --format '{{.Names}} {{json .}}' | grep {{unit}}"
    assert (await create(sqlite_db, NewSnippet("names", command, "", [UNIT]))).command == command


async def test_every_mistake_is_told_with_its_field(sqlite_db: Database) -> None:
    wrong = [
        Parameter("9lives", "a\nb", "x" * 1001, "("),
        Parameter("b", "", "\0", "x" * 201),
    ]
    found = await mistakes(sqlite_db, name="", description="\u202e", command="\0", parameters=wrong)
    assert [field for field, _ in found] == [
        "name",
        "description",
        "command",
        "parameters.0.name",
        "parameters.0.label",
        "parameters.0.default",
        "parameters.0.pattern",
        "parameters.1.name",
        "parameters.1.default",
        "parameters.1.pattern",
    ]
    (only,) = await mistakes(sqlite_db, parameters=[Parameter(f"p{number}") for number in range(21)])
    assert only[0] == "parameters"


async def test_there_are_only_so_many(sqlite_db: Database) -> None:
    for number in range(SNIPPETS_MAX):
        await create(sqlite_db, NewSnippet(f"s{number}", "true"))
    with pytest.raises(Conflict, match="500"):
        await create(sqlite_db, NewSnippet("one more", "true"))


async def test_whoever_may_see_or_run_tasks_anywhere_reads_them_and_only_operators_write(sqlite_db: Database) -> None:
    made = await create(sqlite_db)
    group = await add_group(sqlite_db, "web")
    for actor in (member(group, Role.OPERATOR), member(group, Role.AUDITOR)):
        async with sqlite_db.reading() as conn:
            assert await snippets.listing(conn, actor=actor) == [made]
        with pytest.raises(Denied):
            await create(sqlite_db, NewSnippet("mine", "true"), actor=actor)
    for actor in (VIEWER, NOBODY):
        with pytest.raises(Denied):
            async with sqlite_db.reading() as conn:
                await snippets.get(conn, made.id, actor=actor)
        with pytest.raises(Denied):
            async with sqlite_db.transaction() as conn:
                await snippets.remove(conn, made.id, actor=actor)


async def test_a_snippet_that_does_not_exist_is_not_found(sqlite_db: Database) -> None:
    for work in (snippets.get, snippets.remove):
        with pytest.raises(NotFound):
            async with sqlite_db.transaction() as conn:
                await work(conn, "none", actor=ADMIN)
