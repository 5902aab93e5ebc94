"""What a command does to the host: the tables of the rules, and the checks that need to know paths."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from server_monitor.tasks.policy import (
    constants,
    critical,
    dropped,
    in_place,
    named_files,
    network_checks,
    paths,
    processes,
    units,
)
from server_monitor.tasks.policy.calls import Call
from server_monitor.tasks.policy.copying import CHECKS as WRITING_CHECKS
from server_monitor.tasks.policy.options import Options, named
from server_monitor.tasks.policy.permissions import CHECKS as PERMISSION_CHECKS
from server_monitor.tasks.policy.removing import CHECKS as REMOVAL_CHECKS
from server_monitor.tasks.policy.rules.records import SQL
from server_monitor.tasks.policy.rules.rule import Match
from server_monitor.tasks.policy.rules.table import BY_PROGRAM
from server_monitor.tasks.policy.shell import SearchPath
from server_monitor.tasks.policy.values import Parts, known, shown

if TYPE_CHECKING:
    from server_monitor.tasks.policy.walk import Walker

Check = Callable[[Call], None]

CHECKS: dict[str, tuple[Check, ...]] = {}
for table in (
    REMOVAL_CHECKS,
    WRITING_CHECKS,
    PERMISSION_CHECKS,
    processes.CHECKS,
    network_checks.CHECKS,
    dropped.CHECKS,
    units.CHECKS,
):
    for program, check in table.items():
        CHECKS[program] = (*CHECKS.get(program, ()), check)


def judge(call: Call) -> None:
    """Hold one call against every rule about its program."""
    if is_dry_run(call):
        return
    if rows := BY_PROGRAM.get(call.name):
        _judge_rows(call, rows)
    if call.name in ("systemctl", "dbus-update-activation-environment"):
        _judge_settings(call)
    checks = CHECKS.get(call.name, ())
    for check in checks:
        check(call)
    in_place.judge(call)
    named_files.judge(call, has_check=bool(checks) and call.name != "openssl")
    if call.name.startswith("mkfs."):
        for rule, row in BY_PROGRAM["mkfs"] if call.name not in BY_PROGRAM else ():
            _judge_row(call, rule, row, arguments(call))


# Options by which programs only say what they would do.
_DRY_RUNS: dict[str, re.Pattern[str]] = {
    **dict.fromkeys(("kubectl", "oc"), re.compile(r"--dry-run(?:=(?:client|server|true)|$|(?= ))")),
    **dict.fromkeys(
        ("helm", "docker", "docker-compose", "git", "rclone", "restic", "borg", "aws", "certbot", "velero", "kopia"),
        re.compile(r"(?:^| )--dry-?run(?= |$|=true)"),
    ),
    "rsync": re.compile(r"(?:^| )(?:--dry-run|-[a-zA-Z]*n[a-zA-Z]*)(?= |$)"),
    "puppet": re.compile(r"(?:^| )--noop(?= |$)"),
}


def is_dry_run(call: Call) -> bool:
    """Does the program only say what it would do?"""
    pattern = _DRY_RUNS.get(call.name)
    return pattern is not None and pattern.search(" ".join(call.texts)) is not None


def _judge_rows(call: Call, rows: tuple[tuple[str, Match], ...]) -> None:
    text = arguments(call)
    for rule, row in rows:
        _judge_row(call, rule, row, text)


def _judge_row(call: Call, rule: str, row: Match, text: str) -> None:
    if row.why and row.pattern.search(text) and not (row.unless and row.unless.search(text)):
        call.walker.find(rule, row.why, call.span, resolved=f"{call.name} {text}".strip())


def arguments(call: Call) -> str:
    """The arguments as the tables see them; for programs that read a script, what they are given to read as well."""
    text = call.rendered
    if call.name in _SQL:
        text = re.sub(r"/\*.*?\*/|--[ \t][^\n]*", " ", text, flags=re.DOTALL)
    if call.stdin is not None and call.name in STDIN_SCRIPTS:
        text = f"{text} {shown(call.stdin)}".strip()
    if call.name in STDIN_SCRIPTS and call.state.files:
        text = " ".join([text, *_given_files(call)])
    if call.name in _SQL or call.name in ("mongo", "redis-cli"):
        plain = " ".join([*call.texts, shown(call.stdin or ())])
        again_ = constants.folded(plain)
        text = f"{text} {again_}" if again_ != plain else text
    return text


# Words of these programs by which a script goes on in another file.
_INCLUDE = re.compile(r"(?:\\ir?|\\\.|(?i:source|\.read|@@?))\s*['\"]?([\w./~-]+)")


def _given_files(call: Call) -> list[str]:
    """The scripts that the task wrote and this call reads, by its arguments or by a word in another script."""
    found = [text for arg in call.args for text in call.written_files(arg)]
    scripts = [*call.texts, shown(call.stdin or ()), *found]
    names = [name for script in scripts for name in _INCLUDE.findall(script)]
    return found + [text for name in names[:8] for text in call.written_files(known(name))]


_SQL = frozenset(SQL.split())
STDIN_SCRIPTS = named(
    "mysql psql sqlite3 redis-cli mongo fdisk sfdisk gdisk parted cfdisk nft iptables-restore telnet cqlsh "
    "clickhouse-client "
    "dnf yum zypper dpkg nc etcdctl sqlcmd sqlplus kubectl influx isql debugfs lvm ceph zkCli.sh virsh ldapmodify "
    "cockroach duckdb ncat"
) - {"sfdisk", "ncat"}

_LOADS = named("LD_PRELOAD LD_AUDIT LD_LIBRARY_PATH LD_ORIGIN_PATH")
_RUNS = named(
    "BASH_ENV ENV PROMPT_COMMAND PS0 PS4 PS1 GIT_SSH_COMMAND GIT_SSH GIT_EXTERNAL_DIFF GIT_PAGER GIT_EDITOR "
    "GIT_ASKPASS SSH_ASKPASS "
    "GIT_PROXY_COMMAND GIT_SEQUENCE_EDITOR LESSOPEN LESSCLOSE PAGER MANPAGER EDITOR VISUAL BROWSER SUDO_EDITOR "
    "PERL5OPT "
    "RUBYOPT PYTHONSTARTUP NODE_OPTIONS PERL5DB MAKEFLAGS JAVA_TOOL_OPTIONS _JAVA_OPTIONS PYTHONINSPECT "
    "PYTHONBREAKPOINT "
    "DEBUG_CMD PYTHONPATH PERL5LIB PERLLIB RUBYLIB NODE_PATH RSYNC_RSH CVS_RSH SVN_SSH SYSTEMD_EDITOR "
    "SYSTEMD_PAGER TAR_OPTIONS "
    "ZDOTDIR GCONV_PATH PYTHONHOME PYTHONWARNINGS BASHOPTS_ENV FCEDIT LESSEDIT"
)
STEERING = _LOADS | _RUNS  # variables by which other programs load or run something
_COMMAND_VALUES = named(
    "PROMPT_COMMAND GIT_SSH_COMMAND GIT_EXTERNAL_DIFF GIT_PAGER GIT_EDITOR PAGER MANPAGER EDITOR VISUAL BROWSER "
    "SUDO_EDITOR "
    "GIT_SEQUENCE_EDITOR GIT_PROXY_COMMAND RSYNC_RSH LESSOPEN LESSCLOSE SVN_SSH SYSTEMD_EDITOR SYSTEMD_PAGER "
    "FCEDIT GIT_SSH PS0 PS4 PS1"
)
PROMPTS = ("PS0", "PS1", "PS4")
_HARMLESS_VALUES = re.compile(
    r"(?:/(?:usr/)?bin/)?(?:cat|less|more|most|true|false|vim?|nvim|nano|emacs|ed|ex|view|pico|joe|micro|code|batcat|bat|lynx|"
    r"firefox|ssh)?(?: [-\w=/.~@]+)*"
)
_SAFE_PATHS = ("/usr", "/bin", "/sbin", "/lib", "/opt", "/snap", "/lib64", "/nix", "/home", "/srv", "/root", "/var/lib")


def judge_environment(call: Call) -> None:
    for name, value in call.env.items():
        judge_variable(name, value, call.walker, call.span)


def judge_variable(name: str, value: Parts, walker: Walker, span: tuple[int, int]) -> None:
    """A variable that makes other programs load or run something."""
    text = shown(value)
    if (name == "HISTFILE" and text in ("", "/dev/null")) or (name in ("HISTSIZE", "HISTFILESIZE") and text == "0"):
        walker.find("log.tamper", "stops the shell's history", span, resolved=f"{name}={text}")
    if name == "HISTIGNORE" and text == "*":
        walker.find("log.tamper", "stops the shell's history", span, resolved=f"{name}={text}")
    if name.startswith("BASH_FUNC_") and "{" in text:
        walker.find("rce.loaded_library", f"gives shells a function by the variable {name}", span)
        walker.run_text(text.partition(")")[2].replace("…", "x"), name, span)
    if name not in _LOADS and name not in _RUNS and name != "PATH":
        return
    if name == "PATH" or name in _LOADS or name.endswith(("PATH", "LIB", "HOME")):
        _judge_search_path(name, text, walker, span)
    elif name in _COMMAND_VALUES:
        _judge_command_value(name, value, walker, span)
    elif text and not (name == "NODE_OPTIONS" and "require" not in text) and not _is_plain_option(name, text):
        walker.find(
            "rce.loaded_library", f"makes programs run code by the variable {name}", span, resolved=f"{name}={text}"
        )


def _is_plain_option(name: str, text: str) -> bool:
    if name == "MAKEFLAGS":
        return "eval" not in text.lower()
    if name in ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS"):
        return "agent" not in text
    return name in ("PYTHONWARNINGS", "PYTHONINSPECT", "TAR_OPTIONS") and "exec" not in text and "command" not in text


def _judge_search_path(name: str, text: str, walker: Walker, span: tuple[int, int]) -> None:
    folders = [folder for folder in re.split("[: ]", text) if folder and not folder.startswith("$")]
    if name == "PATH":
        # To a shell nothing is the directory that it is in.
        folders = [folder or "." for folder in text.split(":")]
        system = next((i for i, f in enumerate(folders) if f in critical.PROGRAM_DIRECTORIES), len(folders))
        folders = folders[:system]
    bad = [f for f in folders if paths.is_in_temporary(f) or f in (".", "..") or f.startswith(("./", "../"))]
    if name in ("LD_PRELOAD", "LD_AUDIT"):
        bad = [f for f in folders if not f.startswith("/usr/lib") or "/../" in f]
    if bad:
        why = f"makes programs load code from {bad[0]} by the variable {name}"
        walker.find("rce.loaded_library", why, span, resolved=f"{name}={text}")
    if any(folder.rstrip("/") not in _SYSTEM_FOLDERS for folder in folders):
        walker.account.search_paths.append(SearchPath(name, text, span))


_SYSTEM_FOLDERS = (*critical.PROGRAM_DIRECTORIES, "/usr/lib", "/lib", "/lib64", "/usr/lib64", "/usr/local/lib")


def _judge_command_value(name: str, value: Parts, walker: Walker, span: tuple[int, int]) -> None:
    text = shown(value)
    if not text or _HARMLESS_VALUES.fullmatch(text) or (name in PROMPTS and "$(" not in text and "`" not in text):
        return
    before = len(walker.account.findings)
    if name in PROMPTS:
        walker.expand_text(text)
    else:
        walker.run_text(text.replace("…", "x"), name, span)
    if len(walker.account.findings) == before and name not in PROMPTS:
        why = f"makes programs run a command by the variable {name}"
        walker.find("rce.loaded_library", why, span, resolved=f"{name}={text}")


def _judge_settings(call: Call) -> None:
    """Variables for all that a manager of processes starts from then on."""
    for arg in call.args:
        name, equals, value = arg.prefix.partition("=")
        if equals and name.isidentifier():
            judge_variable(name, (value, *arg.parts[1:]), call.walker, arg.span)


def judge_unset(names: list[str], call: Call) -> None:
    if any(name in ("HISTFILE", "HISTSIZE", "HISTFILESIZE", "HISTCONTROL") for name in names):
        call.walker.find("log.tamper", "stops the shell's history", call.span)
    if "PATH" in names:
        _judge_search_path("PATH", "", call.walker, call.span)


def judge_container(call: Call, options: Options) -> None:
    """A container that is given the host."""
    for volume in options.all_values("v", "volume"):
        host = (volume.text or "").partition(":")[0]
        if host.startswith("/") and paths.normal(host) in ("/", "/etc", "/boot", "/dev", "/proc", "/sys"):
            call.walker.find("perm.escalation", f"gives a container the host's {paths.normal(host)}", volume.span)
    for mount in options.all_values("mount"):
        if re.search(r"(source|src)=/(etc|boot|dev|proc|sys)?(,|$)", mount.text or ""):
            call.walker.find("perm.escalation", "gives a container a directory of the host's system", mount.span)
    if options.has("privileged"):
        call.walker.find("perm.escalation", "gives a container every right on the host", call.span)
    if (pid := options.value("pid")) is not None and pid.text == "host":
        call.walker.find("perm.escalation", "lets a container see the host's processes", call.span)
