"""Charts over HTTP: what the running console measures of its own machine."""

import asyncio
import time
from typing import Any

import httpx2
import pytest

from tests.support.console import Browser
from tests.support.patience import PATIENCE_S


async def local_server(browser: Browser) -> str:
    """The id of the console's own machine, once its first values are in."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            items = (await browser.get("/api/servers")).json()["items"]
            if items and items[0]["latest"]:
                return str(items[0]["id"])
            await asyncio.sleep(0.1)  # The list is polled, as a script would.


@pytest.fixture
async def server(browser: Browser) -> str:
    return await local_server(browser)


def fields(response: httpx2.Response) -> list[str]:
    assert response.status_code == 422, response.text
    problem: dict[str, Any] = response.json()
    assert problem["code"] == "invalid"
    return [error["field"] for error in problem["errors"]]


async def test_history_over_http(browser: Browser, server: str) -> None:
    """One console serves all of these; starting one for each would take a minute."""
    await _a_metric_has_the_shape_that_scripts_rely_on(browser, server)
    await _several_metrics_come_as_items(browser, server)
    await _a_star_stands_for_every_device(browser, server)
    await _the_series_of_a_server_are_described(browser, server)
    await _the_catalogue_lists_every_metric(browser)
    await _mistakes_are_named(browser, server)
    await _odd_ranges_are_empty(browser, server)
    await _servers_that_are_not_there_are_not_found(browser)
    await _strangers_see_nothing(browser, server)


async def _a_metric_has_the_shape_that_scripts_rely_on(browser: Browser, server: str) -> None:
    found = (await browser.get(f"/api/servers/{server}/metrics", params={"metric": "memory_percent"})).json()
    assert found["metric"] == "memory_percent"
    assert found["unit"] == "%"
    assert found["step_s"] >= 1
    at, low, mean, high = found["points"][-1]
    assert abs(at - time.time()) < 60
    assert 0 < low <= mean <= high <= 100


async def _several_metrics_come_as_items(browser: Browser, server: str) -> None:
    now = time.time()
    query = {"metric": ["load1", "uptime_seconds"], "from": now - 600, "to": now, "points": 5}
    found = (await browser.get(f"/api/servers/{server}/metrics", params=query)).json()
    assert [one["metric"] for one in found["items"]] == ["load1", "uptime_seconds"]
    assert all(1 <= len(one["points"]) <= 5 for one in found["items"])


async def _a_star_stands_for_every_device(browser: Browser, server: str) -> None:
    path = f"/api/servers/{server}/metrics"
    found = (await browser.get(path, params={"metric": "interface_rx_bytes_per_second:*"})).json()
    names = [one["metric"] for one in found["items"]]
    known = (await browser.get(f"/api/servers/{server}/series")).json()["items"]
    assert names == [one["series"] for one in known if one["metric"] == "interface_rx_bytes_per_second"]


async def _the_series_of_a_server_are_described(browser: Browser, server: str) -> None:
    items = (await browser.get(f"/api/servers/{server}/series")).json()["items"]
    found = {item["series"]: item for item in items}
    assert found["cpu_percent"] | {"meaning": ""} == {
        "series": "cpu_percent",
        "metric": "cpu_percent",
        "device": None,
        "unit": "%",
        "meaning": "",
    }


async def _the_catalogue_lists_every_metric(browser: Browser) -> None:
    items = (await browser.get("/api/series/catalogue")).json()["items"]
    assert {"metric": "load5", "unit": "processes", "meaning": "The same over 5 minutes.", "per": None} in items


async def _mistakes_are_named(browser: Browser, server: str) -> None:
    path = f"/api/servers/{server}/metrics"
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["metric"]),
        ({"metric": ["load1"] * 33}, ["metric"]),
        ({"metric": "no_such_thing"}, ["metric"]),
        ({"metric": "filesystem_percent"}, ["metric"]),
        ({"metric": "cpu_percent:0"}, ["metric"]),
        ({"metric": "load1", "points": 0}, ["points"]),
        ({"metric": "load1", "points": 10**9}, ["points"]),
        ({"metric": "load1", "from": "yesterday", "to": "nan"}, ["to", "from"]),
        ({"metric": "load1", "from": 2000, "to": 1000}, ["to"]),
        ({"metric": "no_such_thing", "points": -1, "from": "x"}, ["from", "points", "metric"]),
    ]
    for query, expected in cases:
        assert fields(await browser.get(path, params=query)) == expected, query
    assert fields(await browser.get(path, params={"metric": "load1", "points": "many"})) == ["points"]


async def _odd_ranges_are_empty(browser: Browser, server: str) -> None:
    path = f"/api/servers/{server}/metrics"
    for start, end in (("1000", "1000"), ("-5", "-1"), ("2030-01-01", "2031-01-01T00:00:00+01:00"), ("-inf", "0")):
        response = await browser.get(path, params={"metric": "load1", "from": start, "to": end})
        assert response.status_code == 200, response.text
        assert response.json()["points"] == []


async def _servers_that_are_not_there_are_not_found(browser: Browser) -> None:
    for path in ("/api/servers/nobody/metrics?metric=load1", "/api/servers/nobody/series"):
        assert (await browser.get(path)).status_code == 404


async def _strangers_see_nothing(browser: Browser, server: str) -> None:
    async with httpx2.AsyncClient(base_url=browser.client.base_url, timeout=PATIENCE_S) as stranger:
        for path in (f"/api/servers/{server}/metrics?metric=load1", "/api/series/catalogue"):
            assert (await stranger.get(path)).status_code == 401
    body = {"name": "eve", "password": "correct horse battery staple", "role": None}
    assert (await browser.send("POST", "/api/users", body)).status_code == 201
    async with httpx2.AsyncClient(base_url=browser.client.base_url, timeout=PATIENCE_S) as client:
        eve = Browser(client)
        await eve.log_in("eve")
        assert (await eve.get(f"/api/servers/{server}/metrics?metric=load1")).status_code == 404
        assert (await eve.get(f"/api/servers/{server}/series")).status_code == 404
