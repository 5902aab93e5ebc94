"""The published test vectors of docs/reference/recording-format.md hold, for our code and for what the page says."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from server_monitor.terminal import casting, recording
from server_monitor.terminal.casting import zstd
from server_monitor.terminal.chain import Check, Logged, Verdict
from server_monitor.terminal.keys import Keyring

VECTORS = Path(__file__).resolve().parents[2] / "docs" / "reference" / "recording-vectors"
FILE = VECTORS / "session.rec"
SAID: dict[str, Any] = json.loads((VECTORS / "session.json").read_text())
SESSION: str = SAID["session"]
KEYRING = Keyring(SecretStr(SAID["encryption_key"]))


def test_our_code_reads_the_vectors() -> None:
    parts = list(recording.read(FILE, KEYRING, SESSION))
    assert [(part.stand.from_us, part.stand.cols, part.stand.rows) for part in parts] == [
        (chunk["from_us"], chunk["cols"], chunk["rows"]) for chunk in SAID["chunks"]
    ]
    events = [event for part in parts for event in part.events]
    output = b"".join(event.data for event in events if event.code == "o")
    assert output == base64.b64decode(SAID["output"])
    for form in casting.FORMATS:
        opening = recording.opening_of(FILE, KEYRING, SESSION)
        assert b"".join(casting.exported(form, opening, events)).decode() == SAID[form]


def test_our_code_verifies_the_vectors() -> None:
    heads = [bytes.fromhex(head) for head in SAID["heads"]]
    logged = [Logged(number, head, is_last=number == len(heads) - 1) for number, head in enumerate(heads)]
    check = Check(SESSION, logged, is_over=True)
    recording.check(FILE, KEYRING, check)
    assert check.verdict is Verdict.INTACT


def test_a_reader_written_from_the_page_alone_reads_the_same() -> None:
    """Nothing of ours but zstd: the page says all that somebody else needs."""
    line, _, rest = FILE.read_bytes().partition(b"\n")
    header = json.loads(line)
    key = _unwrapped(base64.b64decode(header["key"]), header["key_id"])
    head = hashlib.sha256(line + b"\n").digest()
    heads, output, number = [head.hex()], b"", 0
    while rest:
        length = int.from_bytes(rest[:4], "big")
        sealed, rest = rest[4 : 4 + length], rest[4 + length :]
        number += 1
        _, *lines = zstd.decompress(AESGCM(key).decrypt(sealed[:12], sealed[12:], head)).split(b"\n")
        for _interval, code, data in map(json.loads, lines):
            output += {"o": data.encode(), "b": base64.b64decode(data) if code == "b" else b""}.get(code, b"")
        head = hashlib.sha256(head + number.to_bytes(8, "big") + sealed).digest()
        heads.append(head.hex())
    assert heads == SAID["heads"]
    assert output == base64.b64decode(SAID["output"])
    assert key == base64.b64decode(SAID["recording_key"])


def _unwrapped(wrapped: bytes, key_id: str) -> bytes:
    def derived(info: bytes, length: int) -> bytes:
        hkdf = HKDF(algorithm=SHA256(), length=length, salt=None, info=info)
        return hkdf.derive(SAID["encryption_key"].encode())

    assert derived(b"server-monitor recordings key id", 8).hex() == key_id
    parts = (b"terminal_sessions", SESSION.encode(), b"recording", b"\1")
    place = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    outer = AESGCM(derived(b"server-monitor recordings", 32))
    data_key = outer.decrypt(wrapped[1:13], wrapped[13:61], place + key_id.encode())
    return AESGCM(data_key).decrypt(wrapped[61:73], wrapped[73:], place)


@pytest.mark.parametrize("form", casting.FORMATS)
def test_an_export_is_text(form: str) -> None:
    assert SAID[form].endswith("\n")
