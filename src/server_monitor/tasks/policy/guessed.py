"""Text that may be a command, and nobody knows: lines of a file of unknown kind, words behind an unknown program.

It is judged as if it ran, and of what comes out only denials count. A guess must not ask anybody anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from server_monitor.tasks.policy.options import named
from server_monitor.tasks.policy.programs import SHELLS, canonical
from server_monitor.tasks.policy.rules.table import BY_ID
from server_monitor.tasks.policy.values import Span

if TYPE_CHECKING:
    from server_monitor.tasks.policy.walk import Walker

MAX_GUESSES = 6
# Names that are hardly ever anything but the program.
DESTROYERS = named("rm shred dd wipefs truncate chmod chown chgrp chattr find mkfs mke2fs blkdiscard rmdir unlink tee")
# With these a text begins that is a command, as against one that only mentions it.
COMMANDS = (
    DESTROYERS
    | SHELLS
    | named(
        "mv cp ln sudo doas env nohup exec eval shutdown reboot halt poweroff systemctl kill killall pkill userdel "
        "usermod iptables nft fdisk parted sgdisk umount mount dropdb mysql psql redis-cli curl wget tar rsync"
    )
)
_STRING = re.compile(r"\"((?:[^\"\\\n]|\\.){4,})\"|'([^'\n]{4,})'|`([^`\n]{4,})`")
_INSIDE = re.compile(r"(?<![\w./-])(?:rm|shred|dd|wipefs|truncate|chmod|chown|find|mkfs[.\w]*) [^()<>\"'`|;]+")
_BEFORE_A_COMMAND = re.compile(r"^[\s\t]*(?:[-+@*>|]+\s*|[\w.-]+\s*[:=]\s*)*")


def texts(texts: Iterable[str], how: str, span: Span, walker: Walker) -> None:
    """Judge those of these texts that begin like a command."""
    likely = [text for text in dict.fromkeys(texts) if _is_likely(text)]
    for text in likely[:MAX_GUESSES]:
        denials(lambda text=text: walker.run_text(text, how, span), walker)  # type: ignore[misc]


def lines(content: str) -> list[str]:
    """What in a file may be a command: its lines without what stands before a command in one, and its strings."""
    code = [line for line in content.splitlines() if not line.lstrip().startswith(("#", "//"))]
    found = [_BEFORE_A_COMMAND.sub("", line) for line in code]
    found += [match[0] for line in code for match in _INSIDE.finditer(line)]
    return found + [next(group for group in match.groups() if group) for match in _STRING.finditer(content)]


def denials(judge: Callable[[], object], walker: Walker) -> None:
    """Let something be judged, and keep of what was found only what is denied."""
    account = walker.account
    begin, commands, writes = len(account.findings), len(account.commands), len(account.writes)
    with walker.subshell():
        judge()
    kept = [f for f in account.findings[begin:] if f.rule in BY_ID and BY_ID[f.rule].ruling == "deny"]
    account.withdraw(begin, kept)
    del account.commands[commands:], account.writes[writes:]


def _is_likely(text: str) -> bool:
    first, _, rest = text.strip().partition(" ")
    return bool(rest) and canonical(first) in COMMANDS
