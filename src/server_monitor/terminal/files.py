"""Files copied to and from servers, each copy recorded before it begins and when it has ended, with its SHA-256.

What is uploaded goes into a file of another name beside its place, only the account's own, and is renamed when all of
it is on the host's disk: nobody ever sees half of it, and what was there stays until then.

Whoever copies is asked about again every few seconds: a copy may take hours, and a right that goes cuts it off.
"""

import asyncio
import hashlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote_from_bytes

from server_monitor.audit import intents, log
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.auth import identity
from server_monitor.auth.actor import Actor, Permission, audited
from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id
from server_monitor.errors import Conflict, Denied, Failure, Invalid, NotFound, TooMany, Unavailable
from server_monitor.fleet import servers as fleet
from server_monitor.fleet.servers import Server
from server_monitor.ssh import files
from server_monitor.ssh.files import Entry, Files
from server_monitor.ssh.pool import Pool
from server_monitor.telemetry import metrics
from server_monitor.telemetry.logs import logger
from server_monitor.terminal import sessions

_log = logger(__name__)

PATH_MAX: Final = 4_096  # bytes, as on Linux
NAME_MAX: Final = 255
NEW_MODE: Final = 0o644
ENTRIES_MAX: Final = 10_000
PER_USER: Final = 4
AT_ONCE: Final = 32
RETRY_AFTER_S: Final = 10
CHECK_EVERY_S: Final = 4.0


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory and what is in it; `is_complete` is False when there is more."""

    path: bytes
    entries: Sequence[Entry]
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Download:
    """A file that is about to come. `pieces` must be read to its end or closed.

    `size_bytes` is None for a file that says it has none: there may be something in it, as in those of /proc.
    """

    name: bytes
    size_bytes: int | None
    pieces: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Uploaded:
    path: bytes
    size_bytes: int
    sha256: str


class Copying:
    """Copies files between browsers and servers. `run` until cancelled keeps those out who may not any more."""

    def __init__(self, db: Database, pool: Pool, most_bytes: int) -> None:
        self._db = db
        self._pool = pool
        self._most_bytes = most_bytes
        self._by_user: Counter[str] = Counter()
        self._going: set[_Copy] = set()
        self._is_stopping = False
        self._emptied = asyncio.Event()
        self._emptied.set()

    async def run(self) -> None:
        """Cut off what its person may not copy any more."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            try:
                await self._check()
            except Unavailable as error:
                _log.warning("copy_rights_not_checked", cause=str(error))

    async def drain(self, timeout_s: float) -> None:
        """End every copy because the console stops, what it left on a host removed and its outcome recorded."""
        self._is_stopping = True
        for copy in self._going:
            copy.cut_off("console_stopped")
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._emptied.wait()

    async def _check(self) -> None:
        going = [copy for copy in self._going if copy.objection is None]
        if not going:
            return
        async with self._db.reading() as conn:
            found = await fleet.existing(conn, {copy.server.id for copy in going})
            servers = {server.id: server for server in found}
            for copy in going:
                actor = await identity.actor_still_valid(conn, copy.actor)
                objection = _objection(copy, actor, servers.get(copy.server.id))
                if objection is not None and copy in self._going:
                    copy.cut_off(objection)

    async def listing(self, server_id: str, path: bytes, *, actor: Actor) -> Directory:
        """Raises NotFound, Denied, Conflict, Invalid and Unreachable, as all of these do."""
        require_path(path)
        async with self._opened("file.download", server_id, path, actor, is_listing=True) as (_, host):
            found = await host.real_path(path)
            entries = await host.listing(found, ENTRIES_MAX + 1)
        return Directory(found, entries[:ENTRIES_MAX], len(entries) <= ENTRIES_MAX)

    @asynccontextmanager
    async def download(self, server_id: str, path: bytes, *, actor: Actor) -> AsyncIterator[Download]:
        """The bytes that there are in a file now. What is added to it while it is copied is left out.

        That it is copied is recorded when this is entered, how it ended when it is left.
        """
        require_path(path)
        with self._turn(actor):
            async with self._opened("file.download", server_id, path, actor) as (server, host):
                entry = await host.entry(path)
                size = entry.size_bytes or None
                if entry.kind != "file":
                    raise Conflict("This is no plain file.")
                if size is not None and size > self._most_bytes:
                    raise Conflict(f"This file is larger than {self._most_bytes} bytes, the most that is copied.")
                copy = _Copy(self._db, "file.download", server, path, actor)
                async with copy.recorded({"expected_bytes": size}), self._watched(copy):
                    pieces = host.read(path, self._most_bytes + 1 if size is None else size)
                    yield Download(path.rpartition(b"/")[2], size, copy.sent(pieces, self._most_bytes, size))

    async def upload(  # What a copy is.
        self,
        server_id: str,
        path: bytes,
        pieces: AsyncIterator[bytes],
        expected_bytes: int | None,
        *,
        replace: bool,
        actor: Actor,
    ) -> Uploaded:
        """Put these bytes at `path`. Raises Conflict when there is a file already, unless it is replaced."""
        require_path(path)
        directory, slash, name = path.rpartition(b"/")
        if not name or name in {b".", b".."}:
            raise Invalid.one("path", "ends with the name of the file")
        if expected_bytes is not None and expected_bytes > self._most_bytes:
            raise Invalid.one("content-length", f"at most {self._most_bytes} bytes are copied")
        with self._turn(actor):
            async with self._opened("file.upload", server_id, path, actor) as (server, host):
                mode = await _replaced_mode(host, path, replace=replace)
                copy = _Copy(self._db, "file.upload", server, path, actor)
                about = {"expected_bytes": expected_bytes, "replaces": mode is not None}
                async with copy.recorded(about), self._watched(copy):
                    beside = directory + slash + b"." + name[: NAME_MAX - 24] + b"." + secrets.token_hex(8).encode()
                    try:
                        await host.write(beside, copy.counted(pieces, self._most_bytes, expected_bytes), path)
                        await host.set_mode(beside, NEW_MODE if mode is None else mode, path)
                        await host.rename(beside, path, replace=mode is not None)
                        copy.is_done = True
                    except BaseException:
                        await host.remove(beside)
                        raise
                return Uploaded(path, copy.size_bytes, copy.sha256)

    @asynccontextmanager
    async def _opened(
        self, action: str, server_id: str, path: bytes, actor: Actor, *, is_listing: bool = False
    ) -> AsyncIterator[tuple[Server, Files]]:
        """The files of a server. A refusal is recorded; one to look into a directory as one to download."""
        async with self._db.reading() as conn:
            server = await fleet.get(conn, server_id, actor=actor)
        if (found := sessions.obstacle(server, actor, Permission.FILE_COPY)) is not None:
            about = {**_about(server, path), "listing": is_listing}
            await self._record_denied(action, server, found, about, actor)
            raise sessions.Unfit(found, Permission.FILE_COPY).failure
        async with self._db.reading() as conn:
            target = await fleet.target_of(conn, server_id)
        assert target is not None, "the console's own machine has no terminal"
        async with files.opened(self._pool, target) as host:
            yield server, host

    async def _record_denied(self, action: str, server: Server, code: str, about: dict[str, Any], actor: Actor) -> None:
        target = AuditTarget("server", server.id, server.name, server.group_ids)
        async with self._db.transaction() as conn:
            await log.append(conn, Event(action, audited(actor), target, "denied", code, meta=about))

    @asynccontextmanager
    async def _watched(self, copy: "_Copy") -> AsyncIterator[None]:
        """Raises Denied in the middle of what is inside, soon after its person may not go on.

        Raises Unavailable there when the console stops, also for what was about to begin by then.
        """
        try:
            async with copy.allowed:
                self._going.add(copy)
                if self._is_stopping:
                    copy.cut_off("console_stopped")
                try:
                    yield
                finally:
                    self._going.discard(copy)
        except TimeoutError:
            assert copy.objection is not None, "only an objection ends it"
            failure = Unavailable if copy.objection == "console_stopped" else Denied
            raise failure(f"The copy was cut off. {_SAID[copy.objection]}") from None

    @contextmanager
    def _turn(self, actor: Actor) -> Iterator[None]:
        user = actor.id or actor.name
        if self._is_stopping:
            raise Unavailable("The console takes no further copies now.")
        if self._by_user[user] >= PER_USER or self._by_user.total() >= AT_ONCE:
            raise TooMany("As many files are being copied as may be at once.", RETRY_AFTER_S)
        self._by_user[user] += 1
        self._emptied.clear()
        try:
            yield
        finally:
            self._by_user[user] -= 1
            if not self._by_user[user]:
                del self._by_user[user]
            if not self._by_user:
                self._emptied.set()


