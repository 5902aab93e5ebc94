"""The escapes of `$'…'`, `echo -e` and `printf`."""

import re

_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{1,4})|U([0-9a-fA-F]{1,8})|(0?[0-7]{1,3})|c(.)|(.))", re.DOTALL
)
_SIMPLE = {"a": "\a", "b": "\b", "e": "\x1b", "E": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_MEAN_THEMSELVES = "\\'\"?"


def decoded(text: str) -> str:
    """The characters that the escapes stand for; an unknown escape keeps its backslash."""
    return _ESCAPE.sub(_character, text).partition("\0")[0] if "\\" in text else text


def _character(match: re.Match[str]) -> str:
    for group, base in ((1, 16), (2, 16), (3, 16), (4, 8)):
        if match[group] is not None:
            code = int(match[group], base)
            return chr(code & 0xFF if group == 4 else code) if code < 0x110000 else ""
    if match[5] is not None:
        return chr(ord(match[5].upper()) & 0x1F)
    letter: str = match[6]
    if letter in _MEAN_THEMSELVES:
        return letter
    return _SIMPLE.get(letter, "\\" + letter)
