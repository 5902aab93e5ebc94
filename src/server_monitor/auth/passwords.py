"""Passwords: which are good enough, how they are stored, and how they are checked.

A password is stored as an argon2id hash in the PHC string format, which carries its own parameters, for example
`$argon2id$v=19$m=47104,t=2,p=1$…$…`; a hash with weaker parameters is replaced at the next login.
Hashing takes a tenth of a second and 46 MiB, so it runs in a few threads with short queues: a flood of logins is
refused, and takes neither the processor nor the memory from the rest of the console.
"""

import asyncio
import base64
import secrets
import threading
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NewType

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from server_monitor.auth.actor import Role
from server_monitor.errors import FieldError, Invalid, TooMany
from server_monitor.telemetry import metrics

PasswordHash = NewType("PasswordHash", str)

SHORTEST = 12
SHORTEST_FOR_ADMIN = 15
LONGEST = 128
FEWEST_GUESSES = 10**8  # below this an estimate of zxcvbn counts as "guessed soon", even with slow hashing
_ESTIMATED_CHARACTERS = 72  # the estimate's cost grows with the square of the length; more characters only add to it

_HASHER = PasswordHasher(time_cost=2, memory_cost=46 * 1024, parallelism=1, type=Type.ID)
_RETRY_AFTER_S = 2


def problems(password: str, *, name: str, role: Role | None, field: str = "password") -> list[FieldError]:
    """What is wrong with this password for the user `name`, with the remedy; empty when it is good.

    Length is what counts; there are no rules about which characters it must hold.
    """
    shortest = SHORTEST_FOR_ADMIN if role is Role.ADMIN else SHORTEST
    if any(unicodedata.category(character) == "Cs" for character in password):
        return [FieldError(field, "is not valid text; type it again")]
    length = len(normal(password))
    if length < shortest:
        return [FieldError(field, f"has {length} characters; use at least {shortest}, four random words will do")]
    if length > LONGEST:
        return [FieldError(field, f"has {length} characters; use at most {LONGEST}")]
    if _only_context(password, name):
        return [FieldError(field, "consists of your name or the product's name; use words nobody links with you")]
    if _is_guessed_soon(normal(password), name):
        return [FieldError(field, "is common or a pattern that is guessed soon; use four or more random words")]
    return []


def check(password: str, *, name: str, role: Role | None, field: str = "password") -> None:
    """Raise Invalid when the password is not good enough."""
    if found := problems(password, name=name, role=role, field=field):
        raise Invalid(found)


def normal(password: str) -> str:
    """One form for the same characters, however the keyboard or the system composes them (NFKC, as NIST advises)."""
    return unicodedata.normalize("NFKC", password)


def _only_context(password: str, name: str) -> bool:
    """Whether little is left once the user's name and the product's name are taken out."""
    rest = "".join(filter(str.isalnum, password.casefold()))
    for word in sorted(_context_words(name), key=len, reverse=True):
        rest = rest.replace(word, "")
    return len(rest.strip("0123456789")) < 4 and len(rest) < SHORTEST // 2


def _context_words(name: str) -> set[str]:
    parts = {"".join(filter(str.isalnum, part)) for part in (name.casefold(), *name.casefold().split())}
    return {"servermonitor", "server", "monitor"} | {part for part in parts if len(part) >= 3}


def _is_guessed_soon(password: str, name: str) -> bool:
    # Its word lists take 80 ms and some megabytes to load, which only somebody who sets a password should pay.
    from zxcvbn import zxcvbn  # noqa: PLC0415

    estimate = zxcvbn(password[:_ESTIMATED_CHARACTERS], user_inputs=sorted(_context_words(name)))
    return float(estimate["guesses"]) < FEWEST_GUESSES


class Lane:
    """A few threads for hashing and a short queue before them."""

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"password-{name}")
        self._room = threading.BoundedSemaphore(threads + waiting)

    @contextmanager
    def place(self) -> Iterator["Place"]:
        """Keep a place in the queue. Raises TooMany at once when there is none."""
        if not self._room.acquire(blocking=False):
            raise TooMany("Too many logins at this moment; try again shortly.", _RETRY_AFTER_S)
        place = Place(self._threads)
        try:
            yield place
        finally:
            place.leave(self._room.release)


class Place:
    """The right to hash in a lane."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._running: Future[object] | None = None

    async def check(self, stored: PasswordHash | None, password: str) -> bool:
        """Whether the password is the stored one. Without a stored one it takes the same work and says no."""
        return bool(await self._run(lambda: _matches(stored or _unmatchable(), password)))

    async def hash(self, password: str) -> PasswordHash:
        return PasswordHash(str(await self._run(lambda: _hash(password))))

    def leave(self, release: Callable[[], None]) -> None:
        # A caller that gave up leaves its hash running: the place stays taken until the thread is free again.
        if self._running is None:
            release()
        else:
            self._running.add_done_callback(lambda _: release())

    async def _run(self, work: Callable[[], object]) -> object:
        self._running = self._threads.submit(work)
        return await asyncio.wrap_future(self._running)


# The processor and the memory are the process's, and so are these bounds. Browsers and addresses that a user is known
# by have a lane of their own, in which a flood of strangers is not felt.
KNOWN = Lane("known", threads=1, waiting=8)
STRANGERS = Lane("strangers", threads=1, waiting=16)


async def hash_password(password: str) -> PasswordHash:
    """The password as it may be stored. Check it first. Raises TooMany when the machine is busy with others."""
    with KNOWN.place() as place:
        return await place.hash(password)


def needs_new_hash(stored: PasswordHash) -> bool:
    """Whether the hash was made with other parameters than today's."""
    return _HASHER.check_needs_rehash(stored)


def _hash(password: str) -> str:
    metrics.password_hashes.inc()
    return _HASHER.hash(_encoded(password))


def _matches(stored: str, password: str) -> bool:
    metrics.password_hashes.inc()
    try:
        return _HASHER.verify(stored, _encoded(password))
    except (VerificationError, InvalidHashError):
        return False


def _encoded(password: str) -> bytes:
    return normal(password).encode("utf-8", "surrogatepass")


def _unmatchable() -> str:
    """A hash that costs as much to check as any other and that no password has."""
    salt, digest = secrets.token_bytes(_HASHER.salt_len), secrets.token_bytes(_HASHER.hash_len)
    parameters = f"m={_HASHER.memory_cost},t={_HASHER.time_cost},p={_HASHER.parallelism}"
    return f"$argon2id$v=19${parameters}${_base64(salt)}${_base64(digest)}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")
