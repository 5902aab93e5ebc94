"""Signed checkpoints: exactly the form that others read, and refused when a single character differs."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from server_monitor.audit import note, tree
from server_monitor.audit.note import Checkpoint, Verifier
from server_monitor.errors import Invalid

ORIGIN = "0193f1c2-7a00-7000-8000-000000000001/server-monitor/audit/1"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
VERIFIER = note.verifier_of(ORIGIN, KEY)
CHECKPOINT = Checkpoint(ORIGIN, 1037, tree.leaf_hash(b"x"))
SIGNED = note.sign(CHECKPOINT, {ORIGIN: KEY})


def test_the_key_line_and_signature_that_others_publish_are_accepted() -> None:
    """The example of golang.org/x/mod/sumdb/note."""
    verifier = Verifier.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    encoded = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    signature = note._unbase64(encoded, "signature")

    assert signature[:4] == verifier.key_id
    assert verifier.has_signed(text, signature[4:])
    assert not verifier.has_signed(text + "!", signature[4:])


def test_a_signed_checkpoint_opens_with_its_key() -> None:
    assert note.open_note(SIGNED, [Verifier.parse(VERIFIER.vkey)]) == CHECKPOINT
    assert SIGNED.startswith(f"{ORIGIN}\n1037\n")


def test_a_checkpoint_of_another_key_is_not_trusted() -> None:
    other = note.verifier_of(ORIGIN, Ed25519PrivateKey.generate())

    with pytest.raises(Invalid, match="none of the keys you trust"):
        note.open_note(SIGNED, [other])


def test_two_keys_may_sign_one_checkpoint() -> None:
    new = Ed25519PrivateKey.generate()
    both = note.sign(CHECKPOINT, {ORIGIN: KEY, "witness.example/w": new})

    assert note.open_note(both, [VERIFIER]) == CHECKPOINT
    assert note.open_note(both, [note.verifier_of("witness.example/w", new)]) == CHECKPOINT


@given(st.integers(0, len(SIGNED) - 1), st.characters(codec="utf-8"))
def test_no_character_can_be_changed(position: int, character: str) -> None:
    changed = SIGNED[:position] + character + SIGNED[position + 1 :]
    if changed == SIGNED:
        return

    with pytest.raises(Invalid):
        note.open_note(changed, [VERIFIER])


@given(st.text())
def test_any_other_text_is_refused_with_words(text: str) -> None:
    with pytest.raises(Invalid):
        note.open_note(text, [VERIFIER])
    with pytest.raises(Invalid):
        Verifier.parse(text)
