"""Secrets in what a command prints, however the stream is cut."""

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server_monitor.tasks.secrets import Mask

SECRETS = st.lists(st.text("ab", min_size=1, max_size=6).map(str.encode), min_size=1, max_size=4)
CHUNKS = st.lists(st.text("abc", max_size=8).map(str.encode), max_size=6)


def fed(secrets: Sequence[bytes], chunks: Sequence[bytes]) -> bytes:
    mask = Mask(secrets)
    return b"".join(map(mask.feed, chunks)) + mask.rest()


def masked(secrets: Sequence[bytes], whole: bytes) -> bytes:
    """Every byte that lies in some secret, looked for at every place."""
    inside = {
        at + offset
        for secret in secrets
        for at in range(len(whole))
        if whole.startswith(secret, at)
        for offset in range(len(secret))
    }
    return bytes(ord("*") if at in inside else byte for at, byte in enumerate(whole))


@pytest.mark.parametrize(
    ("secrets", "whole"),
    [
        ((b"pass", b"password123"), b"pw=password123 and pass\n"),
        ((b"password123", b"pass"), b"pw=passw0rd password12\n"),
        ((b"xxpass", b"password123"), b"xxpassword123 xxpasszzz\n"),
        ((b"aaaa",), b"aaaaaaa baaab aaaa"),
    ],
)
def test_no_cut_of_a_stream_shows_a_byte_of_a_secret(secrets: Sequence[bytes], whole: bytes) -> None:
    for one in range(len(whole) + 1):
        for two in range(one, len(whole) + 1):
            assert fed(secrets, [whole[:one], whole[one:two], whole[two:]]) == masked(secrets, whole)


@given(SECRETS, CHUNKS)
@example([b"ab", b"abba"], [b"ab", b"ba"])
def test_a_byte_is_masked_exactly_when_it_lies_in_a_secret(secrets: Sequence[bytes], chunks: Sequence[bytes]) -> None:
    assert fed(secrets, chunks) == masked(secrets, b"".join(chunks))


def test_what_can_be_no_beginning_of_a_secret_is_not_held_back() -> None:
    mask = Mask([b"hunter2"])

    assert mask.feed(b"nothing to hide\n") == b"nothing to hide\n"
    assert mask.feed(b"the hunt") == b"the "
    assert mask.held == b"hunt"
