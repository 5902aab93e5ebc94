"""The lines of a crontab."""

import re

_CRON_LINE = re.compile(r"\s*(?:@\w+|(?:[\d*/,A-Za-z-]+\s+){4}[\d*/,A-Za-z-]+)\s+(.*)")


def cron_commands(text: str, *, has_user: bool = False) -> list[str]:
    """The commands of a crontab; system crontabs name a user before each."""
    found = []
    for line in text.splitlines():
        match = _CRON_LINE.match(line)
        if match is not None and not line.lstrip().startswith("#"):
            words = match[1].split(None, 1)
            found.append(words[-1] if has_user else match[1])
    return found
