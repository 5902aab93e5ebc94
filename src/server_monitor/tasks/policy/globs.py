"""Shell patterns as regular expressions."""

import re
from functools import lru_cache

_TOKEN = re.compile(r"\\(.)|([?*+@!])\(([^()]*)\)|\*+|\?|\[[!^]?\]?[^\]]*\]", re.DOTALL)


@lru_cache(maxsize=512)
def regex(pattern: str) -> str:
    """A regular expression that matches what the shell pattern matches; `*` matches slashes too."""
    found: list[str] = []
    position = 0
    for match in _TOKEN.finditer(pattern):
        found += [re.escape(pattern[position : match.start()]), _translated(match)]
        position = match.end()
    found.append(re.escape(pattern[position:]))
    return "".join(found)


def _translated(match: re.Match[str]) -> str:
    token = match[0]
    if match[1] is not None:
        return re.escape(match[1])
    if match[2] is not None:
        inner = "|".join(regex(part) for part in match[3].split("|"))
        return f"(?:{inner})" + {"?": "?", "*": "*", "+": "+", "@": "", "!": ".*"}[match[2]]
    if token[0] == "*":
        return ".*"
    if token == "?":
        return "."
    return _bracket(token)


def _bracket(token: str) -> str:
    """A bracket expression; one that Python may read differently matches any character: the safe side."""
    inner = token[1:-1]
    negated = inner[:1] in ("!", "^")
    body = inner[1:] if negated else inner
    if "[" in body:
        return "."
    escaped = body.replace("\\", "\\\\").replace("]", "\\]").replace("^", "\\^").replace("&", "\\&").replace("~", "\\~")
    try:
        re.compile(f"[{escaped}]")
    except re.error:
        return "."
    return f"[{'^' if negated else ''}{escaped}]"
