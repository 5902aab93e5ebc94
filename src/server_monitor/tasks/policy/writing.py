"""Checks of what writes: redirections, copies, disk dumps, links, unpacking, mounting."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from server_monitor.tasks.policy import critical, dropped, paths, searching, units
from server_monitor.tasks.policy.paths import Place
from server_monitor.tasks.policy.programs import KNOWN
from server_monitor.tasks.policy.rules.kernel import TUNING
from server_monitor.tasks.policy.shell import Write
from server_monitor.tasks.policy.state import State, WrittenFile
from server_monitor.tasks.policy.values import Field, Gap, Parts, Source, is_endless, joined, shown, text_of

if TYPE_CHECKING:
    from server_monitor.tasks.policy.walk import Walker
COST_OF_A_WRITE = 50  # in characters looked at
_TUNED = re.compile(TUNING)
_HARMLESS_SYS = re.compile(
    r"/sys/(.*/power/(level|control|autosuspend\w*)$|block/[^/]+/queue|class/(leds|backlight|hwmon|thermal)|kernel/(mm|debug/tracing)|fs/cgroup|module/[^/]+/parameters)"
)


def write(file: Field, content: Parts, walker: Walker, *, is_appended: bool, is_redirect: bool = False) -> None:
    """Judge that `content` goes into a file, and remember it there."""
    for parts in (file.parts, *file.alts):
        place = paths.place_of(parts, walker.state)
        if (sink := walker.sinks.get(paths.descriptor(place) or "")) is not None:
            write(sink, content, walker, is_appended=True, is_redirect=is_redirect)
            continue
        if place.text in walker.consumers:
            walker.feed(place.text, content)
            continue
        _judge_write(place, Field(parts, file.span), content, walker, is_appended=is_appended)
        if place.is_exact:
            _remember(place.text, content, walker, is_appended=is_appended)
    if not is_redirect:
        place = paths.place_of(file.parts, walker.state)
        walker.account.writes.append(Write(place.text if place.is_exact else None, file.span))


def _remember(path: str, content: Parts, walker: Walker, *, is_appended: bool) -> None:
    if path.startswith("/dev/"):
        return
    files = walker.state.files
    before = files.get(path)
    whole = joined(before.content, content) if is_appended and before is not None else content
    files[path] = WrittenFile(whole, before.is_executable if before else False)
    dropped.judge(path, whole, walker)


def _judge_write(place: Place, file: Field, content: Parts, walker: Walker, *, is_appended: bool) -> None:
    walker.account.look(COST_OF_A_WRITE)
    span = file.span
    found = special(place) or _account_or_name(place, content, is_appended=is_appended)
    found = found or _critical(place, file, content, walker.state, is_appended=is_appended)
    if found is not None:
        rule, why = found
        walker.find(rule, why, span, resolved=f"> {file.shown}")
    elif not place.text and place.gap is not None and place.gap.source is Source.NETWORK:
        walker.find("opaque.target", "writes to a file that a download names", span)
    gap = next((part for part in content if isinstance(part, Gap)), None)
    to_disk = not place.text.startswith("/dev/") or paths.is_device(place) or paths.is_in_temporary(place.text)
    if gap is not None and to_disk and is_endless(gap):
        walker.find("bomb.fill", f"writes {gap.source.value} ({gap.detail}) to a file without end", span)
    judge_content(place.text, shown(content), walker, span)


# What must not be put into a file, though the file may be written: path, content, rule, why.
_CONTENTS = tuple(
    (re.compile(path), re.compile(content, re.MULTILINE | re.IGNORECASE), rule, why)
    for path, content, rule, why in (
        (r"/etc/hosts\.deny", r"ALL", "net.firewall", "shuts everybody out"),
        (
            r"/etc/ssh/sshd_config.*",
            (
                r"^\s*(DenyUsers|DenyGroups|AllowUsers|AllowGroups|PermitRootLogin\s+yes|PermitEmptyPasswords\s+yes|ForceCommand|"
                r"AuthorizedKeysCommand\s|ListenAddress\s+127|PasswordAuthentication\s+no\s*$.*PubkeyAuthentication\s+no)"
            ),
            "fs.overwrite_critical_file",
            "changes who may log in over SSH",
        ),
        (
            r"/etc/(rsyslog|syslog-ng).*",
            r"\bstop\b|~\s*$|/dev/null|^\s*\*\.\*\s*~",
            "log.tamper",
            "drops what is logged",
        ),
        (
            r"/etc/systemd/journald\.conf.*",
            r"Storage\s*=\s*none|MaxLevelStore\s*=\s*(emerg|alert)|SystemMaxUse\s*=\s*\d[KM]?$",
            "log.tamper",
            "drops what is logged",
        ),
        (
            r"/etc/apt/sources\.list.*",
            r"trusted\s*=\s*yes|allow-insecure\s*=\s*yes",
            "pkg.force",
            "trusts packages that nobody signed",
        ),
        (r"/etc/(yum\.repos\.d|dnf).*", r"gpgcheck\s*=\s*0", "pkg.force", "trusts packages that nobody signed"),
        (
            r"/etc/apt/apt\.conf.*",
            r"AllowUnauthenticated|AllowInsecure",
            "pkg.force",
            "trusts packages that nobody signed",
        ),
        (
            r"/etc/(sysctl\.conf|sysctl\.d/.*)",
            r"kernel\.(panic\s*=\s*1$|sysrq|core_pattern|modprobe|randomize_va_space\s*=\s*0)",
            "kernel.sysctl",
            "changes a guarding setting of the kernel",
        ),
        (
            r"/etc/modprobe\.d/.*",
            r"^\s*(blacklist|install)\s+(ext4|xfs|nvme|virtio\w*|e1000e?|ahci|sd_mod|scsi\w*|usb\w*|dm_mod|bonding|bridge|ip_tables|nf_tables)",
            "kernel.module",
            "keeps a module that the host needs from loading",
        ),
        (
            r"/etc/security/limits.*",
            r"^\s*\*\s+(hard|-|soft)\s+(nproc|nofile|as|fsize|cpu|maxlogins)\s+[0-5]\s*$",
            "perm.user_remove",
            "shuts everybody out",
        ),
        (
            r"/etc/(systemd/system|default|sysconfig)/.*",
            r"mitigations=off|selinux=0|apparmor=0|audit=0",
            "perm.mac_off",
            "turns a guard off at the next start",
        ),
        (r"/etc/docker/daemon\.json", r"tcp://0\.0\.0\.0", "perm.escalation", "opens the containers to the network"),
        (
            r"/dev/tcp/.*",
            r"FLUSHALL|FLUSHDB|\bSHUTDOWN\b|flush_all|CONFIG\s+SET|SLAVEOF|\bDROP\s+(DATABASE|TABLE)",
            "data.drop",
            "destroys data over the network",
        ),
    )
)


def judge_content(path: str, content: str, walker: Walker, span: tuple[int, int]) -> None:
    for where, what, rule, why in _CONTENTS:
        if where.fullmatch(path) and what.search(content):
            walker.find(rule, f"{why}, through {path}", span)


def special(place: Place) -> tuple[str, str] | None:
    """Devices, the files of the kernel, and those whose being there is enough."""
    path = place.text
    if path in ("/dev/mem", "/dev/kmem", "/dev/port", "/proc/kcore"):
        return "kernel.raw_memory", f"writes to memory through {path}"
    if paths.is_device(place):
        return "fs.write_device", f"writes to the device {path}"
    if path in ("/etc/nologin", "/run/nologin", "/var/run/nologin"):
        return "perm.user_remove", "keeps everybody but root from logging in"
    if paths.in_any(path, ("/etc/audit", "/etc/audisp")):
        return "log.tamper", f"changes what is recorded, through {path}"
    return _of_proc(place) if path.startswith("/proc") else _of_sys(path)


def _of_proc(place: Place) -> tuple[str, str] | None:
    path = place.text
    if path == "/proc/sysrq-trigger" or (not place.is_exact and paths.may_be(place, "/proc/sysrq-trigger")):
        return "kernel.sysrq", "gives the kernel an emergency command"
    key = path.removeprefix("/proc/sys/").replace("/", ".")
    if path.startswith("/proc/sys/") and _TUNED.fullmatch(key) is None:
        return "kernel.sysctl", f"changes the kernel's setting {key}"
    if re.match(r"/proc/(\d+|self)/(mem|attr|clear_refs)", path):
        return "kernel.raw_memory", f"writes into a process through {path}"
    return None


def _of_sys(path: str) -> tuple[str, str] | None:
    if path.startswith(("/sys/fs/selinux", "/sys/kernel/security")):
        return "perm.mac_off", f"changes a guard of the host through {path}"
    if path.startswith("/sys/fs/cgroup"):
        ends = path.endswith(("/cgroup.kill", "/cgroup.freeze", "/freezer.state"))
        return ("sys.kill_all", f"ends every process of a group through {path}") if ends else None
    if path.startswith("/sys/") and not _HARMLESS_SYS.match(path):
        return "kernel.raw_memory", f"changes the hardware's state through {path}"
    return None


def _account_or_name(place: Place, content: Parts, *, is_appended: bool) -> tuple[str, str] | None:
    path = _meant(place)
    if not is_appended and (found := _log(place, content)) is not None:
        return found
    if path in critical.ACCOUNT_FILES or paths.in_any(path, critical.ACCOUNT_TREES):
        if searching.is_found(place):
            return "perm.account_files", f"changes {path} through a search"
        if not content and path != "/etc/sudoers":
            return "fs.truncate_critical", f"empties {path}"
        if paths.is_in(path, "/etc/pam.d"):
            return "fs.overwrite_critical_file", f"changes how people log in through {path}"
        return "perm.account_files", f"changes {path}, which says who may log in or become root"
    if path in critical.NAME_RESOLUTION:
        return _name_resolution(path, content, is_appended=is_appended)
    if path.endswith("/.ssh/authorized_keys") or "/authorized_keys" in path:
        return _authorized_keys(path, content, is_appended=is_appended)
    if path == "/etc/selinux/config":
        return "perm.mac_off", "changes the configuration of SELinux"
    return None


def _meant(place: Place) -> str:
    """The one file that matters most among those that a pattern or a name can mean."""
    place = searching.meant(place)
    if searching.is_by_name(place) and place.tail:
        return f"{place.text.rstrip('/')}/{place.tail}"
    if place.is_exact or place.gap is not None:
        return place.text
    hit = next((f for f in (*critical.ACCOUNT_FILES, *critical.FILES) if paths.may_be(place, f)), None)
    return hit or place.text


_OLD_LOG = re.compile(r"/var/log/(?:auth\.log|secure|syslog|messages|wtmp|btmp|kern\.log)[-.].+")


def _log(place: Place, content: Parts) -> tuple[str, str] | None:
    path = place.text
    if paths.is_log(place) and not _is_new_configuration(path, content):
        return "log.tamper", f"overwrites the log {path}"
    return ("log.tamper", f"overwrites the old log {path}") if _OLD_LOG.fullmatch(path) else None


def _name_resolution(path: str, content: Parts, *, is_appended: bool) -> tuple[str, str] | None:
    if not is_appended:
        rule = "fs.truncate_critical" if not content and path == "/etc/nsswitch.conf" else "net.name_resolution"
        return rule, f"overwrites {path}"
    if path == "/etc/resolv.conf":
        return "net.name_resolution", "changes the name servers of the host"
    if path == "/etc/hosts" and _hijacks(shown(content)):
        return "net.name_resolution", "sends a public name elsewhere, through /etc/hosts"
    return None


_PUBLIC_NAME = re.compile(r"(?i)\b[\w-]+\.(?:com|org|net|io|dev|cloud|gov|edu|eu|de|uk|us|co|app|ai)\b")
_PRIVATE = re.compile(r"\s*(?:10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|169\.254\.|fd|fe80)")


def _hijacks(lines: str) -> bool:
    """Do these lines of /etc/hosts give a public name an address that is not one of a private network?"""
    return any(
        _PUBLIC_NAME.search(re.sub(r"\S*\bexample\.(?:com|org|net)\b", "", line)) and not _PRIVATE.match(line)
        for line in lines.splitlines()
        if not line.lstrip().startswith("#")
    )


def _is_new_configuration(path: str, content: Parts) -> bool:
    """A file of the log's configuration that is written out: what stands in it decides."""
    text = text_of(content)
    is_own = paths.in_any(path, ("/etc/rsyslog.d", "/etc/syslog-ng/conf.d")) and "default" not in path
    return is_own and text is not None and bool(text.strip())


