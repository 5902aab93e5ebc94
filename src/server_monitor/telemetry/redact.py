"""Takes secrets out of text and structures before they are logged or recorded.

A net under careful code, not a replacement for it: values that are known to be secret are never passed here at all.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from server_monitor.telemetry import command_secrets, secret_shapes
from server_monitor.telemetry.secret_names import names_a_secret
from server_monitor.telemetry.secret_shapes import Span

MASK = "[redacted]"

_SECRET_NAME = re.compile(
    r"(password|passphrase|passwd|secret|token|cookie|authorization|otp|private_key|master_key|api_key)",
    re.IGNORECASE,
)
_VALUES = frozenset({"default", "value"})
# An id, a digest, or a word that is too short to be a secret by itself and names none. Most of what is recorded is one.
_PLAIN = re.compile(r"[A-Za-z0-9.+-]{0,19}|[0-9a-f-]{0,64}|[A-Za-z0-9_]{0,11}|sha256:[0-9a-f]{64}")
# Beside a mark of the first column a secret may stand, when there is also a sign of the second, in lower case. Looking
# for them takes a twentieth of looking closely.
_NAMES = ("pass", "pw", "secret", "token", "key", "cookie", "auth", "otp", "cred", "psk", "tionstring", "literal")
_PROGRAMS = (
    *("curl", "sql", "maria", "dumper", "loader", "xtrabackup", "mongo", "beeline", "redis", "valkey", "ssl", "ldap"),
    *(
        "smb",
        "rpcc",
        "winexe",
        "wmic",
        "net ",
        "login",
        "useradd",
        "usermod",
        "zip",
        "7z",
        "rar",
        "snmp",
        "ipmi",
        "vault",
    ),
    *("mosquitto", "bcp", "lftp", "rabbit", "plink", "pscp", "psftp", "sendemail", "swaks", "rdesktop", "http", "xh"),
    *("influx", "etcd", "ab -", "hydra", "keygen", "putty", "sudo", "stdin", "kinit", "cryptsetup", "cred", "vault"),
)
_SIGNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("", ("passw", "passp", "vault", "redis", "bearer", "basic", "identified", "akia", "asia", "aiza", "mc alias")),
    ("=", (*_NAMES, "sig", "code")),
    (":", (*_NAMES, "://", ":aa")),
    ('"', _NAMES),
    ("'", _NAMES),
    (" -", (*_NAMES, *_PROGRAMS)),
    ("set", _NAMES),
    ("conf", _NAMES),
    ("nmcli", _NAMES),
    ("|", ("stdin", "kinit", "cryptsetup", "smbpass")),
    ("/", ("slack", "sqlplus", "sqlldr", "expdp", "impdp", "rman", "exp ", "imp ")),
    (" ", ("add_user", "change_pass", "cate_user", "login", "rclone", "samba-tool")),
    (".", ("eyj", "ya29", "hvs.", "hvb.", "hvr.", "sg.")),
    ("_", ("smt_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "_pat_", "_live_", "_test_", "whsec", "npm_", "shp", "hf_")),
    ("-", ("-----begin", "glpat", "glptt", "gldt", "glrt", "gloas", "glcbt", "glsoat", "glimt", "glft", "xox", "xapp")),
    ("-", ("sk-", "pypi-", "gocspx", "_v1_")),
)


def redact_text(text: str) -> str:
    """The text with anything that looks like a secret masked."""
    if _PLAIN.fullmatch(text):
        return text
    # Beyond ASCII, case is not so simple: "ſ" is an "s" for the expressions.
    if text.isascii() and not _is_suspect(text.lower()):
        return text
    return _masked(text, [*secret_shapes.spans(text), *command_secrets.spans(text)])


def redact(value: Any) -> Any:
    """A copy of a JSON-like value with secret-looking strings, and whatever stands under a secret name, masked."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, dict | Mapping):  # Nearly always the former, which is found at once.
        named = value.get("name")
        is_of_secret = isinstance(named, str) and _names_a_secret(named)  # {"name": "db_password", "default": …}
        return {
            key: MASK if _is_secret_name(key, item) or (is_of_secret and key in _VALUES) else redact(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return value


def _is_suspect(lowered: str) -> bool:
    holds = lowered.__contains__
    return any(holds(mark) and any(map(holds, signs)) for mark, signs in _SIGNS)


def _masked(text: str, spans: Iterable[Span]) -> str:
    parts, at = [], 0
    for start, end in sorted(spans):
        if start >= at:
            parts += [text[at:start], MASK]
        at = max(at, end)
    return "".join([*parts, text[at:]])


def _is_secret_name(name: object, value: object) -> bool:
    # Numbers and flags under such a name ("token_count", "password_set") say nothing secret.
    return isinstance(value, str | bytes) and isinstance(name, str) and _names_a_secret(name)


@lru_cache(maxsize=1024)
def _names_a_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None or names_a_secret(name)
