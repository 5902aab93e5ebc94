"""States that a tool for configuration is told to bring about: Ansible, Puppet, Chef, Salt.

A resource has a kind, a name and values: `package`, `openssh-server`, `ensure => absent`. What the tool would do is
judged as the command that does the same, or as a write to the file that the resource names.
"""

from __future__ import annotations

import re

from server_monitor.tasks.policy import scripts
from server_monitor.tasks.policy.calls import Call, again
from server_monitor.tasks.policy.options import named
from server_monitor.tasks.policy.values import Field, Gap, Parts, Source, Span, known
from server_monitor.tasks.policy.writing import write

_GONE = named(
    "absent removed purged remove purge delete deleted uninstalled stopped stop disable disabled latest-absent"
)
_PACKAGES = named(
    "package apt yum dnf zypper apk pacman pip_package rpm dpkg pkgng portage homebrew snap apt_package yum_package"
)
_SERVICES = named("service systemd systemd_service sysvinit systemd_unit supervisorctl")
_FILES = named(
    "file copy template lineinfile blockinfile replace get_url unarchive ini_file assemble cookbook_file remote_file "
    "file_line acl synchronize fetch directory link concat augeas community_general_ini_file xml stat_file"
)
_ACCOUNTS = named("user group authorized_key")
_RUNS = named("exec execute bash script command shell raw win_shell powershell ruby_block cron job")
# Modules of databases, clusters, volumes and the cloud: what is absent there is gone with its data.
_DATA = re.compile(
    r"(?:mysql|postgresql|mongodb|mssql|influxdb|proxysql|clickhouse|redis|elastic\w*|(?:docker|podman)_(?:volume|swarm\w*)|k8s|kubernetes|helm|ec2|"
    r"s3|rds|aws|gcp|azure|lvol|lvg|zfs|zpool|parted|filesystem|luks\w*|vmware|proxmox|virt|libvirt|terraform|"
    r"route53|cloudformation|openstack|digital_ocean|hcloud|rabbitmq|kafka|consul|vault|logical_volume|volume_group)"
)
_NETWORK = named(
    "firewalld ufw iptables nftables firewall nmcli interfaces_file network_connections selinux sefcontext mount sysctl"
)


def resource(kind: str, name: str, values: dict[str, str], call: Call, span: Span) -> None:
    """Judge one resource."""
    state = values.get("state", values.get("ensure", values.get("action", ""))).strip(":'\" ").lower()
    is_gone = state in _GONE
    if kind in _FILES:
        path = values.get("path") or values.get("dest") or values.get("target") or (name if name[:1] == "/" else "")
        _file(path, values, is_gone=is_gone, call=call, span=span)
    elif kind in _RUNS:
        code = values.get("command") or values.get("code") or values.get("job") or values.get("cmd") or name
        if not is_gone:
            scripts.run_parts((code,), call, call.name, span)
    elif words := _command(kind, name, values, state):
        again(call, [known(word, span) for word in words if word], call.name)
    else:
        _gone(kind, name, {**values, "state": state}, call, span)


def _command(kind: str, name: str, values: dict[str, str], state: str) -> list[str]:
    """The command that does the same, where there is one."""
    is_gone = state in _GONE
    if kind in _PACKAGES and is_gone:
        return ["apt-get", "purge", *re.split(r"[,\s]+", name)]
    if kind in _SERVICES:
        return _service(name, values, state)
    if kind in _ACCOUNTS:
        return _account(kind, name, values, is_gone=is_gone)
    if kind == "filesystem" and not is_gone:
        return ["mkfs", values.get("dev", "")]
    return ["reboot"] if kind == "reboot" else []


def _gone(kind: str, name: str, values: dict[str, str], call: Call, span: Span) -> None:
    """Data, and guards of the network, that are told to be absent."""
    state = values["state"]
    if state in _GONE and _DATA.match(kind):
        call.walker.find("data.drop", f"removes {name or kind} by the module {kind}", span)
    elif kind in _NETWORK and (
        state in _GONE or state in ("unmounted", "flush", "reset") or values.get("flush") in ("yes", "true")
    ):
        rule = "fs.mount_over" if kind == "mount" else "net.firewall"
        call.walker.find(rule, f"takes {name or kind} away", span)


