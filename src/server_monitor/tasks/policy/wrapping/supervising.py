"""Wrappers that watch over the command: for how long it runs, how often, at which priority, behind which lock."""

from __future__ import annotations

import re
from collections.abc import Callable

from server_monitor.tasks.policy import endless, scripts
from server_monitor.tasks.policy.calls import Call, again
from server_monitor.tasks.policy.options import named, split
from server_monitor.tasks.policy.values import Gap, Parts, Source
from server_monitor.tasks.policy.wrapping.code import joined_code


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


def _watch(call: Call) -> Parts:
    options = split(call.args, named("n q interval equexit"), stops=True)
    if options.has("x", "exec"):
        return again(call, options.operands, "watch")
    return joined_code(call, options.operands, "watch")


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


def _entr(call: Call) -> Parts:
    options = split(call.args, (), stops=True)
    if options.has("s") and options.operands:
        return scripts.run_code(options.operands[0], call, "entr -s", [])
    return again(call, options.operands, "entr")


SUPERVISORS: dict[str, Callable[[Call], Parts]] = {
    "timeout": _timeout,
    "gtimeout": _timeout,
    "nice": _nice,
    "taskset": _taskset,
    "watch": _watch,
    "script": _script,
    "scriptlive": _script,
    "flock": _flock,
    "start-stop-daemon": _start_stop_daemon,
    "entr": _entr,
}
