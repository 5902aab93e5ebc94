"""How the probe travels: as one argument, through whatever login shell the account has.

sshd hands a command to the account's login shell, which may be bash, dash, BusyBox ash, zsh, fish or tcsh. The one
thing they all agree on is a single-quoted word on one line without backslash and exclamation mark, so the program
and the little script that finds an awk for it are two such words. Nothing is written to the host's disk, and every
shell on the way is replaced (`exec`) by the awk it starts.
"""

from functools import cache
from importlib.resources import files
from typing import Final

# mawk first: it is the cheapest. Without `-W interactive` it would wait for 4 KiB of ticks.
_ARGUMENTS: Final = '-v STAT_F=$f -v MACHINE="$m" -- "$0"'
_LAUNCHER: Final = " ".join(
    (
        "LC_ALL=C; export LC_ALL; unset POSIXLY_CORRECT AWKPATH;",
        "test -r /proc/stat && test -r /proc/uptime || { echo refused no_proc; exit 0; };",
        "f=0; stat -f -c %S / >/dev/null 2>&1 && f=1; m=$(uname -m);",
        f"if command -v mawk >/dev/null 2>&1; then exec mawk -W interactive -v AWK=mawk {_ARGUMENTS}; fi;",
        f"if command -v gawk >/dev/null 2>&1; then exec gawk -v AWK=gawk {_ARGUMENTS}; fi;",
        'if busybox awk "BEGIN {}" </dev/null >/dev/null 2>&1; then',
        f"exec busybox awk -v AWK=busybox {_ARGUMENTS}; fi;",
        "command -v awk >/dev/null 2>&1 || { echo refused no_awk; exit 0; };",
        "case $(awk -W version 2>&1 </dev/null) in",
        f"mawk*) exec awk -W interactive -v AWK=mawk {_ARGUMENTS};;",
        f"*) exec awk -v AWK=awk {_ARGUMENTS};; esac",
    )
)


@cache
def program() -> str:
    """The probe without comments and indentation, on one line."""
    source = files("server_monitor.collect").joinpath("probe.awk").read_text("ascii")
    code = (line.strip() for line in source.splitlines())
    return " ".join(line for line in code if line and not line.startswith("#"))


def arguments() -> list[str]:
    """The probe as an argument list, for this machine."""
    return ["/bin/sh", "-c", _LAUNCHER, program()]


@cache
def command() -> str:
    """The probe as one command line, for any login shell."""
    words = (_LAUNCHER, program())
    assert not any(letter in word for word in words for letter in "'\\\n")
    return "exec sh -c " + " ".join(f"'{word}'" for word in words)
