"""The first look at a command: characters that a shell and a reader see differently, and sizes."""

import pytest

from server_monitor.tasks.policy import gate


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
