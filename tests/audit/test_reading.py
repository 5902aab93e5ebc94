"""A record has one form, and both verifiers agree on it for whatever bytes they are given."""

import json
import string
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server_monitor.audit import chain, reading, standalone
from server_monitor.errors import Invalid

RECORD: dict[str, Any] = {
    "action": "server.create",
    "actor": {"id": "u1", "name": "ada", "roles": ["admin"], "type": "user"},
    "change": {"paths": [{"new": 22, "old": None, "p": "port"}]},
    "id": "r1",
    "meta": {"n": 1},
    "node": "n1",
    "outcome": "success",
    "phase": "single",
    "request": {"id": "q1", "method": "POST", "route": "/api/servers"},
    "seq": 7,
    "source": {"ip": "192.0.2.1", "port": 5000, "ua": "curl", "via": "api"},
    "target": {"group_ids": ["g1"], "id": "s1", "name": "web01", "type": "server"},
    "ts": "2026-11-23T10:00:00.000000Z",
    "ts_src": {"boot_id": "b1", "mono_us": 123},
    "v": 1,
}


def encoded(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")


def judged(body: bytes) -> bool:
    """Is it a record? Both verifiers, and the long way of ours, say the same."""
    ours = reading.read(body)
    value = reading._value(body)
    long_way = None if value is None else reading._any(value)
    theirs = standalone.read_record(body)
    assert ours == long_way
    assert (ours is not None) == (theirs is not None and type(theirs.get("seq")) is int and theirs["seq"] >= 0)
    return ours is not None


def test_a_record_is_read() -> None:
    assert judged(encoded(RECORD))
    assert reading.read(encoded(RECORD)) == (
        7,
        ("r1", RECORD["ts"], "server.create", "u1", "ada", "server", "s1", "success", "192.0.2.1", "q1"),
        0,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"meta": {"é": 1}},
        {"meta": {"x": 1.0}},
        {"meta": {"x": 2**53}},
        {"meta": {"x": 10**30}},
        {"meta": {"x": "e\u0301"}},
        {"meta": {"x": "\0"}},
        {"meta": {"x": "\ud800"}},
        {"v": True},
        {"v": 2},
        {"v": 1.0},
        {"seq": -1},
        {"seq": True},
        {"seq": "7"},
        {"seq": 2**53},
        {"ts": "2026-11-23T10:00:00Z"},
        {"ts": "2026-11-23T10:00:00.000000Z\n"},
        {"ts": None},
        {"phase": "other"},
        {"phase": []},
        {"actor": "ada"},
        {"actor": {}},
        {"actor": {"name": None, "type": "user"}},
        {"actor": {"name": ["a"], "type": "user"}},
        {"target": []},
        {"target": {"id": 5, "type": "server"}},
        {"outcome": 0},
        {"action": None},
        {"id": {}},
    ],
)
def test_what_differs_from_the_form_is_no_record(change: dict[str, Any]) -> None:
    assert not judged(encoded(RECORD | change))


@pytest.mark.parametrize(
    "change",
    [
        {"meta": {"x": 'é 漢 \U0001f600 \x7f \u2028 \u0007 \\ " / <'}},
        {"meta": {"x": -(2**53) + 1, "y": 2**53 - 1}},
        {"meta": {"x": [{"y": [None, True, False, {}]}, []]}},
        {"a_field_of_tomorrow": {"x": 1}},
        {"actor": {"id": None, "name": "ada", "type": "user"}},
        {"outcome": None},
        {"meta": {"x": "\n\u0303"}},
    ],
)
def test_what_the_form_allows_is_a_record(change: dict[str, Any]) -> None:
    assert judged(encoded(RECORD | change))


@pytest.mark.parametrize("name", ["source", "request", "target", "meta", "change", "reason"])
def test_parts_may_be_absent(name: str) -> None:
    assert judged(encoded({key: value for key, value in RECORD.items() if key != name}))


@pytest.mark.parametrize("name", ["action", "actor", "id", "outcome", "phase", "seq", "ts", "v"])
def test_what_every_record_has_may_not_be_absent(name: str) -> None:
    assert not judged(encoded({key: value for key, value in RECORD.items() if key != name}))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        encoded(RECORD) + b" ",
        encoded(RECORD).replace(b'"n":1', b'"n":-0'),
        encoded(RECORD).replace(b'"n":1', b'"n":1,"n":1'),
        encoded(RECORD).replace(b'"n":1', b'"n":NaN'),
        encoded(RECORD).replace(b"ada", b"\\u0061da"),
        encoded(RECORD).replace(b"/api", b"\\/api"),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"v":' + b"9" * 100_000 + b"}",
        orjson.dumps(dict(reversed(RECORD.items()))),
    ],
)
def test_other_bytes_are_no_record(body: bytes) -> None:
    assert not judged(body)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(string.ascii_letters, max_size=5), values, max_size=4))
def test_everybody_agrees_on_what_is_canonical(meta: dict[str, Any]) -> None:
    body = encoded(RECORD | {"meta": meta})
    try:
        is_canonical = chain.canonical(RECORD | {"meta": meta}) == body
    except Invalid:
        is_canonical = False

    assert judged(body) == is_canonical


@given(st.sampled_from(sorted(RECORD)), values)
def test_no_value_anywhere_makes_a_verifier_fail(name: str, value: Any) -> None:
    judged(encoded(RECORD | {name: value}))


@given(st.binary(max_size=60), st.integers(0, len(encoded(RECORD))))
@settings(max_examples=500)
@example(b"\xed\xa0\x80", 20)
def test_no_bytes_anywhere_make_a_verifier_fail(noise: bytes, position: int) -> None:
    body = encoded(RECORD)
    judged(noise)
    judged(body[:position] + noise + body[position + len(noise) :])