def _authorized_keys(path: str, content: Parts, *, is_appended: bool) -> tuple[str, str] | None:
    text = text_of(content)
    if is_appended and text is None and all(not isinstance(p, Gap) or p.source is not Source.NETWORK for p in content):
        return None
    return "perm.escalation", f"lets whoever has a key log in, through {path}"


def _critical(place: Place, file: Field, content: Parts, state: State, *, is_appended: bool) -> tuple[str, str] | None:
    path = place.text
    if (
        paths.is_in(path, "/boot")
        or paths.is_in(path, "/efi")
        or path in ("/etc/default/grub", "/vmlinuz", "/initrd.img")
    ):
        return "kernel.boot", f"changes {path}, which the host starts from"
    if path.endswith("/default.target"):
        return "sys.default_target", "changes what the host starts into"
    is_relative = not file.prefix.startswith("/")
    if searching.is_found(place) and (lost := searching.change(place, state, is_relative=is_relative)) is not None:
        verb = "empties" if not content else "overwrites"
        rule = "fs.truncate_critical" if not content else "fs.overwrite_critical_file"
        return (rule if lost.is_certain else "opaque.target"), f"{verb} {lost.what}"
    unit = units.of_file(path)
    if unit is not None and (not units.is_dropped_in(path) or units.disables(text_of(content))):
        return "sys.stop_critical_service", f"changes what {unit} does, through {path}"
    loss = paths.file_loss(place)
    if loss is None:
        return None
    appends = is_appended and path != "/etc/ld.so.preload" and not is_program(path)
    if appends:
        return None
    text = text_of(content)
    if text is not None and not text.strip():
        return "fs.truncate_critical", f"empties {loss}"
    if is_program(path) and not _is_needed(path.rpartition("/")[2]):
        return "opaque.target", f"puts a program into {path.rpartition('/')[0]}"
    return "fs.overwrite_critical_file", f"overwrites {loss}"


def _is_needed(name: str) -> bool:
    """A program or library that much else stands on, as opposed to one more."""
    return (
        name in KNOWN
        or re.match(
            r".*\.ko(\.\w+)?$|pam_|systemd|sshd|login|a?getty|ld-|lib(c|m|dl|rt|pthread|pam|ssl|crypto|systemd|nss|z|resolv|selinux)[\w-]*[.-]",
            name,
        )
        is not None
    )


def is_program(path: str) -> bool:
    return paths.in_any(path, ("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/lib", "/lib64", "/usr/lib", "/usr/lib64"))
