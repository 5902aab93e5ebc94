"""A real console as a process of its own: started as an operator starts it, used through its public interfaces."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.harness import ROOT, wait_until
from bench.process_tree import Usage, usage

PROGRAM = Path(sys.executable).parent / "server-monitor"
STOP_TIMEOUT_S = 20.0


class Console:
    """`server-monitor serve` on a free port of loopback, with its own data directory."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self._settings = dict(settings or {})
        self.port = free_port()
        self._log = data_dir / "console.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The settings, given as an operator gives them; nothing of the caller's own settings leaks in."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        ours = {"DATA_DIR": str(self.data_dir), "API_PORT": str(self.port), "LOG_FORMAT": "json"}
        return {**kept, **ours, **self._settings}

    def command(self, *words: str, given: str | None = None) -> str:
        """Run an administrative command; returns what it printed."""
        done = subprocess.run(
            [PROGRAM, *words],
            cwd=self.data_dir,
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def token(self, scope: str = "read") -> str:
        """An API token of a new administrator."""
        self.command("user", "add", "bench", "--role", "admin", "--password-stdin", given="a long benchmark phrase\n")
        created = json.loads(self.command("token", "create", "--user", "bench", "--scope", scope, "--json"))
        return str(created["token"])

    def start(self) -> float:
        """Start the process; returns the seconds until /api/ready said 200."""
        began = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "serve"],
                cwd=self.data_dir,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._is_ready, timeout_s=60, what=f"ready (see {self._log})", poll_s=0.005)
        return time.monotonic() - began

    def stop(self) -> float:
        """Ask it to stop; returns the seconds it took. Raises RuntimeError when it did not end well."""
        assert self._process is not None
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise RuntimeError(f"the console did not stop within {STOP_TIMEOUT_S:g} s (see {self._log})") from None
        if code != 0:
            raise RuntimeError(f"the console ended with {code}:\n{self._log.read_text()[-4000:]}")
        return time.monotonic() - began

    def usage(self) -> Usage:
        return usage(self.pid)

    def ask(self, method: str, path: str, token: str, body: object = None) -> Any:
        """The decoded answer to a request. Raises RuntimeError for one that is no success."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status}: {text[:2000].decode()}")
            return json.loads(text)
        finally:
            connection.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> "Console":
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
        elif self._process is not None:
            self._process.kill()
            self._process.wait()

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"the console ended with {self._process.returncode}:\n{self._log.read_text()[-4000:]}")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/api/ready")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


class Fleet:
    """A simulated fleet in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        facts = self._read()
        self.port = int(facts["port"])
        self.host_key = str(facts["host_key"])

    def counts(self) -> dict[str, int]:
        """How many ticks it has answered, and how many connections were made, so far."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> dict[str, int]:
        assert self._process.stdout is not None
        facts: dict[str, int] = json.loads(self._process.stdout.readline())
        return facts


@contextmanager
def simulated_fleet() -> Iterator[Fleet]:
    command = [sys.executable, "-m", "bench.simulated_fleet"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Fleet(process)
        finally:
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
