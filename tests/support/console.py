"""A real console: the program itself in a process of its own, on a port of its own, to be stopped or killed."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from tests.support.patience import PATIENCE_S
from tests.support.ports import unused_port

PASSWORD = "correct horse battery staple"
ADMIN = "ada"

_SETUP = re.compile(rb"(http://\S+)/setup#token=(\S+)")
_RUNNING = re.compile(rb"server-monitor is running: (http://\S+)")


@dataclass(slots=True)
class ConsoleProcess:
    """One console and its data directory. `start` may be called again after `stop` or `kill`."""

    data_dir: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    setup_token: str | None = None
    _process: asyncio.subprocess.Process | None = None

    async def start(self, *arguments: str, port: int = 0) -> None:
        """Start, and wait until it says where it listens."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "server_monitor", "serve"),
                *("--port", str(port or unused_port()), "--data-dir", str(self.data_dir), *arguments),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=self.data_dir.parent,
                env={**os.environ, "LOG_FORMAT": "json", "DISK_RESERVE_MIB": "0", **self.environment},
            )
        async with asyncio.timeout(PATIENCE_S):
            await self._read_announcement()

    async def run(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """Run another command of the program on the same data; returns exit code, stdout and stderr."""
        process = await self.spawn(*arguments)
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def spawn(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start another command of the program on the same data."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server_monitor", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.data_dir.parent,
            env={**os.environ, "DATA_DIR": str(self.data_dir), **self.environment},
        )

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; returns its exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        async with asyncio.timeout(PATIENCE_S):
            return await self._process.wait()

    async def kill(self) -> None:
        """kill -9."""
        await self.stop(signal.SIGKILL)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def _log(self) -> Path:
        return self.data_dir.with_suffix(".log")

    async def _read_announcement(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        said = b""
        while True:
            line = await self._process.stdout.readline()
            said += line
            if found := _SETUP.search(said):
                self.url, self.setup_token = found[1].decode(), found[2].decode()
                return
            if found := _RUNNING.search(said):
                self.url, self.setup_token = found[1].decode(), None
                return
            if not line:
                # Before anything asks for its state: whoever does so first takes the exit code away from `wait`.
                await self._process.wait()
                raise AssertionError(f"the console did not start:\n{said.decode()}\n{self.log}")


class Browser:
    """An HTTP client that keeps its cookie and sends the CSRF token with every change, as a page does."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self.client = client
        self._csrf = ""

    async def set_up(self, token: str, name: str = ADMIN, password: str = PASSWORD) -> None:
        await self._enter("/api/setup/initialize", {"token": token, "username": name, "password": password})

    async def log_in(self, name: str = ADMIN, password: str = PASSWORD) -> None:
        await self._enter("/api/auth/login", {"username": name, "password": password})

    async def get(self, path: str, **options: object) -> httpx2.Response:
        return await self.client.get(path, **options)

    async def send(self, method: str, path: str, body: object = None) -> httpx2.Response:
        return await self.client.request(method, path, json=body, headers={"X-CSRF-Token": self._csrf})

    async def put(self, path: str, content: AsyncIterable[bytes]) -> httpx2.Response:
        """Send what is no JSON, as it comes."""
        return await self.client.put(path, content=content, headers={"X-CSRF-Token": self._csrf})

    async def _enter(self, path: str, body: object) -> None:
        response = await self.client.post(path, json=body)
        assert response.is_success, response.text
        self._csrf = response.json()["csrf_token"]
