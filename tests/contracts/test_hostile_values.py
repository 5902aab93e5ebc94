"""Whatever stands in a parameter or an id of any route, on any database: the answer is never an error of ours."""

import base64
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from server_monitor.auth.actor import Role
from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id
from server_monitor.lifecycle.wiring import described
from tests.support.api import Person, Site, site_on


def cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


VALUES = (
    "\0",
    "a\0b",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "9999-12-31T23:59:59Z",
    "-1",
    "9" * 30,
    "x" * 3_000,
    "\ufffd\u202e",
    cursor("2026-01-01T00:00:00+00:00 a\0b"),
    cursor("0001-01-01T00:00:00+14:00 x"),
)
FURTHER = {"GET /api/servers/{server_id}/metrics": "metric=cpu_percent&"}


@pytest.fixture
async def site(db: Database, tmp_path: Path) -> AsyncIterator[Site]:
    async with site_on(db, tmp_path) as running:
        yield running


def routes() -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    paths: dict[str, dict[str, Any]] = described().openapi()["paths"]
    for path, methods in paths.items():
        for method, operation in methods.items():
            yield method.upper(), path, operation.get("parameters", [])


def requests() -> Iterator[tuple[str, str, str]]:
    """Method, path, and query of each route with each of its parameters spoilt in turn."""
    for method, path, parameters in routes():
        names = [one["name"] for one in parameters if one["in"] == "path"]
        whole = path
        for name in names:
            whole = whole.replace(f"{{{name}}}", new_id())
        for one in parameters:
            for value in VALUES:
                spoilt = quote(value, safe="")
                if one["in"] == "path":
                    yield method, path.replace(f"{{{one['name']}}}", spoilt), ""
                elif one["in"] == "query":
                    yield method, whole, FURTHER.get(f"{method} {path}", "") + f"{one['name']}={spoilt}"


async def test_no_value_of_any_parameter_is_an_error_of_ours(site: Site) -> None:
    admin = await site.person(Role.ADMIN)
    asked = list(requests())

    wrong = [one for one in asked if await status(admin, *one) >= 500]

    assert len(asked) > 400
    assert wrong == []


async def status(person: Person, method: str, path: str, query: str) -> int:
    headers = {"Authorization": f"Bearer {person.token}"}
    body = None if method in {"GET", "DELETE"} else {}
    return (await person.client.request(method, f"{path}?{query}", json=body, headers=headers)).status_code


@pytest.mark.parametrize("path", ["/api/tasks", "/api/runs"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("from", "0001-01-01T00:00:00+14:00"),
        ("to", "9999-12-31T23:59:59-14:00"),
        ("server_id", "\0"),
        ("user_id", "a\0"),
        ("cursor", cursor("2026-01-01T00:00:00+00:00 a\0b")),
    ],
)
async def test_the_parameter_that_is_wrong_is_named(site: Site, path: str, name: str, value: str) -> None:
    admin = await site.person(Role.ADMIN)

    problem = await admin.ask("GET", path, status=422, **{name: value})

    assert [one["field"] for one in problem["errors"]] == [name]
