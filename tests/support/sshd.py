"""Debian's own sshd on high loopback ports, as many at once as a test wants.

    async def test_something(sshds: Sshds) -> None:
        host = sshds.start()                              # 127.0.0.1:host.port, its own host key and one login key
        host.private_key, host.username                   # what to log in with
        host.wait_for_log("Accepted publickey")           # sshd's own words
        host.drop_connections(); host.swap_host_key()     # what may happen to a host

Marked `sshd`: skipped with the remedy where openssh-server is missing, a failure there when CI is set.
"""

import getpass
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.support.patience import PATIENCE_S
from tests.support.ports import unused_port

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
MISSING = "Debian's openssh-server is needed: apt install openssh-server"

_BASE_OPTIONS: Mapping[str, str] = {
    "ListenAddress": "127.0.0.1",
    "PidFile": "none",
    "UsePAM": "no",
    "UseDNS": "no",
    "StrictModes": "no",
    "PermitRootLogin": "yes",
    "PubkeyAuthentication": "yes",
    "PasswordAuthentication": "no",
    "KbdInteractiveAuthentication": "no",
    "AllowTcpForwarding": "yes",
    "MaxStartups": "10000",
    "MaxSessions": "500",
    "LoginGraceTime": "30",
    "PrintMotd": "no",
    "LogLevel": "VERBOSE",  # DEBUG1 would also write into the stderr of the commands that it runs
}


@dataclass(frozen=True, slots=True)
class PasswordUser:
    """An account of this machine that exists while the tests run."""

    name: str
    password: str = field(repr=False)


