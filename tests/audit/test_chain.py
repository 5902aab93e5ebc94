"""The record format: canonical and bounded."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_monitor.audit import chain
from server_monitor.audit.chain import AuditActor, AuditTarget, Change, Circumstances, Event
from server_monitor.errors import Invalid

ADA = AuditActor("user", "u1", "ada", ("admin",))
WHERE = Circumstances("node", {"via": "web"}, {"id": "r1"})


def record_of(event: Event) -> bytes:
    return chain.draft(event, WHERE, "id5").sealed(5, datetime(2026, 1, 2, 3, 4, 5, 6, UTC), "boot", 7)


def test_a_record_is_its_fields_in_canonical_order() -> None:
    event = Event("server.update", ADA, AuditTarget("server", "s1", 'a"b\n'), change=[Change("/name", "a", "b")])

    record = record_of(event)

    assert record == (
        b'{"action":"server.update","actor":{"id":"u1","name":"ada","roles":["admin"],"type":"user"},'
        b'"change":{"paths":[{"new":"b","old":"a","p":"/name"}]},"id":"id5","node":"node","outcome":"success",'
        b'"phase":"single","request":{"id":"r1"},"seq":5,"source":{"via":"web"},'
        b'"target":{"id":"s1","name":"a\\"b\\n","type":"server"},"ts":"2026-01-02T03:04:05.000006Z",'
        b'"ts_src":{"boot_id":"boot","mono_us":7},"v":1}'
    )


@given(
    st.recursive(st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(), st.lists, max_leaves=20)
)
def test_canonical_bytes_are_stable(value: object) -> None:
    once = chain.canonical({"value": value})

    assert chain.canonical(json.loads(once)) == once


@given(st.dictionaries(st.text(), st.integers(-(2**53) + 1, 2**53 - 1) | st.text(), max_size=5))
def test_canonical_bytes_are_those_of_the_standard_library(value: dict[str, object]) -> None:
    """Whichever encoder makes them."""
    cleaned = {key: chain.clean_text(item) if isinstance(item, str) else item for key, item in value.items()}
    expected = json.dumps(cleaned, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    if all(key.isascii() for key in value):
        assert chain.canonical(value) == expected.encode()
    else:
        with pytest.raises(Invalid):
            chain.canonical(value)


def test_every_ascii_character_has_one_form() -> None:
    text = "".join(map(chr, range(1, 128)))

    encoded = chain.canonical({text: text})

    assert encoded == json.dumps({text: text}, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize("where", ["meta", "change"])
def test_a_fraction_in_an_event_is_refused(where: str) -> None:
    parts = {"meta": {"a": [{"b": 0.5}]}} if where == "meta" else {"change": [Change("/a", None, 0.5)]}

    with pytest.raises(Invalid, match="float"):
        record_of(Event("server.update", ADA, **parts))


@pytest.mark.parametrize("value", [1.5, 2**53, b"bytes", {"é": 1}, {1: 2}, object()])
def test_what_the_format_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(Invalid):
        chain.canonical({"value": value})


def test_lone_surrogates_and_nul_are_replaced() -> None:
    assert chain.clean_text("a\ud800b\0c") == "a\ufffdb\ufffdc"


def test_an_action_outside_the_catalogue_cannot_be_recorded() -> None:
    with pytest.raises(Invalid, match="catalogue"):
        record_of(Event("server.exploded", ADA))


def test_meta_over_64_kib_is_refused() -> None:
    with pytest.raises(Invalid, match="65536"):
        record_of(Event("server.update", ADA, meta={"text": "x" * 70_000}))
