"""From a word in the text to the words that a command receives, in the order that a shell expands them.

Braces, tilde, parameters, substitutions and arithmetic, splitting, patterns, quote removal. Where a variable may have
several values, the word does too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from server_monitor.tasks.policy import ansi_c, braces, parameters
from server_monitor.tasks.policy.arithmetic import evaluated
from server_monitor.tasks.policy.shell import Shell
from server_monitor.tasks.policy.state import BLANKS, State
from server_monitor.tasks.policy.tree import (
    ArithmExp,
    CmdSubst,
    DblQuoted,
    ExtGlob,
    Lit,
    ParamExp,
    ProcSubst,
    SglQuoted,
    Word,
    WordPart,
)
from server_monitor.tasks.policy.values import (
    Field,
    Gap,
    Glob,
    Part,
    Parts,
    Shape,
    Source,
    Span,
    flat,
    globbed,
    joined,
    text_of,
    unsplit,
)

MAX_WORLDS = 16
MAX_FIELDS = 256
MAX_RANGE = 10_000_000


@dataclass(frozen=True, slots=True)
class Quoted:
    """Text whose characters mean themselves."""

    text: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a field that is being put together. `quoted` keeps a field alive though it is empty."""

    parts: Parts
    quoted: bool = False


Atom: TypeAlias = str | Quoted | WordPart
Segments: TypeAlias = tuple[Piece, ...]  # A field ends between two of them; none at all is what "$@" gives without one.

_SPECIAL = re.compile(r"[\\~*?\[{]")
_MORE_THAN_A_PATTERN = re.compile(r"[\\~{]")
_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)
_ESCAPE_IN_QUOTES = re.compile(r'\\([$`"\\\n])')
_TILDE = re.compile(r"~([\w.+-]*)(?=/|$)")