class Sshd:
    """One running sshd. `options` are lines of sshd_config that win over the ones above.

    `machine` are words that make it run on a machine of its own; see `machines.py`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        host_key_types: Sequence[str] = ("ed25519",),
        authorized_keys: Sequence[str] = (),
        options: Mapping[str, str] | None = None,
        machine: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self._machine = machine
        self.username = getpass.getuser()
        self.host = "127.0.0.1"
        self.port = 0
        self.host_keys = {kind: make_key(directory / f"host_{kind}", kind) for kind in host_key_types}
        self._login_key = make_key(directory / "login_key", "ed25519")
        self._authorized = [self.login_public_key, *authorized_keys]
        self._earlier_keys: dict[str, tuple[bytes, str]] = {}
        self._options = {**_BASE_OPTIONS, **(options or {})}
        self._log = _Log(directory / "log")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        """The home of the account that logs in."""
        return self.directory / "home"

    @property
    def private_key(self) -> str:
        """The private key that logs in as `username`."""
        return self._login_key.read_text()

    @property
    def login_public_key(self) -> str:
        return self._login_key.with_suffix(".pub").read_text().strip()

    def host_public_key(self, kind: str = "ed25519") -> str:
        """One OpenSSH line: type and base64."""
        return " ".join(self.host_keys[kind].with_suffix(".pub").read_text().split()[:2])

    def fingerprint(self, kind: str = "ed25519") -> str:
        """`SHA256:…`, as ssh-keygen prints it."""
        command = ["ssh-keygen", "-l", "-E", "sha256", "-f", str(self.host_keys[kind])]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S).stdout.split()[1]

    def start(self) -> None:
        """Listen, on the same port as before when it ran before."""
        for _ in range(5):
            port = self.port or unused_port()
            if self._listens(port):
                self.port = port
                return
        raise RuntimeError("sshd does not start:\n" + self.log)

    def stop(self) -> None:
        """End the listener and every connection, at once."""
        if self._process is None:
            return
        self.drop_connections()
        self._process.terminate()
        self._process.wait(timeout=PATIENCE_S)
        self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def drop_connections(self) -> None:
        """Kill the process of each connection: what a crash of the host looks like with the network still up."""
        for process in self._connections():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def lock_out(self) -> None:
        """Accept no login key from now on, and end every connection."""
        (self.directory / "authorized_keys").write_text("")
        self.drop_connections()

    def let_in(self) -> None:
        """Accept the login keys again after `lock_out`."""
        (self.directory / "authorized_keys").write_text("\n".join([*self._authorized, ""]))

    def freeze(self) -> None:
        """Stop listener and connections where they are (SIGSTOP): the kernel still answers, sshd does not."""
        for process in [psutil.Process(self._running.pid), *self._connections()]:
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self) -> None:
        for process in [psutil.Process(self._running.pid), *self._connections()]:
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def swap_host_key(self, kind: str = "ed25519") -> None:
        """Present another host key of this type from now on, on the same port."""
        self.stop()
        self._earlier_keys[kind] = self.host_keys[kind].read_bytes(), self.host_public_key(kind)
        make_key(self.host_keys[kind], kind)
        self.start()

    def put_host_key_back(self, kind: str = "ed25519") -> None:
        """Present the key again that `swap_host_key` replaced."""
        self.stop()
        private, public = self._earlier_keys[kind]
        self.host_keys[kind].write_bytes(private)
        self.host_keys[kind].with_suffix(".pub").write_text(public)
        self.start()

    def set_host_keys(self, kinds: Sequence[str]) -> None:
        """Present keys of exactly these types from now on; one that is there already stays the same."""
        self.stop()
        self.host_keys = {
            kind: self.host_keys.get(kind) or make_key(self.directory / f"host_{kind}", kind) for kind in kinds
        }
        self.start()

    @property
    def log(self) -> str:
        """What sshd has said until now: a line is here before the host does what follows it."""
        return self._log.text()

    def wait_for_log(self, pattern: str) -> str:
        """The first line that matches, once there is one. Raises AssertionError when there never is.

        It blocks: in a loop that the host waits for, call it in a thread.
        """
        return self._log.wait_for(pattern)

    def authentication_attempts(self) -> list[str]:
        """What sshd logged about anybody trying to log in as anybody, `none` requests included."""
        assert self._options["LogLevel"] == "DEBUG1", "start this host with LogLevel DEBUG1 to see attempts"
        return [line for line in self.log.splitlines() if "userauth-request" in line]

    def connections_accepted(self) -> int:
        return sum(line.startswith("Connection from") for line in self.log.splitlines())

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "sshd is not running"
        return self._process

    def runs(self, name: str) -> bool:
        """Is there a program of this name that somebody who logged in has started?"""
        return any(_name(one) == name for one in self._descendants())

    def _connections(self) -> list[psutil.Process]:
        """sshd's own processes: what they started for somebody goes on or ends as on a real host."""
        return [one for one in self._descendants() if _name(one).startswith("sshd")]

    def _descendants(self) -> list[psutil.Process]:
        return psutil.Process(self._running.pid).children(recursive=True)

    def _listens(self, port: int) -> bool:
        config = self.directory / "sshd_config"
        config.write_text(self._config(port))
        begins_at = len(self._log.text())
        with self._log.path.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._machine, SSHD, "-D", "-e", "-f", str(config)], stdin=subprocess.DEVNULL, stderr=log
            )
        try:
            self._log.wait_for(rf"Server listening on \S+ port {port}\.", begins_at, while_running=self._process)
        except AssertionError:
            self._process.kill()
            self._process.wait(timeout=PATIENCE_S)
            self._process = None
            return False
        return True

    def _config(self, port: int) -> str:
        authorized = self.directory / "authorized_keys"
        self.let_in()
        self.home.mkdir(exist_ok=True)  # an empty one: the account's own start files are no part of the test
        lines = [f"Port {port}", f"AuthorizedKeysFile {authorized}", f"SetEnv HOME={self.home}"]
        lines += [f"HostKey {path}" for path in self.host_keys.values()]
        lines += [f"{name} {value}" for name, value in self._options.items()]
        return "\n".join([*lines, ""])


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


