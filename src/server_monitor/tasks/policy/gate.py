"""The first look at a command: characters and sizes, before any parser sees it.

A parser and a shell that read a character differently are a way around every rule, and a small text can make a large
tree. Both are settled here, on the bare text.
"""

import re
from dataclasses import dataclass

from server_monitor.tasks.policy.literals import without_literals

MAX_CHARACTERS = 10_000
MAX_NESTING = 8
# The same without regard to quotes, which a here-document can make this scan misread.
MAX_ROUGH_NESTING = 20
MAX_SIZE = 900
MAX_OPERATORS = 100
MAX_ROUGH_OPERATORS = 400
MAX_TERMS = 60
MAX_ODD_BLANKS = 20
MAX_MARKS = 1_200

_CONTROL = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and line feed, DEL, C1
    "\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # zero-width, bidi, separators
    "\U000e0000-\U000e007f"
    "\ud800-\udfff"  # half a surrogate pair: not valid UTF-8
    "]"
)
_ODD_BLANKS = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_INTERESTING = re.compile(r"""\\.|&&|\|\||['"`(){}|&;\n]|\$\(|\$'""", re.DOTALL)
_SINGLE_QUOTED = re.compile(r"[^']*'")
_DOLLAR_QUOTED = re.compile(r"(?:[^'\\]|\\.)*'", re.DOTALL)
_QUOTED_HEREDOC = re.compile(r"(?<=[^<]<<)-?[ \t]*(['\"])(\w+)\1[^\n]*\n.*?^\t*\2$", re.DOTALL | re.MULTILINE)
_SUMS = re.compile(r"\(\((?:[^)]|\)(?!\)))*|\$\[[^]]*|\blet\b[^;&|\n]*|\w\[[^]\s]*")
_FORMS = re.compile(r"\$\{[^}\s]*")
_FORM_OPERATORS = re.compile(r"[-+/%^,:=?#@\[]+")
# In quotes or a here-document such a line is no comment, but without expansions it costs no more there.
_COMMENT = re.compile(r"(?<!\\\n)^[ \t]*#[^$`\n]*$", re.MULTILINE)
_WORDS = re.compile(r"[^\s;&|<>]+")
_STATEMENTS = re.compile(r"&&?|[;\n|<>]")
_OPENS = re.compile(r"\b(?:if|while|until|for|case|select)\b|[({[]")
_OPENS_OR_CLOSES = re.compile(r"\b(?:if|while|until|for|case|select|fi|done|esac)\b|[][(){}]")
_PREFIXES = re.compile(r"\b(?:time|coproc|function)\b|\(\s*\)")
_TERMS = re.compile(r"\(\([^()]*|\$\[[^]]*|(?<![\w$])[\w$]+(?:[-+*/%^&|<>=,?:]+[\w$]+){60,}")
_TERM_OPERATORS = re.compile(r"[-+*/%^&|<>=,?:~!]+")


@dataclass(frozen=True, slots=True)
class Stopped:
    """The text goes no further: the rule, a sentence, and the bytes that are meant."""

    rule: str
    why: str
    span: tuple[int, int]


def stopped(text: str) -> Stopped | None:
    """What keeps this text from being analysed at all; None when nothing does. Line ends are already LF alone."""
    if not text.strip():
        return Stopped("lexical.empty", "there is no command", (0, 0))
    if len(text) > MAX_CHARACTERS:
        return Stopped("lexical.length", f"is longer than {MAX_CHARACTERS:,} characters", (0, 0))
    return _odd_character(text) or _too_complex(text)


def _odd_character(text: str) -> Stopped | None:
    if match := _CONTROL.search(text):
        code = ord(match[0])
        rule = "lexical.encoding" if 0xD800 <= code <= 0xDFFF else "lexical.control_character"
        why = f"holds the invisible or control character U+{code:04X}, which a shell and a reader see differently"
        return Stopped(rule, why, _bytes_of(text, match))
    for count, match in enumerate(_ODD_BLANKS.finditer(text)):
        # Each look at the quotes reads the text from its start, so that only a few are looked at.
        if count >= MAX_ODD_BLANKS or not _is_quoted(text, match.start()):
            why = f"holds U+{ord(match[0]):04X}, which looks like a blank and is none to a shell"
            return Stopped("lexical.odd_blank", why, _bytes_of(text, match))
    return None


