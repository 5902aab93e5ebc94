"""Wrappers that are options, perhaps some words, and then the command: `nohup`, `strace -o f`, `setuidgid ada`.

They stand here as data, by what they are for: which options take a value, by which word the command is announced, and
how many words come before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from server_monitor.tasks.policy.calls import Call, again
from server_monitor.tasks.policy.options import named, split
from server_monitor.tasks.policy.printing.printed import printed
from server_monitor.tasks.policy.values import Field, Parts
from server_monitor.tasks.policy.wrapping.environment import assigned


@dataclass(frozen=True, slots=True)
class Prefix:
    """A wrapper with options, then one of `verbs` if there are any, then `skip` words, then the command.

    `assigns`: VAR=value words may come first.
    """

    takes: frozenset[str] = frozenset()
    skip: int = 0
    assigns: bool = False
    verbs: frozenset[str] = frozenset()


def _prefix(takes: str = "", skip: int = 0, *, assigns: bool = False, verbs: str = "") -> Prefix:
    return Prefix(named(takes), skip, assigns, named(verbs))


def _bare(names: str) -> dict[str, Prefix]:
    return dict.fromkeys(named(names), Prefix())


_AS_ANOTHER_ACCOUNT = {
    "doas": _prefix("u C", assigns=True),
    "pkexec": _prefix("user"),
    "run0": _prefix(
        "u g D user group unit description slice property nice chdir setenv background machine area shell-prompt-prefix"
    ),
    "dzdo": _prefix("u g h p C D R T U r t", assigns=True),
    "sudo-rs": _prefix("u g h p C D R T U", assigns=True),
    "please": _prefix("u g t d reason target dir"),
    "pbrun": _prefix("u h"),
    "pfexec": _prefix("P"),
    "sesu": _prefix(),
    "calife": _prefix("", 1),
    "super": _prefix("r"),
    "userhelper": _prefix("w t"),
    "gosu": _prefix("", 1),
    "su-exec": _prefix("", 1),
    "setuidgid": _prefix("", 1),
    "s6-setuidgid": _prefix("", 1),
    "s6-applyuidgid": _prefix("u g G"),
    "chpst": _prefix("u U b e d o p f c r t l L m n"),
    "setpriv": _prefix(
        "reuid regid ruid euid rgid egid groups inh-caps bounding-set ambient-caps securebits selinux-label "
        "apparmor-profile pdeathsig"
    ),
    "aa-exec": _prefix("p n profile namespace"),
    "runcon": _prefix("t u r l type user role range"),
    "sandbox": _prefix("t T H l w W I i M"),
    **dict.fromkeys(named("gksu gksudo kdesu kdesudo beesu lxqt-sudo ktsuss"), _prefix("u m c user message")),
}
_ELSEWHERE = {
    "unshare": _prefix("S G R w l setuid setgid root wd map-user map-group propagation setgroups"),
    "fakeroot": _prefix("l s i b lib faked"),
    "fakechroot": _prefix("l s d e c b"),
    "firejail": _prefix(),
    "arch-chroot": _prefix("u", 1),
    "proot": _prefix("r b w q"),
    "apptainer": _prefix("B bind H home pwd env", 1, verbs="exec run"),
    "singularity": _prefix("B bind H home pwd env", 1, verbs="exec run"),
    "systemd-nspawn": _prefix(
        "D i M u E p directory image machine user setenv port bind bind-ro tmpfs overlay property uuid slice template "
        "network-interface network-bridge network-zone network-veth-extra capability drop-capability kill-signal "
        "hostname chdir as-pid2-not console settings private-users resolv-conf timezone link-journal volatile"
    ),
    "schroot": _prefix("c n u d s o chroot user directory session-name shell option"),
    "dchroot": _prefix("c d chroot directory"),
    "nsjail": _prefix("M C R B T u g t D E e chroot rw_bindmount user group cwd time_limit config mode"),
    "minijail0": _prefix("u g b c k r S P C m M R v V f"),
    "lxc-usernsexec": _prefix("m"),
    "lxc-unshare": _prefix("s u i d"),
    "rootlesskit": _prefix("net state-dir copy-up publish port-driver"),
    "flatpak-spawn": _prefix("directory env forward-fd"),
    "runsc": _prefix("root network", verbs="do"),
    "runc": _prefix("u e c cwd user env root", 1, verbs="exec"),
    "crun": _prefix("u e c cwd user env root", 1, verbs="exec"),
    "buildah": _prefix("v user workingdir", 1, verbs="run"),
    "distrobox": _prefix("n name", 1, verbs="enter"),
    "distrobox-enter": _prefix("n name a"),
    "toolbox": _prefix("c d r container", verbs="run"),
    "multipass": _prefix("d working-directory", 1, verbs="exec"),
    "limactl": _prefix("workdir", 1, verbs="shell"),
    "lima": _prefix(),
    "orb": _prefix("m u w machine user"),
    "qm": _prefix("", 2, verbs="guest"),
    **_bare("qemu-x86_64 qemu-x86_64-static qemu-aarch64 qemu-aarch64-static qemu-arm-static box64 box86 linux32"),
    **_bare("linux64 i386 x86_64"),
    "setarch": _prefix("", 0),
}
_TRACING = {
    "strace": _prefix("e o p s u P S b a E I O X trace output attach string-limit user"),
    "ltrace": _prefix("e o p s u l n a A D F x output"),
    "valgrind": _prefix(),
    "perf": _prefix(
        "e o F p c C t u G I r m k j x call-graph event output freq pid cpu tid delay repeat interval-print",
        verbs="stat record trace sched mem lock kmem ftrace iostat c2c kvm bench",
    ),
    "perf-record": _prefix("e o F p c C t"),
    "uftrace": _prefix("d F N A R T D depth filter data", verbs="record live"),
    "rr": _prefix("o output-trace-dir num-cores", verbs="record"),
    "heaptrack": _prefix("o p output pid"),
    "samply": _prefix("o r p output rate pid", verbs="record"),
    "trace-cmd": _prefix("e f p o P b s O l g n r", verbs="record start profile"),
    "operf": _prefix("e d pid events session-dir"),
    "ocount": _prefix("e i f events"),
    "gprofng": _prefix("o p h d", 1, verbs="collect"),
    "nsys": _prefix("o t c", verbs="profile launch"),
    "ncu": _prefix("o k c"),
    "vtune": _prefix("r collect result-dir"),
    "py-spy": _prefix("o r d f p output rate duration format pid", verbs="record top"),
    "rbspy": _prefix("f p r d format pid rate duration", verbs="record report"),
    "flamegraph": _prefix("o p F output pid"),
    "likwid-perfctr": _prefix("C c g t o"),
    "likwid-pin": _prefix("c"),
    "austin": _prefix("i o p x"),
    "hwloc-bind": _prefix("", 1),
    "coz": _prefix("", verbs="run"),
    **_bare("catchsegv latrace etrace xtrace sotruss memusage truss ktrace dtruss annotate-output multitime"),
}
_LIMITED = {
    "ionice": _prefix("c n p P u class classdata pid"),
    "chrt": _prefix("p T P D sched-runtime sched-period sched-deadline", 1),
    "cpulimit": _prefix("l p e c limit pid exe"),
    "numactl": _prefix("i m N C p interleave membind cpunodebind physcpubind preferred"),
    "prlimit": _prefix("p o pid output"),
    "choom": _prefix("n p adjust pid"),
    "uclampset": _prefix("m M p"),
    "cgexec": _prefix("g"),
    "schedtool": _prefix("p n a"),
    "softlimit": _prefix("a c d f l m o p r s t"),
    "s6-softlimit": _prefix("a c d f l m o p r s t"),
    "trickle": _prefix("d u w t l n L P"),
    "nocache": _prefix("n"),
    "timelimit": _prefix("t T s S"),
    "setlock": _prefix("", 1),
    "s6-setlock": _prefix("t", 1),
    "lckdo": _prefix("W", 1),
    "lockf": _prefix("t", 1),
    "lockrun": _prefix("L Q lockfile wait"),
    "with-lock-ex": _prefix("", 1),
    "consul": _prefix("name token http-addr n", 1, verbs="lock"),
    "etcdctl": _prefix("endpoints ttl", 1, verbs="lock"),
    "systemd-inhibit": _prefix("what who why mode"),
    "gnome-session-inhibit": _prefix("app-id reason inhibit"),
    "caffeinate": _prefix("t w"),
    "solo": _prefix("port"),
    **_bare("run-one run-this-one keep-one-running run-one-constantly run-one-until-success rtkit"),
}
_WATCHED = {
    "nohup": _prefix(),
    "setsid": _prefix(),
    "s6-setsid": _prefix(),
    "pgrphack": _prefix(),
    "fghack": _prefix(),
    "detach": _prefix("d e o i p"),
    "daemonize": _prefix("a c e o p l u E"),
    "daemon": _prefix("n u c o e r F p name user chdir"),
    "dtach": _prefix("r E", 1),
    "abduco": _prefix("e", 1),
    "nq": _prefix(),
    "ts": _prefix("S f t D N L g i o w k p u r U"),
    "tsp": _prefix("S f t D N L g i o w k p u r U"),
    "pueue": _prefix("w g d e l a working-directory group delay after label", verbs="add"),
    "zellij": _prefix("n d name direction cwd", verbs="run"),
    "dumb-init": _prefix("r"),
    "tini": _prefix("p e"),
    "systemd-run": _prefix(
        "p u E H M G setenv property unit slice description uid gid nice working-directory on-active on-boot "
        "on-startup "
        "on-calendar on-unit-active on-unit-inactive path-property timer-property service-type host machine "
        "socket-property background",
    ),
    "systemd-cat": _prefix("t p P identifier priority"),
    "systemd-socket-activate": _prefix("l E listen setenv fdname"),
    "tcpserver": _prefix("c u g b l t x", 2),
    "logsave": _prefix("", 1),
    "stdbuf": _prefix("i o e input output error"),
    "time": _prefix("f o format output"),
    "faketime": _prefix("f", 1),
    "datefudge": _prefix("", 1),
    "rlwrap": _prefix("f H C b s"),
    "sshpass": _prefix("p f P d"),
    "k5start": _prefix("f k u S c H K l o p r t"),
    "krenew": _prefix("H K k c p"),
    "retry": _prefix("t d m u times delay until max"),
    "reflex": _prefix("r g R G s d regex glob"),
    "gpg-agent": _prefix("homedir options log-file"),
    "ssh-agent": _prefix("a t E P"),
    "dbus-run-session": _prefix("config-file dbus-daemon"),
    "dbus-launch": _prefix(),
    "xvfb-run": _prefix("n e f s w p server-args server-num"),
    "proxychains": _prefix("f"),
    "proxychains4": _prefix("f"),
    "exec": _prefix("a"),
    **_bare("unbuffer eatmydata torsocks torify tsocks socksify graftcp chronic cronic ifne zrun with-contenv rsg"),
}
_WITH_AN_ENVIRONMENT = {
    "envdir": _prefix("", 1),
    "s6-envdir": _prefix("", 1),
    "envuidgid": _prefix("", 1),
    "pipenv": _prefix("", verbs="run"),
    "poetry": _prefix("C directory", verbs="run"),
    "pdm": _prefix("p project", verbs="run"),
    "hatch": _prefix("e env", verbs="run"),
    "rye": _prefix("", verbs="run"),
    "uv": _prefix("p python with with-requirements extra group env-file directory project index-url", verbs="run"),
    "pixi": _prefix("e environment manifest-path", verbs="run exec"),
    **dict.fromkeys(named("conda mamba micromamba"), _prefix("n p name prefix cwd", verbs="run")),
    "bundle": _prefix("", verbs="exec"),
    **dict.fromkeys(named("asdf rbenv pyenv nodenv goenv jenv opam stack cabal dune"), _prefix("", verbs="exec")),
    "mise": _prefix("C cd", verbs="exec x"),
    "direnv": _prefix("", 1, verbs="exec"),
    "meson": _prefix("C w", verbs="devenv"),
    "lerna": _prefix("scope", verbs="exec"),
    "yarn": _prefix("cwd", verbs="exec run node"),
    "pnpm": _prefix("C dir filter", verbs="exec dlx"),
    "npx": _prefix("p package w workspace"),
    "npm": _prefix("w workspace prefix package", verbs="exec x"),
    "bunx": _prefix("p"),
    "dotenv": _prefix("f e c file", verbs="run"),
    "dotenvx": _prefix("f env-file", verbs="run"),
    **dict.fromkeys(named("op doppler infisical teller"), _prefix("p c env env-file project config", verbs="run")),
    "aws-vault": _prefix("d", 1, verbs="exec"),
    "chamber": _prefix("b", 1, verbs="exec"),
    "summon": _prefix("p f e"),
    "envconsul": _prefix("prefix secret config"),
    "envchain": _prefix("", 1),
    "gopass": _prefix("", 1, verbs="env"),
    **dict.fromkeys(named("mpirun mpiexec orterun prun"), _prefix("n np H host hostfile machinefile x wdir map-by")),
    **dict.fromkeys(named("srun salloc"), _prefix("n N c p t w A J D o e partition time nodelist account job-name")),
}

PREFIXES: dict[str, Prefix] = {
    **_AS_ANOTHER_ACCOUNT,
    **_ELSEWHERE,
    **_TRACING,
    **_LIMITED,
    **_WATCHED,
    **_WITH_AN_ENVIRONMENT,
}
_ARCHITECTURE = re.compile(r"x86_64|i\d86|linux\d\d|ppc\w*|armv\w+|aarch64")


def behind_prefix(call: Call) -> Parts:
    """Options, some words, then the command."""
    rest = _command(call, PREFIXES[call.name])
    return again(call, rest, call.name) if rest else printed(call)


def _command(call: Call, spec: Prefix) -> list[Field]:
    rest = split(call.args, spec.takes, stops=True).operands
    if spec.verbs:
        if not rest or rest[0].text not in spec.verbs:
            return []
        rest = split(rest[1:], spec.takes, stops=True).operands
        # A profiler may have a kind of profile before the verb, and the verb again: `perf sched record`.
        if rest and rest[0].text in spec.verbs:
            rest = split(rest[1:], spec.takes, stops=True).operands
    rest = rest[spec.skip :]
    if rest and rest[0].text in ("--", "---"):
        rest = rest[1:]
    if spec.assigns:
        rest = assigned(rest, call)
    if call.name == "setarch" and rest and (rest[0].text is None or _ARCHITECTURE.fullmatch(rest[0].text)):
        rest = rest[1:]
    return rest
