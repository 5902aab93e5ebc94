import errno
import socket

import asyncssh
import pytest

from server_monitor.errors import Unreachable
from server_monitor.ssh.failures import LONGEST_QUOTE, Stage, quoted, timed_out, unreachable

PLACE = "web1 port 22"


@pytest.mark.parametrize(
    ("error", "stage", "reason"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), Stage.DIAL, "dns_failed"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), Stage.DIAL, "connect_refused"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), Stage.DIAL, "network_unreachable"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), Stage.DIAL, "network_unreachable"),
        (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), Stage.DIAL, "connect_timeout"),
        (OSError("Multiple exceptions"), Stage.DIAL, "network_unreachable"),
        (ConnectionResetError(), Stage.OPEN, "connection_lost"),
        (asyncssh.ConnectionLost("Connection lost"), Stage.LOGIN, "connection_lost"),
        (asyncssh.PermissionDenied("Permission denied"), Stage.LOGIN, "auth_failed"),
        (asyncssh.ProtocolError("Too many authentication failures"), Stage.LOGIN, "auth_failed"),
        (asyncssh.ProtocolError("Banner line too long"), Stage.BANNER, "not_ssh"),
        (asyncssh.ProtocolNotSupported("Unsupported SSH version"), Stage.BANNER, "not_ssh"),
        (asyncssh.ProtocolError("Max packet size exceeded"), Stage.KEX, "protocol_error"),
        (asyncssh.KeyExchangeFailed("No matching MAC algorithm found"), Stage.KEX, "weak_algorithms"),
        (asyncssh.KeyExchangeFailed("Key exchange hash mismatch"), Stage.KEX, "protocol_error"),
        (asyncssh.MACError("MAC verification failed"), Stage.OPEN, "protocol_error"),
        (asyncssh.DisconnectError(11, "shutting down"), Stage.OPEN, "connection_lost"),
        (asyncssh.ChannelOpenError(1, "open failed"), Stage.OPEN, "channel_refused"),
        (UnicodeDecodeError("ascii", b"\xff", 0, 1, "ordinal not in range"), Stage.KEX, "protocol_error"),
    ],
)
def test_every_cause_has_its_reason(error: Exception, stage: Stage, reason: str) -> None:
    failure = unreachable(error, stage, PLACE)

    assert failure.reason == reason
    assert PLACE in str(failure)


def test_a_reason_that_is_known_already_stays() -> None:
    known = Unreachable("host_key_unknown", "as it was")

    assert unreachable(known, Stage.KEX, PLACE) is known


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        (Stage.DIAL, "connect_timeout"),
        (Stage.BANNER, "banner_timeout"),
        (Stage.KEX, "connect_timeout"),
        (Stage.LOGIN, "connect_timeout"),
        (Stage.OPEN, "slow"),
    ],
)
def test_a_deadline_says_what_was_waited_for(stage: Stage, reason: str) -> None:
    assert timed_out(stage, PLACE, 10.0).reason == reason
    assert "10 s" in str(timed_out(stage, PLACE, 10.0))


def test_what_a_host_says_is_quoted_short_and_without_control_characters() -> None:
    said = "\x1b[31mred\x07 alert\r\n\u202eturned " + "x" * 10_000

    quote = quoted(said)

    assert quote.startswith("[31mred alert turned x")
    assert quote.isprintable()
    assert len(quote) == LONGEST_QUOTE
