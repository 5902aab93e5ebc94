"""Many browsers in one process: each watches the whole fleet and throws away what it reads.

They speak just enough WebSocket to subscribe, because a client that understood every frame would keep the second
core busier than the console it watches. The process prints {"open": N} when all are subscribed, {"bytes": …} for each
line on its standard input, and ends at end of file:

    python -m bench.browsers PORT COUNT [TOKEN]
"""

import asyncio
import json
import sys
from typing import cast

import uvloop

SUBSCRIBE = b'{"type":"subscribe","servers":"all","rate_s":1}'
OPENING_AT_ONCE = 50
OPEN_TIMEOUT_S = 60


class _Browser(asyncio.Protocol):
    received = 0

    def __init__(self, port: int, token: str) -> None:
        self._hello = (
            f"GET /ws/live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ).encode()
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        _Browser.received += len(data)
        if self.opened.done():
            return
        if not data.startswith(b"HTTP/1.1 101"):
            self.opened.set_exception(RuntimeError(data[:200].decode("latin-1")))
            return
        self.opened.set_result(None)
        assert self._transport is not None
        # A text frame, masked with zeros as RFC 6455 lets a client do.
        self._transport.write(bytes([0x81, 0x80 | len(SUBSCRIBE)]) + bytes(4) + SUBSCRIBE)


async def _open(gate: asyncio.Semaphore, port: int, number: int, token: str) -> None:
    async with gate:
        # Several addresses of loopback, because one has only so many ports.
        local = (f"127.0.0.{2 + number % 250}", 0)
        _, browser = await asyncio.get_running_loop().create_connection(
            lambda: _Browser(port, token), "127.0.0.1", port, local_addr=local
        )
        await browser.opened


async def _watch(port: int, count: int, token: str) -> None:
    gate = asyncio.Semaphore(OPENING_AT_ONCE)
    async with asyncio.timeout(OPEN_TIMEOUT_S):
        await asyncio.gather(*(_open(gate, port, number, token) for number in range(count)))
    print(json.dumps({"open": count}), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        print(json.dumps({"bytes": _Browser.received}), flush=True)


if __name__ == "__main__":
    uvloop.run(_watch(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "none"))
