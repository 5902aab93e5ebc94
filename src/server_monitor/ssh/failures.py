"""Turns what went wrong with a connection into the one failure callers know: Unreachable with a reason code.

`fleet/reasons.py` explains the codes to people; the message here adds the plain facts of this one failure.
"""

import errno
import socket
from enum import StrEnum

import asyncssh

from server_monitor.errors import Unreachable

LONGEST_QUOTE = 200


class Stage(StrEnum):
    """How far a connection has come."""

    DIAL = "dial"  # no TCP connection yet
    BANNER = "banner"  # connected; the host has not said that it speaks SSH
    KEX = "kex"  # agreeing on algorithms and keys; the host key is judged here
    LOGIN = "login"
    OPEN = "open"


_TIMED_OUT = {
    Stage.DIAL: ("connect_timeout", "{place} does not answer: no TCP connection within {timeout_s:g} s."),
    Stage.BANNER: ("banner_timeout", "{place} accepts connections and says nothing for {timeout_s:g} s."),
    Stage.KEX: ("connect_timeout", "{place} stopped answering while keys were exchanged ({timeout_s:g} s)."),
    Stage.LOGIN: ("connect_timeout", "{place} stopped answering while logging in ({timeout_s:g} s)."),
    Stage.OPEN: ("slow", "{place} opens no channel within {timeout_s:g} s."),
}

_LOST = {
    Stage.DIAL: "{place} closed the connection at once.",
    Stage.BANNER: "{place} closed the connection before it said that it speaks SSH.",
    Stage.KEX: "{place} closed the connection while keys were exchanged.",
    Stage.LOGIN: "{place} closed the connection while logging in.",
    Stage.OPEN: "The connection to {place} was lost.",
}


def timed_out(stage: Stage, place: str, timeout_s: float) -> Unreachable:
    reason, message = _TIMED_OUT[stage]
    return Unreachable(reason, message.format(place=place, timeout_s=timeout_s))


def unreachable(error: BaseException, stage: Stage, place: str) -> Unreachable:  # noqa: PLR0911  # a line for a cause
    """The reason for `error`, which ended a connection to `place` (host and port) at `stage`."""
    if isinstance(error, Unreachable):
        return error
    match error:
        case ConnectionResetError() | BrokenPipeError() | asyncssh.ConnectionLost():
            return Unreachable("connection_lost", _LOST[stage].format(place=place))
        case OSError():
            return _network(error, place)
        case asyncssh.ChannelOpenError():
            return Unreachable("channel_refused", f"{place} does not open a channel: {_plain(error)}")
        case asyncssh.HostKeyNotVerifiable():  # while connecting, `Peer` knows more and is asked first
            return Unreachable("host_key_changed", f"{place} showed another host key in mid-connection.")
        case asyncssh.DisconnectError():
            return _disconnected(error, stage, place)
    return Unreachable("protocol_error", f"{place} broke the SSH protocol ({type(error).__name__}).")


def quoted(text: str) -> str:
    """What a host said, short and without control characters, to be put into a sentence."""
    printable = "".join(character if character.isprintable() else " " for character in text[: 4 * LONGEST_QUOTE])
    shortened = " ".join(printable.split())
    return shortened if len(shortened) <= LONGEST_QUOTE else shortened[: LONGEST_QUOTE - 1] + "…"


def _network(error: OSError, place: str) -> Unreachable:
    match error:
        case socket.gaierror():
            return Unreachable("dns_failed", f"The name of {place} cannot be resolved: {error.strerror}.")
        case ConnectionRefusedError():
            return Unreachable("connect_refused", f"{place} refuses connections: nothing listens there.")
        case OSError(errno=errno.ETIMEDOUT):
            return Unreachable("connect_timeout", f"{place} does not answer.")
    # What is left is nearly always routing: EHOSTUNREACH, ENETUNREACH, EADDRNOTAVAIL …
    return Unreachable("network_unreachable", f"There is no way to {place}: {error.strerror or type(error).__name__}.")


def _disconnected(error: asyncssh.DisconnectError, stage: Stage, place: str) -> Unreachable:
    """The host said goodbye in words, or our side ended a conversation that broke the rules."""
    # Too many wrong logins end as a protocol error in OpenSSH's words.
    if isinstance(error, asyncssh.PermissionDenied) or "authentication failures" in error.reason:
        return Unreachable("auth_failed", f"{place} does not accept the login: {_plain(error)}")
    match error:
        case asyncssh.ProtocolNotSupported():
            return Unreachable("not_ssh", f"{place} speaks a version of SSH that is not supported.")
        case asyncssh.ProtocolError() if stage is Stage.BANNER:
            return Unreachable("not_ssh", f"What answers at {place} is not an SSH server: {_plain(error)}")
        case asyncssh.KeyExchangeFailed() if error.reason.startswith("No matching"):
            return Unreachable("weak_algorithms", f"{place} offers no algorithm that is safe enough: {_plain(error)}")
        case asyncssh.ProtocolError() | asyncssh.KeyExchangeFailed() | asyncssh.MACError():
            return Unreachable("protocol_error", f"{place} broke the SSH protocol: {_plain(error)}")
    return Unreachable("connection_lost", f"{place} ended the connection: {_plain(error)}")


def _plain(error: asyncssh.DisconnectError | asyncssh.ChannelOpenError) -> str:
    return quoted(error.reason).rstrip(".") + "."
