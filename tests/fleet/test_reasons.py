"""Every reason code has a sentence and a remedy that name what they are about."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from server_monitor.fleet import reasons
from server_monitor.fleet.reasons import REASONS, About, explain

WEB1 = About("web1", "10.0.0.1", 2222, "deploy", "key", public_key="ssh-ed25519 AAAAC3 web1", jump_name="gate")
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "reasons.md"
CODES = [
    "dns_failed",
    "connect_refused",
    "connect_timeout",
    "network_unreachable",
    "banner_timeout",
    "not_ssh",
    "host_key_unknown",
    "host_key_changed",
    "auth_failed",
    "credential_missing",
    "jump_failed",
    "connection_lost",
    "weak_algorithms",
    "channel_refused",
    "no_awk",
    "no_proc",
    "probe_failed",
    "flood",
    "clock_skew",
    "disk_full",
    "slow",
    "protocol_error",
    "disabled",
    "internal",
]


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_explained_in_whole_sentences(code: str) -> None:
    told = explain(code, WEB1)
    assert told.code == code
    assert told.sentence.endswith(".")
    assert "{" not in told.sentence + told.remedy
    assert len(told.sentence) < 200
    assert told.remedy


def test_there_is_no_code_beside_those() -> None:
    assert set(REASONS) == set(CODES)


def test_a_refused_key_comes_with_the_line_to_put_on_the_host() -> None:
    told = explain("auth_failed", WEB1)
    assert "deploy" in told.sentence
    assert "~deploy/.ssh/authorized_keys" in told.remedy
    assert told.remedy.endswith("ssh-ed25519 AAAAC3 web1")
    assert "line is" not in explain("auth_failed", replace(WEB1, public_key=None)).remedy


@pytest.mark.parametrize(
    ("auth", "words"), [("agent", "ssh-add -L"), ("password", "PasswordAuthentication"), ("local", "account")]
)
def test_a_refused_login_is_explained_by_how_it_was_tried(auth: str, words: str) -> None:
    assert words in explain("auth_failed", replace(WEB1, auth=auth)).remedy


def test_a_failed_jump_names_the_jump_server() -> None:
    assert "gate" in explain("jump_failed", WEB1).sentence


def test_an_ipv6_address_is_bracketed_before_its_port() -> None:
    assert "[2001:db8::1]:2222" in explain("connect_refused", replace(WEB1, host="2001:db8::1")).sentence


def test_braces_in_a_name_are_only_text() -> None:
    assert "{host}" in explain("slow", replace(WEB1, name="{host}")).sentence


def test_a_code_of_a_later_version_still_gets_a_sentence() -> None:
    assert explain("eaten_by_bear", WEB1).sentence == explain("internal", WEB1).sentence


def test_the_page_lists_each_code_with_its_sentence() -> None:
    """docs/reference/reasons.md is made by hand; its table holds the words of the program."""
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", PAGE.read_text(), flags=re.MULTILINE))
    placeholders = {
        "name": "NAME",
        "host": "HOST",
        "port": "PORT",
        "user": "USER",
        "where": "HOST:PORT",
        "jump": "JUMP",
    }
    assert rows == {code: sentence.format(**placeholders, key="") for code, (sentence, _) in reasons.REASONS.items()}
