"""Which servers are meant."""

import pytest

from server_monitor.auth.actor import Actor, Role
from server_monitor.db.engine import Database
from server_monitor.errors import Invalid
from server_monitor.fleet import selection
from server_monitor.fleet.selection import Selector
from tests.support.fleet import ADMIN, add, add_group, member


async def meant(db: Database, *words: str, actor: Actor = ADMIN) -> dict[str, str | None]:
    """The servers that these words mean, each with what stands in the way of a command there."""
    async with db.reading() as conn:
        selector = await selection.named(conn, words, actor=actor)
        return {one.server.name: one.obstacle for one in await selection.choose(conn, selector, actor=actor)}


async def test_servers_are_meant_by_name_by_id_by_group_and_by_label(sqlite_db: Database) -> None:
    web = await add(sqlite_db, "web", labels={"env": "live", "role": "web"})
    db = await add(sqlite_db, "db", labels={"env": "live"})
    old = await add(sqlite_db, "old", labels={"env": "old"})
    await add_group(sqlite_db, "front", [web, old])

    assert set(await meant(sqlite_db, "web", db.id)) == {"web", "db"}
    assert set(await meant(sqlite_db, "label:env=live")) == {"web", "db"}
    assert set(await meant(sqlite_db, "group:front")) == {"web", "old"}
    assert set(await meant(sqlite_db, "group:front", "label:env=live")) == {"web"}, "both have to hold"
    assert set(await meant(sqlite_db, "group:front", "label:env=live", "db")) == {"web", "db"}
    assert set(await meant(sqlite_db, "all")) == {"web", "db", "old"}


async def test_every_word_that_means_nothing_is_told(sqlite_db: Database) -> None:
    await add(sqlite_db, "web")
    with pytest.raises(Invalid) as refused:
        await meant(sqlite_db, "web", "wbe", "group:none", "label:env", "label:a=1", "label:a=2")
    wrong = ("wbe", "none", "label:env", "label:a=2")
    assert [error.field for error in refused.value.errors] == ["selector"] * 4
    assert all(word in error.message for word, error in zip(wrong, refused.value.errors, strict=True))


async def test_nothing_chosen_is_a_mistake_and_not_everything(sqlite_db: Database) -> None:
    with pytest.raises(Invalid):
        await meant(sqlite_db)


async def test_what_stands_in_the_way_is_told_for_each_server(sqlite_db: Database) -> None:
    seen = await add(sqlite_db, "seen")
    await add(sqlite_db, "unseen")
    await add(sqlite_db, "unapproved", capability="run")
    group = await add_group(sqlite_db, "mine", [seen])

    assert await meant(sqlite_db, "all", actor=member(group, Role.VIEWER)) == {"seen": "not_permitted"}
    assert await meant(sqlite_db, "all") == {
        "seen": "capability",
        "unapproved": "host_key_unknown",
        "unseen": "capability",
    }


def test_a_stored_selector_says_all_only_when_it_is_meant() -> None:
    assert "all" not in Selector(servers=["a"]).document()
    assert Selector(everything=True).document()["all"] is True
