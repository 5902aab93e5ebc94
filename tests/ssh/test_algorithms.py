import pytest

from server_monitor.ssh import algorithms
from server_monitor.ssh.dial import base_options

WEAK = ("sha1", "cbc", "3des", "dss", "md5", "arcfour", "rc4", "group1-", "group-exchange")


def test_nothing_weak_is_offered() -> None:
    options = base_options()
    offered = b",".join(
        [
            *options.kex_algs,
            *options.encryption_algs,
            *options.mac_algs,
            *options.compression_algs,
            *options.signature_algs,
        ]
    ).decode()

    assert not [weak for weak in WEAK if weak in offered]
    assert "ssh-rsa," not in offered + ","
    assert options.compression_algs == [b"none"]


def test_the_cheapest_safe_algorithms_come_first() -> None:
    options = base_options()

    assert options.kex_algs[0] == b"curve25519-sha256"
    assert options.encryption_algs[:2] == [b"aes128-gcm@openssh.com", b"aes256-gcm@openssh.com"]


@pytest.mark.parametrize(
    ("pinned", "first"),
    [
        ([], ["ssh-ed25519"]),
        (["ssh-rsa"], ["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519"]),
        (["ecdsa-sha2-nistp384", "ssh-ed25519"], ["ecdsa-sha2-nistp384", "ssh-ed25519"]),
        (["ssh-dss"], ["ssh-ed25519"]),
    ],
)
def test_the_type_of_the_accepted_key_is_asked_for_first(pinned: list[str], first: list[str]) -> None:
    preference = algorithms.host_key_preference(pinned)

    assert preference[: len(first)] == first
    assert sorted(preference) == sorted(algorithms.HOST_KEYS)


@pytest.mark.parametrize("cut", range(0, 40, 7))
def test_a_key_exchange_message_that_is_cut_short_lists_something_harmless(cut: int) -> None:
    name_list = (11).to_bytes(4, "big") + b"ssh-ed25519"
    whole = b"\x14" + b"c" * 16 + name_list + name_list

    assert algorithms.offered_host_keys(whole) == ["ssh-ed25519"]
    assert set(algorithms.offered_host_keys(whole[:cut])) <= {"", "ssh-ed25519", "ssh-ed2"}