class _Copy:
    """One copy: counted and hashed as it goes by, and recorded."""

    def __init__(self, db: Database, action: str, server: Server, path: bytes, actor: Actor) -> None:
        self.server = server
        self.actor = actor
        self.allowed = asyncio.timeout(None)
        self.objection: str | None = None
        self._db = db
        self._action = action
        self._actor = audited(actor)
        self._target = AuditTarget("file_copy", new_id(), server.name, server.group_ids)
        self._about = _about(server, path)
        self._digest = hashlib.sha256()
        self.is_done = False
        self.size_bytes = 0

    def cut_off(self, objection: str) -> None:
        """End what is under way, wherever it waits. The first objection is the one that counts."""
        if self.objection is not None:
            return
        self.objection = objection
        self.allowed.reschedule(asyncio.get_running_loop().time())

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    async def counted(
        self, pieces: AsyncIterator[bytes], most_bytes: int, expected_bytes: int | None
    ) -> AsyncIterator[bytes]:
        """The same pieces. Raises Conflict when there are more bytes than there may be, or not as many as expected."""
        direction = self._action.removeprefix("file.")
        async for piece in pieces:
            if self.size_bytes + len(piece) > most_bytes:
                raise Conflict(f"There are more than {most_bytes} bytes.")
            self.size_bytes += len(piece)
            self._digest.update(piece)
            metrics.file_bytes.labels(direction).inc(len(piece))
            yield piece
        if expected_bytes is not None and self.size_bytes != expected_bytes:
            raise Conflict("Fewer bytes came than were announced.")

    async def sent(
        self, pieces: AsyncIterator[bytes], most_bytes: int, expected_bytes: int | None
    ) -> AsyncIterator[bytes]:
        """The same pieces, on their way to who asked for them: done when the last of them was taken.

        With as many bytes as were announced they may be gone before we could look for more.
        """
        async for piece in self.counted(pieces, most_bytes, expected_bytes):
            yield piece
            self.is_done = self.size_bytes == expected_bytes
        self.is_done = True

    @asynccontextmanager
    async def recorded(self, more: dict[str, Any]) -> AsyncIterator[None]:
        """The intent before, and the outcome after, however it ended: who leaves in the middle leaves it too."""
        await intents.begin(self._db, self._action, self._actor, self._target, {**self._about, **more})
        reason = "cut_off"
        try:
            yield
        except Failure as failure:
            reason = self.objection or failure.code
            raise
        finally:
            await asyncio.shield(self._ended(None if self.is_done else reason))

    async def _ended(self, reason: str | None) -> None:
        outcome = "success" if reason is None else "failure"
        meta = {**self._about, "bytes": self.size_bytes, "sha256": self.sha256}
        await intents.end(self._db, self._action, self._actor, self._target, outcome=outcome, reason=reason, meta=meta)


