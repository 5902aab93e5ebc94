"""The operator's patterns."""

import pytest

from server_monitor.settings import split_patterns
from server_monitor.tasks.policy.patterns import BadPattern, compiled


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("a,b", ["a", "b"]),
        (r"x{1,3}y, (a,b) ,[,]", ["x{1,3}y", "(a,b)", "[,]"]),
        (r"a\,b,c", ["a,b", "c"]),
        (r"\d+,\(,\)", [r"\d+", r"\(", r"\)"]),
        (" , ,", []),
        ("", []),
    ],
)
def test_commas_in_brackets_and_behind_backslashes_do_not_separate(text: str, patterns: list[str]) -> None:
    assert split_patterns(text) == patterns


@pytest.mark.parametrize("pattern", ["(", "a{2,1}", "(?<=x)y", r"(a)\1", "[z-a]"])
def test_a_pattern_that_does_not_compile_is_named(pattern: str) -> None:
    with pytest.raises(BadPattern) as caught:
        compiled(["fine", pattern])

    assert caught.value.pattern == pattern


def test_a_pattern_that_explodes_elsewhere_takes_linear_time() -> None:
    assert compiled([r"(a+)+$"]).found_in("a" * 10_000 + "!") is None


def test_a_denied_pattern_is_searched_and_an_allowed_one_must_match_whole() -> None:
    patterns = compiled(["b+"])

    assert patterns.found_in("abba") == ("b+", (1, 3))
    assert not patterns.match_whole("abba")
    assert patterns.match_whole("bb")
