"""Where the next page of the audit log begins, as text that only this console can make. Pure.

A cursor is base64url(JSON) "." base64url(HMAC-SHA256). It fixes the size that the log had at the first page, so pages
neither repeat nor miss a record while the log grows.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import orjson
from pydantic import SecretStr

from server_monitor.errors import Invalid

LENGTH_LIMIT = 8192
_PURPOSE = b"server-monitor audit cursor 1\n"  # The secret signs other things too.


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a listing, and which listing it is."""

    snapshot: int  # how many records the log had at the first page
    oldest: int  # the first record that had not been pruned then
    next_seq: int
    filters: Mapping[str, str]
    order: str
    user: str
    format: str


def seal(place: Place, secret: SecretStr) -> str:
    return signed(orjson.dumps(asdict(place)), _PURPOSE, secret)


def read(text: str, secret: SecretStr) -> Place:
    """The place that `seal` wrote. Raises Invalid for anything else."""
    return Place(**orjson.loads(unsigned(text, _PURPOSE, secret)))


def signed(payload: bytes, purpose: bytes, secret: SecretStr) -> str:
    """A cursor of this listing. `purpose` sets it apart from everything else that the secret signs."""
    return f"{_encoded(payload)}.{_encoded(_signature(payload, purpose, secret))}"


def unsigned(text: str, purpose: bytes, secret: SecretStr) -> bytes:
    """What `signed` took. Raises Invalid for anything else."""
    payload, _, signature = text.partition(".")
    plain, given = _decoded(payload), _decoded(signature)
    if plain is None or given is None or not hmac.compare_digest(given, _signature(plain, purpose, secret)):
        raise Invalid.one("cursor", "was not made by this console; leave it out to begin at the first page")
    return plain


def _signature(payload: bytes, purpose: bytes, secret: SecretStr) -> bytes:
    return hmac.digest(secret.get_secret_value().encode(), purpose + payload, hashlib.sha256)


def _encoded(plain: bytes) -> str:
    return base64.urlsafe_b64encode(plain).decode().rstrip("=")


def _decoded(text: str) -> bytes | None:
    if len(text) > LENGTH_LIMIT or not text.isascii():
        return None
    try:
        plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        return None
    return plain if _encoded(plain) == text else None  # Other texts mean the same bytes; only one of them is ours.
