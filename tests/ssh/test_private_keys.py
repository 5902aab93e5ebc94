import base64
import subprocess
from pathlib import Path

import pytest

from server_monitor.errors import Invalid
from server_monitor.ssh.private_keys import MOST_KDF_ROUNDS, kdf_rounds, parse_stored_key, read_private_key
from tests.support.patience import PATIENCE_S
from tests.support.sshd import make_key


def generated(path: Path, *arguments: str, passphrase: str = "") -> str:
    subprocess.run(
        ["ssh-keygen", "-q", "-N", passphrase, "-f", str(path), *arguments], check=True, capture_output=True, timeout=60
    )
    return path.read_text()


def mistake_in(text: str, passphrase: str | None = None) -> tuple[str, str]:
    with pytest.raises(Invalid) as invalid:
        read_private_key(text, passphrase)
    [error] = invalid.value.errors
    return error.field, error.message


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-256", "ecdsa-384", "ecdsa-521", "rsa"])
def test_keys_of_every_accepted_type_are_read(tmp_path: Path, kind: str) -> None:
    path = make_key(tmp_path / "key", kind)

    key = read_private_key(path.read_text())

    public = path.with_suffix(".pub").read_text().split()
    printed = subprocess.run(
        ["ssh-keygen", "-lf", str(path)], check=True, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert key.public_key == " ".join(public[:2])
    assert key.key_type == public[0]
    assert key.fingerprint == printed.stdout.split()[1]
    assert parse_stored_key(key.text).get_fingerprint() == key.fingerprint


@pytest.mark.parametrize("form", ["RFC4716", "PEM", "PKCS8"])
def test_an_encrypted_key_is_read_with_its_passphrase_and_kept_without(tmp_path: Path, form: str) -> None:
    text = generated(tmp_path / "key", "-t", "rsa", "-b", "2048", "-m", form, passphrase="open sesame")

    assert mistake_in(text) == ("passphrase", "is missing: this key is encrypted")
    assert mistake_in(text, "wrong") == ("passphrase", "does not open this key; type the one it was made with")
    assert b"ENCRYPTED" not in read_private_key(text, "open sesame").text


def test_what_is_no_private_key_is_explained(tmp_path: Path) -> None:
    path = make_key(tmp_path / "key", "ed25519")

    assert "public half" in mistake_in(path.with_suffix(".pub").read_text())[1]
    assert "puttygen" in mistake_in("PuTTY-User-Key-File-3: ssh-ed25519\n")[1]
    assert "starts with -----BEGIN" in mistake_in("hunter2")[1]
    assert "whole file" in mistake_in(path.read_text()[:200] + "\n-----END OPENSSH PRIVATE KEY-----")[1]
    assert "longer than" in mistake_in("x" * 40_000)[1]
    assert {mistake_in(text)[0] for text in ("", "hunter2", "\0")} == {"private_key"}


def test_weak_keys_are_refused(tmp_path: Path) -> None:
    assert "1024 bits" in mistake_in(generated(tmp_path / "short", "-t", "rsa", "-b", "1024"))[1]
    assert "ssh-dss" in mistake_in(generated(tmp_path / "dsa", "-t", "dsa"))[1]


def test_a_key_that_would_keep_the_cpu_busy_for_minutes_is_refused_unopened(tmp_path: Path) -> None:
    text = generated(tmp_path / "key", "-t", "ed25519", "-a", "4", passphrase="secret")
    assert kdf_rounds(text) == 4

    hostile = _with_rounds(text, MOST_KDF_ROUNDS + 1)

    assert kdf_rounds(hostile) == MOST_KDF_ROUNDS + 1
    assert "rounds" in mistake_in(hostile, "secret")[1]


def _with_rounds(text: str, rounds: int) -> str:
    lines = text.strip().splitlines()
    data = bytearray(base64.b64decode("".join(lines[1:-1])))
    place = data.index(b"bcrypt") + len("bcrypt") + 4 + 4 + 16
    data[place : place + 4] = rounds.to_bytes(4, "big")
    return "\n".join([lines[0], base64.b64encode(bytes(data)).decode(), lines[-1]])


@pytest.mark.parametrize("text", ["", "-----BEGIN OPENSSH PRIVATE KEY-----\n!!!\n-----END OPENSSH PRIVATE KEY-----"])
def test_rounds_of_a_text_that_is_no_key_are_none(text: str) -> None:
    assert kdf_rounds(text) == 0


def test_a_private_key_is_never_printed(tmp_path: Path) -> None:
    key = read_private_key(make_key(tmp_path / "key", "ed25519").read_text())

    assert key.text.decode().splitlines()[2] not in repr(key)