def _service(name: str, values: dict[str, str], state: str) -> list[str]:
    off = ("no", "false", "False", "mask")
    if state in _GONE:
        return ["systemctl", "stop", name]
    if values.get("masked", "") in ("yes", "true", "True"):
        return ["systemctl", "mask", name]
    return ["systemctl", "disable", name] if values.get("enabled", values.get("enable", "")) in off else []


def _file(path: str, values: dict[str, str], *, is_gone: bool, call: Call, span: Span) -> None:
    if not path:
        return
    if is_gone and not {"line", "regexp", "option"} & values.keys():
        again(call, [known("rm", span), known("-rf", span), known(path, span)], call.name)
        return
    if mode := values.get("mode"):
        recursive = ["-R"] if values.get("recurse") in ("yes", "true", "True") else []
        again(call, [known(word, span) for word in ("chmod", *recursive, mode, path)], call.name)
    if owner := values.get("owner"):
        recursive = ["-R"] if values.get("recurse") in ("yes", "true", "True") else []
        again(call, [known(word, span) for word in ("chown", *recursive, owner, path)], call.name)
    if values.get("state", values.get("ensure", "")) in ("directory", "touch") and "content" not in values:
        return
    text = values.get("content") or values.get("line") or values.get("block") or values.get("value")
    content: Parts = (text,) if text else (Gap(Source.FILE),)
    write(known(path, span), content, call.walker, is_appended="line" in values)


def _account(kind: str, name: str, values: dict[str, str], *, is_gone: bool) -> list[str]:
    if kind == "authorized_key":
        return []
    if is_gone:
        return ["userdel" if kind == "user" else "groupdel", name]
    if "password" in values or values.get("password_lock") in ("yes", "true"):
        return ["usermod", "-p", "x", name]
    if values.get("uid") == "0":
        return ["usermod", "-o", "-u", "0", name]
    groups = values.get("groups", "")
    return ["usermod", "-aG", groups, name] if groups else []


_PUPPET = re.compile(r"\b([a-z]\w*)\s*\{\s*(?:\[[^\]]*\]|['\"]([^'\"]+)['\"])\s*:\s*([^}]*)\}")
_ARROW = re.compile(r"(\w+)\s*=>\s*(?:['\"]([^'\"]*)['\"]|([^\s,}]+))")
_CHEF = re.compile(r"\b([a-z]\w*)\s*\(?\s*['\"]([^'\"]+)['\"]\s*\)?\s*(?:(?:do\b|\{)(.*?)(?:\bend\b|\}|$))?", re.DOTALL)
_SET = re.compile(r"(\w+)\s+(?::(\w+)|['\"]([^'\"]*)['\"]|\[\s*:(\w+)[^\]]*\]|(\d+))")


def puppet(call: Call) -> Parts:
    """`puppet apply -e CODE` and `puppet resource KIND NAME key=value`."""
    words = call.texts
    if "--noop" in words:
        return (Gap(Source.OUTPUT),)
    if "resource" in words:
        rest = [w for w in words[words.index("resource") + 1 :] if not w.startswith("-")]
        values = dict(w.split("=", 1) for w in rest if "=" in w)
        if len(rest) > 1 and values:
            resource(rest[0], rest[1], values, call, call.span)
        return (Gap(Source.OUTPUT),)
    for source in _sources(call):
        for match in _PUPPET.finditer(source.text or source.shown):
            values = {key: quoted or bare for key, quoted, bare in _ARROW.findall(match[3])}
            resource(match[1], match[2] or "", values, call, source.span)
    return (Gap(Source.OUTPUT),)


def chef(call: Call) -> Parts:
    """`chef-apply -e CODE` and a recipe on standard input."""
    if any(word in ("-W", "--why-run") for word in call.texts):
        return (Gap(Source.OUTPUT),)
    for source in _sources(call):
        for match in _CHEF.finditer(source.text or source.shown):
            values = {key: next((v for v in found if v), "") for key, *found in _SET.findall(match[3] or "")}
            resource(match[1], match[2], values, call, source.span)
    return (Gap(Source.OUTPUT),)


def _sources(call: Call) -> list[Field]:
    """The code that is given: in an option, in a file that the task wrote, on standard input."""
    found = [call.args[i + 1] for i, arg in enumerate(call.args[:-1]) if arg.text in ("-e", "--execute")]
    for arg in call.args:
        place = call.place(arg)
        if place.is_exact and place.text in call.state.files:
            found.append(Field(call.state.files[place.text].content, arg.span))
    if not found and call.stdin is not None:
        found.append(Field(call.stdin, call.span))
    return found
