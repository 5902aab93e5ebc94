"""What comes out of a filter: computed where what goes in is known, else where it came from."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from server_monitor.tasks.policy import paths
from server_monitor.tasks.policy.options import named
from server_monitor.tasks.policy.printing import decoding
from server_monitor.tasks.policy.values import (
    MAX_TEXT,
    Gap,
    Glob,
    Parts,
    Shape,
    Source,
    is_endless,
    text_of,
)

if TYPE_CHECKING:
    from server_monitor.tasks.policy.calls import Call

HUGE_BYTES = 50 * 10**9
Filter = Callable[["Call", str], str | None]
NAMES = named("whoami hostname uname date arch logname basename uuidgen hostid groups tty lsb_release cksum nproc")
NAMES |= named("docker podman kubectl git aws systemctl openssl sha256sum md5sum rpm dpkg")
KEEPS = named(
    "sort uniq nl tac rev shuf awk gawk mawk cut head tail sed tr cat xargs column fold fmt paste tee pv uconv iconv"
)
NARROWS = named("grep egrep fgrep rg ag zgrep jq yq xmllint")


def filtered(call: Call, change: Filter) -> Parts:
    given = call.input()
    text = text_of(given)
    if text is None:
        return passed_on(call, given)
    try:
        new = change(call, text)
    except (*decoding.ERRORS, re.error):
        return ()
    if new is None or len(new) > MAX_TEXT:
        return (Gap(Source.OUTPUT),)
    return (new,) if new else ()


def passed_on(call: Call, given: Parts) -> Parts:
    """What remains of unknown text behind a filter: where it came from."""
    gap = next((part for part in given if isinstance(part, Gap)), None)
    if gap is None:
        first = given[0] if given else ""
        return (first, Gap(Source.OUTPUT, Shape.PATH)) if isinstance(first, str) and first else (Gap(Source.OUTPUT),)
    source = gap.source
    if source is Source.ALL_PROCESSES and (call.name in NARROWS or _narrows(call)):
        source = Source.SOME_PROCESSES
    if is_endless(gap) and call.name == "head" and not _is_huge(call):
        gap, source = replace(gap, detail="head"), Source.OUTPUT
    if call.name in NARROWS and gap.detail in NAMES:
        gap = replace(gap, detail="")
    keeps = gap.shape if call.name in KEEPS | NARROWS else Shape.ANY
    if not gap.splits and given and isinstance(given[0], str) and any(isinstance(part, Glob) for part in given):
        return (given[0], Gap(Source.OUTPUT, Shape.PATH))
    prefix = given[0] if call.name in ("grep", "sort", "head", "tail", "egrep", "uniq", "tac", "tee") else ""
    if isinstance(prefix, str) and prefix:
        return (prefix, replace(gap, source=source))
    if gap.detail.startswith("find") and isinstance(given[0], str) and paths.holds_the_system(paths.normal(given[0])):
        gap = replace(gap, detail=paths.LISTED + paths.normal(given[0]))
    return (replace(gap, source=source, shape=keeps),)


def _is_huge(call: Call) -> bool:
    """`head -c 64G`, which is as good as no end."""
    text = " ".join(call.texts)
    match = re.search(r"(?:-\w*c ?|--bytes[= ])(\d+)([KMGTPE]?)", text)
    return match is not None and int(match[1]) * 1024 ** " KMGTPE".index(match[2] or " ") > HUGE_BYTES


def _narrows(call: Call) -> bool:
    """An awk program with a condition that picks lines; `NR>1` picks all but the heading."""
    if call.name not in ("awk", "gawk", "mawk", "sed"):
        return call.name in ("head", "tail") and any(a.prefix in ("-1", "-n1") for a in call.args)
    program = next((a.prefix for a in call.args if not a.prefix.startswith("-")), "")
    return re.search(r"/[^/]+/|\$\d+\s*[=~!<>]|index\(|\$NF\s*[=~]", program) is not None
