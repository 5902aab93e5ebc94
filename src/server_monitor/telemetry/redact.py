"""Takes secrets out of text and structures before they are logged or recorded.

A net under careful code, not a replacement for it: values that are known to be secret are never passed here at all.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

MASK = "[redacted]"

_SECRET_NAME = re.compile(
    r"(password|passphrase|passwd|secret|token|cookie|authorization|otp|private_key|master_key|api_key)",
    re.IGNORECASE,
)

_SECRET_TEXT = re.compile(
    r"""
      -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----.*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
    | \bsmt_[A-Za-z0-9_-]{8,}                                # our own API tokens
    | \beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+      # JSON web tokens
    | (?<=://)[^/\s:@]*:[^/\s@]+(?=@)                          # user:password in a URL
    | (?i:(?<=bearer\s)|(?<=basic\s))[A-Za-z0-9._~+/=-]{8,}
    | (?i:(?:password|passwd|pwd|secret|token)\s*[=:]\s*)\S+
    """,
    re.VERBOSE | re.DOTALL,
)
# One of these is in every match, in lower case. Looking for them takes a tenth of what the expression takes.
_SIGNS = ("-----begin", "smt_", "eyj", "://", "bearer", "basic", "passw", "pwd", "secret", "token")


def redact_text(text: str) -> str:
    """The text with anything that looks like a secret masked."""
    # Beyond ASCII, case is not so simple: "ſ" is an "s" for the expression.
    if text.isascii() and not any(map(text.lower().__contains__, _SIGNS)):
        return text
    return _SECRET_TEXT.sub(MASK, text)


def redact(value: Any) -> Any:
    """A copy of a JSON-like value with secret-looking strings, and whatever stands under a secret name, masked."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, dict | Mapping):  # Nearly always the former, which is found at once.
        return {key: MASK if _is_secret_name(key, item) else redact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return value


def _is_secret_name(name: object, value: object) -> bool:
    # Numbers and flags under such a name ("token_count", "password_set") say nothing secret.
    return isinstance(value, str | bytes) and isinstance(name, str) and _names_a_secret(name)


@lru_cache(maxsize=1024)
def _names_a_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None
