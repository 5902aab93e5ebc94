"""Ports for what is stopped and started again in a test."""

import secrets
import socket
from contextlib import suppress
from pathlib import Path

_HANDED_OUT = Path("/proc/sys/net/ipv4/ip_local_port_range")


def unused_port() -> int:
    """A port of 127.0.0.1 below those that the kernel hands out (ip(7)).

    While what listens there is stopped, no other program is given the port, to listen on it or to connect from it.
    """
    lowest = int(_HANDED_OUT.read_text().split()[0])
    while True:
        port = lowest // 2 + secrets.randbelow(lowest // 2)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
