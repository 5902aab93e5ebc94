"""What people do at a terminal in the browser, and the way to lose the network between the two."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from playwright.async_api import Locator, Page, expect

from tests.browser.visitor import Fleet, Visitor

# Of a shell that waits, whoever it runs as.
PROMPT = "[#$] ?$"


async def set_up(visitor: Visitor, fleet: Fleet, url: str | None = None) -> None:
    """An admin, two hosts that are live, and one of them takes terminals."""
    await visitor.set_up(url or fleet.console.url, fleet.console.setup_token)
    await visitor.import_servers(fleet.ssh_config())
    await visitor.approve_all()
    await visitor.wait_until_live("web-1")


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
