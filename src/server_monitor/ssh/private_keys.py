"""Reads the private key that a person pasted, and says exactly what is wrong with it.

OpenSSH, PKCS#1 and PKCS#8 texts are understood, encrypted or not. What is kept is the key in OpenSSH form without its
passphrase, because the vault encrypts it anyway and nobody is there to type it when a server reboots at night.
"""

import base64
import binascii
import re
from dataclasses import dataclass, field

import asyncssh
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from server_monitor.errors import Invalid

LONGEST_TEXT = 32_768
MOST_KDF_ROUNDS = 2_000  # bcrypt: about 20 s of CPU; ssh-keygen's own default is 24
FEWEST_RSA_BITS = 2048

_KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
_OPENSSH_BODY = re.compile(r"-----BEGIN OPENSSH PRIVATE KEY-----(.*?)-----END OPENSSH PRIVATE KEY-----", re.DOTALL)
_MAGIC = b"openssh-key-v1\0"


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A usable key. `text` is secret: OpenSSH form, not encrypted."""

    key_type: str
    fingerprint: str
    public_key: str
    text: bytes = field(repr=False)


def read_private_key(text: str, passphrase: str | None = None) -> PrivateKey:
    """The key in this text. Costs CPU for an encrypted or an RSA key: call it in a thread.

    Raises Invalid naming `private_key` or `passphrase`, never repeating either.
    """
    _refuse_what_is_no_private_key(text)
    try:
        key = asyncssh.import_private_key(text, passphrase or None)
        return _usable(key)
    except asyncssh.KeyEncryptionError:
        raise Invalid.one("passphrase", "does not open this key; type the one it was made with") from None
    except asyncssh.KeyImportError as error:
        raise _explained(str(error)) from None


def parse_stored_key(text: bytes) -> asyncssh.SSHKey:
    """A key that `read_private_key` made. Its numbers were checked then and are sealed since: not checked again."""
    return asyncssh.import_private_key(text, unsafe_skip_rsa_key_validation=True)


def kdf_rounds(text: str) -> int:
    """How often bcrypt must run to open this OpenSSH key; 0 when it is not encrypted or not readable."""
    found = _OPENSSH_BODY.search(text)
    if found is None:
        return 0
    try:
        data = base64.b64decode("".join(found[1].split()), validate=True)
    except binascii.Error:
        return 0
    if not data.startswith(_MAGIC):
        return 0
    _cipher, rest = _string(data[len(_MAGIC) :])
    _kdf, rest = _string(rest)
    options, _ = _string(rest)
    _salt, rounds = _string(options)
    return int.from_bytes(rounds[:4], "big")


def _refuse_what_is_no_private_key(text: str) -> None:
    if len(text) > LONGEST_TEXT:
        raise Invalid.one("private_key", f"is longer than {LONGEST_TEXT} characters, so it is not a private key")
    if re.match(r"\s*(ssh-|ecdsa-|sk-)", text):
        raise Invalid.one("private_key", "is the public half; paste the file without .pub")
    if "PuTTY-User-Key-File" in text:
        raise Invalid.one(
            "private_key", "is in PuTTY's format; export it as an OpenSSH key (puttygen KEY -O private-openssh)"
        )
    if "PRIVATE KEY-----" not in text:
        raise Invalid.one(
            "private_key", "is not a private key; it starts with -----BEGIN and ends with PRIVATE KEY-----"
        )
    if kdf_rounds(text) > MOST_KDF_ROUNDS:
        raise Invalid.one(
            "private_key", f"asks for more than {MOST_KDF_ROUNDS} rounds of bcrypt; write it again with -a 100"
        )


def _usable(key: asyncssh.SSHKey) -> PrivateKey:
    key_type = key.get_algorithm()
    if key_type not in _KEY_TYPES:
        raise Invalid.one(
            "private_key", f"is of type {key_type}, which is not accepted; make one with ssh-keygen -t ed25519"
        )
    native = key.pyca_key
    if isinstance(native, RSAPrivateKey) and native.key_size < FEWEST_RSA_BITS:
        raise Invalid.one(
            "private_key", f"is an RSA key of {native.key_size} bits; at least {FEWEST_RSA_BITS} are needed"
        )
    key.set_comment("")
    public_key = " ".join(key.export_public_key("openssh").decode().split()[:2])
    return PrivateKey(key_type, key.get_fingerprint(), public_key, key.export_private_key("openssh"))


def _explained(said: str) -> Invalid:
    if "Passphrase must be specified" in said:
        return Invalid.one("passphrase", "is missing: this key is encrypted")
    if "decrypt" in said or "passphrase" in said.lower():
        return Invalid.one("passphrase", "does not open this key; type the one it was made with")
    return Invalid.one("private_key", "cannot be read; paste the whole file, from its BEGIN line to its END line")


def _string(data: bytes) -> tuple[bytes, bytes]:
    """A length-prefixed string (RFC 4251, section 5) and what follows; both empty when the data is cut short."""
    length = int.from_bytes(data[:4], "big")
    return data[4 : 4 + length], data[4 + length :]
