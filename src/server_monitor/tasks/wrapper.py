"""The wrapper that makes a command outlive us: what is sent to a host, and what it answers. Pure.

A task's command runs in a session of its own, as the child of a small shell that writes down how it ended. It has a
private directory, `${XDG_STATE_HOME:-~/.local/state}/server-monitor/tasks/<task id>`, made by a `mkdir` that fails when
it exists: that is what makes a second start impossible, whatever the console believes. In it:

    pid        "<pid> <start time> <boot id>" of that shell, written before the command starts
    out, err   what the command has printed
    exit       its exit status and a newline; without the newline it does not count
    followed   somebody reads `out` and `err` as they grow
    cut        they grew beyond their limit and lost their middle

Four scripts speak this protocol, each on a channel of its own. Their words for us are lines that begin with a mark,
`sm1 <key>`, whose key is random, travels on standard input, and is known to no command::

    start    sm1 K start <boot id>            the command runs now
             sm1 K noshell|nodir|exists       it was not started, and why; nodir may follow start: a full disk
             sm1 K attached                   no directory can be written: once we have said `go`, the command runs on
                                              this channel, and is ended when its standard input ends
             sm1 K exit <status> inline       it has ended; what it printed stands before this line, on both streams
             sm1 K exit <status> apart <out bytes> <err bytes> [cut]     it has ended, and somebody follows
    attach   sm1 K start <boot id> <age>      in hundredths of a second; then as above apart
             or sm1 K none <boot id>: it was never started;
             or sm1 K lost <boot id>: it is gone and left no exit status; `start` says so too
    follow   no words: `out` on the standard output and `err` on the other, as they grow, from the given bytes on
    signal   sm1 K ended | gone | still       it had ended before; it is gone now; it could not be ended

A command runs as long as the shell around it does; where that was killed, as long as anything of its session does, and
then it is lost: nobody knows its exit status.

After `exit` the script waits for a line: `ok` means that the result is stored, and the files go. The empty directory
stays as a tombstone, so that a late start still fails; `sweep` removes it a day later.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from server_monitor.errors import Invalid

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ACK: Final = b"ok\n"
GO: Final = b"go\n"
NO_SECRETS: Final[Mapping[str, str]] = MappingProxyType({})
LONGEST_LINE: Final = 256  # bytes of a line of ours; a longer one is not ours
KEY_CHARACTERS: Final = 32
PID_WITHIN_S: Final = 10  # so long the shell around a command may take to begin
TOMBSTONE_MINUTES: Final = 24 * 60
TICKS_A_SECOND: Final = 100  # in which Linux tells when a process started, wherever it runs
LEFTOVER_MINUTES: Final = 7 * 24 * 60

_ID = re.compile(r"[0-9a-zA-Z-]{1,64}")
_STATUS = re.compile(r"[01]?[0-9]?[0-9]|2[0-4][0-9]|25[0-5]")  # what a shell can say
_SIZE_DIGITS: Final = 18
_WORD = re.compile(r"[0-9a-zA-Z._-]{1,128}")
_NOT_IN_QUOTES = re.compile(r"['\\\n]|!(?![ =])")

# What all scripts begin with: the key from standard input, and where the task's directory is.
_PRELUDE = (
    "IFS= read -r k || exit 0;",
    "b=${XDG_STATE_HOME:-$HOME/.local/state}/server-monitor/tasks; d=$b/$1;",
    "boot=unknown; read -r boot </proc/sys/kernel/random/boot_id;",
)

# `read` into the 22nd word of /proc/<pid>/stat; the second holds no blank, because the process is a shell.
_START_TIME = "read -r _ _ s _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ t _"

# The next process of the command's session: its number is that of the shell around the command. A name may hold
# anything, so what counts begins behind the last bracket: state, parent, group, session.
_OF_SESSION = (
    "for f in /proc/[0-9]*; do l=; { IFS= read -r l <$f/stat; } 2>/dev/null; set -- ${l##*) };"
    'if test "$4" = "$p" && test "$1" != Z; then '
)

# Is the shell of the pid file still that shell? `p`, `t0` and `b0` come from the file. Where that shell alone was
# killed the command goes on: as long as any process is left of its session, and how it ended was not written down.
# Nobody gets the number of a session that is not over; once it is over, somebody else may have it.
_ALIVE = (
    'shell() { t=; test -n "$p" && test "$b0" = "$boot" && { '
    + _START_TIME
    + ' </proc/$p/stat; } 2>/dev/null && test "$t" = "$t0" && test "$s" != Z; };'
    'left() { test -n "$p" && test "$b0" = "$boot" && test ! -s "$d/exit" || return 1;'
    'test -z "$t" || test "$t" = "$t0" || return 1;' + _OF_SESSION + "return 0; fi; done; return 1; };"
    "alive() { shell || left; };"
)

# Does a process of the session carry this task's number in its environment? Only then may it be signalled without the
# shell that was there first.
_OURS = (
    "ours() { " + _OF_SESSION + "{ v=$(cat $f/environ); } 2>/dev/null;"
    "case $v in *SERVER_MONITOR_TASK_ID=$id*) return 0;; esac; fi; done; return 1; };"
)
_READ_PID = 'p=; t0=; b0=; test -s "$d/pid" && read -r p t0 b0 <"$d/pid";'

# Between `mkdir` and the pid file lie a few milliseconds, and seconds on a host that is very busy: `out` is made as the
# first thing after `mkdir`, so where there is one and no pid file, one may still come. A tombstone has neither.
_AWAIT_PID = (
    f'{_READ_PID} n=0; while test -z "$p" && test -d "$d" && test $n -lt {PID_WITHIN_S}'
    f' && {{ test $n -lt 1 || test -e "$d/out"; }}; do sleep 1; n=$((n+1)); {_READ_PID} done;'
)
_READ_EXIT = 'e=; test -s "$d/exit" && { read -r e <"$d/exit" || e=; };'
_SAY_APART = (
    'set -- "$1" $(wc -c <"$d/out" 2>/dev/null || echo 0) $(wc -c <"$d/err" 2>/dev/null || echo 0);',
    'c=; test -e "$d/cut" && c=" cut"; echo "sm1 $k exit $e apart $2 $3$c";',
)
_WAIT_FOR_ACK = 'IFS= read -r a && test "$a" = ok && rm -rf "$d"/*; exit 0'

# The shell around the command: it outlives the signals that end the command, and writes down how that ended.
# $1 shell, $2 command, $3 directory (none: the command runs on our own channel), $4 boot id, $5 secrets to read.
_RUNNER = " ".join(
    (
        'n=$5; while test $n -gt 0; do IFS= read -r l || exit 125; export "$l"; n=$((n-1)); done; exec </dev/null;',
        'cd "$HOME" 2>/dev/null || cd /;',
        f"{_START_TIME} </proc/$$/stat;",
        'IFS=" "; test -n "$3" || exec $1 -c "$2";',
        'echo "$$ $t $4" >"$3/pid" || exit 125;',
        "trap : TERM INT HUP;",
        '$1 -c "$2"; e=$?;',
        'echo $e >"$3/exit"; exit $e',
    )
)

# The command on the channel itself. sshd leaves it alone when the connection ends, so somebody beside it waits for the
# end of our input and ends it then: TERM to the group of the channel, or where that is not ours alone to the command,
# and KILL to what is left once the command is gone, or after five seconds. USR1 tells this shell that it is so.
_ON_CHANNEL = " ".join(
    (
        'exec 3<&0; printf %s "$x" | env -i "$@" /bin/sh -c "$r" sm1 "$sh" "$c" "" "$boot" $s 3<&- & p=$! ; z=;',
        "t=$p; read -r _ _ _ _ g _ </proc/$$/stat && test $g = $$ && t=-$$;",
        'trap "" TERM INT HUP; trap z=1 USR1;',
        "( IFS= read -r a <&3; kill -USR1 $$; kill -15 $t; n=0;",
        "while test $n -lt 50; do sleep 0.1 || { sleep 1; n=$((n+9)); }; n=$((n+1)); done;",
        "kill -9 $t ) >/dev/null 2>&1 & w=$! ; exec 3<&-;",
        "{ while :; do wait $p; e=$?; kill -0 $p || break; done;",
        'test -n "$z" && kill -9 $t; kill -9 $w; wait $w; } 2>/dev/null; exit $e;',
    )
)

# $1 task, $2 lines of the command, $3 shell, $4 request id, $5 whether it may run attached, $6 the runner, $7 secrets.
# Secrets are lines NAME=value on standard input. They go on to the runner by its standard input and never stand in an
# argument, where everybody on the host could read them.
_START = " ".join(
    (
        *_PRELUDE,
        _ALIVE,
        "sh=/bin/$3; test -x $sh || { echo sm1 $k noshell; exit 0; };",
        'test $3 = bash && sh="/bin/bash --noprofile --norc";',
        "n=$2; nl=; c=; test $n -gt 1 -o $7 -gt 0 && { nl=$(echo; echo x); nl=${nl%x}; };",
        "while test $n -gt 0; do IFS= read -r l || exit 0; c=$c$l; n=$((n-1)); test $n -gt 0 && c=$c$nl; done;",
        "x=; s=$7; n=$s; while test $n -gt 0; do IFS= read -r l || exit 0; x=$x$l$nl; n=$((n-1)); done;",
        f'set -- "$1" "$4" "$5" "$6" "PATH={PATH}" "HOME=$HOME" "USER=$USER" "LOGNAME=$LOGNAME" "SHELL=${{sh%% *}}"',
        'LC_ALL=C.UTF-8 "SSH_CONNECTION=$SSH_CONNECTION" "SERVER_MONITOR_TASK_ID=$1" "SERVER_MONITOR_REQUEST_ID=$4";',
        "a=$3; r=$4; id=$1; shift 4;",
        'home() { test -d "$b" && return; mkdir -p "$b" 2>/dev/null || return;',
        'case $(stat -f -c %T "$b" 2>/dev/null) in tmpfs|ramfs) rmdir "$b"; return 1;; esac; };',
        'if command -v setsid >/dev/null 2>&1 && home && mkdir -m 700 "$d" 2>/dev/null; then',
        'run() { exec env -i "$@" setsid /bin/sh -c "$r" sm1 "$sh" "$c" "$d" "$boot" $s >>"$d/out" 2>>"$d/err"; };',
        'if test $s -gt 0; then printf %s "$x" | run "$@" & else run "$@" </dev/null & fi;',
        'p=$! ; echo "sm1 $k start $boot"; { wait $p; } 2>/dev/null; e=$?;',
        'test -s "$d/pid" || { echo "sm1 $k nodir"; exit 0; };',
        # Without its last words the shell around the command was killed, or its disk is full.
        f'if test ! -s "$d/exit"; then {_READ_PID} t=; w=; while left; do w=1; sleep 1; echo "sm1 $k alive"; done;',
        'if test -n "$w" || test $e -gt 128; then echo "sm1 $k lost $boot"; exit 0; fi; fi;',
        'elif test -d "$d"; then echo "sm1 $k exists"; exit 0;',
        'elif test "$a" = 1; then echo "sm1 $k attached"; IFS= read -r g && test "$g" = go || exit 0;',
        _ON_CHANNEL,
        'else echo "sm1 $k nodir"; exit 0; fi;',
        'if test -e "$d/followed"; then set -- "$id";',
        *_SAY_APART,
        'else if test -s "$d/out"; then cat "$d/out"; fi; if test -s "$d/err"; then cat "$d/err" >&2; fi;',
        'echo "sm1 $k exit $e inline" >&2; echo "sm1 $k exit $e inline"; fi;',
        _WAIT_FOR_ACK,
    )
)

# $1 task.
_ATTACH = " ".join(
    (
        *_PRELUDE,
        _ALIVE,
        'test -d "$d" || { echo "sm1 $k none $boot"; exit 0; };',
        _AWAIT_PID,
        f'if alive; then {_START_TIME} </proc/$$/stat; echo "sm1 $k start $boot $((t-t0))"; : >"$d/followed";',
        'while alive; do sleep 1; echo "sm1 $k alive"; done; fi;',
        _READ_EXIT,
        'test -n "$e" || { echo "sm1 $k lost $boot"; exit 0; };',
        *_SAY_APART,
        _WAIT_FOR_ACK,
    )
)

# $1 task, $2 and $3 the first bytes that are wanted of `out` and `err`, counted from 1, $4 limit in bytes, $5 watch.
_FOLLOW = " ".join(
    (
        *_PRELUDE,
        'cd "$d" 2>/dev/null || exit 0; : >followed;',
        'if mkdir watch 2>/dev/null; then setsid /bin/sh -c "$5" sm1 "$4" </dev/null >/dev/null 2>&1 & fi;',
        "tail -c +$2 -f out 2>/dev/null & o=$! ;",
        "tail -c +$3 -f err >&2 2>/dev/null & e=$! ;",
        "IFS= read -r a; kill $o $e 2>/dev/null; exit 0",
    )
)

# Keeps what a command prints within $1 bytes a stream on the host, while it runs.
_WATCH = " ".join(
    (
        "d=.;",
        _AWAIT_PID,
        'test -n "$p" || exit 0; boot=$b0; most=$1;',
        _ALIVE,
        "while alive; do",
        "for f in out err; do n=$(wc -c <$f) || exit 0;",
        "if test $n -gt $most; then : >cut; : >$f; fi; done; sleep 1; done",
    )
)

# $1 task. TERM to the whole group, and KILL to what is left of it five seconds later. Numbers and no `--`, because of
# all the ways to name a group this is the one that dash, bash and BusyBox share.
_SIGNAL = " ".join(
    (
        *_PRELUDE,
        "id=$1;",
        _ALIVE,
        _OURS,
        _AWAIT_PID,
        'if alive; then :; else echo "sm1 $k ended"; exit 0; fi;',
        'if shell || ours; then :; else echo "sm1 $k still"; exit 0; fi;',
        "kill -15 -$p 2>/dev/null; n=0;",
        "while test $n -lt 50 && alive; do sleep 0.1 2>/dev/null || { sleep 1; n=$((n+9)); }; n=$((n+1)); done;",
        "kill -9 -$p 2>/dev/null; n=0;",
        "while test $n -lt 20 && alive; do sleep 0.1 2>/dev/null || { sleep 1; n=$((n+9)); }; n=$((n+1)); done;",
        'if alive; then echo "sm1 $k still"; else echo "sm1 $k gone"; fi; exit 0',
    )
)

_SWEEP = " ".join(
    (
        *_PRELUDE,
        _ALIVE,
        'cd "$b" 2>/dev/null || exit 0;',
        f"find . -mindepth 1 -maxdepth 1 -type d -mmin +{TOMBSTONE_MINUTES} -exec rmdir {{}} + 2>/dev/null;",
        f"for d in $(find . -mindepth 1 -maxdepth 1 -type d -mmin +{LEFTOVER_MINUTES}); do",
        f'{_READ_PID} if alive; then :; else rm -rf "$d"; fi; done; exit 0',
    )
)


@lru_cache(maxsize=256)
def _quoted(word: str) -> str:
    assert not _NOT_IN_QUOTES.search(word)
    return f"'{word}'"


@dataclass(frozen=True, slots=True)
class Script:
    """What to run on a host: the words of one command, and what to write to its standard input first."""

    words: tuple[str, ...]
    stdin: bytes

    @property
    def line(self) -> str:
        """One command line for any login shell: single-quoted words without quotes, backslashes or new lines.

        Nor with a `!` that is not followed by a blank or `=`: csh looks it up in its history, in quotes too.
        """
        return "exec " + " ".join(_quoted(word) for word in self.words)


def start(
    key: str,
    task_id: str,
    command: str,
    shell: str,
    request_id: str,
    *,
    secrets: Mapping[str, str] = NO_SECRETS,
    may_attach: bool,
) -> Script:
    """Start `command` under the wrapper. `shell` is bash or sh. Raises Invalid for a command with a NUL."""
    if "\0" in command:
        raise Invalid.one("command", "holds a NUL, which no shell can be given")
    lines = command.split("\n")
    may = str(int(may_attach))
    words = (_id(task_id), str(len(lines)), _id(shell), _word(request_id), may, _RUNNER, str(len(secrets)))
    return _script(_START, words, key, *lines, *(f"{name}={value}" for name, value in secrets.items()))


def attach(key: str, task_id: str) -> Script:
    """Wait for the end of a command that was started earlier, perhaps by a console that has died since."""
    return _script(_ATTACH, (_id(task_id),), key)


def follow(key: str, task_id: str, out_from: int, err_from: int, limit_bytes: int) -> Script:
    """Read what a command prints, from these bytes on (counted from 0), until standard input ends."""
    return _script(_FOLLOW, (_id(task_id), str(out_from + 1), str(err_from + 1), str(limit_bytes), _WATCH), key)


def signal(key: str, task_id: str) -> Script:
    """End a command: TERM, and KILL after five seconds."""
    return _script(_SIGNAL, (_id(task_id),), key)


def sweep(key: str) -> Script:
    """Remove the tombstones of yesterday, and what nobody has come back for in a week."""
    return _script(_SWEEP, ("sweep",), key)


def _script(text: str, words: tuple[str, ...], key: str, *lines: str) -> Script:
    stdin = "".join(f"{line}\n" for line in (key, *lines))
    return Script(("sh", "-c", text, "sm1", *words), stdin.encode())


def _id(text: str) -> str:
    assert _ID.fullmatch(text), "ids are ours"
    return text


def _word(text: str) -> str:
    assert _WORD.fullmatch(text), "request ids are checked at the edge"
    return text


# --- what the host answers --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The command runs, for so long by its host's clock since boot; None where it was started just now."""

    boot_id: str
    age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The command was not started: `noshell`, `nodir` or `exists`."""

    why: str


@dataclass(frozen=True, slots=True)
class Attached:
    """The command runs on the channel itself: what follows is its own output, to the end of the channel.

    The end of our input ends it, and that comes with the end of the connection as soon as the host notices.
    """


@dataclass(frozen=True, slots=True)
class Ended:
    """The command has ended. `sizes` are what it printed in bytes, None when that stood before this line."""

    status: int
    sizes: tuple[int, int] | None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Absent:
    """No such command: `none`, it never started there; `lost`, it is gone without an exit status."""

    why: str
    boot_id: str


@dataclass(frozen=True, slots=True)
class Signalled:
    """`ended`, `gone` or `still`."""

    what: str


Word = Started | Refused | Attached | Ended | Absent | Signalled


class Stream:
    """One direction of a channel: tells our own lines from what the command printed.

    A line of ours stands at the end of what has arrived, at the moment it arrives: nothing follows `exit` until we have
    answered. So only the end is looked at, however much there is.
    """

    __slots__ = ("_held", "_mark", "_raw", "_speaks")

    def __init__(self, key: str, *, speaks_first: bool) -> None:
        """`speaks_first`: the script says a word before the command may print."""
        self._mark = f"sm1 {key} ".encode()
        self._held = b""
        self._speaks = speaks_first
        self._raw = False

    def feed(self, data: bytes) -> tuple[bytes, list[Word]]:
        """The command's bytes among `data`, and our words. Words of a later version are passed over."""
        if self._raw:
            return data, []
        data = self._held + data
        words: list[Word] = []
        while self._speaks and data.startswith(self._mark[: len(data)]):
            end = data.find(b"\n", 0, LONGEST_LINE)
            if end < 0 and len(data) >= LONGEST_LINE:
                break
            if end < 0:
                self._held = data
                return b"", words
            self._hear(data[:end], words)
            data = data[end + 1 :]
            if self._raw:
                self._held = b""
                return data, words
        if data:
            self._speaks = bool(words) and isinstance(words[-1], Ended)
        return self._output(data, words), words

    def rest(self) -> bytes:
        """What was held back, once the channel has ended: it was no word of ours after all."""
        held, self._held = self._held, b""
        return held

    def _output(self, data: bytes, words: list[Word]) -> bytes:
        at = data.rfind(self._mark, max(0, len(data) - LONGEST_LINE))
        if at >= 0 and data.endswith(b"\n") and data.find(b"\n", at) == len(data) - 1:
            self._hear(data[at:-1], words)
            self._held = b""
            return data[:at]
        if at < 0:
            at = _begins_at_the_end(data, self._mark)
        self._held = data[at:]
        return data[:at]

    def _hear(self, line: bytes, words: list[Word]) -> None:
        word = _word_of(line[len(self._mark) :].decode("ascii", "replace").split(" "))
        if word is not None:
            words.append(word)
        self._raw = isinstance(word, Attached)


def _begins_at_the_end(data: bytes, mark: bytes) -> int:
    """Where a mark that is not complete yet begins at the end of `data`; its length when none does."""
    for length in range(min(len(mark), len(data)), 0, -1):
        if data.endswith(mark[:length]):
            return len(data) - length
    return len(data)


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _SIZE_DIGITS


def _word_of(parts: list[str]) -> Word | None:  # noqa: PLR0911  # A word a line.
    match parts:
        case ["start", boot_id]:
            return Started(boot_id)
        case ["start", boot_id, age] if _is_size(age):
            return Started(boot_id, int(age) / TICKS_A_SECOND)
        case ["noshell" | "nodir" | "exists" as why]:
            return Refused(why)
        case ["attached"]:
            return Attached()
        case ["exit", status, "inline"] if _STATUS.fullmatch(status):
            return Ended(int(status), None)
        case ["exit", status, "apart", out, err, *cut] if _STATUS.fullmatch(status) and _is_size(out) and _is_size(err):
            return Ended(int(status), (int(out), int(err)), bool(cut))
        case ["none" | "lost" as why, boot_id]:
            return Absent(why, boot_id)
        case ["ended" | "gone" | "still" as what]:
            return Signalled(what)
        case _:
            return None
