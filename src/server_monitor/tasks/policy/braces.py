"""Brace expansion: `{a,b}`, `{1..5}` and their nestings, on a word that is already cut into atoms.

Atoms of bare text hold the braces that are active; everything else passes through untouched.
"""

import re
from collections.abc import Sequence
from typing import TypeVar

from server_monitor.tasks.policy.parsing import TooComplex

MAX_WORDS = 256
MAX_BRACES = 40

A = TypeVar("A")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?|([A-Za-z])\.\.([A-Za-z])(?:\.\.(-?\d+))?")
_RANGE_IN = re.compile(r"\{(-?\d{1,40})\.\.(-?\d{1,40})(?:\.\.(-?\d{1,40}))?\}")
_MARKS = re.compile(r"([{},])")


def expanded(atoms: list[A]) -> list[list[A]]:
    """The words that the braces make of one; the word itself when it has none. At most MAX_WORDS of them."""
    if not any(isinstance(atom, str) and "{" in atom for atom in atoms):
        return [atoms]
    tokens: list[A | str] = []
    for atom in atoms:
        tokens += [part for part in _MARKS.split(atom) if part] if isinstance(atom, str) else [atom]
    if tokens.count("{") > MAX_BRACES:
        raise TooComplex(f"One word has more than {MAX_BRACES} braces.")
    return [_glued(word) for word in _words(tokens)[:MAX_WORDS]]  # type: ignore[arg-type]


def count(atoms: Sequence[object]) -> int:
    """How many words the ranges of a word make, were they not cut off; 1 when it has none."""
    found = 1
    for atom in atoms:
        for match in _RANGE_IN.finditer(atom) if isinstance(atom, str) and ".." in atom else ():
            first, last, step = int(match[1]), int(match[2]), abs(int(match[3] or 1)) or 1
            found *= abs(last - first) // step + 1
    return found


def _words(tokens: Sequence[A]) -> list[list[A]]:
    """All expansions of a run of tokens. A brace that is not a list or a range stays as it is."""
    for place, token in enumerate(tokens):
        if token != "{":
            continue
        closed = _closing(tokens, place)
        if closed is None:
            continue
        inner = _alternatives(tokens[place + 1 : closed])
        if inner is None:
            continue
        head = list(tokens[:place])
        tails = _words(tokens[closed + 1 :])
        found: list[list[A]] = []
        for middle in inner:
            for tail in tails:
                found.append([*head, *middle, *tail])
                if len(found) >= MAX_WORDS:
                    return found
        return found
    return [list(tokens)]


def _closing(tokens: Sequence[A], opened: int) -> int | None:
    depth = 0
    for place in range(opened, len(tokens)):
        if tokens[place] == "{":
            depth += 1
        elif tokens[place] == "}":
            depth -= 1
            if depth == 0:
                return place
    return None


def _alternatives(tokens: Sequence[A]) -> list[list[A]] | None:
    pieces: list[list[A]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token == "{") - (token == "}")
        if token == "," and depth == 0:
            pieces.append([])
        else:
            pieces[-1].append(token)
    if len(pieces) > 1:
        return [word for piece in pieces for word in _words(piece)]
    return _range(tokens)


def _range(tokens: Sequence[A]) -> list[list[A]] | None:
    if len(tokens) != 1 or not isinstance(tokens[0], str):
        return None
    match = _RANGE.fullmatch(tokens[0])
    if match is None:
        return None
    is_letters = match[4] is not None
    first, last = (ord(match[4]), ord(match[5])) if is_letters else (int(match[1]), int(match[2]))
    step = abs(int((match[6] if is_letters else match[3]) or 1)) or 1
    numbers = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
    width = max(len(match[1]), len(match[2])) if not is_letters and _is_padded(match) else 0
    return [[chr(n) if is_letters else str(n).zfill(width)] for n in numbers[:MAX_WORDS]]  # type: ignore[list-item]


def _is_padded(match: re.Match[str]) -> bool:
    return any(len(part.lstrip("-")) > 1 and part.lstrip("-").startswith("0") for part in (match[1], match[2]))


def _glued(tokens: list[A]) -> list[A]:
    found: list[A] = []
    for token in tokens:
        if found and isinstance(token, str) and isinstance(found[-1], str):
            found[-1] += token  # type: ignore[assignment]
        else:
            found.append(token)
    return found
