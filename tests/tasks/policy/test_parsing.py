"""Which texts every dialect of the shell reads alike, and that those are parsed once."""

import json
from pathlib import Path

import pytest

from server_monitor.tasks.policy.decide import RuleSet, decide
from server_monitor.tasks.policy.parsing import Dialect, NotParsed, reads_alike
from server_monitor.tasks.policy.tree import File
from server_monitor.tasks.policy.verdict import Context, Ruling
from server_monitor.tasks.shell_parser import ShellParser

CORPUS = Path(__file__).parent / "corpus"
COMMANDS = [
    json.loads(line)["cmd"]
    for name in ("everyday", "dangerous")
    for line in (CORPUS / f"{name}.jsonl").read_text().splitlines()
]
# Each is a line that the dialects read differently, or that only one of them has.
OTHERWISE = [
    *(
        "((rm -rf /etc))",
        "a &> b",
        "a >& b",
        "a |& b",
        "a & b",
        "a;& b",
        "$'x'",
        '$"x"',
        "\"$'x'\"",
        "echo $((1))",
        "$[1]",
    ),
    *("a=(b)", "a+=b", "a[1]=b", "[[ a ]]", "[ a ]", "let a=1", "declare a=b", "export a=b", "local a", "readonly a"),
    *("cat <(a)", "cat >(a)", "cat <<< a", "cat <<E\na\nE", "exec {fd}>a", "a <> b", "a >| b", "echo {a,b}", "@(a)"),
    *("f() { a; }", "function f { a; }", "select i in a; do b; done", "time a", "coproc a", "{ a; }", "(a)", "! a"),
    *(
        "${a:-b}",
        "${!a}",
        '"${a^^}"',
        "`a`",
        "$(a)",
        '"$(a)"',
        "# a",
        "a \\\n b",
        "a\\ b",
        '"$((1))"',
        "\u00e4",
        "'a",
        '"a',
    ),
]


class Asked:
    """The parser, and what it was asked."""

    def __init__(self) -> None:
        self.parser = ShellParser()
        self.texts: list[tuple[str, Dialect]] = []

    def parse(self, text: str, dialect: Dialect) -> File:
        self.texts.append((text, dialect))
        return self.parser.parse(text, dialect)


def read(text: str, dialect: Dialect) -> File | type[NotParsed]:
    try:
        return ShellParser().parse(text, dialect)
    except NotParsed as failure:
        return type(failure)


@pytest.mark.parametrize("part", range(8))
def test_what_is_read_alike_makes_the_same_tree(part: int) -> None:
    alike = [command for command in COMMANDS if reads_alike(command)][part::40]

    assert alike
    assert [text for text in alike if read(text, "posix") != read(text, "bash")] == []


@pytest.mark.parametrize("text", OTHERWISE)
def test_what_one_dialect_may_read_otherwise_is_not_taken_for_alike(text: str) -> None:
    assert not reads_alike(text)
    assert not reads_alike(f"ls; {text}")


def test_most_everyday_commands_are_read_alike() -> None:
    assert sum(map(reads_alike, COMMANDS)) > 0.75 * len(COMMANDS)


def test_a_task_for_sh_is_parsed_once_where_that_is_enough() -> None:
    asked = Asked()

    decide("systemctl restart nginx && echo 'done' > /tmp/x", Context(shell="sh"), RuleSet(), asked.parse)

    assert len(asked.texts) == 1


def test_a_task_for_sh_is_read_by_both_where_they_differ() -> None:
    asked = Asked()

    verdict = decide("((rm -rf /etc))", Context(shell="sh"), RuleSet(), asked.parse)

    assert [dialect for _, dialect in asked.texts][:2] == ["posix", "bash"]
    assert verdict.ruling is Ruling.DENY