def expand(word: Word, shell: Shell) -> list[Field]:
    """The fields that this word becomes; none when it vanishes."""
    parts = word.parts
    if len(parts) == 1 and isinstance(parts[0], Lit) and not _SPECIAL.search(parts[0].value):
        return [Field((parts[0].value,), shell.located(word))]
    span = shell.located(word)
    if len(parts) == 1 and isinstance(parts[0], Lit) and not _MORE_THAN_A_PATTERN.search(parts[0].value):
        return [Field(globbed(parts[0].value), span)]
    found: list[Field] = []
    if braces.count(uncut := _atoms(parts)) > MAX_RANGE:
        shell.find("bomb.fill", "makes more words than memory holds", span)
    for atoms in braces.expanded(uncut):
        only = atoms[0] if len(atoms) == 1 else None
        if isinstance(only, str) and not _SPECIAL.search(only):
            found.append(Field((only,), span))
        else:
            found += _fields(atoms, shell, span)
        if len(found) > MAX_FIELDS:
            return [*found[:MAX_FIELDS], Field((Gap(Source.TOO_LONG, splits=True),), span)]
    if len(found) > 8:
        shell.spend(len(found) // 4)
    return found


def expand_all(words: list[Word], shell: Shell) -> list[Field]:
    return [field for word in words for field in expand(word, shell)]


def count(words: list[Word]) -> int:
    """How many fields the ranges among these words make."""
    return sum(braces.count(_atoms(word.parts)) for word in words)


def value(word: Word | None, shell: Shell) -> tuple[Parts, ...]:
    """What the word is worth where it stays one: in assignments, redirections, `case` and tests."""
    if word is None:
        return ((),)
    if len(word.parts) == 1 and isinstance(word.parts[0], Lit) and not _SPECIAL.search(word.parts[0].value):
        return ((word.parts[0].value,),)
    worlds: list[Parts] = [()]
    for atom in _tilde_at_start(_atoms(word.parts), shell):
        choices = [joined(*(piece.parts for piece in _spaced(segments))) for segments in _segments(atom, shell, True)]
        worlds = [joined(world, choice) for world in worlds for choice in choices]
        if len(worlds) > MAX_WORLDS:
            return ((Gap(Source.PARAMETER),),)
    return tuple(dict.fromkeys(unsplit(world) for world in worlds))


def pattern(word: Word, shell: Shell) -> str | None:
    """The word as a shell pattern, with what is quoted in it escaped; None when it is not known."""
    found: list[str] = []
    for atom in _atoms(word.parts):
        if isinstance(atom, ExtGlob):
            found.append(f"{atom.op}{atom.pattern.value if atom.pattern else ''})")
            continue
        is_literal = isinstance(atom, Quoted | DblQuoted)
        choice = [joined(*(piece.parts for piece in _spaced(segments))) for segments in _segments(atom, shell, True)]
        text = text_of(flat(choice[0])) if len(choice) == 1 else None
        if text is None:
            return None
        found.append(re.sub(r"([*?\[\]\\()|!@+])", r"\\\1", text) if is_literal else text)
    return "".join(found)


def heredoc(word: Word | None, shell: Shell, *, is_quoted: bool) -> Parts:
    """The text of a here-document."""
    if word is None:
        return ()
    if is_quoted:
        return tuple(part.value for part in word.parts if isinstance(part, Lit))
    return joined(*(unsplit(choice) for part in word.parts for choice in _in_quotes(part, shell)[:1]))


def is_quoted_delimiter(word: Word | None) -> bool:
    return word is not None and any(not isinstance(part, Lit) or "\\" in part.value for part in word.parts)


def _atoms(parts: list[WordPart]) -> list[Atom]:
    found: list[Atom] = []
    for part in parts:
        match part:
            case Lit():
                found += _unescaped(part.value)
            case SglQuoted():
                found.append(Quoted(ansi_c.decoded(part.value) if part.dollar else part.value))
            case _:
                found.append(part)
    return found


def _unescaped(text: str) -> Iterator[Atom]:
    """Bare text cut at its backslashes; what they quote comes as quoted text, in runs."""
    position = 0
    quoted = ""
    for match in _ESCAPE.finditer(text):
        if match.start() > position:
            if quoted:
                yield Quoted(quoted)
                quoted = ""
            yield text[position : match.start()]
        if match[1] != "\n":
            quoted += match[1] or "\\"
        position = match.end()
    if quoted:
        yield Quoted(quoted)
    if position < len(text):
        yield text[position:]


def _glued(atoms: list[Atom]) -> list[Atom | Piece]:
    """Runs of text, bare and quoted, as one piece each."""
    found: list[Atom | Piece] = []
    run: list[str | Quoted] = []
    for atom in (*atoms, None):
        if isinstance(atom, str | Quoted):
            run.append(atom)
            continue
        if len(run) > 1:
            parts = joined(*((a.text,) if isinstance(a, Quoted) else globbed(a) for a in run))
            found.append(Piece(parts, any(isinstance(a, Quoted) for a in run)))
        else:
            found += run
        run = []
        if atom is not None:
            found.append(atom)
    return found


def _fields(atoms: list[Atom], shell: Shell, span: Span) -> list[Field]:
    worlds: list[list[Piece]] = [[]]
    opened = False
    for atom in _glued(_tilde_at_start(atoms, shell)):
        choices = [(atom,)] if isinstance(atom, Piece) else _segments(atom, shell, False)
        worlds = [_appended(world, segments, opened) for world in worlds for segments in choices]
        opened = True
        if len(worlds) > MAX_WORLDS:
            return [Field((Gap(Source.PARAMETER, splits=True),), span)]
    kept = [[piece.parts for piece in world if piece.parts or piece.quoted] for world in worlds]
    first = kept[0]
    if len(kept) == 1:
        return [Field(parts, span) for parts in first]
    if all(len(world) == len(first) for world in kept):
        return [
            Field(first[i], span, tuple(dict.fromkeys(world[i] for world in kept[1:] if world[i] != first[i])))
            for i in range(len(first))
        ]
    return [Field(parts, span) for world in kept for parts in world]


def _appended(world: list[Piece], segments: Segments, opened: bool) -> list[Piece]:
    if not segments:
        return world
    if not opened or not world:
        return [*world, *segments]
    last, first = world[-1], segments[0]
    return [*world[:-1], Piece(joined(last.parts, first.parts), last.quoted or first.quoted), *segments[1:]]


def _tilde_at_start(atoms: list[Atom], shell: Shell) -> list[Atom]:
    """`~` and `~name` as home directories, where an unquoted word or the value of an assignment begins with them."""
    if not atoms or not isinstance(atoms[0], str) or not atoms[0].startswith("~"):
        return atoms
    match = _TILDE.match(atoms[0])
    if match is None or (match.end() == len(atoms[0]) and len(atoms) > 1):
        return atoms
    return [Quoted(home_of(match[1], shell.state)), atoms[0][match.end() :], *atoms[1:]]


def home_of(name: str, state: State) -> str:
    if name == "root":
        return "/root"
    if name in ("", "+", "-"):
        variable = {"": "HOME", "+": "PWD", "-": "OLDPWD"}[name]
        found = state.vars.get(variable)
        return (text_of(found.values[0]) if found else None) or state.home
    return f"/home/{name}"


def _segments(atom: Atom, shell: Shell, is_whole: bool) -> list[Segments]:
    """The choices that one atom stands for, each a run of fields."""
    match atom:
        case str():
            return [(Piece((atom,) if is_whole else globbed(atom)),)]
        case Quoted():
            return [(Piece((atom.text,) if atom.text else (), quoted=True),)]
        case DblQuoted():
            return _double_quoted(atom, shell)
        case ParamExp():
            return [
                _split_all(choice, shell.state, is_whole) for choice in parameters.expanded(atom, shell, quoted=False)
            ]
        case ExtGlob():
            return [(Piece((Glob(f"{atom.op}{atom.pattern.value if atom.pattern else ''})"),)),)]
        case Lit() | SglQuoted():
            return [(Piece((atom.value,)),)]
        case _:
            return [_split_all((part,), shell.state, is_whole) for part in _substitution(atom, shell)]


def _substitution(atom: CmdSubst | ArithmExp | ProcSubst, shell: Shell) -> tuple[Parts, ...]:
    match atom:
        case CmdSubst():
            return (shell.captured(atom.stmts),)
        case ArithmExp():
            number = evaluated(atom.x, shell)
            return ((str(number),) if number is not None else (Gap(Source.OUTPUT, Shape.NUMBER),),)
        case _:
            return (shell.substituted(atom),)


def _double_quoted(node: DblQuoted, shell: Shell) -> list[Segments]:
    worlds: list[list[Piece]] = [[Piece((), quoted=True)]]
    for part in node.parts:
        if isinstance(part, ParamExp) and parameters.is_list(part):
            lists = parameters.expanded(part, shell, quoted=True)
            # "$@" alone with nothing in it is no field at all, not an empty one.
            if len(node.parts) == 1 and lists == ((),):
                return [()]
            worlds = [_appended(w, tuple(Piece(p, True) for p in choice), True) for w in worlds for choice in lists]
        else:
            choices = _in_quotes(part, shell)
            worlds = [
                [*world[:-1], Piece(joined(world[-1].parts, unsplit(choice)), quoted=True)]
                for world in worlds
                for choice in choices
            ]
        if len(worlds) > MAX_WORLDS:
            return [(Piece((Gap(Source.PARAMETER),), quoted=True),)]
    return [tuple(world) for world in worlds]


def _in_quotes(part: WordPart, shell: Shell) -> tuple[Parts, ...]:
    match part:
        case Lit():
            text = _ESCAPE_IN_QUOTES.sub(lambda m: "" if m[1] == "\n" else m[1], part.value)
            return ((text,) if text else (),)
        case ParamExp():
            return tuple(joined(*_with_blanks(choice)) for choice in parameters.expanded(part, shell, quoted=True))
        case CmdSubst() | ArithmExp() | ProcSubst():
            return _substitution(part, shell)
        case SglQuoted():
            return ((ansi_c.decoded(part.value) if part.dollar else part.value,),)
        case DblQuoted():
            return tuple(joined(*(p.parts for p in _spaced(s))) for s in _double_quoted(part, shell))
        case _:
            return ((),)


def _with_blanks(items: tuple[Parts, ...]) -> Iterator[Parts]:
    for place, item in enumerate(items):
        if place:
            yield (" ",)
        yield item


def _spaced(segments: Segments) -> Iterator[Piece]:
    for place, piece in enumerate(segments):
        if place:
            yield Piece((" ",))
        yield piece


def _split_all(items: tuple[Parts, ...], state: State, is_whole: bool) -> Segments:
    """An unquoted expansion, split at IFS; its patterns become active."""
    if is_whole:
        return tuple(Piece(item) for item in items) or (Piece(()),)
    pieces = [piece for item in items for piece in _split(item, state.ifs)]
    return tuple(pieces) if pieces else (Piece(()),)


def _split(parts: Parts, ifs: str | None) -> list[Piece]:
    text = text_of(parts)
    if text is not None and ifs is not None:
        # An empty word at an end says that a separator stood there, and so that no neighbour is glued on.
        return [Piece(globbed(word)) for word in islice(split_text(text, ifs, keep_ends=True), MAX_FIELDS)]
    fields: list[list[Part]] = [[]]
    for part in parts:
        if isinstance(part, Gap):
            wide = part.shape is Shape.ANY or part.source in (Source.ALL_PROCESSES, Source.SOME_PROCESSES)
            fields[-1].append(Gap(part.source, part.shape, wide, part.detail))
        elif isinstance(part, Glob):
            fields[-1].append(part)
        else:
            words = list(split_text(part, ifs if ifs is not None else BLANKS, keep_ends=True))
            fields[-1] += globbed(words[0]) if words else ()
            fields += [list(globbed(word)) for word in words[1:]]
    return [Piece(joined(tuple(field))) for field in fields if field]


def split_text(text: str, ifs: str, *, keep_ends: bool = False) -> list[str]:
    """Words of `text` as IFS separates them. `keep_ends`: an empty word at an end says that a separator was there."""
    if not ifs:
        return [text] if text else []
    blanks = "".join(c for c in ifs if c in BLANKS)
    others = "".join(c for c in ifs if c not in BLANKS)
    if not others:
        words = re.split(f"[{re.escape(blanks)}]+", text)
    else:
        around = f"[{re.escape(blanks)}]*" if blanks else ""
        alternatives = f"{around}[{re.escape(others)}]{around}" + (f"|[{re.escape(blanks)}]+" if blanks else "")
        words = re.split(alternatives, text)
    return words if keep_ends else [word for word in words if word]
