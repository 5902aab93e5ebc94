"""What people do at a terminal in the browser, and the way to lose the network between the two."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from http.cookiejar import Cookie
from typing import Self
from urllib.parse import urlsplit

import httpx2
from playwright.async_api import Locator, Page, StorageState, StorageStateCookie, expect

from tests.browser.visitor import Fleet, Visitor
from tests.support.console import Browser as ApiBrowser
from tests.support.patience import PATIENCE_S

# Of a shell that waits, whoever it runs as.
PROMPT = "[#$] ?$"


async def set_up(fleet: Fleet, capability: str = "observe") -> StorageState:
    """An admin, and both hosts with their keys approved, `web-1` at this capability.

    Returns what a browser keeps of the admin's login. Through the API: how it is done by hand is tested elsewhere.
    """
    assert fleet.console.setup_token is not None
    async with httpx2.AsyncClient(base_url=fleet.console.url, timeout=PATIENCE_S) as client:
        admin = ApiBrowser(client)
        await admin.set_up(fleet.console.setup_token)
        for number, host in enumerate(fleet.hosts, 1):
            server = {"name": f"web-{number}", "host": host.host, "port": host.port, "username": host.username}
            more = {"auth": {"type": "agent"}, "capability": capability if number == 1 else "observe"}
            added = await admin.send("POST", "/api/servers", server | more)
            assert added.status_code == 201, added.text
            key = {"fingerprint": host.fingerprint()}
            trusted = await admin.send("POST", f"/api/servers/{added.json()['id']}/host-key", key)
            assert trusted.is_success, trusted.text
        return {"cookies": [_kept(cookie) for cookie in client.cookies.jar], "origins": []}


def _kept(cookie: Cookie) -> StorageStateCookie:
    assert cookie.value is not None
    return {
        "name": cookie.name,
        "value": cookie.value,
        "domain": "127.0.0.1",
        "path": "/",
        "expires": -1,
        "httpOnly": True,
        "secure": False,
        "sameSite": "Lax",
    }


async def to_server(visitor: Visitor, name: str = "web-1") -> None:
    await visitor.row(name).get_by_role("link").click()
    await expect(visitor.page.get_by_role("heading", name=name)).to_be_visible()


async def open_first(visitor: Visitor) -> None:
    """From the fleet to a shell on `web-1`."""
    page = visitor.page
    await to_server(visitor)
    await page.get_by_role("link", name="Open terminal").click()
    await wait_for_prompt(page)


def screen(page: Page) -> Locator:
    """The rows of the terminal that is used."""
    return page.locator("section.current .xterm-rows")


async def wait_for_prompt(page: Page) -> None:
    await page.wait_for_function(
        """() => {
          const rows = document.querySelectorAll('section.current .xterm-rows > div');
          return [...rows].some((row) => /[#$]$/.test(row.textContent.trimEnd()));
        }"""
    )


async def run(page: Page, line: str) -> None:
    await page.keyboard.type(line)
    await page.keyboard.press("Enter")


async def tab_to(page: Page, target: Locator, key: str = "Tab") -> None:
    """Press the key until the focus is there; a page has fewer places than this."""
    passed = []
    for _ in range(60):
        await page.keyboard.press(key)
        if await target.evaluate("(it) => it === document.activeElement"):
            return
        passed.append(await page.evaluate("document.activeElement.outerHTML.slice(0, 80)"))
    raise AssertionError(passed)


async def paste(page: Page, text: str) -> None:
    """What the browser does when somebody pastes."""
    await page.evaluate(
        """(text) => {
          const clipboardData = new DataTransfer();
          clipboardData.setData('text/plain', text);
          const event = new ClipboardEvent('paste', {clipboardData, bubbles: true, cancelable: true});
          document.activeElement.dispatchEvent(event);
        }""",
        text,
    )


@dataclass(slots=True)
class Network:
    """Between the browser and a console: it carries every byte, until it is cut."""

    console_url: str
    url: str = ""
    _is_up: bool = True
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self.cut()
        self._server.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Every connection breaks, and none is made any more."""
        self._is_up = False
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self._is_up = True

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._is_up:
            writer.transport.abort()
            return
        target = urlsplit(self.console_url)
        try:
            there_reader, there_writer = await asyncio.open_connection(target.hostname, target.port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, there_writer}
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pump(reader, there_writer))
                tasks.create_task(_pump(there_reader, writer))
        finally:
            self._writers -= {writer, there_writer}
            self._tasks.discard(task)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort() if writer.transport.is_closing() else writer.close()
