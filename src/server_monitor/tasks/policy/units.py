"""Units of systemd that the host needs: named, matched by a pattern, or changed through their files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from server_monitor.tasks.policy import globs, patterns
from server_monitor.tasks.policy.options import named, split
from server_monitor.tasks.policy.values import text_of

if TYPE_CHECKING:
    from server_monitor.tasks.policy.calls import Call

CRITICAL = named(
    "ssh.service sshd.service ssh.socket sshd.socket dbus.service dbus.socket dbus-broker.service cron.service "
    "crond.service systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket "
    "systemd-logind.service systemd-udevd.service systemd-networkd.service systemd-networkd.socket "
    "systemd-resolved.service systemd-timesyncd.service systemd-tmpfiles-clean.timer NetworkManager.service "
    "networking.service network.service wpa_supplicant.service polkit.service auditd.service rsyslog.service "
    "syslog.service syslog.socket syslog-ng.service getty@tty1.service serial-getty@ttyS0.service firewalld.service "
    "ufw.service nftables.service iptables.service fail2ban.service apparmor.service multi-user.target basic.target "
    "sysinit.target network.target network-online.target local-fs.target sockets.target"
)
# Units whose drop-ins people write every day, such as limits and proxies, are not among these.
_GROUPS = re.compile(
    r"(?:system|user|-|machine|init|user-\d+|session-\d+|kubepods.*)\.(?:slice|scope)|user@\S*\.service"
)
_STOPS = named("stop disable mask kill freeze revert set-property isolate clean")
_FOLDERS = r"/(?:etc|run|lib|usr/lib|usr/local/lib)/systemd/system(?:\.control|\.attached)?/"
_FILE = re.compile(
    _FOLDERS + r"(?:[\w.@-]+\.(?:wants|requires)/)?([^/]+\.(?:service|socket|target|timer))(?:\.d(?:/.*)?)?"
)
_DISABLES = re.compile(
    r"^\s*(?:Exec\w*|Condition\w+|Assert\w+|Conflicts|CPUQuota|MemoryMax|TasksMax|RefuseManual\w+|User|Type|"
    r"InaccessiblePaths|IPAddressDeny|PrivateNetwork|RestartForce\w+|Requires|BindsTo|JobTimeout\w+|RuntimeMax\w+)\s*=",
    re.MULTILINE,
)


def systemctl(call: Call) -> None:
    """Patterns and groups that take units with them which the host needs."""
    options = split(call.args, named("t p s H M o n type property signal host machine state kill-who kill-whom root"))
    verb = options.operands[0].text if options.operands else None
    if verb == "edit" and call.stdin is not None and disables(text_of(call.stdin)):
        for operand in options.operands[1:]:
            if (hit := next(_matching(operand.shown), None)) is not None:
                call.walker.find("sys.stop_critical_service", f"changes what {hit} does", operand.span)
    if verb not in _STOPS or options.has("user") or _is_harmless_kill(verb, options.value("s", "signal")):
        return
    operands = options.operands[1:2] if verb == "set-property" else options.operands[1:]
    for operand in operands:
        text = operand.shown
        hit = next(_matching(text), None)
        if hit is not None and (verb == "set-property" or re.search(r"[*?\[]", text)):
            call.walker.find("sys.stop_critical_service", f"{verb}s {hit}, which the host needs", operand.span)
        elif _GROUPS.fullmatch(text):
            call.walker.find("sys.stop_critical_service", f"{verb}s everything in {text}", operand.span)


def _is_harmless_kill(verb: str | None, signal: object) -> bool:
    text = getattr(signal, "text", None) or ""
    return verb == "kill" and text.removeprefix("SIG") in ("HUP", "USR1", "USR2", "CONT")


def _matching(pattern: str) -> Iterator[str]:
    """The units that the host needs which a name or pattern means."""
    whole = (
        pattern
        if re.search(r"\.(service|socket|target|timer|slice|scope|mount|path)$|\*$", pattern)
        else f"{pattern}.service"
    )
    expression = _expression(whole)
    return (unit for unit in sorted(CRITICAL) if expression is not None and expression.fullmatch(unit))


@lru_cache(maxsize=256)
def _expression(pattern: str) -> patterns.Compiled | None:
    return patterns.of_command(globs.regex(pattern))


def of_file(path: str) -> str | None:
    """The unit that the host needs which this file defines, starts or changes."""
    match = _FILE.fullmatch(path)
    return match[1] if match is not None and match[1] in CRITICAL else None


def is_dropped_in(path: str) -> bool:
    return re.search(r"\.(?:service|socket|target|timer)\.d(?:/|$)", path) is not None


def disables(text: str | None) -> bool:
    """Can a drop-in with this text keep its unit from doing its work?"""
    return text is None or _DISABLES.search(text) is not None


# What a method of a service on the bus does, by how its name begins. Those that only tell something are harmless.
_TELLS = re.compile(
    r"(?:Get|List|Introspect|Ping|Is|Can|Describe|Read|Query|Subscribe|Unsubscribe|Lookup|Resolve|Dump|Find|Has|Name|"
    r"Notify|Start|Restart|Reload|TryRestart|Enable(?:UnitFiles|Units)|Unmask|Hello|Inhibit|Flush|Reset(?:Failed|Stat)|Search|Activate|"
    r"Add(?:Match|AndActivate)|Scan|RequestScan|Lock|Monitor|Load|Ref|Check|Refresh|Verify)"
)
_HOST_SERVICE = re.compile(
    r"org\.freedesktop\.(systemd1|login1|NetworkManager|PackageKit|UDisks2|hostname1|network1|resolve1|timedate1|"
    r"machine1|Accounts|ModemManager1|UPower|ConsoleKit|PolicyKit1|home1|import1|portable1|fwupd|bolt)\b|"
    r"org\.fedoraproject\.FirewallD1|org\.bluez|fi\.w1\.wpa_supplicant1|org\.rpm\.dnf|com\.redhat"
)
_CALLS = named("call set-property emit --method -m set")
_RULES = {
    "NetworkManager": ("net.service_stop", "takes the network down"),
    "network1": ("net.service_stop", "takes the network down"),
    "FirewallD1": ("net.firewall", "changes the firewall"),
    "resolve1": ("net.name_resolution", "changes how names are found"),
    "PackageKit": ("pkg.remove", "removes packages"),
    "Accounts": ("perm.user_remove", "changes an account"),
    "UDisks2": ("fs.partition_edit", "changes a disk"),
}


def message(call: Call) -> None:
    """A message to a service of the host: what it asks for, unless it only wants to know something."""
    text = " ".join(call.texts)
    service = _HOST_SERVICE.search(text)
    if service is None or not _is_sent(call):
        return
    methods = re.findall(r"(?:org|com|fi)\.[\w.]+\.([A-Z]\w+)(?= |$)", text)
    if call.name == "busctl":
        members = [w for w in call.texts if re.fullmatch(r"[A-Z]\w+", w)]
        methods = members[:1] or methods
    sets = (call.name != "dbus-send" and "set-property" in call.texts) or methods[-1:] == ["Set"]
    method = "Set" if sets else methods[-1] if methods else ""
    if not method or _TELLS.match(method):
        return
    which = (service[1] or service[0].rpartition(".")[2]).removesuffix(".*")
    rule, why = _RULES.get(which, ("sys.stop_critical_service", "changes the state of the host"))
    call.walker.find(rule, f"{why} by a message ({method})", call.span)


def _is_sent(call: Call) -> bool:
    if call.name in ("dbus-send", "qdbus", "qdbus-qt5", "qdbus6"):
        return True
    return any(text in _CALLS or text.startswith("--method=") for text in call.texts)


CHECKS: dict[str, Callable[[Call], None]] = {
    "systemctl": systemctl,
    **dict.fromkeys(("busctl", "gdbus", "dbus-send", "qdbus", "qdbus-qt5", "qdbus6"), message),
}
