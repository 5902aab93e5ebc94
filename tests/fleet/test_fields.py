"""What the fields of servers and groups may hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_monitor.fleet import fields


@pytest.mark.parametrize(
    "name",
    ["web1", 'it\'s "quoted"', "Büro – Köln", "שרת", "サーバー 1", "a" * 128, "<script>alert(1)</script>", "🖥 desk"],
)
def test_a_name_that_can_be_seen_is_accepted(name: str) -> None:
    assert fields.name_mistake(fields.tidy(name)) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "Give it a name"),
        ("web\n1", "Character 4 is a line break"),
        ("web\x00", "a NUL"),
        ("web\x1b[31m", "U+001B"),
        ("\u202eevil", "right-to-left override"),
        ("a\u200bb", "zero width space"),
        ("a\u00a0b", "no-break space"),
        ("a\u3164b", "hangul filler"),
        ("a\ud800b", "U+D800"),
        ("x" * 129, "At most 128 characters; this has 129"),
        ("x" * 10_240, "At most 128 characters; this has 10240"),
    ],
)
def test_a_name_that_hides_something_is_refused_with_the_reason(name: str, words: str) -> None:
    assert words in str(fields.name_mistake(fields.tidy(name)))


def test_a_text_too_long_for_any_field_is_refused_as_it_is_written() -> None:
    """Composing it would take minutes, and everything else would wait."""
    hostile = "a" + "\u0301" * 250_000 + "\u0316" * 250_000

    assert "this has 500001" in str(fields.description_mistake(fields.tidy(hostile)))


def test_names_that_look_equal_are_equal_when_tidied() -> None:
    assert fields.tidy("  Cafe\u0301\t") == fields.tidy("Caf\u00e9") == "Café"


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("Web1.Example.COM.", "web1.example.com"),
        ("10.0.0.1", "10.0.0.1"),
        ("[2001:0DB8:0::1]", "2001:db8::1"),
        ("2001:db8:0:0:0:0:0:1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("node_1", "node_1"),
        (" xn--bcher-kva.example ", "xn--bcher-kva.example"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
    ],
)
def test_a_host_is_stored_in_one_form(written: str, stored: str) -> None:
    assert fields.tidy_host(written) == stored
    assert fields.host_mistake(stored) is None


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("", "Give the host"),
        ("local", "console's own machine"),
        ("300.1.1.1", "not an IPv4 address"),
        ("1.2.3", "not an IPv4 address"),
        ("2001:db8::1::2", "not an IPv6 address"),
        ("web1:2222", "a port goes into its own field"),
        ("-oProxyCommand=id", "neither a DNS name"),
        ("web 1", "neither a DNS name"),
        ("web\n1", "neither a DNS name"),
        ("fe80::1%a\nb", "not an IPv6 address"),
        ("bücher.example", "xn-- form"),
        ("a" * 64 + ".example", "neither a DNS name"),
        ("a." * 200 + "example", "at most 253 characters"),
        ("web..example", "neither a DNS name"),
        ("user@web1", "neither a DNS name"),
    ],
)
def test_what_is_no_host_is_refused_with_the_reason(host: str, words: str) -> None:
    assert words in str(fields.host_mistake(fields.tidy_host(host)))


@pytest.mark.parametrize("username", ["root", "deploy-2", "svc.monitor", "ad\\ada", "ada@corp.example", "_apt", "x$"])
def test_account_names_of_all_directories_are_accepted(username: str) -> None:
    assert fields.username_mistake(username) is None


@pytest.mark.parametrize("username", ["", "-l", "a b", "a\n", "a;id", "$(id)", "x" * 65, "é"])
def test_what_could_be_an_option_or_a_command_is_no_account_name(username: str) -> None:
    assert fields.username_mistake(username)


@pytest.mark.parametrize("port", [0, -1, 65536, 10**12])
def test_a_port_is_from_1_to_65535(port: int) -> None:
    assert "1 to 65535" in str(fields.port_mistake(port))
    assert fields.port_mistake(22) is None


def test_labels_have_bounds() -> None:
    assert list(fields.label_mistakes({"env": "live", "team/name": "", "a": "x" * 256})) == []
    assert "At most 64 labels" in next(iter(fields.label_mistakes({f"l{n}": "" for n in range(65)})))
    for name in ("", "a b", "-a", "a=b", "x" * 65, "a\n", "é"):
        assert "will not do" in next(iter(fields.label_mistakes({name: "v"}))), name
    assert "At most 256" in next(iter(fields.label_mistakes({"a": "x" * 257})))
    assert "line break" in next(iter(fields.label_mistakes({"a": "1\n2"})))


def test_every_mistake_of_a_server_is_listed() -> None:
    found = fields.server_mistakes(name="", host="-x", port=0, username="", labels={"": ""}, capability="fly", line=7)
    assert [mistake.field for mistake in found] == ["name", "host", "port", "username", "capability", "labels"]
    assert {mistake.line for mistake in found} == {7}


@given(st.text())
def test_no_text_makes_the_checks_fail(text: str) -> None:
    """Tidying twice changes nothing more, and what is quoted in a sentence can always be seen."""
    tidied = fields.tidy_host(text)
    assert fields.tidy_host(tidied) == tidied or fields.host_mistake(tidied)
    for check in (fields.name_mistake, fields.host_mistake, fields.username_mistake, fields.description_mistake):
        check(fields.tidy(text))
    shown = fields.quoted(text)
    shown.encode()
    assert "\n" not in shown
    assert "\u202e" not in shown


@given(st.text(min_size=1))
def test_a_host_that_is_accepted_is_plain(text: str) -> None:
    """Whatever passes holds nothing that a shell, a terminal or a log line would take for something else."""
    host = fields.tidy_host(text)
    if fields.host_mistake(host) is None:
        assert host.isascii()
        assert host.isprintable()
        assert not set(host) & set(" '\"\\$;|&<>()`*?[]{}/@")
        assert not host.startswith("-")
