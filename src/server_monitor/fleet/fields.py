"""What the fields of servers and groups may hold: the one place that decides it, for forms, imports and the API.

`tidy_*` brings a text into the form that is stored and never fails; `*_mistake` says in a sentence what is wrong
with a tidied value and what to do, or returns None.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Iterator, Mapping

from server_monitor.errors import FieldError

LOCAL_HOST = "local"  # the machine of the console itself
NAME_MAX = 128
HOST_MAX = 253
USERNAME_MAX = 64
DESCRIPTION_MAX = 1024
JUMPS_MAX = 8  # servers on the way to another
LABELS_MAX = 64
LABEL_NAME_MAX = 64
LABEL_VALUE_MAX = 256
NORMALIZED_MAX = 2_000  # more than any field holds, however its letters are composed
CAPABILITIES = ("observe", "run", "terminal")

# Control, format (bidi and zero-width marks), surrogate, private, unassigned, line and paragraph separators.
_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Fillers that count as letters or symbols and draw nothing.
_UNSEEN_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
_IPV6_ZONE = re.compile(r"[A-Za-z0-9._-]{1,15}", re.ASCII)
_DNS_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_USERNAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+$\\-]*", re.ASCII)
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?", re.ASCII)


def tidy(text: str) -> str:
    """Without space around it and in Unicode's composed form, so that what looks equal is equal.

    A text that is too long for any field stays as it is: composing takes the square of the length of a run of marks.
    """
    stripped = text.strip(" \t")
    return unicodedata.normalize("NFC", stripped) if len(stripped) <= NORMALIZED_MAX else stripped


def tidy_host(text: str) -> str:
    """Lower case, an IPv6 address without brackets and in its short form, no dot at the end."""
    host = text.strip(" \t").rstrip(".")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    address = _address(host)
    return host.lower() if address is None else str(address)


def name_mistake(name: str) -> str | None:
    return _text_mistake(name, NAME_MAX) if name else "Give it a name."


def description_mistake(description: str) -> str | None:
    return _text_mistake(description.replace("\n", " "), DESCRIPTION_MAX)


def host_mistake(host: str) -> str | None:
    """A DNS name, an IPv4 or an IPv6 address."""
    if not host:
        return "Give the host: a DNS name, an IPv4 or an IPv6 address."
    if host == LOCAL_HOST:
        return "'local' means the console's own machine, which is watched already. Give another host."
    if _address(host) is not None:
        return None
    if len(host) > HOST_MAX:
        return f"A host has at most {HOST_MAX} characters; this has {len(host)}."
    return _dns_mistake(host)


def port_mistake(port: int) -> str | None:
    return None if 1 <= port <= 65535 else "A port is a number from 1 to 65535; SSH usually listens on 22."


def username_mistake(username: str) -> str | None:
    if not username:
        return "Name the account to log in as, such as 'monitor'."
    if len(username) > USERNAME_MAX:
        return f"An account name has at most {USERNAME_MAX} characters; this has {len(username)}."
    if not _USERNAME.fullmatch(username):
        return "An account name holds letters, digits and . _ - @ + $ \\ and starts with a letter, digit or _."
    return None


def capability_mistake(capability: str) -> str | None:
    return None if capability in CAPABILITIES else f"Choose one of {', '.join(CAPABILITIES)}."


def label_mistakes(labels: Mapping[str, str]) -> Iterator[str]:
    if len(labels) > LABELS_MAX:
        yield f"At most {LABELS_MAX} labels; these are {len(labels)}."
        return
    for name, value in labels.items():
        if not _LABEL_NAME.fullmatch(name) or len(name) > LABEL_NAME_MAX:
            yield (
                f"The label name {quoted(name)} will not do: 1 to {LABEL_NAME_MAX} letters, digits and . _ - /, "
                "with a letter or digit at both ends."
            )
        elif mistake := _text_mistake(value, LABEL_VALUE_MAX):
            yield f"The label {name}: {mistake}"


def server_mistakes(
    *,
    name: str,
    host: str,
    port: int,
    username: str,
    labels: Mapping[str, str],
    capability: str,
    line: int | None = None,
) -> list[FieldError]:
    """Every mistake in a tidied server, each with the name of its field."""
    found = [
        ("name", name_mistake(name)),
        ("host", host_mistake(host)),
        ("port", port_mistake(port)),
        ("username", username_mistake(username)),
        ("capability", capability_mistake(capability)),
        *(("labels", mistake) for mistake in label_mistakes(labels)),
    ]
    return [FieldError(field, mistake, line) for field, mistake in found if mistake]


def group_mistakes(*, name: str, description: str, labels: Mapping[str, str]) -> list[FieldError]:
    """Every mistake in a tidied group, each with the name of its field."""
    found = [
        ("name", name_mistake(name)),
        ("description", description_mistake(description)),
        *(("labels", mistake) for mistake in label_mistakes(labels)),
    ]
    return [FieldError(field, mistake) for field, mistake in found if mistake]


def visible(text: str, limit: int = 60) -> str:
    """A text that somebody else wrote, safe to show: what cannot be seen is replaced, and it is not long."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    return "".join(letter if _is_seen(letter) else "\N{REPLACEMENT CHARACTER}" for letter in cut)


def quoted(text: str) -> str:
    """`visible`, in quotation marks for use in a sentence."""
    return f"“{visible(text)}”"


def _text_mistake(text: str, limit: int) -> str | None:
    if len(text) > limit:
        return f"At most {limit} characters; this has {len(text)}."
    if text.isascii() and text.isprintable():
        return None
    for position, letter in enumerate(text, start=1):
        if not _is_seen(letter):
            return f"Character {position} is {_called(letter)}, which cannot be seen. Take it out."
    return None


def _is_seen(letter: str) -> bool:
    if letter in _UNSEEN_LETTERS or (letter != " " and letter.isspace()):
        return False
    return unicodedata.category(letter) not in _UNSEEN_CATEGORIES


def _called(letter: str) -> str:
    named = {"\n": "a line break", "\r": "a line break", "\t": "a tab", "\0": "a NUL"}
    return named.get(letter) or f"U+{ord(letter):04X} ({unicodedata.name(letter, 'a control character').lower()})"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    zone = address.scope_id if isinstance(address, ipaddress.IPv6Address) else None
    return address if zone is None or _IPV6_ZONE.fullmatch(zone) else None


def _dns_mistake(host: str) -> str | None:
    if not host.isascii():
        return f"{quoted(host)} has letters outside ASCII. Write the name in its xn-- form, or use the address."
    labels = host.split(".")
    if labels[-1].isdigit():
        return f"{quoted(host)} is not an IPv4 address: four numbers from 0 to 255, joined by dots."
    if ":" in host:
        return f"{quoted(host)} is not an IPv6 address; a port goes into its own field."
    if not all(_DNS_LABEL.fullmatch(label) for label in labels):
        return f"{quoted(host)} is neither a DNS name (letters, digits, hyphens, dots) nor an address."
    return None