_SAID: Final[Mapping[str, str]] = {
    "logged_out": "The login or token with which it began has ended.",
    "not_permitted": f"It takes the permission {Permission.FILE_COPY.value} for the server.",
    "server_unfit": "The server was removed, switched off or changed.",
    "console_stopped": "The console was stopped.",
}


def _objection(copy: _Copy, actor: Actor | None, server: Server | None) -> str | None:
    """Why a copy may not go on, by the words for sessions of the terminal."""
    if actor is None:
        return "logged_out"
    if server is None or server.username != copy.server.username:
        return "server_unfit"
    found = sessions.obstacle(server, actor, Permission.FILE_COPY)
    return None if found is None else "not_permitted" if found == "not_permitted" else "server_unfit"


async def _replaced_mode(host: Files, path: bytes, *, replace: bool) -> int | None:
    """The mode of the file that will be replaced; None when there is none. Raises Conflict and NotFound."""
    try:
        named = await host.named(path)
    except NotFound:
        await _require_directory(host, path)
        return None
    entry = await _led_to(host, path) if named.kind == "link" else named
    if entry is not None and entry.kind != "file":
        raise Conflict("There is something of this name, and it is no plain file.")
    if not replace:
        raise Conflict("There is a file of this name; say that it is to be replaced.")
    if entry is None:
        return NEW_MODE
    return entry.mode if entry.mode is not None else files.PRIVATE


async def _led_to(host: Files, link: bytes) -> Entry | None:
    """Where a link leads; None when there is nothing."""
    try:
        return await host.entry(link)
    except NotFound:
        return None


async def _require_directory(host: Files, path: bytes) -> None:
    """Raises NotFound when there is no directory for this file."""
    directory, slash, _ = path.rpartition(b"/")
    directory = directory or slash or b"."
    try:
        found = await host.entry(directory)
    except NotFound as missing:
        raise NotFound("directory", missing.identity) from None
    if found.kind != "directory":
        raise Conflict(f"{shown(directory)['path']!r} is no directory.")


def _about(server: Server, path: bytes) -> dict[str, Any]:
    return {"server_id": server.id, "server": server.name, "account": server.username, **shown(path)}


def require_path(path: bytes) -> None:
    """Raises Invalid for what no path can be."""
    if not path or len(path) > PATH_MAX or b"\0" in path:
        raise Invalid.one("path", f"a path has 1 to {PATH_MAX} bytes, none of them zero")
    if any(len(name) > NAME_MAX for name in path.split(b"/")):
        raise Invalid.one("path", f"a name in it has at most {NAME_MAX} bytes")


def shown(path: bytes) -> dict[str, str]:
    """A path as text for people, and its exact bytes, percent-encoded."""
    return {"path": path.decode(errors="backslashreplace"), "encoded": quote_from_bytes(path)}
