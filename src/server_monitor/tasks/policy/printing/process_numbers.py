"""Commands that print the numbers of processes: of all of them, or of some that were chosen."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from server_monitor.tasks.policy.options import named
from server_monitor.tasks.policy.printing.described import described
from server_monitor.tasks.policy.values import Gap, Parts, Shape, Source

if TYPE_CHECKING:
    from server_monitor.tasks.policy.calls import Call

CRITICAL_PROCESSES = named(
    "sshd systemd init systemd-logind systemd-journald systemd-udevd dbus-daemon dockerd containerd kubelet "
    "NetworkManager "
    "auditd rsyslogd syslogd journald syslog-ng udevd agetty falco wazuh-agentd osqueryd filebeat crond"
)


def _ps(call: Call) -> Parts:
    chosen = any(re.match(r"-[^-]*[CupGgts]|--(pid|user|ppid|group|tty)", arg.prefix) for arg in call.args)
    chosen = chosen and not any(arg.prefix.lstrip("-").startswith(("aux", "ef", "ax")) for arg in call.args)
    return (Gap(Source.SOME_PROCESSES if chosen else Source.ALL_PROCESSES, Shape.NUMBER, detail="ps"),)


def _systemctl(call: Call) -> Parts:
    """`systemctl show -p MainPID UNIT` tells the number of a process."""
    if any("MainPID" in text or "ControlPID" in text for text in call.texts):
        return (Gap(Source.SOME_PROCESSES, Shape.NUMBER, detail=" ".join(call.texts)),)
    return described(call)


def _lsof(call: Call) -> Parts:
    """Who holds a port or a file. At the port of SSH there is the server that everybody needs."""
    text = " ".join(call.texts)
    is_ssh = re.search(r"(?::|-i ?|(?<= ))(?:22|ssh)(?:/tcp)?(?= |$)", text) is not None
    return (Gap(Source.SOME_PROCESSES, Shape.NUMBER, detail="sshd " if is_ssh else call.name),)


def _pgrep(call: Call) -> Parts:
    pattern = [arg for arg in call.args if not arg.prefix.startswith("-")]
    if any(set((p.text or "").strip("^$").split()) & CRITICAL_PROCESSES for p in pattern):
        return (Gap(Source.ALL_PROCESSES, Shape.NUMBER, detail=call.name),)
    if any(arg.text in ("root", "0", "-uroot", "-u0") for arg in call.args) and len(pattern) < 2:
        return (Gap(Source.ALL_PROCESSES, Shape.NUMBER, detail=call.name),)
    everything = not pattern or pattern[-1].text in (".", "", ".*", "^", "[a-z]", "*")
    chosen = not everything or any(re.match(r"-[^-]*[uUPgGt]", arg.prefix) for arg in call.args)
    return (Gap(Source.SOME_PROCESSES if chosen else Source.ALL_PROCESSES, Shape.NUMBER, detail="pgrep"),)


PROCESS_NUMBERS: dict[str, Callable[[Call], Parts]] = {
    "ps": _ps,
    "pgrep": _pgrep,
    "pidof": _pgrep,
    "systemctl": _systemctl,
    "lsof": _lsof,
    "fuser": _lsof,
}
