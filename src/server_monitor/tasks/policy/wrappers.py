"""Commands that run another command: what is inside, and how it gets its words.

Most are alike, options and then a command, and stand in `PLAIN` as data: which options take a value, and how many words
come before the command. The others have a function.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from server_monitor.tasks.policy import endless, outputs, paths, scripts
from server_monitor.tasks.policy.calls import Call, again
from server_monitor.tasks.policy.crontabs import cron_commands
from server_monitor.tasks.policy.options import Options, named, split
from server_monitor.tasks.policy.programs import MANY
from server_monitor.tasks.policy.remote import REMOTE
from server_monitor.tasks.policy.values import (
    Field,
    Gap,
    Parts,
    Shape,
    Source,
    flat,
    is_endless,
    joined,
    known,
    shown,
    text_of,
)

Unwrap = Callable[[Call], Parts]

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*|BASH_FUNC_[^=]+(?:%%|\(\)))=(.*)", re.DOTALL)
MAX_ITEMS = 32


@dataclass(frozen=True, slots=True)
class Plain:
    """A wrapper with options, then `skip` words, then the command. `assigns`: VAR=value words may come first."""

    takes: frozenset[str]
    skip: int = 0
    assigns: bool = False
    is_network: bool = False


def _plain(takes: str = "", skip: int = 0, *, assigns: bool = False) -> Plain:
    return Plain(named(takes), skip, assigns)


PLAIN: dict[str, Plain] = {
    "doas": _plain("u C", assigns=True),
    "pkexec": _plain("user"),
    "nohup": _plain(),
    "setsid": _plain(),
    "ionice": _plain("c n p P u class classdata pid"),
    "chrt": _plain("p T P D sched-runtime sched-period sched-deadline", 1),
    "stdbuf": _plain("i o e input output error"),
    "time": _plain("f o format output"),
    "strace": _plain("e o p s u P S b a E I O X trace output attach string-limit user"),
    "ltrace": _plain("e o p s u l n a A D F x output"),
    "unshare": _plain("S G R w l setuid setgid root wd map-user map-group propagation setgroups"),
    "systemd-run": _plain(
        "p u E H M G setenv property unit slice description uid gid nice working-directory on-active on-boot "
        "on-startup "
        "on-calendar on-unit-active on-unit-inactive path-property timer-property service-type host machine "
        "socket-property background",
        assigns=False,
    ),
    "fakeroot": _plain("l s i b lib faked"),
    "fakechroot": _plain("l s d e c b"),
    "cpulimit": _plain("l p e c limit pid exe"),
    "logsave": _plain("", 1),
    "unbuffer": _plain(),
    "sshpass": _plain("p f P d"),
    "valgrind": _plain(),
    "numactl": _plain("i m N C p interleave membind cpunodebind physcpubind preferred"),
    "prlimit": _plain("p o pid output"),
    "choom": _plain("n p adjust pid"),
    "setpriv": _plain(
        "reuid regid ruid euid rgid egid groups inh-caps bounding-set ambient-caps securebits selinux-label "
        "apparmor-profile pdeathsig"
    ),
    "cgexec": _plain("g"),
    "firejail": _plain(),
    "eatmydata": _plain(),
    "faketime": _plain("f", 1),
    "rlwrap": _plain("f H C b s"),
    "dumb-init": _plain("r"),
    "tini": _plain("p e"),
    "gosu": _plain("", 1),
    "su-exec": _plain("", 1),
    "setuidgid": _plain("", 1),
    "s6-setuidgid": _plain("", 1),
    "chpst": _plain("u U b e d o p f c r t l L m n"),
    "envdir": _plain("", 1),
    "daemonize": _plain("a c e o p l u E"),
    "daemon": _plain("n u c o e r F p name user chdir"),
    "perf": _plain("e o F p", 1),
    "dbus-run-session": _plain("config-file dbus-daemon"),
    "dbus-launch": _plain(),
    "xvfb-run": _plain("n e f s w p server-args server-num"),
    "proxychains": _plain("f"),
    "proxychains4": _plain("f"),
    "torsocks": _plain(),
    "torify": _plain(),
    "hyperfine": _plain("w r m M p c n warmup runs prepare cleanup"),
    "caffeinate": _plain("t w"),
    "aa-exec": _plain("p n profile namespace"),
    "runcon": _plain("t u r l type user role range"),
    "sg": _plain("", 1),
    "newgrp": _plain("", 1),
    "ip-netns-exec": _plain("", 1),
    "rtkit": _plain(),
    "trickle": _plain("d u w t l n L P"),
    "annotate-output": _plain(),
    "chronic": _plain(),
    "ifne": _plain(),
    "softlimit": _plain("a c d f l m o p r s t"),
    "systemd-inhibit": _plain("what who why mode"),
    "systemd-cat": _plain("t p P identifier priority"),
    "with-contenv": _plain(),
    "rsg": _plain(),
    "catchsegv": _plain(),
    "solo": _plain("port"),
    "nocache": _plain("n"),
    "schedtool": _plain("p n a"),
    "linux32": _plain(),
    "linux64": _plain(),
    "i386": _plain(),
    "x86_64": _plain(),
    "setarch": _plain("", 0),
    "exec": _plain("a"),
    "apptainer": _plain("", 2),
    "singularity": _plain("", 2),
    "arch-chroot": _plain("u", 1),
    "proot": _plain("r b w q"),
    "snap-run": _plain(),
    "command-not-found": _plain(),
    "pipenv": _plain("", 1),
    "poetry": _plain("", 1),
    "bundle": _plain("", 1),
}


def plain(call: Call) -> Parts:
    """Options, some words, then the command."""
    spec = PLAIN[call.name]
    options = split(call.args, spec.takes, stops=True)
    rest = options.operands[spec.skip :]
    if spec.assigns:
        rest = _assigned(rest, call)
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


def _assigned(fields: list[Field], call: Call) -> list[Field]:
    """The command behind leading VAR=value words, which go into its environment."""
    env = dict(call.env)
    rest = list(fields)
    while rest:
        first = rest[0]
        if first.text == "--" and env:
            rest = rest[1:]
            continue
        match = _ASSIGNMENT.fullmatch(first.text if first.text is not None else first.prefix)
        if match is None:
            break
        value: Parts = (match[2],) if match[2] else ()
        env[match[1]] = value if first.text is not None else joined(value, first.parts[1:])
        rest = rest[1:]
    call.env = env
    return rest


def _sudo(call: Call) -> Parts:
    options = split(call.args, SUDO, stops=True)
    rest = _assigned(options.operands, call)
    if options.has("e", "edit"):
        return again(call, [known("sudoedit", call.span), *rest], "sudo") if rest else ()
    if options.has("l", "list", "v", "k", "K", "V") and not rest:
        return (Gap(Source.OUTPUT),)
    if options.has("i", "login", "s", "shell") and not rest:
        return again(call, [known("bash", call.span)], "sudo", stdin=call.stdin) if call.stdin is not None else ()
    user = options.value("u", "user")
    home = call.state.home
    if options.has("i", "login", "H", "set-home"):
        call.state.home = scripts_home(user)
    try:
        return again(call, rest, "sudo")
    finally:
        call.state.home = home


SUDO = named(
    "u g h p C D R T U r t a c user group host prompt close-from chdir chroot command-timeout other-user role type"
)


def scripts_home(user: Field | None) -> str:
    name = user.text if user is not None and user.text else "root"
    return "/root" if name == "root" else f"/home/{name}"


def _su(call: Call) -> Parts:
    options = split(call.args, named("c s g G u w T command shell group supp-group user session-command"))
    code = options.value("c", "command", "session-command")
    operands = [operand for operand in options.operands if operand.text != "-"]
    with call.walker.through(call.name):
        if code is not None:
            return scripts.run_code(code, call, f"{call.name} -c", operands[1:])
    if call.name == "runuser" and options.has("u", "user"):
        rest = split(call.args, named("c s g G u w command shell group user"), stops=True).operands
        return again(call, rest, call.name)
    if len(operands) > 1:
        return again(call, [known("bash", call.span), *operands[1:]], call.name)
    if call.stdin is not None:
        return again(call, [known("bash", call.span)], call.name, stdin=call.stdin)
    return (Gap(Source.OUTPUT),)


def _env(call: Call) -> Parts:
    args = _split_strings(call)
    options = split(args, named("u C a unset chdir argv0 block-signal default-signal ignore-signal"), stops=True)
    if options.has("i", "ignore-environment"):
        pass
    rest = _assigned([o for o in options.operands if o.text != "-"] if options.operands else [], call)
    if not rest:
        return (Gap(Source.OUTPUT, detail="env"),)
    if (folder := options.value("C", "chdir")) is not None:
        kept = call.state.cwd
        place = paths.place_of(folder.parts, call.state)
        call.state.cwd = place.text if place.is_exact else None
        try:
            return again(call, rest, "env")
        finally:
            call.state.cwd = kept
    return again(call, rest, "env")


def _split_strings(call: Call) -> list[Field]:
    """`env -S 'a b'`: the string cut into words in the place of the option."""
    found: list[Field] = []
    args = call.args
    place = 0
    while place < len(args):
        text = args[place].text or ""
        match = re.fullmatch(r"(?:-[iv0]*S|--split-string=?)(.*)", text, re.DOTALL)
        if match is None or any(not f.prefix.startswith("-") for f in found):
            found.append(args[place])
            place += 1
            continue
        if match[1]:
            whole = match[1]
        else:
            place += 1
            whole = (args[place].text or "") if place < len(args) else ""
        span = args[min(place, len(args) - 1)].span
        words = re.findall(r'"[^"]*"|\'[^\']*\'|\S+', whole.replace("\\_", " "))
        found += [known(word.strip("\"'"), span) for word in words]
        place += 1
    return found


def _timeout(call: Call) -> Parts:
    options = split(call.args, named("k s kill-after signal t"), stops=True)
    old_busybox = options.has("t")
    rest = options.operands if old_busybox else options.operands[1:]
    duration = options.value("t") if old_busybox else next(iter(options.operands), None)
    return endless.timed(again(call, rest, "timeout"), (duration.text if duration else None) or "")


def _nice(call: Call) -> Parts:
    args = [arg for arg in call.args if not re.fullmatch(r"-{1,2}\d+", arg.text or "")]
    return again(call, split(args, named("n adjustment"), stops=True).operands, "nice")


def _taskset(call: Call) -> Parts:
    options = split(call.args, (), stops=True)
    return again(call, options.operands[1:], "taskset") if not options.has("p", "pid") else ()


def _joined_code(call: Call, fields: list[Field], how: str) -> Parts:
    """Words put together with blanks and read by a shell once more."""
    if not fields:
        return ()
    pieces: list[Parts] = []
    for field in fields:
        pieces += [(" ",), flat(field.parts)] if pieces else [flat(field.parts)]
    span = (fields[0].span[0], max(fields[-1].span[1], fields[0].span[1]))
    return scripts.run_parts(joined(*pieces), call, how, span)


def _watch(call: Call) -> Parts:
    options = split(call.args, named("n q interval equexit"), stops=True)
    if options.has("x", "exec"):
        return again(call, options.operands, "watch")
    return _joined_code(call, options.operands, "watch")


def _script(call: Call) -> Parts:
    options = split(call.args, named("c o m E T I O B command output-limit"))
    if (code := options.value("c", "command")) is not None:
        return scripts.run_code(code, call, "script -c", [])
    if call.stdin is not None:
        return scripts.run_parts(call.stdin, call, "script <", call.span, is_stdin=True)
    return (Gap(Source.OUTPUT),)


def _flock(call: Call) -> Parts:
    options = split(call.args, named("w E timeout wait conflict-exit-code"), stops=True)
    rest = options.operands[1:]
    if rest and rest[0].text in ("-c", "--command"):
        return scripts.run_code(rest[1], call, "flock -c", []) if len(rest) > 1 else ()
    if options.has("c", "command") and rest:
        return scripts.run_code(rest[0], call, "flock -c", [])
    return again(call, rest, "flock")


def _start_stop_daemon(call: Call) -> Parts:
    options = split(call.args, named("x a p n u g s R N c d r k exec pidfile name user group signal chuid chdir"))
    program = options.value("a", "startas") or options.value("x", "exec")
    if program is None and options.has("startas") and options.operands:
        program, *options.operands = options.operands
    if program is None or not options.has("S", "start"):
        return (Gap(Source.OUTPUT),)
    return again(call, [program, *options.operands], call.name)


def _chroot(call: Call) -> Parts:
    options = split(call.args, named("userspec groups"), stops=True)
    if not options.operands:
        return ()
    root = call.place(options.operands[0])
    rest = options.operands[1:]
    if not rest:
        return again(call, [known("bash", call.span)], "chroot", stdin=call.stdin) if call.stdin is not None else ()
    return again(call, rest, f"chroot {root.text}")


def _nsenter(call: Call) -> Parts:
    options = split(call.args, named("t S G target setuid setgid"), stops=True)
    rest = options.operands
    return again(call, rest, "nsenter") if rest else ()


def _capsh(call: Call) -> Parts:
    for place, arg in enumerate(call.args):
        if arg.text in ("--", "=="):
            return again(call, [known("bash", arg.span), *call.args[place + 1 :]], "capsh")
    return (Gap(Source.OUTPUT),)


def _applet(call: Call) -> Parts:
    rest = list(call.args)
    while rest and rest[0].prefix.startswith("--"):
        option, equals, program = rest.pop(0).prefix.partition("=")
        if equals and option in ("--coreutils-prog", "--coreutils-prog-shebang"):
            rest.insert(0, known(program, call.span))
            break
    return again(call, rest, call.name) if rest else (Gap(Source.OUTPUT),)


def _loader(call: Call) -> Parts:
    options = split(call.args, named("library-path preload argv0 inhibit-rpath audit glibc-hwcaps-prepend"), stops=True)
    if options.has("preload", "audit"):
        call.walker.find("rce.loaded_library", "loads a library into a program", call.span)
    return again(call, options.operands, call.name)


def _xargs(call: Call) -> Parts:
    options = split(call.args, XARGS, stops=True)
    inner = options.operands or [known("echo", call.span)]
    file = options.value("a", "arg-file")
    given = call.walker.content(file) if file is not None else call.input()
    placeholder = _placeholder(options)
    text = text_of(given)
    if any(isinstance(part, Gap) and is_endless(part) for part in given):
        call.walker.find("bomb.fork", "starts a command for each line of an endless source", call.span)
    _judge_at_once(given, options.value("P", "max-procs"), call)
    with call.walker.reading(()):
        if text is None:
            items = [_stream_item(given)]
        else:
            items = [known(item, call.span) for item in _items(text, options, placeholder)]
            if not items and options.has("r", "no-run-if-empty"):
                return ()
        if placeholder:
            printed = [again(call, _put(inner, placeholder, item), "xargs", stdin=()) for item in items[:MAX_ITEMS]]
            return joined(*printed) if printed else ()
        size = options.value("n", "max-args", "L", "max-lines")
        one_by_one = size is not None and size.text == "1"
        batches = [[item] for item in items[:MAX_ITEMS]] if one_by_one else [items]
        printed = [again(call, [*inner, *batch], "xargs", stdin=()) for batch in batches]
        return joined(*printed) if printed else ()


def _judge_at_once(given: Parts, limit: Field | None, call: Call) -> None:
    """A list of hundreds of numbers, and a process for each of them at the same time."""
    text = (limit.text or "") if limit is not None else ""
    endless_ = endless.endless_part(given) is not None
    is_long = endless_ or any(isinstance(part, Gap) and part.detail.startswith("seq") for part in given)
    unbounded = text.rstrip("%") in ("0", "") if call.name == "parallel" and limit is not None else text == "0"
    if is_long and (unbounded or (text.isdigit() and int(text) >= endless.MANY_AT_ONCE)):
        call.walker.find("bomb.fork", "starts hundreds of processes at once", call.span)


XARGS = named("I L n P s d E a arg-file delimiter max-args max-procs max-chars process-slot-var")


def _placeholder(options: Options) -> str:
    if (given := options.value("I")) is not None:
        return given.text or "{}"
    if options.has("i", "replace"):
        value = options.value("replace")
        return (value.text if value else None) or "{}"
    return ""


def _items(text: str, options: Options, placeholder: str) -> list[str]:
    if options.has("0", "null"):
        return [item for item in text.split("\0") if item]
    delimiter = options.value("d", "delimiter")
    if delimiter is not None and delimiter.text:
        mark = {"\\n": "\n", "\\t": "\t", "\\0": "\0"}.get(delimiter.text, delimiter.text)
        return [item for item in text.split(mark) if item]
    if placeholder:
        return [line.strip() for line in text.splitlines() if line.strip()]
    words = re.findall(r'(?:"[^"\n]*"|\'[^\'\n]*\'|\\.|[^\s"\'\\])+', text)
    return [re.sub(r'"([^"]*)"|\'([^\']*)\'|\\(.)', lambda m: m[1] or m[2] or m[3] or "", word) for word in words]


def _stream_item(given: Parts) -> Field:
    """One of the unknown words that come in."""
    parts = tuple(
        Gap(part.source, Shape.PATH if part.shape is Shape.ANY else part.shape, True, part.detail)
        if isinstance(part, Gap)
        else part.rpartition("\n")[2] or part
        if isinstance(part, str)
        else part
        for part in given
    )
    return Field(parts)


def _put(inner: list[Field], placeholder: str, item: Field) -> list[Field]:
    """The words with the placeholder replaced in each."""
    found: list[Field] = []
    for field in inner:
        if not any(isinstance(part, str) and placeholder in part for part in field.parts):
            found.append(field)
            continue
        pieces: list[Parts] = []
        for part in field.parts:
            if not isinstance(part, str):
                pieces.append((part,))
                continue
            for place, text in enumerate(part.split(placeholder)):
                pieces += ([item.parts] if place else []) + ([(text,)] if text else [])
        found.append(Field(joined(*pieces), field.span))
    return found


def _parallel(call: Call) -> Parts:
    takes = named(
        "j P S a n N L I colsep delay timeout joblog results tmpdir workdir sshlogin sshloginfile max-args jobs"
    )
    options = split(call.args, takes, stops=True)
    words = options.operands
    lists: list[list[Field]] = []
    command: list[Field] = []
    current = command
    for word in words:
        if word.text in (":::", ":::+"):
            lists.append([])
            current = lists[-1]
        elif word.text == "::::":
            lists.append([Field((Gap(Source.FILE, Shape.PATH, True),))])
            current = []
        else:
            current.append(word)
    if not lists:
        given = call.input()
        text = text_of(given)
        _judge_at_once(given, options.value("j", "P", "jobs"), call)
        items = [known(line) for line in text.splitlines() if line] if text is not None else [_stream_item(given)]
    else:
        items = lists[-1]
    if not command:
        return joined(*[scripts.run_parts(item.parts, call, "parallel", call.span) for item in items[:MAX_ITEMS]])
    printed = []
    for item in items[:MAX_ITEMS] or [Field(())]:
        has_place = any(re.search(r"\{[./#%0-9]*\}", field.shown) for field in command)
        filled = _put_any(command, item) if has_place else [*command, item]
        printed.append(_joined_code(call, filled, "parallel"))
    return joined(*printed)


def _put_any(command: list[Field], item: Field) -> list[Field]:
    marks = ("{}", "{.}", "{/}", "{//}", "{/.}", "{1}", "{2}", "{3}")
    for mark in marks:
        command = _put(command, mark, item)
    return command


def _find(call: Call) -> Parts:
    """`-exec` and its like; what `find` deletes by itself is a rule of its own."""
    printed = outputs.MAKERS["find"](call)
    args = call.args
    place = 0
    is_run = False
    while place < len(args):
        if args[place].text not in ("-exec", "-execdir", "-ok", "-okdir", "-x", "-X", "--exec", "--exec-batch"):
            place += 1
            continue
        end = place + 1
        while end < len(args) and args[end].text not in (";", "+", "\\;"):
            end += 1
        item = Field(tuple(part for part in printed if part != "\n"), args[place].span)
        inner = _put(args[place + 1 : end], "{}", item)
        again(call, inner, f"{call.name} {args[place].text}")
        is_run = True
        place = end + 1
    return (Gap(Source.OUTPUT),) if is_run else printed


def _at(call: Call) -> Parts:
    options = split(call.args, named("f q t file"))
    if options.has("l", "d", "r", "c", "V"):
        return (Gap(Source.OUTPUT),)
    file = options.value("f", "file")
    if file is not None:
        return scripts.run_path(file, call, ())
    if call.stdin is not None:
        return scripts.run_parts(call.stdin, call, call.name, call.span, is_stdin=True)
    return ()


def run_cron_lines(content: Parts, call: Call, how: str) -> Parts:
    """Judge the commands of a crontab as if they ran now."""
    text = text_of(content)
    if text is None:
        if any(isinstance(part, Gap) and part.source is Source.NETWORK for part in content):
            return scripts.unknown(content, call, call.span, is_stdin=True)
        text = shown(content).replace("…", "")
    for command in cron_commands(text):
        scripts.run_parts((command,), call, how, call.span)
    return ()


def _crontab(call: Call) -> Parts:
    options = split(call.args, named("u"))
    if options.has("l", "r", "e"):
        return (Gap(Source.FILE, detail="crontab"),)
    operands = options.operands
    if operands and operands[0].text != "-":
        return run_cron_lines(call.walker.content(operands[0]), call, "crontab")
    return run_cron_lines(call.stdin, call, "crontab") if call.stdin is not None else ()


def _tmux(call: Call) -> Parts:
    takes = named("L S f c x y n s t F e T")
    words = call.args
    for place, word in enumerate(words):
        if word.text in (
            "new-session",
            "new",
            "neww",
            "new-window",
            "split-window",
            "splitw",
            "respawn-pane",
            "run-shell",
            "run",
            "popup",
            "display-popup",
            "pipe-pane",
            "respawn-window",
            "if-shell",
        ):
            rest = split(words[place + 1 :], takes, stops=True).operands
            return _joined_code(call, rest, "tmux")
        if word.text in ("send-keys", "send"):
            rest = split(words[place + 1 :], named("t N"), stops=True).operands
            typed = [field for field in rest if field.text not in ("Enter", "C-m", "ENTER", "KPEnter")]
            return _joined_code(call, typed, "tmux send-keys")
    return (Gap(Source.OUTPUT),)


def _screen(call: Call) -> Parts:
    options = split(call.args, named("S p c e h s t T X"), stops=True)
    if (stuff := options.value("X")) is not None or options.has("X"):
        words = [w for w in ([stuff] if stuff else []) + options.operands if w.text not in ("stuff", "exec", "screen")]
        return _joined_code(call, words, "screen -X")
    return again(call, options.operands, "screen") if options.operands else ()


def _gdb_args(call: Call) -> Parts:
    for place, arg in enumerate(call.args):
        if arg.text in ("--args", "-args"):
            return again(call, call.args[place + 1 :], "gdb")
    return (Gap(Source.OUTPUT),)


def _bwrap(call: Call) -> Parts:
    two = named(
        "bind ro-bind dev-bind bind-try ro-bind-try symlink setenv file bind-data ro-bind-data chmod overlay-src"
    )
    args, place = call.args, 0
    while place < len(args):
        text = args[place].text or ""
        if not text.startswith("--"):
            break
        place += (
            3 if text[2:] in two else 1 if text[2:].startswith(("unshare", "share", "die", "new", "clearenv")) else 2
        )
    return again(call, args[place:], "bwrap")


def _entr(call: Call) -> Parts:
    options = split(call.args, (), stops=True)
    if options.has("s") and options.operands:
        return scripts.run_code(options.operands[0], call, "entr -s", [])
    return again(call, options.operands, "entr")


def _ip(call: Call) -> Parts:
    texts = call.texts
    if "netns" in texts and "exec" in texts:
        place = texts.index("exec")
        return again(call, call.args[place + 2 :], "ip netns exec")
    if "vrf" in texts and "exec" in texts:
        return again(call, call.args[texts.index("exec") + 2 :], "ip vrf exec")
    return (Gap(Source.OUTPUT),)


def _with_command_option(call: Call) -> Parts:
    """Programs that take a shell command as the value of an option."""
    for place, arg in enumerate(call.args):
        text = arg.text or ""
        for option in COMMAND_OPTIONS.get(call.name, ()):
            if text == option and place + 1 < len(call.args):
                return scripts.run_code(call.args[place + 1], call, f"{call.name} {option}", [])
            if option.startswith("--") and text.startswith(option + "="):
                value = known(text[len(option) + 1 :], arg.span)
                return scripts.run_code(value, call, f"{call.name} {option}", [])
    return (Gap(Source.OUTPUT),)


COMMAND_OPTIONS = {
    "vagrant": ("-c", "--command"),
    "gcloud": ("--command",),
    "xterm": ("-e",),
    "gnome-terminal": ("-e", "--command"),
    "konsole": ("-e",),
    "wall": (),
    "ts": (),
    "inotifywait": (),
    "incrontab": (),
    "nodemon": ("--exec", "-x"),
    "supervisord": ("-c",),
    "systemd-nspawn": (),
    "dialog": (),
    "make-command": (),
    "logger": (),
    "fswatch": (),
    "runit": (),
    "lxterminal": ("-e", "--command"),
}

WRAPPERS: dict[str, Unwrap] = {
    **dict.fromkeys(PLAIN, plain),
    **dict.fromkeys(COMMAND_OPTIONS, _with_command_option),
    **REMOTE,
    "sudo": _sudo,
    "su": _su,
    "runuser": _su,
    "env": _env,
    "timeout": _timeout,
    "gtimeout": _timeout,
    "nice": _nice,
    "taskset": _taskset,
    "watch": _watch,
    "script": _script,
    "scriptlive": _script,
    "flock": _flock,
    "start-stop-daemon": _start_stop_daemon,
    "chroot": _chroot,
    "nsenter": _nsenter,
    "capsh": _capsh,
    **dict.fromkeys(MANY, _applet),
    "ld.so": _loader,
    "ld-linux.so.2": _loader,
    "ld-linux-x86-64.so.2": _loader,
    "ld-linux-aarch64.so.1": _loader,
    "ld-musl-x86_64.so.1": _loader,
    "xargs": _xargs,
    "parallel": _parallel,
    "find": _find,
    "fd": _find,
    "at": _at,
    "batch": _at,
    "crontab": _crontab,
    "tmux": _tmux,
    "screen": _screen,
    "bwrap": _bwrap,
    "entr": _entr,
    "ip": _ip,
}
