"""From words in a script to the words that a command receives."""

from collections.abc import Callable

import pytest

Commands = Callable[[str], list[str]]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("'r''m' -\"rf\" \\/etc", "rm -rf /etc"),
        ("$'\\x72\\155' x", "rm x"),
        ("echo a{b,c}d {1..3} {a..c}", "echo abd acd 1 2 3 a b c"),
        ("echo ~ ~root ~bob/x", "echo /home/ada /root /home/bob/x"),
        ("x=1; echo ${x} ${y:-2} ${y:=3} ${x:+4} $y", "echo 1 2 3 4 3"),
        (
            "x=hello; echo ${x:1:3} ${x#he} ${x%lo} ${x/l/L} ${x//l/L} ${x^^} ${#x}",
            "echo ell llo hel heLlo heLLo HELLO 5",
        ),
        ("x=y; y=z; echo ${!x}", "echo z"),
        ("declare -n r=x; x=1; echo $r", "echo 1"),
        ("a=(1 2 '3 4'); echo \"${a[@]}\" ${a[1]} ${#a[@]}", "echo 1 2 '3 4' 2 3"),
        ("set -- a 'b c'; echo \"$@\" $# $2", "echo a 'b c' 2 b c"),
        ("x='a b'; echo $x \"$x\"", "echo a b 'a b'"),
        ("IFS=,; x=a,b; echo $x", "echo a b"),
        ("rm${IFS}-rf${IFS}x", "rm -rf x"),
        ("echo $((1+2*3)) $((x=5)) $x", "echo 7 5 5"),
        ("echo $(printf 'a\\n\\n')b", "echo ab"),
        ("printf -v x %s-%s a b; echo $x", "echo a-b"),
        ("read a b <<< 'one two three'; echo $b", "echo two three"),
        ("mapfile -t a <<< $'x\\ny'; echo ${a[1]}", "echo y"),
        ("echo *.txt", "echo *.txt"),
        ('echo "$UNSET" $UNSET', "echo ''"),
    ],
)
def test_words_are_expanded_as_bash_expands_them(commands: Commands, script: str, expected: str) -> None:
    assert commands(script)[-1] == expected


def test_a_variable_that_has_one_of_several_values_has_each(commands: Commands) -> None:
    found = commands("if a; then x=1; else x=2; fi; echo $x")

    assert {"echo 1", "echo 2"} <= set(found)


def test_loops_over_known_words_are_unrolled(commands: Commands) -> None:
    assert commands("s=; for c in l s; do s=$s$c; done; $s") == ["ls"]
    assert commands("for ((i=0; i<3; i++)); do echo $i; done") == ["echo 0", "echo 1", "echo 2"]
    printed = commands("printf 'a\\nb\\n' | while read x; do echo $x; done")
    assert [command for command in printed if command.startswith("echo")] == ["echo a", "echo b"]


def test_what_is_not_known_shows_as_an_ellipsis(commands: Commands) -> None:
    assert commands("echo $(date) pre$(hostname)")[-1] == "echo … pre…"


@pytest.mark.parametrize(
    "code",
    ["echo {a,b}" + "{a,b}" * 30, "echo " + "{1..99999}" * 3, "x=a; for i in {1..9999}; do x=$x$x; done"],
)
def test_expansions_that_explode_are_cut(commands: Commands, code: str) -> None:
    assert len(commands(code + "; ls")) < 500
