"""Rows and items: what a spreadsheet, a terminal or a parser makes of hostile values."""

import csv
import hashlib
import io
import json
import shutil
import subprocess
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from server_monitor.audit import cells, chain, tree
from server_monitor.audit.chain import AuditActor, AuditTarget, Circumstances, Event

SIGNS = "=+-@\t\r\n＝＋－＠"
LEADS = ("", " ", "  ", "\t", "\n", "\r\n", '"', "'", ' "', '"\n ', "\u00a0", "\u3000", "\u200b", "\ufeff", "“", "＂")
DANGEROUS = [f"{lead}{sign}1+1" for lead in LEADS for sign in SIGNS]
TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def body(name: str = "ada", *, agent: str = "curl/8.5", meta: dict[str, Any] | None = None, target: str = "t") -> bytes:
    event = Event("server.update", AuditActor("user", "u", name), AuditTarget("server", target), meta=meta or {})
    source = {"via": "web", "ip": "192.0.2.7", "port": 1, "ua": agent}
    made = chain.draft(event, Circumstances("node", source, {"id": "req-1"}), "id")
    return made.sealed(7, datetime(2026, 11, 23, tzinfo=UTC), "boot", 1)


def row(stored: bytes) -> dict[str, str]:
    """The one row, as a CSV reader reads it."""
    text = (cells.CSV_HEADER + cells.csv_rows([(7, stored)])).decode()
    assert text.count("\r\n") == text.count("\n") == text.count("\r") == 2, "no cell starts a new line"
    (read,) = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    assert set(read) == set(cells.COLUMNS)
    return read


def test_a_harmless_record_is_written_as_it_is() -> None:
    stored = body(meta={"number": 1, "labels": {"env": "prod"}})

    assert row(stored) == {
        "seq": "7",
        "time": "2026-11-23T00:00:00.000000Z",
        "user_id": "u",
        "username": "ada",
        "action": "server.update",
        "target_type": "server",
        "target_id": "t",
        "outcome": "success",
        "ip": "192.0.2.7",
        "user_agent": "curl/8.5",
        "request_id": "req-1",
        "meta_json": '{"labels":{"env":"prod"},"number":1}',
        "hash": tree.leaf_hash(stored).hex(),
    }


@pytest.mark.parametrize("text", DANGEROUS)
@pytest.mark.parametrize("column", ["username", "user_agent", "target_id"])
def test_no_cell_begins_a_formula(column: str, text: str) -> None:
    argument = {"username": "name", "user_agent": "agent", "target_id": "target"}[column]

    cell = row(body(**{argument: text}))[column]

    assert cell.startswith("'")
    assert "Cc" not in map(unicodedata.category, cell)


@pytest.mark.parametrize("text", ["a=1", "x-y", "me@home", "1+1", "(=1)", "", "a b", "a, b", 'say "x"', "don't"])
def test_what_is_no_formula_is_left_alone(text: str) -> None:
    assert row(body(text))["username"] == text


@pytest.mark.parametrize("column", ["username", "target_id", "user_agent"])
def test_a_comma_ends_no_cell(column: str) -> None:
    """Or one could move what stands after it into other columns."""
    argument = {"username": "name", "user_agent": "agent", "target_id": "target"}[column]

    read = row(body(**{argument: "a,b"}))

    assert (read[column], read["ip"], read["request_id"]) == ("a,b", "192.0.2.7", "req-1")


def test_white_space_between_the_tokens_of_a_forged_meta_starts_no_line() -> None:
    forged = body(meta={"a": "b"}).replace(b'{"a":"b"}', b'{"a":\r\n"b"}')

    assert json.loads(row(forged)["meta_json"].replace("\\u000d\\u000a", "")) == {"a": "b"}


def test_a_number_is_not_guarded() -> None:
    """`seq` is a number by its type, not free text."""
    assert cells.csv_rows([(-1, body())]).startswith(b"-1,")


