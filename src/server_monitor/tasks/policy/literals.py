"""Text that is one literal to every parser, however long: what stands in single quotes or a here-document.

It is left out where a command is measured. Whoever could make code look like such text could make a small measure of
a large command, so this scan gives up at the first thing that it would have to understand, and the rest is measured.
"""

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
    (?P<escape>\\.)
    | (?P<unclear>` | \(\( | \$\[ | =~ | [@?*+!]\()
    | (?P<single>(?<!\$)'[^']*')
    | (?P<ansi>\$'(?:[^'\\]|\\.)*')
    | (?P<double>"(?:[^"\\$`]|\\.|\$\w|\$[?!@*$-]|\$\{\w+\}|\$\([^()"'`\\#<$]+\)|\$\(\([^()"'`\\]+\)\))*")
    | (?P<parameter>\$\{\#?[^}'"`\\$\#<(\n]*\})
    | (?P<here_string><<<)
    | (?P<document><<-?[ \t]*(?:(?P<quote>['"])(?P<quoted>\w+)(?P=quote)|(?P<bare>\w+))(?=[\s;|&<>)]))
    | (?P<comment>(?<![\w$./:,=@%+-])\#[^\n]*)
    | (?P<newline>\n)
    | (?P<closes>\))
    | (?P<other>\$\{ | << | ['"])
    """,
    re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class _Document:
    delimiter: str
    is_quoted: bool
    is_indented: bool


def without_literals(text: str) -> str:
    """The text with nothing in its single quotes and its here-documents, as far as these are sure to be such."""
    kept: list[str] = []
    waiting: list[_Document] = []
    position = done = 0
    while (match := _TOKEN.search(text, position)) is not None and _is_clear(match, text, is_waiting=bool(waiting)):
        position = match.end()
        if match["single"] is not None:
            kept += [text[done : match.start()], "''"]
            done = position
        elif match["document"] is not None:
            waiting.append(_document(match))
            kept += [text[done : match.start()], "<<", waiting[-1].delimiter]
            done = position
        elif match["newline"] is not None:
            for document in waiting:
                end = _end(document, text, position)
                if end is None:
                    return "".join([*kept, text[done:]])
                body = text[position:end]
                is_literal = document.is_quoted or not re.search(r"[$`\\]", body)
                kept += [text[done:position], "" if is_literal else body]
                done = end
                position = text.find("\n", end) + 1 or len(text)
            waiting.clear()
    return "".join([*kept, text[done:]])


def _is_clear(match: re.Match[str], text: str, *, is_waiting: bool) -> bool:
    """Does every shell read this the same way, and this scan too?"""
    if match["unclear"] is not None or match["other"] is not None:
        return False
    before = text[max(0, match.start() - 2) : match.start()]
    if match["escape"] is not None and match[0] == "\\\n":  # It may join what stands on both sides of it.
        return not is_waiting and before[-1:] in (" ", "\t") and text[match.end() : match.end() + 1] in (" ", "\t")
    if match["comment"] is not None:
        return before == "" or (before[-1:] in (" ", "\t", "\n", ";") and before[:1] != "\\")
    # Where the body of a here-document begins, when its line ends within something else, is told differently.
    return not is_waiting or match["newline"] is not None or (match["closes"] is None and "\n" not in match[0])


def _document(match: re.Match[str]) -> _Document:
    is_indented = match["document"].startswith("<<-")
    return _Document(match["quoted"] or match["bare"], match["quoted"] is not None, is_indented)


def _end(document: _Document, text: str, start: int) -> int | None:
    """Where the line that ends it begins; None where that is not sure."""
    line = re.compile(rf"^[ \t]*{document.delimiter}\b.*$", re.MULTILINE).search(text, start)
    if line is None:
        return None
    found = line[0].lstrip("\t") if document.is_indented else line[0]
    return line.start() if found == document.delimiter else None
