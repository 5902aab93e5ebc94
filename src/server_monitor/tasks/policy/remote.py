"""Commands that run others on another machine or in a container: the same rules hold there."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from server_monitor.tasks.policy import declared, effects, paths, scripts
from server_monitor.tasks.policy.calls import again
from server_monitor.tasks.policy.options import named, split
from server_monitor.tasks.policy.printing.described import described
from server_monitor.tasks.policy.values import Field, Gap, Parts, Source, flat, joined, known

if TYPE_CHECKING:
    from server_monitor.tasks.policy.calls import Call
SSH = named("B b c D E e F I i J L l m O o p Q R S W w P")
CONTAINER = named(
    "a e h l m p u v w add-host annotation blkio-weight cap-add cap-drop cgroup-parent cgroupns cidfile cpu-period "
    "cpu-quota cpu-shares cpus cpuset-cpus cpuset-mems detach-keys device dns dns-option dns-search domainname "
    "entrypoint "
    "env env-file expose gpus group-add health-cmd health-interval health-retries health-timeout hostname ip ip6 ipc "
    "isolation kernel-memory label label-file link log-driver log-opt mac-address memory memory-reservation "
    "memory-swap "
    "mount name network network-alias net oom-score-adj pid pids-limit platform publish pull restart runtime "
    "security-opt "
    "shm-size stop-signal stop-timeout storage-opt sysctl tmpfs ulimit user userns uts volume volume-driver "
    "volumes-from "
    "workdir index c container n namespace context kubeconfig pod-running-timeout f filename file project-name "
    "profile project-directory H host scale"
)


def _code(call: Call, fields: list[Field], how: str) -> Parts:
    """The words joined by blanks, as the other side's shell reads them."""
    pieces: list[Parts] = []
    for field in fields:
        pieces += [(" ",), flat(field.parts)] if pieces else [flat(field.parts)]
    return scripts.run_parts(joined(*pieces), call, how, (fields[0].span[0], fields[-1].span[1]))


def _ssh(call: Call) -> Parts:
    options = split(call.args, SSH, stops=True)
    for setting in options.all_values("o"):
        match = re.fullmatch(r"\s*(\w+)\s*[= ]\s*(.*)", setting.text or setting.shown, re.DOTALL)
        name, value = (match[1], match[2]) if match else ("", "")
        if name.lower() in ("proxycommand", "localcommand", "knownhostscommand"):
            scripts.run_parts((value,), call, f"ssh {name}", setting.span)
    rest = options.operands
    if not rest:
        return (Gap(Source.OUTPUT),)
    # More options may follow the host.
    rest = split(rest[1:], SSH, stops=True).operands
    if rest:
        _code(call, rest, "ssh")
    elif call.stdin is not None:
        scripts.run_parts(call.stdin, call, "ssh <", call.span, is_stdin=True)
    return (Gap(Source.OUTPUT),)


def _docker(call: Call) -> Parts:
    words = call.texts
    verbs = [place for place, word in enumerate(words) if word in ("exec", "run", "create", "debug", "compose", "rsh")]
    verb = next((place for place in verbs if words[place] != "compose"), None)
    if verb is None:
        return _described(call)
    options = split(call.args[verb + 1 :], CONTAINER, stops=True)
    effects.judge_container(call, options)
    rest = options.operands[1:]
    if rest and rest[0].text == "--":
        rest = rest[1:]
    kept = dict(call.state.links)
    for volume in [*options.all_values("v", "volume")]:
        host, _, inside = (volume.text or "").partition(":")
        inside = inside.partition(":")[0]
        if host.startswith("/") and inside.startswith("/"):
            call.state.links[paths.normal(inside)] = paths.normal(host)
    for mount in options.all_values("mount"):
        parts: dict[str, str] = dict(re.findall(r"(\w+)=([^,]+)", mount.text or ""))
        source, target = parts.get("source", parts.get("src", "")), parts.get("target", parts.get("dst", ""))
        if source.startswith("/") and target.startswith("/"):
            call.state.links[paths.normal(target)] = paths.normal(source)
    try:
        entry = options.value("entrypoint")
        if entry is not None:
            return again(call, [entry, *rest], call.name)
        return again(call, rest, f"{call.name} {words[verb]}") if rest else (Gap(Source.OUTPUT),)
    finally:
        call.state.links = kept


def _described(call: Call) -> Parts:
    return described(call)


def _kubectl(call: Call) -> Parts:
    words = call.texts
    if not {"exec", "run", "debug", "rsh"} & set(words):
        return _described(call)
    for place, word in enumerate(words):
        if word == "--":
            return again(call, call.args[place + 1 :], f"{call.name} exec")
    return _docker(call)


def _lxc(call: Call) -> Parts:
    for place, arg in enumerate(call.args):
        if arg.text == "--":
            return again(call, call.args[place + 1 :], call.name)
    words = call.texts
    if "exec" in words:
        return again(call, call.args[words.index("exec") + 2 :], call.name)
    return (Gap(Source.OUTPUT),)


def _ansible(call: Call) -> Parts:
    options = split(
        call.args, named("a m i u l f k e M t B P c T module-name args inventory user limit forks extra-vars")
    )
    module = (given.text if (given := options.value("m", "module-name")) else None) or "command"
    args = options.value("a", "args")
    if options.has("C", "check"):
        return (Gap(Source.OUTPUT),)
    short = module.rpartition(".")[2]
    if args is None:
        if short == "reboot":
            return again(call, [known("reboot", call.span)], "ansible")
        return (Gap(Source.OUTPUT),)
    if short in ("command", "shell", "raw", "script"):
        return scripts.run_code(args, call, "ansible -a", [])
    return _ansible_module(call, short, args)


