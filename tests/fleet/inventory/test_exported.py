"""Servers out of our own export."""

import json

import pytest

from server_monitor.fleet.inventory import exported

WEB1 = {
    "name": "web1",
    "host": "10.0.0.1",
    "port": 2222,
    "username": "deploy",
    "auth": "key",
    "key_fingerprint": "SHA256:abc",
    "jump": "gate",
    "labels": {"env": "live"},
    "groups": ["web"],
    "capability": "observe",
}


@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: {"servers": one}, lambda one: {"items": one}])
def test_a_list_is_read_bare_or_in_an_object(wrap) -> None:  # type: ignore[no-untyped-def]
    parsed = exported.parse(json.dumps(wrap([WEB1, {"host": "10.0.0.2"}]), indent=2))
    assert parsed.errors == ()
    web1, other = parsed.entries
    assert (web1.name, web1.host, web1.port, web1.auth, web1.key_fingerprint) == (
        "web1",
        "10.0.0.1",
        2222,
        "key",
        "SHA256:abc",
    )
    assert (web1.jump, web1.labels, web1.groups) == ("gate", {"env": "live"}, ("web",))
    assert (other.name, other.auth, other.username) == ("10.0.0.2", "agent", None)


def test_every_wrong_field_is_named_with_the_line_of_its_server() -> None:
    wrong = '{"name": 7, "port": "22", "labels": [], "groups": "web", "x": 1, "auth": "magic"}'
    text = f'{{"servers": [\n{{"name": "a"}},\n\n{wrong},\n3\n]}}'
    parsed = exported.parse(text)
    assert {(error.line, error.field) for error in parsed.errors} == {
        (4, "name"),
        (4, "port"),
        (4, "labels"),
        (4, "groups"),
        (4, "x"),
        (4, "auth"),
        (5, "text"),
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[\n{,}\n]", 2),
        ('[{"name": "a"}\n{"name": "b"}]', 1),
        ('[{"name": "a"}', 1),
        ('{"servers": [{"name": "a"}]} more', 1),
        ('{"hosts": []}', 1),
        ("[]", 1),
        ('"web1"', 1),
        ('[{"name": "a", "port": ' + "9" * 5_000 + "}]", 1),
        ("[" * 100_000, 1),
    ],
)
def test_what_is_no_list_of_servers_is_refused_with_a_line(text: str, line: int) -> None:
    errors = exported.parse(text).errors
    assert errors
    assert errors[0].line == line