def every_class() -> list[str]:
    """Up to 40 characters of each of the general categories of Unicode."""
    found: dict[str, list[str]] = {}
    for code in [*range(0x3000), *range(0xD7F0, 0xE010), *range(0xFE00, 0x10000), *range(0x10000, 0x110000, 97)]:
        found.setdefault(unicodedata.category(chr(code)), []).append(chr(code))
    found["Cf"] += [chr(code) for code in range(0xE0000, 0xE0080)]
    return [character for characters in found.values() for character in characters[:: max(1, len(characters) // 40)]]


def test_every_class_of_character_survives_in_json_and_is_tame_in_csv() -> None:
    classes = set()
    for character in every_class():
        classes.add(unicodedata.category(character))
        text = f"a{character}b"
        stored = body(text, agent=text, meta={"text": text})
        kept = chain.clean_text(text)

        (item,) = json.loads(b"[" + cells.json_items([(7, stored)]) + b"]")
        read = row(stored)

        assert (item["username"], item["meta_json"]) == (kept, {"text": kept})
        assert json.loads(read["meta_json"]) == {"text": kept}
        for cell in (read["username"], read["user_agent"]):
            assert cell == "".join(shown(c) for c in kept)
    assert len(classes) >= 28


def shown(character: str) -> str:
    is_unseen = unicodedata.category(character) in {"Cc", "Zl", "Zp"} or character == "\ufeff"
    turns_direction = unicodedata.bidirectional(character) in {
        "LRE",
        "RLE",
        "LRO",
        "RLO",
        "PDF",
        "LRI",
        "RLI",
        "FSI",
        "PDI",
    }
    is_mark = character in "\u061c\u200e\u200f"
    return f"\\u{ord(character):04x}" if is_unseen or turns_direction or is_mark else character


def test_json_cannot_drive_a_terminal_either() -> None:
    encoded = cells.json_items([(7, body("a\u202eb\x9b31m\x7f"))])

    assert json.loads(encoded)["username"] == "a\u202eb\x9b31m\x7f"
    assert encoded.decode().isprintable()


@pytest.mark.parametrize("filler", ["x", "é", "😀", '"'])
def test_a_long_meta_is_cut_into_valid_json(filler: str) -> None:
    """Exactly 1,000 characters are kept; one more, and an object stands for it."""
    unit = len(json.dumps(filler, ensure_ascii=False)) - 2
    count, rest = divmod(1000 - len('{"t":""}'), unit)
    fits = {"t": filler * count + "y" * rest}
    over = {"t": filler * count + "y" * (rest + 1)}
    whole = chain.canonical(over)

    kept = row(body(meta=fits))["meta_json"]
    cut = json.loads(row(body(meta=over))["meta_json"])
    (item,) = json.loads(b"[" + cells.json_items([(7, body(meta=over))]) + b"]")

    assert len(kept) == 1000
    assert json.loads(kept) == fits
    assert cut == item["meta_json"]
    assert cut == {
        "truncated": True,
        "original_length": 1001,
        "sha256": hashlib.sha256(whole).hexdigest(),
        "preview": whole.decode()[:1000],
    }


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"null",
        b"{}",
        b"[1]",
        b"\xff\xfe",
        b'{"action":',
        body().replace(b'"ada"', b"5"),
        body().replace(b'"ada"', b'"\xff"'),
        body(meta={"a": "b"}).replace(b'"b"', b'"\xff"'),
        body().replace(b'"ada"', b'"\\ud800"'),
    ],
)
def test_what_is_no_record_leaves_a_row_that_says_so(stored: bytes) -> None:
    """Only tampering makes such bodies. The rest of the log still comes out."""
    read = row(stored)
    (item,) = json.loads(b"[" + cells.json_items([(7, stored)]) + b"]")

    assert read["hash"] == item["hash"] == tree.leaf_hash(stored).hex()
    assert json.loads(read["meta_json"]) == item["meta_json"] == {"unreadable": True}


def test_a_forged_action_is_guarded_like_any_text() -> None:
    forged = body().replace(b'"server.update"', b'"=cmd()"').replace(b'"success"', b'"+1"')

    read = row(forged)

    assert (read["action"], read["outcome"]) == ("'=cmd()", "'+1")


def test_jsonl_is_the_bytes_that_were_hashed() -> None:
    first, second = body("ada"), body("é\u202e")

    assert cells.json_lines([(0, first), (1, second)]) == first + b"\n" + second + b"\n"


@pytest.mark.skipif(shutil.which("soffice") is None, reason="LibreOffice is not installed")
def test_libreoffice_finds_no_formula(tmp_path: Path) -> None:
    source = tmp_path / "export.csv"
    source.write_bytes(cells.CSV_HEADER + cells.csv_rows([(seq, body(text)) for seq, text in enumerate(DANGEROUS)]))

    subprocess.run(
        ["soffice", "--headless", "--convert-to", "fods", "--outdir", tmp_path, source], check=True, timeout=120
    )

    assert "table:formula" not in (tmp_path / "export.fods").read_text()


@pytest.mark.parametrize("body", ["text", 7, None, b"\x00ff", b'{"action":\n1}', b"[]"])
def test_what_is_no_record_is_a_line_that_says_so(body: object) -> None:
    """In every form, and whoever writes them is told which it is."""
    told: list[int] = []

    [line, end] = cells.json_lines([(7, body)], told.append).split(b"\n")
    cells.csv_rows([(7, body)], told.append)
    cells.json_items([(7, body)], told.append)

    said = json.loads(line)
    assert (said["seq"], said["unreadable"], len(said["hash"]), end) == (7, True, 64, b"")
    assert told == [7, 7, 7]