class Sshds:
    """Starts hosts for one test and stops them all after it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[Sshd] = []

    def start(
        self,
        *,
        host_key_types: Sequence[str] = ("ed25519",),
        authorized_keys: Sequence[str] = (),
        options: Mapping[str, str] | None = None,
        machine: Callable[[Path], Sequence[str]] | None = None,
    ) -> Sshd:
        """`machine` is asked with the host's directory, whose `home` is that of the account."""
        directory = self._directory / f"sshd-{len(self._started)}"
        directory.mkdir()
        (directory / "home").mkdir()
        host = Sshd(
            directory,
            host_key_types=host_key_types,
            authorized_keys=authorized_keys,
            options=options,
            machine=machine(directory) if machine else (),
        )
        self._started.append(host)
        host.start()
        return host

    @property
    def all(self) -> Sequence[Sshd]:
        """Those of this test, in the order in which they were started."""
        return self._started

    def stop(self) -> None:
        for host in self._started:
            host.stop()


def require_sshd() -> None:
    """Skip the test where openssh-server is missing; fail when CI says that nothing may be missing."""
    if not Path(SSHD).exists():
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd locks its unprivileged half in


@pytest.fixture
def sshds(tmp_path: Path) -> Iterator[Sshds]:
    """Starts as many hosts as the test asks for."""
    require_sshd()
    started = Sshds(tmp_path)
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture
def sshd(sshds: Sshds) -> Sshd:
    """One host with an Ed25519 host key and public-key login."""
    return sshds.start()


@pytest.fixture(scope="session")
def password_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PasswordUser]:
    """An account with a password. Only root can make one; elsewhere the test is skipped."""
    if os.geteuid() != 0 or shutil.which("useradd") is None:
        pytest.skip("Logging in with a password needs root and useradd, to make an account for the test.")
    user = PasswordUser(f"smtest{secrets.token_hex(4)}", secrets.token_urlsafe(16))
    home = tmp_path_factory.mktemp("home")
    _run(["useradd", "--system", "--no-create-home", "--home-dir", str(home), "--shell", "/bin/sh", user.name])
    try:
        _run(["chpasswd"], stdin=f"{user.name}:{user.password}\n")
        yield user
    finally:
        _run(["userdel", "--force", user.name])  # even if the kernel is still ending something of it


@contextmanager
def ssh_agent(directory: Path, *keys: Path) -> Iterator[str]:
    """A real ssh-agent that holds these private keys; yields the path of its socket."""
    path = str(directory / "agent.sock")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        _wait_for_socket(path)
        for key in keys:
            command = ["ssh-add", "-q", str(key)]
            environment = {**os.environ, "SSH_AUTH_SOCK": path}
            subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S, env=environment)
        yield path
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_S)


def make_key(path: Path, kind: str, passphrase: str = "") -> Path:
    """A new private key at `path`, with its public half beside it. `kind` is ed25519, rsa, rsa-3072 or ecdsa-256 …"""
    for old in (path, path.with_suffix(".pub")):
        old.unlink(missing_ok=True)
    algorithm, _, bits = kind.partition("-")
    size = ["-b", bits] if bits else (["-b", "2048"] if algorithm == "rsa" else [])
    _run(["ssh-keygen", "-q", "-t", algorithm, *size, "-N", passphrase, "-C", "test", "-f", str(path)])
    return path


class _Log:
    """What sshd and its children write to stderr, in a file: what they have said is there when it was said."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def text(self) -> str:
        return self.path.read_text(errors="replace") if self.path.exists() else ""

    def wait_for(
        self, pattern: str, begins_at: int = 0, *, while_running: "subprocess.Popen[bytes] | None" = None
    ) -> str:
        """The first line from there on that matches. Raises AssertionError when none comes."""
        wanted = re.compile(pattern)
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            # In this order: the last words of a process are here before its end is seen.
            has_ended = while_running is not None and while_running.poll() is not None
            text = self.text()
            for line in text[begins_at:].splitlines():
                if wanted.search(line):
                    return line
            if has_ended or time.monotonic() > give_up_at:
                raise AssertionError(f"sshd never logged {pattern!r}:\n{text}")
            time.sleep(0.01)


def _wait_for_socket(path: str) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_at:
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.connect(path)
            return
        time.sleep(0.005)
    raise RuntimeError("ssh-agent does not start")


def _run(command: Sequence[str], stdin: str | None = None) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S, input=stdin)
