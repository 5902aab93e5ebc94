"""Names of files that a program prints, whatever program it is: those of the places that its arguments name.

Nobody can name every program that lists files. `git ls-files /etc`, `rg -l x /etc` and `stat -c %n /etc/*` have in
common that a place of the system is among their words and that what they print is not known. Whoever then deletes or
changes what they print is judged as if a search had found it in that place.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from server_monitor.tasks.policy import paths
from server_monitor.tasks.policy.calls import READERS
from server_monitor.tasks.policy.options import named
from server_monitor.tasks.policy.values import Field, Gap, Parts, Shape, Source

if TYPE_CHECKING:
    from server_monitor.tasks.policy.calls import Call

# A path that stands alone or in an option, a pattern or a line of code, up to the first sign of a pattern in it.
_PATH = re.compile(r"(?<![\w.~$}/:-])/[\w.@+-][\w./@+-]*")
_SETTINGS = re.compile(r"\.(?:conf|cnf|cfg|ini|ya?ml|toml|json|env|pem|key|crt)$")
_GREPS = named("grep egrep fgrep zgrep rg ag ack")
_ONLY_NAMES = re.compile(r"-[a-zA-Z]*[lLrR][a-zA-Z]*|--files.*|--recursive")
# What is asked which files a package brought, or where a program lies, prints places of the system.
_OF_THE_SYSTEM = {
    **dict.fromkeys(
        named("dpkg dpkg-query rpm pacman apk apt-file dlocate repoquery dnf yum equery qlist pkg opkg"),
        re.compile(r"-[a-zA-Z]*[lL][a-zA-Z]*|--list.*|list|files|contents|repoquery"),
    ),
    **dict.fromkeys(named("whereis type hash"), re.compile(r".*")),
}
# These print names without their directory, or no names.
_RELATIVE = named("ls basename echo printf date seq jot yes")


def listed(call: Call, printed: Parts) -> Parts:
    """The same, and of unknown names where in the system they may lie."""
    only = printed[0] if len(printed) == 1 else None
    if not isinstance(only, Gap) or only.source not in (Source.OUTPUT, Source.FILE, Source.INPUT):
        return printed
    if only.detail.startswith(("find", paths.LISTED)) or (only.shape is Shape.NUMBER and _is_content(call)):
        return printed
    root = _named_root(call) or (None if _is_told(only, call) else _standing_root(call))
    return printed if root is None else (replace(only, detail=paths.LISTED + root),)


def _is_told(gap: Gap, call: Call) -> bool:
    """Is more known of it than which program printed it? What a `seq` counts are no names, wherever it runs."""
    if _only_names(call) and not {"-", "/dev/stdin"}.intersection(call.texts):
        return False  # It reads files and not what comes in.
    return gap.detail not in ("", call.name) or (gap.shape is Shape.NUMBER and gap.detail != call.name)


def _is_content(call: Call) -> bool:
    """Does it print what stands in the files that it names?"""
    return call.name in READERS and not _only_names(call)


def _only_names(call: Call) -> bool:
    return call.name in _GREPS and any(map(_ONLY_NAMES.fullmatch, call.texts))


def _named_root(call: Call) -> str | None:
    """The widest of the system's places that this call names."""
    pattern = _OF_THE_SYSTEM.get(call.name)
    if pattern is not None and any(pattern.fullmatch(text) for text in call.texts):
        return "/usr"
    # Most commands name no place at all.
    telling = _telling(call, is_content=_is_content(call)) if "/" in call.rendered else []
    found = [path for arg in telling for path in _places(arg, call) if paths.holds_the_system(path)]
    return min(found, key=len, default=None)


def _standing_root(call: Call) -> str | None:
    """The directory that it runs in, to which names without one belong."""
    cwd = call.state.cwd
    if _is_content(call) or cwd is None or call.name in _RELATIVE or not paths.holds_the_system(cwd):
        return None
    return cwd


def _telling(call: Call, *, is_content: bool) -> list[Field]:
    """The arguments that say what is printed. What merely stands in a file that is read says nothing."""
    if is_content:
        files = call.files()
        return [arg for arg in call.args if arg not in files]
    operands = [arg for arg in call.args if not arg.prefix.startswith("-")]
    if call.name == "ls":
        return operands[1:] and operands
    if call.name in _GREPS:
        return operands[1:] or operands  # The first is what they look for.
    return [arg for before, arg in pairwise([Field(()), *call.args]) if not _is_setting(arg, before)]


def _is_setting(arg: Field, before: Field) -> bool:
    """`--config /etc/app.conf` says how a program works, not what it lists."""
    text = arg.text or ""
    path = text.partition("=")[2] if text.startswith("-") else text if before.prefix.startswith("-") else ""
    return _SETTINGS.search(path) is not None and not paths.is_critical_file(path)


def _places(arg: Field, call: Call) -> list[str]:
    text = arg.shown
    if text == "/":  # To a filter it is a character.
        return [] if call.name in READERS - _GREPS else ["/"]
    if text.startswith(("../", "~")):
        path = paths.absolute(text, call.state)
        return [path] if path is not None else []
    return [paths.normal(match[0]) for match in _PATH.finditer(text)] if "/" in text else []
