"""Identifiers that sort by the time they were made (UUID version 7, RFC 9562)."""

import re
import secrets
import time
import uuid

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_id(text: str) -> bool:
    """Whether this can be an id at all. PostgreSQL refuses to look for some texts, such as those with a NUL."""
    return _ID.fullmatch(text) is not None


def new_id() -> str:
    """A new UUIDv7 as text: 48 bits of Unix milliseconds, then randomness."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (1 << 48) - 1) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))
