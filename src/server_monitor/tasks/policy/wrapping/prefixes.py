"""Wrappers that are options, perhaps some words, and then the command: `nohup`, `strace -o f`, `setuidgid ada`.

They stand here as data: which options take a value, and how many words come before the command.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from server_monitor.tasks.policy.calls import Call, again
from server_monitor.tasks.policy.options import named, split
from server_monitor.tasks.policy.values import Gap, Parts, Source
from server_monitor.tasks.policy.wrapping.environment import assigned


@dataclass(frozen=True, slots=True)
class Prefix:
    """A wrapper with options, then `skip` words, then the command. `assigns`: VAR=value words may come first."""

    takes: frozenset[str]
    skip: int = 0
    assigns: bool = False


def _prefix(takes: str = "", skip: int = 0, *, assigns: bool = False) -> Prefix:
    return Prefix(named(takes), skip, assigns)


PREFIXES: dict[str, Prefix] = {
    "doas": _prefix("u C", assigns=True),
    "pkexec": _prefix("user"),
    "nohup": _prefix(),
    "setsid": _prefix(),
    "ionice": _prefix("c n p P u class classdata pid"),
    "chrt": _prefix("p T P D sched-runtime sched-period sched-deadline", 1),
    "stdbuf": _prefix("i o e input output error"),
    "time": _prefix("f o format output"),
    "strace": _prefix("e o p s u P S b a E I O X trace output attach string-limit user"),
    "ltrace": _prefix("e o p s u l n a A D F x output"),
    "unshare": _prefix("S G R w l setuid setgid root wd map-user map-group propagation setgroups"),
    "systemd-run": _prefix(
        "p u E H M G setenv property unit slice description uid gid nice working-directory on-active on-boot "
        "on-startup "
        "on-calendar on-unit-active on-unit-inactive path-property timer-property service-type host machine "
        "socket-property background",
        assigns=False,
    ),
    "fakeroot": _prefix("l s i b lib faked"),
    "fakechroot": _prefix("l s d e c b"),
    "cpulimit": _prefix("l p e c limit pid exe"),
    "logsave": _prefix("", 1),
    "unbuffer": _prefix(),
    "sshpass": _prefix("p f P d"),
    "valgrind": _prefix(),
    "numactl": _prefix("i m N C p interleave membind cpunodebind physcpubind preferred"),
    "prlimit": _prefix("p o pid output"),
    "choom": _prefix("n p adjust pid"),
    "setpriv": _prefix(
        "reuid regid ruid euid rgid egid groups inh-caps bounding-set ambient-caps securebits selinux-label "
        "apparmor-profile pdeathsig"
    ),
    "cgexec": _prefix("g"),
    "firejail": _prefix(),
    "eatmydata": _prefix(),
    "faketime": _prefix("f", 1),
    "rlwrap": _prefix("f H C b s"),
    "dumb-init": _prefix("r"),
    "tini": _prefix("p e"),
    "gosu": _prefix("", 1),
    "su-exec": _prefix("", 1),
    "setuidgid": _prefix("", 1),
    "s6-setuidgid": _prefix("", 1),
    "chpst": _prefix("u U b e d o p f c r t l L m n"),
    "envdir": _prefix("", 1),
    "daemonize": _prefix("a c e o p l u E"),
    "daemon": _prefix("n u c o e r F p name user chdir"),
    "perf": _prefix("e o F p", 1),
    "dbus-run-session": _prefix("config-file dbus-daemon"),
    "dbus-launch": _prefix(),
    "xvfb-run": _prefix("n e f s w p server-args server-num"),
    "proxychains": _prefix("f"),
    "proxychains4": _prefix("f"),
    "torsocks": _prefix(),
    "torify": _prefix(),
    "hyperfine": _prefix("w r m M p c n warmup runs prepare cleanup"),
    "caffeinate": _prefix("t w"),
    "aa-exec": _prefix("p n profile namespace"),
    "runcon": _prefix("t u r l type user role range"),
    "sg": _prefix("", 1),
    "newgrp": _prefix("", 1),
    "ip-netns-exec": _prefix("", 1),
    "rtkit": _prefix(),
    "trickle": _prefix("d u w t l n L P"),
    "annotate-output": _prefix(),
    "chronic": _prefix(),
    "ifne": _prefix(),
    "softlimit": _prefix("a c d f l m o p r s t"),
    "systemd-inhibit": _prefix("what who why mode"),
    "systemd-cat": _prefix("t p P identifier priority"),
    "with-contenv": _prefix(),
    "rsg": _prefix(),
    "catchsegv": _prefix(),
    "solo": _prefix("port"),
    "nocache": _prefix("n"),
    "schedtool": _prefix("p n a"),
    "linux32": _prefix(),
    "linux64": _prefix(),
    "i386": _prefix(),
    "x86_64": _prefix(),
    "setarch": _prefix("", 0),
    "exec": _prefix("a"),
    "apptainer": _prefix("", 2),
    "singularity": _prefix("", 2),
    "arch-chroot": _prefix("u", 1),
    "proot": _prefix("r b w q"),
    "snap-run": _prefix(),
    "command-not-found": _prefix(),
    "pipenv": _prefix("", 1),
    "poetry": _prefix("", 1),
    "bundle": _prefix("", 1),
}


def behind_prefix(call: Call) -> Parts:
    """Options, some words, then the command."""
    spec = PREFIXES[call.name]
    options = split(call.args, spec.takes, stops=True)
    rest = options.operands[spec.skip :]
    if spec.assigns:
        rest = assigned(rest, call)
    if (call.name == "setarch" and rest and rest[0].text is None) or (
        call.name == "setarch"
        and rest
        and re.fullmatch(r"(x86_64|i\d86|linux\d\d|ppc\w*|armv\w+|aarch64)", rest[0].text or "")
    ):
        rest = rest[1:]
    if call.name in ("pipenv", "poetry", "bundle", "perf", "apptainer", "singularity"):
        first = options.operands[0].text if options.operands else ""
        if first not in ("run", "exec", "stat", "record", "trace"):
            return (Gap(Source.OUTPUT),)
    return again(call, rest, call.name)
