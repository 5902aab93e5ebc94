"""Whatever the text is, there is a verdict, in bounded time, and no failure of ours is behind it."""

import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server_monitor.tasks.judge import Judge
from server_monitor.tasks.policy.verdict import Context, Ruling

PIECES = st.sampled_from(
    [
        *(
            "rm",
            "-rf",
            "/etc",
            "ls",
            "echo",
            "$",
            "(",
            ")",
            "{",
            "}",
            "[[",
            "]]",
            ";",
            "&",
            "&&",
            "||",
            "|",
            ">",
            ">>",
            "<",
        ),
        *(
            "<<",
            "<<<",
            "'",
            '"',
            "\\",
            "`",
            "$(",
            "${",
            "$((",
            "))",
            "}x",
            "*",
            "?",
            "~",
            "#",
            "=",
            "x=1",
            "a[1]=",
            "if",
        ),
        *(
            "x=1",
            "a[1]=",
            "if",
            "then",
            "fi",
            "for",
            "do",
            "done",
            "while",
            "case",
            "esac",
            "in",
            "function",
            "f()",
            "!",
            "time",
            "coproc",
        ),
        *("eval", "sh", "-c", "bash", "sudo", "xargs", "find", "-exec", "{}", "\n", "\t", "1", "2>&1", "$'\\x41'"),
        *("${x:-y}", "${x//a/b}", "${!x}", '"$@"', "$1", "python3", "awk", "perl", "'import os'", "base64", "-d"),
        *("/dev/sda", "\u00e9", "\u202e"),
    ]
)


@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pieces=st.lists(PIECES, max_size=25), glue=st.sampled_from([" ", ""]))
def test_pieces_of_shell_get_a_verdict(judge: Judge, pieces: list[str], glue: str) -> None:
    verdict = judge.judge_now(glue.join(pieces), Context())

    assert not any(finding.rule.startswith("engine.") for finding in verdict.findings), verdict.findings


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(max_size=200))
def test_any_text_gets_a_verdict(judge: Judge, text: str) -> None:
    verdict = judge.judge_now(text, Context())

    assert not any(finding.rule.startswith("engine.") for finding in verdict.findings), verdict.findings


WORST = {
    "words": "a " * 5000,
    "substitutions": "$(" * 5000,
    "closed substitutions": "$(" * 3333 + ")" * 3333,
    "commands": "a;" * 5000,
    "pipes": "a|" * 4999 + "a",
    "and": "a&&" * 3333 + "a",
    "quotes": "'\"" * 5000,
    "backslashes": "\\" * 10_000,
    "braces": "echo " + "{a,b}" * 1999,
    "ranges": "echo " + "{1..99}" * 1400,
    "one word": "a" * 10_000,
    "loops": "for i in {1..99}; do " * 8 + "rm $i" + "; done" * 8,
    "growing": "x=a;" + "x=$x$x;" * 1000,
    "functions": "f(){ f;f;f;f; };" * 500 + "f",
    "payloads": "sh -c 'a | b';" * 700,
    "nested payloads": "eval " * 1999 + "ls",
    "here-documents": "cat <<E\nx\nE\n" * 800,
    "globs": "rm -rf " + "/*" * 4990,
    "base64": "echo " + "QUFB" * 2400 + " | base64 -d | sh",
    "arithmetic": "echo $((" + "1+" * 4990 + "1))",
    "parameters": "echo " + "${x:-" * 1990,
    "cases": "case x in " + "a) b;; " * 1400 + "esac",
    "python": "python3 -c '" + "(" * 9000 + "'",
    "regular": "echo " + "x" * 4000 + " | sed 's/" + "x" * 4000 + "/y/'",
}


# Each of these stands in front of itself as often as fits.
NESTED = (
    *("sudo", "xargs", "eval", "command", "builtin eval", "env", "env -i", "env -u", "exec", "nohup", "sh -c", "su -c"),
    *("watch", "parallel", "ssh h", "flock l", "chroot /", "busybox", "find -exec", "timeout 5", "ip netns exec x"),
    *(
        "docker exec w",
        "sudo eval",
        "eval sudo",
        "eval '$x'",
        "eval $x",
        "trap",
        "perf record --",
        "sg g",
        "git bisect run",
    ),
)
WORST |= {f"{wrapper} in itself": f"{wrapper} " * 890 + "rm -rf /etc" for wrapper in NESTED}
WORST |= {
    "a hundred evals": "eval " * 100 + "rm -rf /etc",
    "scripts that differ": "; ".join(f"sh -c 'a | b{number}'" for number in range(400)),
    "options": "env " + "-i " * 3300,
    "options that run something": "git " + "--exec=a " * 448,
    "expansions": "echo " + "$a" * 448,
    "forms": "echo " + "${a:1:2} " * 224,
    "sums": "echo " + "$((1+2+3+4+5+6+7+8)) " * 44,
    "assignments": "a=b;" * 299,
    "patterns that differ": "rm -rf " + " ".join(f"/e*{number}" for number in range(897)),
    "sources": "cp " + "a " * 898,
    "writes": "tee " + "/etc/x " * 898,
    "text in many commands": "x=" + "a" * 4000 + "; " + "echo $x; " * 600,
}
# Function calls of the engine, which count its work whatever the machine does meanwhile.
MAX_WORK = 400_000


def work(judge: Judge, command: str, context: Context) -> int:
    """How many functions are called to judge a command, the parser's process apart."""
    count = 0

    def counted(_frame: object, event: str, _arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        judge.judge_now(command, context)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("name", WORST)
def test_the_work_on_ten_thousand_characters_is_bounded(judge: Judge, name: str) -> None:
    text = WORST[name][:10_000]

    assert work(judge, text, Context(shell="sh")) < MAX_WORK


@pytest.mark.parametrize("wrapper", NESTED)
def test_twice_as_many_wrappers_are_not_four_times_the_work(judge: Judge, wrapper: str) -> None:
    half, whole = (work(judge, f"{wrapper} " * count + "rm -rf /etc", Context()) for count in (400, 800))

    assert whole < 3 * half


@pytest.mark.parametrize("name", WORST)
def test_the_worst_ten_thousand_characters_are_judged(judge: Judge, name: str) -> None:
    """How fast is measured by bench/policy.py; here it must only not be a matter of seconds."""
    text = WORST[name][:10_000]
    begin = time.process_time()
    verdict = judge.judge_now(text, Context())

    assert not any(finding.rule.startswith("engine.error") for finding in verdict.findings), verdict.findings
    assert time.process_time() - begin < 5
    assert verdict.ruling in Ruling
