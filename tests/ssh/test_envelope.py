import pytest

from server_monitor.ssh import envelope
from server_monitor.ssh.envelope import MasterKey, Place, TamperedError

PLACE = Place("ssh_credentials", "row-1", "sealed")
MASTER = MasterKey.derive("a master key for tests, long enough")
SECRET = b"-----BEGIN OPENSSH PRIVATE KEY-----"


def test_what_was_sealed_opens_again() -> None:
    assert envelope.unseal(envelope.seal(SECRET, PLACE, MASTER), PLACE, MASTER) == SECRET


def test_an_empty_secret_is_one_too() -> None:
    assert envelope.unseal(envelope.seal(b"", PLACE, MASTER), PLACE, MASTER) == b""


def test_no_byte_can_be_changed() -> None:
    sealed = envelope.seal(SECRET, PLACE, MASTER)

    for index in range(len(sealed)):
        changed = bytearray(sealed)
        changed[index] ^= 0x01
        with pytest.raises(TamperedError):
            envelope.unseal(bytes(changed), PLACE, MASTER)


@pytest.mark.parametrize("length", [0, 1, 61, 88, 100])
def test_a_part_of_it_does_not_open(length: int) -> None:
    with pytest.raises(TamperedError):
        envelope.unseal(envelope.seal(SECRET, PLACE, MASTER)[:length], PLACE, MASTER)


@pytest.mark.parametrize(
    "elsewhere",
    [
        Place("ssh_credentials", "row-2", "sealed"),
        Place("settings", "row-1", "sealed"),
        Place("ssh_credentials", "row-1", "other"),
        Place("ssh_credentialsrow-1", "", "sealed"),  # the same letters, parted elsewhere
    ],
)
def test_it_opens_nowhere_else(elsewhere: Place) -> None:
    with pytest.raises(TamperedError):
        envelope.unseal(envelope.seal(SECRET, PLACE, MASTER), elsewhere, MASTER)


def test_the_secret_of_one_row_cannot_be_put_under_the_data_key_of_another() -> None:
    one, other = (envelope.seal(SECRET, Place("t", row, "c"), MASTER) for row in "ab")
    header = 1 + 12 + 48

    with pytest.raises(TamperedError):
        envelope.unseal(one[:header] + other[header:], Place("t", "a", "c"), MASTER)


def test_another_master_key_does_not_open_it() -> None:
    with pytest.raises(TamperedError):
        envelope.unseal(envelope.seal(SECRET, PLACE, MASTER), PLACE, MasterKey.derive("another"))


def test_rewrapping_changes_who_can_open_it_and_not_the_secret() -> None:
    new = MasterKey.derive("the next master key, long enough too")
    sealed = envelope.seal(SECRET, PLACE, MASTER)

    rewrapped = envelope.rewrap(sealed, PLACE, MASTER, new)

    assert envelope.unseal(rewrapped, PLACE, new) == SECRET
    assert rewrapped[61:] == sealed[61:]
    with pytest.raises(TamperedError):
        envelope.unseal(rewrapped, PLACE, MASTER)


def test_every_sealing_uses_new_keys_and_nonces() -> None:
    sealings = [envelope.seal(SECRET, PLACE, MASTER) for _ in range(2000)]

    assert len({sealed[1:13] for sealed in sealings}) == 2000
    assert len({sealed[61:73] for sealed in sealings}) == 2000
    assert not any(SECRET in sealed for sealed in sealings)


def test_a_key_id_tells_nothing_and_the_key_is_not_printed() -> None:
    assert len(MASTER.key_id) == 16
    assert MASTER.key.hex() not in repr(MASTER)
    assert not MASTER.key.hex().startswith(MASTER.key_id)