def _bytes_of(text: str, match: re.Match[str]) -> tuple[int, int]:
    start = len(text[: match.start()].encode(errors="surrogatepass"))
    return start, start + len(match[0].encode(errors="surrogatepass"))


def _too_complex(text: str) -> Stopped | None:
    whole = (0, len(text.encode()))
    size = _size(_QUOTED_HEREDOC.sub("", without_literals(text)))
    # Nothing is expanded in the body of a here-document whose delimiter is quoted, and it is one word.
    text = _QUOTED_HEREDOC.sub("", text)
    if size > MAX_SIZE:
        return Stopped("opaque.limit", f"has more than about {MAX_SIZE:,} words and operators", whole)
    depth, operators, marks, _ = _scanned(text)
    if marks > MAX_MARKS:
        return Stopped("opaque.limit", f"has more than {MAX_MARKS:,} quotes and brackets", whole)
    if depth > MAX_NESTING or _rough_nesting(text) > MAX_ROUGH_NESTING:
        return Stopped("opaque.limit", f"is nested deeper than {MAX_NESTING} levels", whole)
    if operators > MAX_OPERATORS or text.count("|") + text.count("&&") > MAX_ROUGH_OPERATORS:
        return Stopped("opaque.limit", f"joins more than {MAX_OPERATORS} commands in one go", whole)
    if len(_PREFIXES.findall(text)) > MAX_TERMS or any(
        len(_TERM_OPERATORS.findall(match[0])) > MAX_TERMS for match in _TERMS.finditer(text)
    ):
        return Stopped("opaque.limit", "holds an expression too long to be judged", whole)
    return None


def _size(text: str) -> int:
    """About how much the parser would write of it, in words: of each it writes 650 bytes."""
    text = _COMMENT.sub("", text)
    size = len(_WORDS.findall(text)) + len(_STATEMENTS.findall(text)) + sum(text.count(mark) for mark in "$=(`")
    sums = sum(len(_TERM_OPERATORS.findall(match[0])) for match in _SUMS.finditer(text))
    forms = sum(len(_FORM_OPERATORS.findall(match[0])) for match in _FORMS.finditer(text))
    return size + text.count('"') // 2 + text.count("'") // 4 + 2 * sums + forms


def _rough_nesting(text: str) -> int:
    deepest = depth = 0
    for match in _OPENS_OR_CLOSES.finditer(text):
        depth = depth + 1 if _OPENS.fullmatch(match[0]) else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest


def _is_quoted(text: str, place: int) -> bool:
    return _scanned(text[:place])[3]


def _scanned(text: str) -> tuple[int, int, int, bool]:
    """How deep substitutions nest, how many commands are joined, how many marks there are; does it end in quotes?"""
    stack: list[str] = []
    deepest = operators = run = marks = position = 0
    while deepest <= MAX_NESTING and (match := _INTERESTING.search(text, position)):
        position = match.end()
        mark = match[0]
        marks += 1
        top = stack[-1] if stack else ""
        if mark in {"'", "$'"}:
            if top == '"':
                continue
            ended = (_SINGLE_QUOTED if mark == "'" else _DOLLAR_QUOTED).match(text, position)
            if ended is None:
                return deepest, operators, marks, True
            position = ended.end()
        elif mark in ("|", "&", "&&", "||"):
            run += top != '"'
            operators = max(operators, run)
        elif mark in ";\n":
            run, marks = 0, marks - 1
        else:
            _step(stack, mark, top)
            deepest = max(deepest, len(stack) - stack.count('"'))
    return deepest, operators, marks, '"' in stack


def _step(stack: list[str], mark: str, top: str) -> None:
    if mark == top and mark in '"`':
        stack.pop()
    elif mark in '"`' or mark == "$(" or (mark in "({" and top != '"'):
        stack.append(mark)
    elif (mark == ")" and top in ("$(", "(")) or (mark == "}" and top == "{"):
        stack.pop()
