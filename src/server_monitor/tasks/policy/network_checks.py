"""Checks of what carries data out of the host."""

from __future__ import annotations

from collections.abc import Callable

from server_monitor.tasks.policy.calls import Call
from server_monitor.tasks.policy.options import named
from server_monitor.tasks.policy.values import Gap, Source

SENDERS = named(
    "curl wget nc ncat socat ssh scp telnet mail mailx sendmail openssl ftp tftp rclone aws gsutil http xh dig"
)


def sends_secret(call: Call) -> None:
    """A secret that reaches a program that talks to the network."""
    streams = [call.stdin or (), *(arg.parts for arg in call.args)]
    for parts in streams:
        if any(isinstance(part, Gap) and part.source is Source.SECRET for part in parts):
            call.walker.find("perm.secrets_read", f"sends a secret away with {call.name}", call.span)
            return


CHECKS: dict[str, Callable[[Call], None]] = dict.fromkeys(SENDERS, sends_secret)