def _ansible_module(call: Call, module: str, args: Field) -> Parts:
    """The modules that do what a command does."""
    values: dict[str, str] = dict(re.findall(r"(\w+)=('[^']*'|\"[^\"]*\"|\S+)", args.text or args.shown))
    values = {key: value.strip("'\"") for key, value in values.items()}
    declared.resource(module, values.get("name", values.get("pkg", "")), values, call, args.span)
    return (Gap(Source.OUTPUT),)


SALT_MODULES = {
    "pkg.remove": ("apt-get", "remove"),
    "pkg.purge": ("apt-get", "purge"),
    "pkg.autoremove": ("apt-get", "autoremove", "x"),
    "service.stop": ("systemctl", "stop"),
    "service.disable": ("systemctl", "disable"),
    "service.mask": ("systemctl", "mask"),
    "ps.kill_pid": ("kill",),
    "shadow.set_password": ("passwd",),
    "shadow.del_password": ("passwd", "-d"),
    "shadow.lock_password": ("passwd", "-l"),
    "group.delete": ("groupdel",),
    "mount.umount": ("umount",),
    "network.down": ("ifdown",),
    "mysql.db_remove": ("dropdb",),
    "postgres.db_remove": ("dropdb",),
    "user.delete": ("userdel",),
    "file.remove": ("rm", "-rf"),
    "file.write": ("tee",),
    "file.append": ("tee", "-a"),
    "file.prepend": ("tee",),
    "file.replace": ("tee",),
    "file.line": ("tee",),
    "file.comment": ("tee",),
    "file.truncate": ("truncate", "-s", "0"),
    "file.copy": ("cp",),
    "file.symlink": ("ln", "-sf"),
    "file.set_mode": ("chmod",),
    "cp.get_url": ("curl", "-o"),
    "cp.get_file": ("cp",),
    "disk.wipe": ("wipefs", "-a"),
    "disk.format": ("mkfs",),
    "iptables.flush": ("iptables", "-F"),
    "kmod.remove": ("rmmod",),
    "kmod.load": ("modprobe",),
    "sysctl.assign": ("sysctl", "-w"),
    "ps.pkill": ("pkill",),
    "state.single": ("true",),
}


def _salt(call: Call) -> Parts:
    words = call.texts
    for place, word in enumerate(words):
        if word in ("cmd.run", "cmd.shell", "cmd.script", "cmd.run_all", "cmd.retcode"):
            rest = call.args[place + 1 :]
            return scripts.run_code(rest[0], call, f"{call.name} {word}", []) if rest else ()
        if (words_ := SALT_MODULES.get(word)) is not None:
            rest = call.args[place + 1 :]
            if words_[0] == "tee":
                # Behind the path stands what is written.
                text: Parts = rest[1].parts if len(rest) > 1 else (Gap(Source.FILE),)
                return again(call, [*(known(w, call.span) for w in words_), *rest[:1]], call.name, stdin=text)
            if word in ("file.set_mode", "cp.get_url"):
                rest = rest[1::-1]
            return again(call, [*(known(w, call.span) for w in words_), *rest], call.name)
        if word in ("system.reboot", "system.shutdown", "system.poweroff", "system.halt"):
            return again(call, [known(word.partition(".")[2], call.args[place].span)], call.name)
    return (Gap(Source.OUTPUT),)


def _pssh(call: Call) -> Parts:
    options = split(call.args, named("h H l p t o e x O w g f u b m host hosts user par timeout options"), stops=True)
    rest = options.operands
    if call.name in ("pdsh", "clush", "dsh", "pssh", "parallel-ssh", "mussh", "prsync", "cssh") and rest:
        return _code(call, rest, call.name)
    return (Gap(Source.OUTPUT),)


def _adb(call: Call) -> Parts:
    words = call.texts
    if "shell" in words:
        rest = call.args[words.index("shell") + 1 :]
        return _code(call, rest, "adb shell") if rest else ()
    return (Gap(Source.OUTPUT),)


def _machinectl(call: Call) -> Parts:
    words = call.texts
    if "shell" in words:
        return again(call, call.args[words.index("shell") + 2 :], "machinectl shell")
    return (Gap(Source.OUTPUT),)


def _aws(call: Call) -> Parts:
    for arg in call.args:
        match = re.search(r"commands?=\[?['\"]?(.+?)['\"]?\]?$", arg.text or "", re.DOTALL)
        if match is not None and "send-command" in call.texts:
            return scripts.run_parts((match[1],), call, "aws ssm send-command", arg.span)
    return _described(call)


REMOTE: dict[str, Callable[[Call], Parts]] = {
    **dict.fromkeys(("ssh", "slogin", "rsh", "remsh", "mosh", "autossh", "dbclient"), _ssh),
    **dict.fromkeys(("docker", "podman", "nerdctl", "crictl", "docker-compose", "podman-compose"), _docker),
    **dict.fromkeys(("kubectl", "oc", "k3s", "microk8s", "k"), _kubectl),
    **dict.fromkeys(("lxc", "incus", "lxc-attach", "lxc-execute", "pct"), _lxc),
    "ansible": _ansible,
    "puppet": declared.puppet,
    **dict.fromkeys(("chef-apply", "chef-client", "chef-solo", "cinc-apply", "cinc-client"), declared.chef),
    **dict.fromkeys(("salt", "salt-call", "salt-ssh"), _salt),
    **dict.fromkeys(("pssh", "parallel-ssh", "pdsh", "clush", "dsh", "mussh"), _pssh),
    "adb": _adb,
    "machinectl": _machinectl,
    "aws": _aws,
}
