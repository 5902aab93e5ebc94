"""Wrappers that run the command later, or where somebody else looks: `at`, `crontab`, `tmux`, `screen`."""

from __future__ import annotations

from collections.abc import Callable

from server_monitor.tasks.policy import scripts
from server_monitor.tasks.policy.calls import Call, again
from server_monitor.tasks.policy.crontabs import cron_commands
from server_monitor.tasks.policy.options import named, split
from server_monitor.tasks.policy.values import Gap, Parts, Source, shown, text_of
from server_monitor.tasks.policy.wrapping.code import joined_code


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


def _run_cron_lines(content: Parts, call: Call, how: str) -> Parts:
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
        return _run_cron_lines(call.walker.content(operands[0]), call, "crontab")
    return _run_cron_lines(call.stdin, call, "crontab") if call.stdin is not None else ()


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
            return joined_code(call, rest, "tmux")
        if word.text in ("send-keys", "send"):
            rest = split(words[place + 1 :], named("t N"), stops=True).operands
            typed = [field for field in rest if field.text not in ("Enter", "C-m", "ENTER", "KPEnter")]
            return joined_code(call, typed, "tmux send-keys")
    return (Gap(Source.OUTPUT),)


def _screen(call: Call) -> Parts:
    options = split(call.args, named("S p c e h s t T X"), stops=True)
    if (stuff := options.value("X")) is not None or options.has("X"):
        words = [w for w in ([stuff] if stuff else []) + options.operands if w.text not in ("stuff", "exec", "screen")]
        return joined_code(call, words, "screen -X")
    return again(call, options.operands, "screen") if options.operands else ()


LATER: dict[str, Callable[[Call], Parts]] = {
    "at": _at,
    "batch": _at,
    "crontab": _crontab,
    "tmux": _tmux,
    "screen": _screen,
}
