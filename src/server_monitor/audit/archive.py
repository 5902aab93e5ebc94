"""Where segments go: a directory, or a bucket of S3, Google Cloud or Azure. Objects are written once and never changed.

Credentials come from the usual variables of the store (AWS_ACCESS_KEY_ID, GOOGLE_SERVICE_ACCOUNT, AZURE_STORAGE_…) or
from the machine's own identity; never from the URL. Every upload to S3 carries a SHA-256, which a bucket with Object
Lock demands. How long objects are locked is the bucket's default retention: the library signs no header of ours, so the
lock cannot be asked for with the upload. It is asked about afterwards, see `Archive.lock`.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore, from_url

from server_monitor.errors import NotFound, Unavailable

REQUEST_TIMEOUT_S = 120.0
HEAD_TIMEOUT_S = 30.0
OBJECT_LIMIT_BYTES = 256 * 1024 * 1024  # far more than a segment ever takes
_CLIENT: Any = {"timeout": timedelta(seconds=60), "connect_timeout": timedelta(seconds=10)}
_NAMED_CHECKSUM = "x-amz-sdk-checksum-algorithm"
_LOCK_MODE = "x-amz-object-lock-mode"
_LOCKED_UNTIL = "x-amz-object-lock-retain-until-date"
_RETRY: Any = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it was found. `version` is None where the store keeps none."""

    data: bytes
    version: str | None


@dataclass(frozen=True, slots=True)
class Lock:
    """Until when the store keeps an object from everybody. In mode `COMPLIANCE` nobody can lift it."""

    mode: str
    until: datetime


class Archive:
    """One place for objects. `url` says where and holds no secret; `timeout_s` is for one object, all attempts."""

    def __init__(self, url: str, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self.url = url
        self._timeout_s = timeout_s
        self._directory: Path | None = None
        self._opened: Any = None

    async def put(self, key: str, data: bytes) -> str | None:
        """Store the object unless it is there already; returns its version. Raises Unavailable.

        It is durable when this returns. What was there already may be anything: read it back.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                store = await asyncio.to_thread(self._store)
                try:
                    version = await self._create(store, key, data)
                except AlreadyExistsError:
                    version = (await obstore.head_async(store, key)).get("version")
                except FileExistsError:
                    version = None
                await asyncio.to_thread(self._make_durable, key)
        except (BaseError, OSError, TimeoutError, ValueError) as error:
            raise Unavailable(f"The archive {self.url} takes nothing: {_first_line(error)}") from error
        return version

    async def _create(self, store: Any, key: str, data: bytes) -> str | None:
        if self._directory is not None:
            return await asyncio.to_thread(_write_new, self._directory / key, data)
        try:
            done = await obstore.put_async(store, key, data, mode="create", use_multipart=False)
        except BaseError as error:
            if _NAMED_CHECKSUM not in str(error):
                raise
            # S3 itself takes the checksum as enough; others with Object Lock want the algorithm named as well. The
            # library leaves this header out of the signature, which S3 would refuse, so it is not sent by default.
            self._opened = _bucket(self.url, {_NAMED_CHECKSUM: "SHA256"})
            done = await obstore.put_async(self._opened, key, data, mode="create", use_multipart=False)
        return done.get("version")

    async def get(self, key: str, version: str | None = None) -> Stored:
        """The object as it is in the archive. Raises NotFound and Unavailable."""
        try:
            async with asyncio.timeout(self._timeout_s):
                store = await asyncio.to_thread(self._store)
                found = await obstore.get_async(store, key, options={"version": version} if version else None)
                if found.meta["size"] > OBJECT_LIMIT_BYTES:
                    raise Unavailable(f"{key} in the archive is {found.meta['size']} bytes: it is no segment of ours.")
                return Stored(bytes(await found.bytes_async()), found.meta.get("version"))
        except (NotFoundError, FileNotFoundError):
            raise NotFound("object in the archive", key) from None
        except (BaseError, OSError, TimeoutError, ValueError) as error:
            raise Unavailable(f"The archive {self.url} cannot be read: {_first_line(error)}") from error

    async def lock(self, key: str, version: str | None) -> Lock | None:
        """How the store locks this version of the object; None when it does not, or does not say. Raises Unavailable.

        Only S3 is asked. The newest version is: when somebody has put another over ours, nothing is known of ours.
        """
        if not self.url.startswith("s3:"):
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                store = await asyncio.to_thread(self._store)
                url = await obstore.sign_async(store, "HEAD", key, timedelta(seconds=60))
                said = await asyncio.to_thread(_head, url)
            mode, until = said.get(_LOCK_MODE), said.get(_LOCKED_UNTIL)
            is_ours = said.get("x-amz-version-id") == version
            return Lock(mode, datetime.fromisoformat(until)) if is_ours and mode and until else None
        except (BaseError, OSError, TimeoutError, ValueError) as error:
            raise Unavailable(f"The archive {self.url} does not say what it locks: {_first_line(error)}") from error

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Every object's name, in order. Raises Unavailable."""
        try:
            async with asyncio.timeout(self._timeout_s):
                store = await asyncio.to_thread(self._store)
                names = [meta["path"] async for batch in obstore.list(store, prefix or None) for meta in batch]
        except (BaseError, OSError, TimeoutError, ValueError) as error:
            raise Unavailable(f"The archive {self.url} cannot be listed: {_first_line(error)}") from error
        for name in sorted(names):
            yield name

    def _store(self) -> Any:
        if self._opened is not None:
            return self._opened
        parts = urlsplit(self.url)
        if parts.scheme == "file":
            self._directory = Path(unquote(parts.path))
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._opened = LocalStore(self._directory)
        else:
            self._opened = _bucket(self.url)
        return self._opened

    def _make_durable(self, key: str) -> None:
        """Force a file and the directories that name it to the disk; a bucket does so before it answers."""
        if self._directory is None:
            return
        path = self._directory / key
        for place in (path, *path.parents):
            descriptor = os.open(place, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if place == self._directory.parent:
                break


def _write_new(path: Path, data: bytes) -> None:
    """Write the file whole or not at all, even when the power goes. Raises FileExistsError.

    What a crash leaves of it is named as the library names its own halves, which it never lists.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f"{path.name}#0")
    try:
        with half.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(half, path)
    finally:
        half.unlink(missing_ok=True)


def _head(url: str) -> Mapping[str, str]:
    """What the store says about an object, by a URL that it has signed itself."""
    try:
        with urlopen(Request(url, method="HEAD"), timeout=HEAD_TIMEOUT_S) as answer:  # noqa: S310  # Ours, not a user's.
            return {name.lower(): value for name, value in answer.headers.items()}
    except HTTPError as error:
        if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        return {}


def _bucket(url: str, headers: Mapping[str, str] = MappingProxyType({})) -> Any:
    client = {**_CLIENT, "allow_http": _allows_http(), "default_headers": dict(headers)}
    options: Any = {"client_options": client, "retry_config": _RETRY}
    if url.startswith("s3:"):
        options["config"] = {"checksum_algorithm": "sha256"}
    return from_url(url, **options)


def _allows_http() -> bool:
    """The variable that the store's own tools know, for a store on a private network without TLS."""
    return os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true"


def _first_line(error: BaseException) -> str:
    """What the library says, without the pages that it adds."""
    said = str(error).strip().partition("\n")[0]
    return said[:300] or type(error).__name__
