"""One id follows a request, whichever way it comes."""

import json

import pytest
import websockets
from websockets.exceptions import InvalidStatus

from tests.support.console import Browser, ConsoleProcess
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.long

GIVEN = {"X-Request-Id": "a-caller.1"}


async def test_a_live_socket_answers_its_handshake_with_the_id(console: ConsoleProcess, browser: Browser) -> None:
    address = console.url.replace("http://", "ws://") + "/ws/live"
    cookies = {"Cookie": "; ".join(f"{name}={value}" for name, value in browser.client.cookies.items())}

    async with websockets.connect(
        address, origin=console.url, additional_headers=GIVEN | cookies, open_timeout=PATIENCE_S
    ) as socket:
        assert socket.response is not None
        assert socket.response.headers["X-Request-Id"] == "a-caller.1"
        assert json.loads(await socket.recv())["type"] == "hello"
    with pytest.raises(InvalidStatus) as refused:
        async with websockets.connect(address, additional_headers=GIVEN, open_timeout=PATIENCE_S):
            pass

    answer = refused.value.response
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (403, "a-caller.1")
    assert json.loads(answer.body or b"{}")["request_id"] == "a-caller.1"
