"""Checks of what ends processes."""

from __future__ import annotations

import re
from collections.abc import Callable

from server_monitor.tasks.policy import patterns
from server_monitor.tasks.policy.calls import Call
from server_monitor.tasks.policy.options import Options, named, split
from server_monitor.tasks.policy.values import Field, Gap, Source, is_endless

MAX_PROCESSES = 40
_SIGNAL = re.compile(r"-(?:[A-Za-z][A-Za-z0-9+-]*|\d+)")
# Files and units that tell the number of a process that the system needs.
NEEDED_PID = re.compile(
    r"(?<![\w-])(?:sshd?|auditd|crond?|rsyslogd?|syslog(?:d|-ng)?|dbus(?:-daemon)?|messagebus|systemd[\w-]*|init|"
    r"NetworkManager|dhclient[\w.-]*|dhcpcd[\w.-]*|wpa_supplicant|firewalld|fail2ban|dockerd?|containerd|kubelet|"
    r"libvirtd|lvmetad|multipathd|udevd|elogind|polkitd|journald?|chronyd|ntpd|resolvconf)(?:[.@/ -]|$)"
)
# What a pattern for names is held against: processes that the system needs.
_NEEDED = tuple(
    sorted(
        named(
            "systemd init sshd dbus-daemon dbus-broker dockerd containerd kubelet NetworkManager auditd rsyslogd "
            "syslogd crond cron systemd-journald systemd-logind systemd-udevd systemd-networkd systemd-resolved agetty "
            "login polkitd"
        )
    )
)
_DATABASES = ("mariadbd", "mongod", "mysqld", "postgres")
# A pattern for whole command lines that finds the program java finds every Java program, and databases are among them.
_JAVA_DATABASE = "/usr/bin/java -Xmx1g org.apache.cassandra.service.CassandraDaemon"
_HARMLESS = re.compile(r"-(?:-signal[= ])?(?:SIG)?(?:HUP|USR[12]|CONT|WINCH|0|1)$|-l$|--list|-L$|-c$")
_ASKS_ONLY = ("-0", "-l", "-L", "--list", "--table")


def kill(call: Call) -> None:
    texts = call.texts
    if any(text in _ASKS_ONLY for text in texts):
        return
    processes = _targets(call)
    harmless = texts[:1] in (["-HUP"], ["-USR1"], ["-USR2"], ["-CONT"], ["-WINCH"], ["-SIGHUP"], ["-QUIT"])
    harmless = harmless or (
        texts[:1] in (["-s"], ["--signal"]) and texts[1:2] in (["HUP"], ["SIGHUP"], ["USR1"], ["USR2"])
    )
    for process in processes:
        for parts in (process.parts, *process.alts):
            _judge(Field(parts, process.span), call, is_harmless=harmless)
    if len(processes) > MAX_PROCESSES:
        call.walker.find("sys.kill_all", f"ends {len(processes)} processes", call.span)


def _targets(call: Call) -> list[Field]:
    args = call.args
    place = 0
    while place < len(args):
        text = args[place].text or ""
        if text == "--":
            return args[place + 1 :]
        if text in ("-s", "-n", "--signal", "-q"):
            place += 2
            continue
        if place == 0 and _SIGNAL.fullmatch(text) and len(args) > 1:
            place += 1
            continue
        if text.startswith("--"):
            place += 1
            continue
        break
    return args[place:]


def _judge(process: Field, call: Call, *, is_harmless: bool) -> None:
    text = process.text
    find = call.walker.find
    if text in ("-1", "-0"):
        find("sys.kill_all", "ends every process", process.span)
    elif text == "1" and not is_harmless:
        find("sys.kill_all", "ends the first process, and with it the host", process.span)
    elif (text is not None and re.search(r"[*\[?]", text)) or any(
        not isinstance(part, str | Gap) for part in process.parts
    ):
        find("sys.kill_all", "ends every process of a list", process.span)
    elif re.match(r"/proc/", process.shown) and not is_harmless:
        find("sys.kill_all", "ends every process that /proc lists", process.span)
    elif (gap := process.gap) is not None and not is_harmless:
        if (needed := NEEDED_PID.search(gap.detail)) is not None:
            find("sys.kill_all", f"ends {needed[0].strip('/.')}, which the system needs", process.span)
        elif gap.source is Source.ALL_PROCESSES or gap.detail in ("seq", "seq many", "ls"):
            find("sys.kill_all", "ends every process that runs", process.span)
        elif gap.source in (Source.NETWORK, Source.INPUT):
            find("opaque.target", f"ends processes that {gap.source.value} names", process.span)


