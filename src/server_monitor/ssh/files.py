"""Files of an account on a server, over SFTP on the connection that everybody shares. Paths are bytes, as on the host.

The one module besides `connection.py` that relies on a name asyncssh does not promise: `_handler._reader`, because a
packet of SFTP says itself how long it is, and a host is not trusted with our memory.
"""

import asyncio
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import asyncssh

from server_monitor.errors import Conflict, Denied, NotFound, Unreachable
from server_monitor.ssh.failures import Stage, quoted, unreachable
from server_monitor.ssh.pool import Pool, Target

STEP_S: Final = 30.0  # for the host to answer one question
PIECE_BYTES: Final = 262_144  # read and written at once, as several requests that are under way together
LONGEST_PACKET: Final = 524_288
PRIVATE: Final = 0o600


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as a directory lists it. `kind` is file, directory, link or other; numbers are None where not told."""

    name: bytes
    kind: str
    size_bytes: int | None
    mode: int | None
    modified_at: datetime | None


class _ShortPackets:
    """asyncssh's reader, with an end to how long a packet may say that it is."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    async def readexactly(self, count: int) -> bytes:
        if count > LONGEST_PACKET:
            raise asyncssh.SFTPBadMessage(f"a packet of {count} bytes")
        return bytes(await self._reader.readexactly(count))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


class Files:
    """An open SFTP session. Whatever goes wrong is NotFound, Denied, Conflict or Unreachable."""

    def __init__(self, client: asyncssh.SFTPClient, target: Target) -> None:
        self._client = client
        self._target = target

    async def real_path(self, path: bytes) -> bytes:
        """The same path from the root on, links and `..` resolved; the account's home for `.`."""
        async with self._step(path):
            found = await self._client.realpath(path)
        assert isinstance(found, bytes)
        return found

    async def entry(self, path: bytes) -> Entry:
        """What is there, links followed."""
        async with self._step(path):
            attributes = await self._client.stat(path)
        return _entry(path.rpartition(b"/")[2], attributes)

    async def named(self, path: bytes) -> Entry:
        """What has this name: the link itself, where it is one."""
        async with self._step(path):
            attributes = await self._client.lstat(path)
        return _entry(path.rpartition(b"/")[2], attributes)

    async def listing(self, path: bytes, most: int) -> Sequence[Entry]:
        """Up to `most` entries of a directory, in the order in which the host tells them."""
        found: list[Entry] = []
        async with self._step(path):
            async for one in self._client.scandir(path):
                name = one.filename if isinstance(one.filename, bytes) else one.filename.encode()
                # A host that is not well may tell anything; what no name can be is not one.
                if name not in {b".", b".."} and b"/" not in name and b"\0" not in name and name:
                    found.append(_entry(name, one.attrs))
                if len(found) >= most:
                    break
        return found

    async def read(self, path: bytes, most_bytes: int) -> AsyncIterator[bytes]:
        """The first bytes of a file, piece by piece, to its end or to this many."""
        async with self._step(path):
            file = await self._client.open(path, "rb", encoding=None)
        try:
            offset = 0
            while piece := await self._piece(path, file, offset, min(PIECE_BYTES, most_bytes - offset)):
                offset += len(piece)
                yield piece
        finally:
            await self._quietly(file.close())

    async def write(self, path: bytes, pieces: AsyncIterator[bytes], told_as: bytes) -> None:
        """A new file, only the account's own, with these bytes, on the host's disk. Raises Conflict when it exists.

        What goes wrong is told of the path `told_as`, the one that somebody asked for.
        """
        flags = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | asyncssh.FXF_EXCL
        async with self._step(told_as):
            file = await self._client.open(path, flags, asyncssh.SFTPAttrs(permissions=PRIVATE), encoding=None)
        try:
            offset = 0
            async for piece in pieces:
                async with self._step(told_as):
                    await file.write(piece, offset)
                offset += len(piece)
            async with self._step(told_as):
                with suppress(asyncssh.SFTPOpUnsupported):
                    await file.fsync()
                await file.close()
        except BaseException:
            await self._quietly(file.close())
            raise

    async def set_mode(self, path: bytes, mode: int, told_as: bytes) -> None:
        async with self._step(told_as):
            await self._client.chmod(path, mode)

    async def rename(self, old: bytes, new: bytes, *, replace: bool) -> None:
        """Give a file its name, in one step. Raises Conflict when there is one of that name, unless it is replaced."""
        async with self._step(new):
            await (self._client.posix_rename(old, new) if replace else self._client.rename(old, new))

    async def remove(self, path: bytes) -> None:
        """Remove a file, if it can be removed."""
        await self._quietly(self._client.remove(path))

    async def _piece(self, path: bytes, file: asyncssh.SFTPClientFile, offset: int, count: int) -> bytes:
        if count <= 0:
            return b""
        async with self._step(path):
            data = await file.read(count, offset)
        assert isinstance(data, bytes)
        return data

    async def _quietly(self, work: Any) -> None:
        with suppress(asyncssh.Error, OSError, ValueError, TimeoutError):
            async with asyncio.timeout(STEP_S):
                await work

    @asynccontextmanager
    async def _step(self, path: bytes) -> AsyncIterator[None]:
        shown = quoted(path.decode(errors="backslashreplace"))
        try:
            async with asyncio.timeout(STEP_S):
                yield
        except TimeoutError:
            raise Unreachable("slow", f"{self._target.place} does not answer within {STEP_S:g} s.") from None
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            raise NotFound("file", shown) from None
        except asyncssh.SFTPPermissionDenied:
            raise Denied(f"The account {self._target.username} may not do this with {shown}.") from None
        except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.SFTPBadMessage) as error:
            raise Unreachable("connection_lost", f"{self._target.place}: {quoted(error.reason)}.") from error
        except asyncssh.SFTPError as error:
            raise Conflict(f"{shown}: the server says {quoted(error.reason)}.") from error
        except (asyncssh.Error, OSError) as error:
            raise unreachable(error, Stage.OPEN, self._target.place) from error


@asynccontextmanager
async def opened(pool: Pool, target: Target) -> AsyncIterator[Files]:
    """The files of a server's account. Raises Unreachable."""
    connection = await pool.connect(target)
    try:
        async with asyncio.timeout(STEP_S):
            client = await connection.start_sftp_client(path_encoding=None)
    except TimeoutError:
        raise Unreachable("slow", f"{target.place} starts no SFTP within {STEP_S:g} s.") from None
    except (asyncssh.Error, OSError) as error:
        raise unreachable(error, Stage.OPEN, target.place) from error
    handler: Any = client._handler
    handler._reader = _ShortPackets(handler._reader)
    try:
        yield Files(client, target)
    finally:
        client.exit()


def _entry(name: bytes, attributes: asyncssh.SFTPAttrs) -> Entry:
    mode = attributes.permissions
    kind = "other"
    if mode is not None:
        kind = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}.get(stat.S_IFMT(mode), "other")
    return Entry(
        name, kind, attributes.size, stat.S_IMODE(mode) if mode is not None else None, _instant(attributes.mtime)
    )


def _instant(seconds: int | None) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
