"""Which format a text is in; and that no text whatever gets past the parsers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_monitor.fleet.inventory.formats import Format, detect, read
from server_monitor.fleet.inventory.plan import plan


@pytest.mark.parametrize(
    ("text", "format_"),
    [
        ("Host web1\n  HostName 10.0.0.1\n", Format.SSH_CONFIG),
        ("# mine\n\nUser me\nHost=web1\n", Format.SSH_CONFIG),
        ("Include conf.d/*\n", Format.SSH_CONFIG),
        ("[web]\nweb1\n", Format.ANSIBLE_INI),
        ("mail.example.com\n\n[web]\nweb1\n", Format.ANSIBLE_INI),
        ("web1\nweb2\n", Format.ANSIBLE_INI),
        ("web1 ansible_host=10.0.0.1\n", Format.ANSIBLE_INI),
        ("[web:children]\na\n", Format.ANSIBLE_INI),
        ("---\nall:\n  hosts:\n", Format.ANSIBLE_YAML),
        ("all:\n  hosts:\n", Format.ANSIBLE_YAML),
        ("web: {hosts: {a: }}\n", Format.ANSIBLE_YAML),
        ("name,host\nweb1,10.0.0.1\n", Format.CSV),
        ("\ufeffname;host\nweb1;10.0.0.1\n", Format.CSV),
        ("host\n10.0.0.1\n", Format.CSV),
        ('{"servers": []}', Format.JSON),
        ('[{"name": "a"}]', Format.JSON),
        ('[\n  {"name": "a"}\n]', Format.JSON),
        ("[]", Format.JSON),
    ],
)
def test_the_format_is_found_by_looking(text: str, format_: Format) -> None:
    assert detect(text) is format_


def test_an_empty_text_says_so() -> None:
    for format_ in Format:
        assert read(" \n\t\n", format_).errors[0].message == "The text is empty."


# Pieces that mean something in one format or another, so that the search gets past the first character.
WORDS = """
Host HostName ProxyJump ProxyCommand Match Include * ! = " ' \\ # [web] [a:vars] [a:children] w[1:3] [ ] : { } - &a *a
? | > !!x all: hosts: children: vars: ansible_host= ansible_user name,host , ; null {"servers":[ {"name":"a"}
"port":1e999 999999999999999999999999999999
"""
UNSEEN = ["\n", "\r\n", "\t", "  ", "\0", "\ud800", "\u2028", "\u202e", "\ufeff", "ssh -W %h:%p a"]
PIECES = st.sampled_from([*WORDS.split(), *(word + " " for word in WORDS.split()), *UNSEEN])
TEXTS = st.one_of(st.text(), st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=40).map("".join))


@given(TEXTS, st.sampled_from(Format))
def test_no_text_makes_a_parser_fail(text: str, format_: Format) -> None:
    """Every text is servers, or a list of mistakes that can be shown; every line that is named exists."""
    detect(text)
    parsed = read(text, format_)
    found = plan(parsed, {}, "me")
    lines = text.count("\n") + 1
    assert parsed.entries or parsed.skipped or parsed.errors
    assert not (found.create and found.errors)
    for error in found.errors:
        error.message.encode()
        error.field.encode()
        assert error.line is None or 1 <= error.line <= lines
    for skipped in found.skipped:
        (skipped.name + skipped.why).encode()