def pkill(call: Call) -> None:
    """Without a pattern, a user or a terminal, every process is meant."""
    if any(_HARMLESS.match(text) for text in call.texts) or _signal(call) in ("HUP", "USR1", "USR2", "0", "1"):
        return
    options = split(call.args, PKILL)
    words = options.operands
    chooses = any(
        re.match(r"-[^-]*[uUPgGtsF]|--(e?uid|uid|parent|pgroup|group|terminal|session|pidfile|full)", a.prefix)
        for a in call.args
    )
    if (not words and not chooses and call.args) or options.has("v", "inverse"):
        call.walker.find("sys.kill_all", "ends every process", call.span)
    if (file := options.value("F", "pidfile")) and NEEDED_PID.search(call.place(file).text):
        call.walker.find("sys.kill_all", f"ends the process of {file.shown}", file.span)
    owners = options.all_values("u", "U", "euid", "uid", "G", "group")
    if any(owner.text in ("root", "0") for owner in owners):
        call.walker.find("sys.kill_all", "ends processes of root", call.span)
    for word in words:
        if word.gap is not None and word.gap.source in (Source.ALL_PROCESSES, Source.NETWORK):
            call.walker.find("sys.kill_all", "ends every process that runs", word.span)
        elif word.text is not None and not owners and (loss := _loss(word.text, options)):
            call.walker.find("sys.kill_all", f"ends {loss}", word.span)


PKILL = named("u U P g G t s F e_ signal euid uid parent pgroup group terminal session pidfile ns nslist") - {"e_"}


def _signal(call: Call) -> str:
    value = split(call.args, named("s signal u U P g G t F")).value("signal")
    return (value.text or "").removeprefix("SIG") if value is not None else ""


def _loss(pattern: str, options: Options) -> str | None:
    """What must not be lost of the processes that this pattern finds, and why."""
    ignores = "(?i)" if options.has("i", "I", "ignore-case") else ""
    expression = patterns.of_command(ignores + pattern)
    if expression is None:
        return None
    find = expression.fullmatch if options.has("x", "exact") else expression.search
    is_full = options.has("f", "full")
    forms = ("{}", "/usr/sbin/{} -D", "/usr/lib/systemd/{}") if is_full else ("{}",)
    for names, why in ((_NEEDED, "which the system needs"), (_DATABASES, "a database")):
        found = next((name for name in names for form in forms if find(form.format(name))), None)
        if found is not None:
            return f"{found}, {why}"
    return "every Java program, databases among them" if is_full and find(_JAVA_DATABASE) else None


def killall(call: Call) -> None:
    """`killall` by age alone, by an expression, or by a name in other letters."""
    options = split(call.args, named("o y s u n Z older-than younger-than signal user ns context"))
    if any(_HARMLESS.match(text) for text in call.texts):
        return
    if not options.operands and options.has("o", "y", "older-than", "younger-than"):
        call.walker.find("sys.kill_all", "ends every process of an age", call.span)
    for word in options.operands:
        if word.text is None:
            continue
        if options.has("r", "regexp"):
            loss = _loss(word.text, options)
        else:
            letters = word.text.casefold() if options.has("I", "ignore-case") else word.text
            needed = next((n for n in _NEEDED if letters in (n, n.casefold())), None)
            loss = f"{needed}, which the system needs" if needed is not None else None
        if loss is not None:
            call.walker.find("sys.kill_all", f"ends {loss}", word.span)


def containers(call: Call) -> None:
    """`docker rm -f $(docker ps -aq)`: a list that nothing chose from is all of them."""
    verbs = {"delete"} if call.name in ("kubectl", "oc") else {"rm", "kill", "stop"}
    if not verbs & set(call.texts[:6]):
        return
    for arg in call.args:
        if arg.gap is not None and arg.gap.detail == call.name:
            call.walker.find("data.drop", f"removes everything that {call.name} lists", arg.span)


def hold(call: Call) -> None:
    """Programs that read everything before they print anything."""
    if any(isinstance(part, Gap) and is_endless(part) for part in call.input()):
        call.walker.find("bomb.fill", f"reads an endless source into memory with {call.name}", call.span)


CHECKS: dict[str, Callable[[Call], None]] = {"kill": kill, "pkill": pkill, "killall": killall}
CHECKS |= dict.fromkeys(("docker", "podman", "nerdctl", "kubectl", "oc"), containers)
CHECKS |= dict.fromkeys(("sort", "tac", "tail", "shuf", "rev", "sponge", "paste", "column"), hold)
