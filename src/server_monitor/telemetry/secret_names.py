"""Which names say that what stands beside them is a secret: of variables, options, fields and headers."""

import re
import unicodedata
from functools import lru_cache
from typing import Final


def word_set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_IN_ANY: Final = (
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "token",
    "credential",
    "authorization",
    "cookie",
    "apikey",
    "accesskey",
    "privatekey",
    "masterkey",
    "connectionstring",
)
_ENDINGS: Final = ("pass", "pwd", "pw")
_NO_SECRETS: Final = frozenset({"bypass", "compass", "trespass", "surpass", "encompass"})
_ALONE: Final = frozenset({"psk", "otp", "totp", "masterauth", "sshpass"})
# `--password-file` and `TOKEN_URL` say where a secret is, or how long it works, and not what it is.
_ABOUT_ONE: Final = word_set(
    "age algorithm authentication cmd command count days dir directory endpoint env expires expiry fd field "
    "file files format hint id ids jar len length lifetime max min mode name names path paths policy prompt prompts "
    "size source stdin timeout ttl type uri url"
)
_BEGINNINGS: Final = word_set(
    "ask delete export import list load max min no nopass nopasswd num prompt public save show skip without"
)
# What `key` is when it is one that nobody may see; `sort --key` and `PRIMARY_KEY` are not.
_OF_A_KEY: Final = word_set(
    "access account admin aes app application auth client consumer deploy encryption hmac jwt license pass preshared "
    "private root secret service session shared signing storage stripe subscription"
)
_NOT_OF_A_KEY: Final = word_set(
    "cache foreign group host index lookup partition primary pub public routing row sort ssh"
)
_PART: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


@lru_cache(maxsize=4096)
def names_a_secret(name: str) -> bool:
    """Whether `PGPASSWORD`, `--api-key`, `dbPass` or `X-Auth-Token` is followed by a secret. At most 128 characters."""
    name = unicodedata.normalize("NFKC", name[:128])  # "ſ" is an "s" for whoever reads it.
    parts = [part.lower() for part in _PART.findall(name)]
    if not parts or name in {"PWD", "OLDPWD"} or parts[-1] in _ABOUT_ONE or parts[0] in _BEGINNINGS:
        return False
    joined = "".join(parts)
    if any(map(joined.__contains__, _IN_ANY)):
        return True
    if any((part.endswith(_ENDINGS) and part not in _NO_SECRETS) or part in _ALONE for part in parts):
        return True
    return len(parts) > 1 and _is_key_or_login(name, parts[-2], parts[-1])


def _is_key_or_login(name: str, before: str, last: str) -> bool:
    if last == "key":
        return before in _OF_A_KEY or (name.isupper() and before not in _NOT_OF_A_KEY)
    return last == "auth" and name.isupper()
