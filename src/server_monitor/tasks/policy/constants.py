"""Text that code puts together from constants: `"drop" + "Database"`, `o["a" + "b"]()`, `CONCAT('DR', 'OP')`.

Folding it back lets the tables find in it what they would find had it been written plainly. What cannot be folded, and
is called, is a call of something that nobody knows.
"""

from __future__ import annotations

import re

MAX_ROUNDS = 8
MAX_TEXT = 10_000

_LITERAL = r"(?:\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)')"
_JOINED = re.compile(rf"{_LITERAL}\s*(?:\+|\.\.|\.|\|\|)\s*{_LITERAL}")
_CONCAT = re.compile(rf"(?i)\bconcat\s*\(\s*((?:{_LITERAL}\s*,\s*)+{_LITERAL})\s*\)")
_JOIN = re.compile(rf"\[((?:\s*{_LITERAL}\s*,?)+)\]\s*\.join\s*\(\s*(?:\"\"|''|``)?\s*\)")
_REVERSED = re.compile(rf"{_LITERAL}\s*\.split\(\s*(?:\"\"|'')\s*\)\s*\.reverse\(\)\s*\.join\(\s*(?:\"\"|'')\s*\)")
_CHARACTERS = re.compile(r"\bString\.fromCharCode\s*\(\s*([\d,\s]+)\)")
_CHR = re.compile(r"\bchr\s*\(\s*(\d{1,3})\s*\)")
_ASSIGNED = re.compile(
    rf"(?<![\w.$])(?:const\s+|let\s+|var\s+|my\s+|local\s+|our\s+)?([$]?[A-Za-z_]\w*)\s*=\s*{_LITERAL}\s*(?=[;\n,)]|$)"
)
_MEMBER = re.compile(rf"\[\s*{_LITERAL}\s*\]")
_PLAIN_NAME = re.compile(r"[A-Za-z_]\w*")
_ONE = re.compile(_LITERAL)
# A name that is worked out, and called: `x[expr](`, `&$f(`, `$f(`, `send(expr`, `const_get`.
DYNAMIC = {
    "node": re.compile(r"\[[^\]\"'`\d\s,][^\]\"'`,]*\]\s*\("),
    "mongo": re.compile(r"\[[^\]\"'`\d\s,][^\]\"'`,]*\]\s*\("),
    "perl": re.compile(r"&\s*(?:\$\w|\{\s*[\"$])|->\s*\$\w+\s*\(|->\s*\(|\bcan\s*\("),
    "ruby": re.compile(r"\b(?:send|public_send|__send__|method|instance_method|const_get|instance_exec)\b|\.to_proc\b"),
    "php": re.compile(
        r"(?<![\w>:$])\$\w+\s*\(|\bcall_user_func|\(\s*[\"'][^\"']*[\"']\s*\)\s*\(|\$\{|\bReflection\w+|->\s*\$\w+\s*\(|\(\s*\$[\w.\s$]+\)\s*\(|::\s*\$\w+"
    ),
    "lua": re.compile(r"\b(?:os|io|_G|_ENV|package|debug)\s*\[|\bload\s*\("),
}


def folded(text: str) -> str:
    """The text with constants joined, and members that constants name written with a dot."""
    if len(text) > MAX_TEXT:
        return text
    for _ in range(MAX_ROUNDS):
        new = _CONCAT.sub(_concatenated, _JOINED.sub(_joined, _CHR.sub(_character, text)))
        new = _REVERSED.sub(lambda m: _quoted(_text(m)[::-1]), _JOIN.sub(_concatenated, new))
        new = _CHARACTERS.sub(_characters, new)
        if new == text:
            break
        text = new
    values = {match[1]: _text(match, 2) for match in _ASSIGNED.finditer(text)}
    for name, value in list(values.items())[:8]:
        if _PLAIN_NAME.fullmatch(value):
            text = _named(text, name, value)
    return _MEMBER.sub(lambda m: f".{_text(m)}" if _PLAIN_NAME.fullmatch(_text(m)) else m[0], text)


def _named(text: str, name: str, value: str) -> str:
    """The text with a member or function that a variable names under its own name."""
    escaped = re.escape(name)
    text = re.sub(rf"\[\s*{escaped}\s*\]", f".{value}", text)
    text = re.sub(rf"&\s*{escaped}\b|&\{{\s*{escaped}\s*\}}", value, text)
    call = rf"(?<![\w.]){escaped}\s*\(" if name.startswith("$") else None
    return re.sub(call, f"{value}(", text) if call else text


def _text(match: re.Match[str], first: int = 1) -> str:
    return match[first] if match[first] is not None else match[first + 1] or ""


def _joined(match: re.Match[str]) -> str:
    return _quoted(_text(match) + _text(match, 3))


def _concatenated(match: re.Match[str]) -> str:
    return _quoted("".join(_text(one) for one in _ONE.finditer(match[1])))


def _quoted(text: str) -> str:
    return f"'{text}'" if '"' in text else f'"{text}"'


def _character(match: re.Match[str]) -> str:
    return _quoted(chr(int(match[1]))) if 32 <= int(match[1]) < 127 and int(match[1]) not in (34, 39, 92) else match[0]


def _characters(match: re.Match[str]) -> str:
    numbers = [int(number) for number in re.findall(r"\d{1,6}", match[1])]
    return _quoted("".join(chr(n) for n in numbers if 32 <= n < 127 and n not in (34, 39, 92)))
