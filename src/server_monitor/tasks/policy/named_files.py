"""Files that a program of any kind names: as what it writes to, changes in place, or simply handles.

Thousands of programs write to a file that an option names. The file decides: one that says who may log in, or that the
host needs, is no place for the output of a program, whatever the program is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from server_monitor.tasks.policy import critical, paths
from server_monitor.tasks.policy.options import named
from server_monitor.tasks.policy.values import Field, Gap, Parts, Source, known
from server_monitor.tasks.policy.writing import write

if TYPE_CHECKING:
    from server_monitor.tasks.policy.calls import Call

_LONG = re.compile(
    r"--?(?:out|outfile|output|output-file|output-document|out-file|outform-file|log-file|logfile|log_file|result-file|"
    r"dest|destination|to-file|target-file|report|report-file|save|save-to|export|dump-to|write-to|transcript|typescript|"
    r"trace-file|pidfile|pid-file|o[NXGAS])"
)
_SHORT = named("-o -O -w")
# To these the short options above mean something else.
_OTHER_MEANING = named("ls grep egrep fgrep rg ps find stat diff wc who w ssh mount rsync date od sort cut tar install")
_IN_PLACE = re.compile(r"-i(?:\.\w+)?|--in-?place(?:=.*)?|--write")
# Programs that only read what they are given, or that have a check of their own which knows better.
_READS = named(
    "cat tac nl head tail less more most bat view grep egrep fgrep rg ag zgrep awk sed cut sort uniq wc od xxd "
    "hexdump strings base64 base32 diff cmp sdiff colordiff comm join paste column fold ls stat file test [ getfacl "
    "lsattr md5sum sha1sum sha256sum sha512sum b2sum cksum sum readlink realpath basename dirname namei find fuser "
    "lsof inotifywait auditctl ausearch aureport visudo pwck grpck restorecon chcon matchpathcon semanage dpkg "
    "dpkg-query rpm apt-file debsums getent id finger git etckeeper aide tripwire rkhunter chkrootkit lynis tar "
    "cpio zip scp cp mv rm ln chmod chown chgrp chattr setfacl touch install rsync mount umount docker podman "
    "nerdctl ssh echo printf logger jq xargs tee dd truncate shred split-names man vi ed nano emacs python perl "
    "ruby node php lua expect cd source . unshadow john augenrules logrotate borg restic duplicity rclone aws curl "
    "wget openssl gpg nc ncat socat mail ansible salt salt-call puppet chef-apply augtool crudini time env sudo"
)


def judge(call: Call, *, has_check: bool) -> None:
    """Judge the files that this call names."""
    if call.name not in ("echo", "printf", "logger"):
        _outputs(call, has_check=has_check)
    if not has_check and call.name not in _READS and any(_IN_PLACE.fullmatch(text) for text in call.texts):
        for arg in call.args:
            if arg.prefix.startswith("/") and not paths.is_device(call.place(arg)):
                _written(arg, call)
    if (check := _CHECKS.get(call.name)) is not None:
        check(call)
    if call.name not in _READS and not has_check:
        _handled(call)


def _outputs(call: Call, *, has_check: bool) -> None:
    for place, arg in enumerate(call.args):
        option, equals, value = arg.prefix.partition("=")
        is_short = option in _SHORT and not has_check and call.name not in _OTHER_MEANING | _READS
        is_short = is_short or (option == "-o" and call.name in ("gpg", "base64", "openssl", "base32"))
        if not is_short and _LONG.fullmatch(option) is None:
            continue
        if equals:
            _written(known(value, arg.span), call)
        elif place + 1 < len(call.args):
            _written(call.args[place + 1], call)


def _written(file: Field, call: Call) -> None:
    target = call.place(file)
    if target.is_exact and (
        paths.is_device(target) or paths.is_critical_file(target.text) or paths.in_any(target.text, _ACCOUNTS)
    ):
        write(file, (Gap(Source.OUTPUT),), call.walker, is_appended=False)


_ACCOUNTS = (*critical.ACCOUNT_FILES, *critical.ACCOUNT_TREES)


def _handled(call: Call) -> None:
    """A program that nobody here knows, and a file that says who may log in."""
    for arg in call.args:
        text = arg.prefix.rpartition("=")[2]
        if text.startswith("/") and paths.in_any(paths.normal(text), _ACCOUNTS):
            why = f"lets {call.name} handle {text}, which says who may log in or become root"
            call.walker.find("perm.escalation", why, arg.span)


def _augtool(call: Call) -> None:
    """`augtool set /files/etc/passwd/ada/uid 0`: a path below `/files` is a place inside a file."""
    script = " ".join(call.texts)
    if call.stdin is not None:
        script += "\n" + "".join(part for part in call.stdin if isinstance(part, str))
    for match in re.finditer(
        r"\b(?:set|setm|rm|clear|ins|insert|mv|move|touch|rename|cp|copy|store)\b[^\n]*?/files(/\S+)", script
    ):
        names = match[1].split("/")
        for end in range(2, len(names) + 1):
            path = re.sub(r"\[.*", "", "/".join(names[:end]))
            if paths.is_critical_file(path) or path in _ACCOUNTS:
                write(known(path, call.span), (Gap(Source.OUTPUT),), call.walker, is_appended=False)
                break


def _crudini(call: Call) -> None:
    """`crudini --set FILE SECTION KEY VALUE`: what it puts there is a line of the file."""
    texts = [text for text in call.texts if not text.startswith("-")]
    if not any(text in ("--set", "--del", "--merge") for text in call.texts) or not texts:
        return
    content: Parts = (f"{texts[2]}={texts[3]}\n",) if len(texts) > 3 else (Gap(Source.OUTPUT),)
    write(known(texts[0], call.span), content, call.walker, is_appended=False)


def _sqlite(call: Call) -> None:
    """Commands of the shell of SQLite that write to a file."""
    script = "\n".join(call.texts) + "\n" + "".join(p for p in call.stdin or () if isinstance(p, str))
    for match in re.finditer(
        r"^\s*\.(?:output|once|backup|save|log|trace|archive)\s+['\"]?([^'\"\s|]+)", script, re.MULTILINE
    ):
        _written(known(match[1], call.span), call)


def _last_operand(call: Call) -> None:
    """Programs that write to their last word, or to what it begins with."""
    operands = [arg for arg in call.args if not arg.prefix.startswith("-")]
    if operands:
        _written(operands[-1], call)


def _first_operand(call: Call) -> None:
    operands = [arg for arg in call.args if not arg.prefix.startswith("-")]
    if operands:
        _written(operands[0], call)


def _rsync(call: Call) -> None:
    operands = [arg for arg in call.args if not arg.prefix.startswith("-")]
    if len(operands) > 1 and ":" not in operands[-1].prefix and not operands[-1].prefix.endswith("/"):
        _written(operands[-1], call)


def _git(call: Call) -> None:
    """Where git writes besides its repository: the tree of a patch, and the file of a setting."""
    if "config" in call.texts:
        for place, arg in enumerate(call.args[:-1]):
            if arg.text in ("-f", "--file"):
                _written(call.args[place + 1], call)
    for place, arg in enumerate(call.args):
        option, equals, value = (arg.text or "").partition("=")
        if option in ("--directory", "-C", "--work-tree", "--git-dir", "--prefix"):
            folder = known(value, arg.span) if equals else next(iter(call.args[place + 1 :]), None)
            changes = {"apply", "checkout", "reset", "restore", "am", "checkout-index", "stash"} & set(call.texts)
            if folder is not None and changes and paths.in_any(call.place(folder).text, _ACCOUNTS):
                _written(known(f"{call.place(folder).text}/x", folder.span), call)


_CHECKS = {
    "augtool": _augtool,
    "crudini": _crudini,
    "sqlite3": _sqlite,
    "logsave": _first_operand,
    "script": _last_operand,
    "rsync": _rsync,
    "git": _git,
}
