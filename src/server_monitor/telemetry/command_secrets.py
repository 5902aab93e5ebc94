"""Where secrets stand in the text of a shell command: in assignments, in options, and where certain programs want them.

Pure and quick rather than exact: words are split as a shell would, what stands in quotes is looked at as a text of its
own, and nothing is evaluated. A text that is no command goes through it as well and comes out as it was.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from server_monitor.telemetry import secret_programs
from server_monitor.telemetry.secret_names import names_a_secret, word_set
from server_monitor.telemetry.secret_shapes import Span
from server_monitor.telemetry.secret_values import Word, says_nothing, value_in, whole

DEPTH_MAX: Final = 4  # of quotes in quotes

_TOKEN: Final = re.compile(
    r"""
      (?P<word>(?: '[^']*+' | "(?:[^"\\]|\\.)*+" | \\. | [^\s;&|()<>`'"\\] | ['"\\] )++)
    | (?P<here><<<)
    | (?P<end>[;&|()`\n]++)
    | [<>]++ | \s
    """,
    re.VERBOSE | re.DOTALL,
)
_QUOTED: Final = re.compile(r"""'(?P<single>[^']*+)'|"(?P<double>(?:[^"\\]|\\.)*+)"|\\.""", re.DOTALL)
_QUOTES: Final = re.compile(r"""['"\\]""")
_IS_MANY: Final = re.compile(r"""[\s=:;&|'"\\]""")
# `NAME=value`, `--name=value`, `Name:value`, `-Dname=value`; also inside a word, behind one of these marks.
_NAMED: Final = re.compile(
    r"""(?:^(?P<quote>["']?)-{0,2}|(?<=(?P<mark>[,;&?=/|\#^])))"""
    r"""(?P<name>[A-Za-z_][\w.\[\]-]{0,127})(?:\+?=|(?P<colon>:))"""
)
_OPTION: Final = re.compile(r"--?([A-Za-z][\w.-]{1,127})")
_TO_MARK: Final = re.compile(r"""[^,;&"'\s]*+""")
_TO_DIVIDER: Final = re.compile(r"""[^/|#"'\s]*+""")  # of what `sed` puts in the place of something else
# After these a word in quotes is one value, even when it holds spaces.
_TAKES_PAIR: Final = word_set(
    "-e --env --build-arg --set --set-string --from-literal -v --variable -var --var -d --data --data-raw "
    "--data-urlencode -F --form -o --option -D export env declare local typeset readonly setenv"
)
_RUNS_TEXT: Final = word_set(
    "bash sh dash zsh ksh ash ssh su eval watch xargs parallel docker podman kubectl timeout at python python3 perl "
    "ruby node psql awk sudo"
)
_SCHEMES: Final = word_set("basic bearer token digest apikey api-key negotiate key")
_REST: Final = re.compile(rf"[ \t]*+(?:(?:{'|'.join(sorted(_SCHEMES))})[ \t]++)?(?P<value>[^\n]*+)", re.IGNORECASE)
_SETS_NAMED: Final = frozenset({"set", "config", "configure", "config:set", "nmcli"})
_ACCOUNTS: Final = re.compile(r"^([a-z_][\w.-]{0,31}):(?P<value>\S+)$", re.MULTILINE)


@dataclass(slots=True)
class _Command:
    words: list[Word] = field(default_factory=list)
    here: list[Word] = field(default_factory=list)  # what stands behind <<<
    end: str = ""  # the operator behind it


def spans(text: str) -> Iterator[Span]:
    """Where secrets stand in the text, in no order; they may overlap."""
    yield from _in_text(text, 0, 0)
    if "chpasswd" in text:
        for found in _ACCOUNTS.finditer(text):
            yield found.span("value")


def _in_text(text: str, base: int, depth: int) -> Iterator[Span]:
    before = _Command()
    for command in _commands(text, base):
        bare = [word.bare for word in command.words]
        yield from _named(command.words)
        yield from secret_programs.spans(command.words, bare)
        if secret_programs.reads_secret(bare):
            yield from secret_programs.printed(before.words if before.end == "|" else (), command.here)
        if depth < DEPTH_MAX:
            yield from _in_quotes(command.words, bare, depth)
        before = command


def _commands(text: str, base: int) -> Iterator[_Command]:
    command, is_here = _Command(), False
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind == "word":
            raw = token[0]
            word = Word(base + token.start(), raw, _QUOTES.sub("", raw))
            (command.here if is_here else command.words).append(word)
            is_here = False
        elif kind == "here":
            is_here = True
        elif kind == "end" or token[0] == "\n":
            command.end = token[0]
            yield command
            command, is_here = _Command(), False
    yield command


# --- names with values ------------------------------------------------------------------------------------------------


def _named(words: Sequence[Word]) -> Iterator[Span]:
    for index, word in enumerate(words):
        following = words[index + 1] if index + 1 < len(words) else None
        option = _OPTION.fullmatch(word.bare)
        if option is not None:
            if names_a_secret(option[1]) and following is not None and not following.bare.startswith("-"):
                yield from whole(following)
        elif following is not None and _is_setting(words, index):
            yield from whole(following)
        elif "=" in word.text or ":" in word.text:
            yield from _pairs(words, index)


def _is_setting(words: Sequence[Word], index: int) -> bool:
    """`aws configure set aws_secret_access_key …`: a name behind which its value is a word of its own."""
    before = words[max(0, index - 6) : index]
    if not any(word.bare.lower() in _SETS_NAMED for word in before):
        return False
    return "=" not in words[index].bare and names_a_secret(words[index].bare.rpartition(":")[2])


def _pairs(words: Sequence[Word], index: int) -> Iterator[Span]:
    word = words[index]
    for found in _NAMED.finditer(word.text):
        at = found.end()
        if found["name"] == "from-literal":
            at = word.text.find("=", at) + 1 or at
        elif not names_a_secret(found["name"]):
            continue
        if found["quote"]:  # All of it stands in quotes, which are looked at by themselves.
            return
        if found["mark"] is None:
            if found["colon"] and at == len(word.text):
                yield from _behind_colon(words, index)
            yield from value_in(word, at, len(word.text))
            return
        rest = (_TO_DIVIDER if found["mark"] in "/|#^" else _TO_MARK).match(word.text, at)
        assert rest is not None
        yield from value_in(word, at, rest.end())


def _behind_colon(words: Sequence[Word], index: int) -> Iterator[Span]:
    """`password: x`, and `Authorization: Bearer x`."""
    values = list(words[index + 1 : index + 3])
    if len(values) == 2 and values[0].bare.lower() in _SCHEMES:
        yield from whole(values[1])
    elif values:
        yield from whole(values[0])


# --- quotes -----------------------------------------------------------------------------------------------------------


def _in_quotes(words: Sequence[Word], bare: Sequence[str], depth: int) -> Iterator[Span]:
    runs_text = any(one.rpartition("/")[2] in _RUNS_TEXT for one in bare)
    for index, word in enumerate(words):
        if "'" not in word.text and '"' not in word.text:
            continue
        takes_pair = index > 0 and bare[index - 1] in _TAKES_PAIR
        for found in _QUOTED.finditer(word.text):
            group = found.lastgroup
            if group is None or not _IS_MANY.search(found[group]):
                continue
            inner, start = found[group], word.start + found.start(group)
            if (pair := _NAMED.match(inner)) and names_a_secret(pair["name"]) and not pair["quote"]:
                is_header = pair["colon"] is not None
                if is_header or takes_pair or not runs_text:
                    yield from _line(inner, pair.end(), start)
                    continue
            yield from _in_text(inner, start, depth + 1)


def _line(text: str, at: int, base: int) -> Iterator[Span]:
    """The rest of the line: there may be spaces in a value that stands in quotes with its name."""
    found = _REST.match(text, at)
    assert found is not None
    if found["value"] and not says_nothing(found["value"].strip("\"'\\ ")):
        yield base + found.start("value"), base + found.end("value")
