"""What anybody can type into an address or a body is never an error of ours."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server_monitor.auth.actor import Role
from server_monitor.db.engine import Database
from server_monitor.lifecycle.wiring import described
from tests.support.api import Person, Site, site_on

NUL_ID = "a%00b"


@pytest.fixture
async def site(db: Database, tmp_path: Path) -> AsyncIterator[Site]:
    async with site_on(db, tmp_path) as running:
        yield running


@pytest.fixture
async def admin(site: Site) -> Person:
    return await site.person(Role.ADMIN)


def routes_with_an_id() -> list[tuple[str, str]]:
    paths: dict[str, dict[str, Any]] = described().openapi()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods if "{" in path]


def filled(path: str, value: str) -> str:
    return "/".join(value if part.startswith("{") else part for part in path.split("/"))


async def test_an_id_that_no_database_can_look_for_is_not_found(site: Site, admin: Person) -> None:
    """PostgreSQL refuses a text with a NUL, whatever is asked about it."""
    bodies: dict[tuple[str, str], Any] = {
        ("PUT", "/api/groups/{group_id}/members"): {"servers": []},
        ("PUT", "/api/groups/{group_id}/grants"): {"grants": []},
        ("POST", "/api/servers/{server_id}/host-key"): {"fingerprint": "SHA256:x"},
    }
    answers = {
        f"{method} {path}": (
            await admin.send(method, filled(path, NUL_ID), bodies.get((method, path), {}), metric="cpu_percent")
        ).status_code
        for method, path in routes_with_an_id()
    }

    assert {route: status for route, status in answers.items() if status >= 500} == {}
    assert list(answers.values()).count(404) > 10


async def test_a_nul_in_a_body_is_a_mistake_of_its_writer(site: Site, admin: Person) -> None:
    server = {"name": "web1", "host": "10.0.0.1", "username": "deploy"}
    for more in (
        {"name": "a\0b"},
        {"jump_server_id": "a\0b"},
        {"groups": ["a\0b"]},
        {"labels": {"a\0b": "c"}},
        {"auth": {"type": "key", "key_id": "a\0b"}},
    ):
        problem = await admin.ask("POST", "/api/servers", server | more, status=422)
        assert problem["code"] == "invalid"
    await admin.ask("POST", "/api/servers", server | {"labels": {"path": r"a\u0000b"}}, status=201)


async def test_a_wrong_method_is_told_which_are_right(site: Site) -> None:
    for method, path, allowed in (
        ("POST", "/api/health", "GET, HEAD"),
        ("PUT", "/api/servers", "GET, POST"),
        ("POST", f"/api/servers/{NUL_ID}", "GET, PATCH, DELETE"),
        ("DELETE", "/api/auth/login", "POST"),
    ):
        answer = await site.client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
        assert answer.headers["Allow"] == allowed
    for path in ("/api/nothing", "/api/servers/x/y/z"):
        answer = await site.client.post(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_monitor_may_ask_for_the_head_alone(site: Site) -> None:
    answer = await site.client.head("/api/health")

    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("path", ["/" + "x" * 300, "/" + "x/" * 3_000, "/%00", "/assets/%00"])
async def test_a_page_that_no_file_system_can_name_is_not_found(site: Site, path: str) -> None:
    answer = await site.client.get(path)

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
