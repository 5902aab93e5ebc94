"""The first look at a command: characters that a shell and a reader see differently, and sizes."""

import subprocess
from bisect import bisect_left

import pytest

from server_monitor.tasks.policy import gate
from server_monitor.tasks.shell_parser import found_program


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "lexical.empty"),
        (" \n\t", "lexical.empty"),
        ("ls\0", "lexical.control_character"),
        ("ls\r; rm x", "lexical.control_character"),
        ("ls \x1b[2J", "lexical.control_character"),
        ("ls \x9b", "lexical.control_character"),
        ("rm \u202e fdsa", "lexical.control_character"),
        ("r\u200bm x", "lexical.control_character"),
        ("ls \u2028 rm", "lexical.control_character"),
        ("ls \udcff", "lexical.encoding"),
        ("rm\u00a0x", "lexical.odd_blank"),
        ("x" * 10_001, "lexical.length"),
        ("$(" * 9 + ")" * 9, "opaque.limit"),
        ("a|" * 200 + "a", "opaque.limit"),
        ("a " * 2000, "opaque.limit"),
        ("echo $((" + "1+" * 100 + "1))", "opaque.limit"),
        ("if a; then " * 30, "opaque.limit"),
    ],
)
def test_what_cannot_be_judged_goes_no_further(text: str, rule: str) -> None:
    stopped = gate.stopped(text)

    assert stopped is not None
    assert stopped.rule == rule


@pytest.mark.parametrize(
    "text",
    [
        "ls -la\n\techo x",
        "echo 'no\u00a0break'",
        "echo \u00fcber \u2713",
        "x" * 10_000,
        "echo $(a $(b $(c `d`)))",
        "for i in 1 2; do if a; then b; fi; done",
        "cat <<'E'\n" + "don't worry about ( or { here\n" * 15 + "E",
    ],
)
def test_ordinary_text_passes(text: str) -> None:
    assert gate.stopped(text) is None


def test_the_span_counts_bytes_of_utf8() -> None:
    stopped = gate.stopped("echo \u00fc\u200b")

    assert stopped is not None
    assert stopped.span == (7, 10)


# Each is repeated until the gate stops it: of every construct of the language one that the parser says much about.
DENSE = [
    *(
        "a;",
        "a\n",
        "a|b;",
        "a&&b;",
        "a& ",
        "! a; ",
        "a ",
        "\\a ",
        "~/a ",
        "a\\\n",
        "'a' ",
        '"a" ',
        "''",
        '""',
        "$'a'",
        "'a b c' ",
        "'\n' ",
        "'<&>' ",
        "'a'\"b\"",
    ),
    *("$a", "$a ", "$$ ", '"$a" ', "${#a}", "${a:-b} ", "${a/b/c} ", "${a:1:2} ", "${a[1]} ", "${a:-${b:-c}} ", "a$"),
    *("$(a) ", "`a` ", "<(a) ", "$((1+1)) ", "$((1+2+3+4+5+6+7+8)) ", "$[1+1+1+1] ", "((a=1));", "let 1+1+1+1+1;"),
    *(
        "a=b ",
        "a=b;",
        "a+=b ",
        "a[1]=b ",
        "a[b+c+d+e]=f ",
        "${a[b+c+d+e+f]} ",
        "a=(b c); ",
        "x=$((a+b)) ",
        "declare a=b c=d;",
    ),
    *(
        "a >b <c 2>d; ",
        "a 2>&1;",
        "a<<<b;",
        "cat <<E\nx\nE\n",
        "cat <<E\na=b c\nE\n",
        "cat <<'E'\na b\nE\n",
        "cat <<E\n$a $b\nE\n",
        "(a); ",
        "{ a; }; ",
        "f(){ a; }; ",
        "coproc a; ",
        "time a; ",
    ),
    *(
        "if a; then b; fi; ",
        "case a in b) c;; esac; ",
        "for i in a; do b; done; ",
        "while a; do b; done; ",
        "[[ a = b ]]; ",
    ),
    *("for ((i=0;i<1;i++)); do a; done; ", "(( a+b+c ? d : e ));", "@(a) ", "[ a ];", "# a b\n"),
    "systemctl restart app-1 && echo done > /tmp/x\n",
]


@pytest.mark.parametrize("unit", DENSE)
def test_what_passes_makes_the_parser_write_less_than_a_megabyte(unit: str) -> None:
    """What a verdict costs at most is what the parser writes at most."""
    start = "" if unit.endswith((";", "; ", "\n", "& ")) else "e "
    counts = range(1, (gate.MAX_CHARACTERS - len(start)) // len(unit) + 1)
    passing = bisect_left(counts, True, key=lambda count: gate.stopped(start + unit * count) is not None)
    text = start + unit * passing

    written = subprocess.run(
        [found_program() or "", "-ln", "bash", "--to-json"], check=True, input=text.encode(), capture_output=True
    )

    assert len(written.stdout) < 750_000


def test_a_long_script_of_everyday_lines_passes() -> None:
    line = "systemctl restart app-{0} && echo done > /var/tmp/app-{0}.state\n"

    assert gate.stopped("".join(line.format(number) for number in range(80))) is None


def test_comments_take_no_room() -> None:
    assert gate.stopped("# What this does, and why it has to.\nsystemctl restart app\n" * 160) is None
    assert gate.stopped("a \\\n# b c d e f\n" * 400) is not None


@pytest.mark.parametrize(
    "text",
    [
        "echo '" + "word " * 950 + "'",
        "cat > app.env <<EOF\n" + "".join(f"KEY_{number}=value\n" for number in range(310)) + "EOF",
        "cat > app.env <<-'EOF'\n" + "".join(f"\tKEY_{number}=$x\n" for number in range(310)) + "\tEOF",
        "awk '\n" + "".join(f'$1 == "{n}" {{ sum += $2; print $1 }}\n' for n in range(150)) + "' access.log",
        "# It doesn't matter.\ncd /srv && echo \"it's $HOME\" \\\n  '" + "word " * 950 + "'",
    ],
)
def test_what_is_one_literal_to_a_shell_is_one_word(text: str) -> None:
    assert gate.stopped(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "# don't\n{0}\n# can't",
        "a\\\n#'\n{0}\n'",
        'echo "\'" ; {0} ; echo "\'"',
        "echo \\' ; {0} ; echo \\'",
        "echo $'\\'' ; {0} ; echo \\'",
        'echo "$(echo "\'")" ; {0} ; echo "\'"',
        'echo "${{x:-\'}}" ; {0} ; echo "\'"',
        'echo `echo "\'"` ; {0} ; echo "\'"',
        'echo "<<E"\n{0}\nE',
        "echo $((1 <<E))\n{0}\nE",
        "# <<E\n{0}\nE",
        "cat <<<E\n{0}\nE",
        "cat <<E\nE\n{0}\nE",
        "cat <<-E\n\tE\n{0}\nE",
        "cat <<E\n'\nE\n{0}\n'",
        "cat <<E\n$({0})\nE",
        "cat <<E\n`{0}`\nE",
    ],
)
def test_code_that_looks_like_a_literal_counts(text: str) -> None:
    assert gate.stopped(text.format("a " * 1_000)) is not None
