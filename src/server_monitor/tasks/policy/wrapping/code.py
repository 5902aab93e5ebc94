"""Wrappers that take the command as text for a shell: as the value of an option, or put together from words."""

from __future__ import annotations

from server_monitor.tasks.policy import scripts
from server_monitor.tasks.policy.calls import Call
from server_monitor.tasks.policy.values import Field, Gap, Parts, Source, flat, joined, known


def joined_code(call: Call, fields: list[Field], how: str) -> Parts:
    """Words put together with blanks and read by a shell once more."""
    if not fields:
        return ()
    pieces: list[Parts] = []
    for field in fields:
        pieces += [(" ",), flat(field.parts)] if pieces else [flat(field.parts)]
    span = (fields[0].span[0], max(fields[-1].span[1], fields[0].span[1]))
    return scripts.run_parts(joined(*pieces), call, how, span)


def with_command_option(call: Call) -> Parts:
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
