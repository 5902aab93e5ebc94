"""Wrappers that take the command as text for a shell: as the value of an option, or put together from words."""

from __future__ import annotations

from server_monitor.tasks.policy import scripts
from server_monitor.tasks.policy.calls import Call, again
from server_monitor.tasks.policy.options import named, split
from server_monitor.tasks.policy.printing.printed import printed
from server_monitor.tasks.policy.values import Field, Parts, flat, joined, known
from server_monitor.tasks.policy.wrapping.prefixes import PREFIXES, behind_prefix


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
    """Programs that take a shell command as the value of an option, and perhaps a command behind their options."""
    results = [
        scripts.run_code(code, call, f"{call.name} {option}", [])
        for option in COMMAND_OPTIONS[call.name]
        for code in _values(call, option)
    ]
    if call.name in PREFIXES and not results:
        return behind_prefix(call)
    return joined(*results) if results else printed(call)


def _values(call: Call, option: str) -> list[Field]:
    found = []
    for place, arg in enumerate(call.args):
        text = arg.text or ""
        if text == option:
            found += call.args[place + 1 : place + 2]
        elif option.startswith("--") and text.startswith(option + "="):
            found.append(known(text[len(option) + 1 :], arg.span))
        elif not option.startswith("--") and len(option) == 2 and text.startswith(option) and len(text) > 2:
            found.append(known(text[2:], arg.span))
    return found


def in_operands(call: Call) -> Parts:
    """Programs to which each operand is a shell command."""
    options = split(call.args, named("w r m M p c n s warmup runs min-runs max-runs prepare cleanup setup conclude"))
    codes = [*options.all_values("p", "c", "s", "prepare", "cleanup", "setup", "conclude"), *options.operands]
    return joined(*[scripts.run_code(code, call, call.name, []) for code in codes])


def in_words(call: Call) -> Parts:
    """Programs that put their operands together and give them to a shell."""
    takes = named("w e f i d p s t o c C watch exts filter ignore debounce shell postpone workdir")
    options = split(call.args, takes, stops=True)
    if options.has("n"):
        return again(call, options.operands, call.name)
    return joined_code(call, options.operands, call.name)


COMMAND_OPTIONS = {
    "vagrant": ("-c", "--command"),
    "gcloud": ("--command",),
    "xterm": ("-e",),
    "gnome-terminal": ("-e", "--command"),
    "konsole": ("-e",),
    "lxterminal": ("-e", "--command"),
    "nodemon": ("--exec", "-x"),
    "supervisord": ("-c",),
    "bpftrace": ("-c",),
    "stap": ("-c",),
    "dtrace": ("-c",),
    "nix-shell": ("--run", "--command"),
    "nix": ("--run",),
    "guix": ("--run",),
    "npx": ("-c", "--call"),
    "npm": ("-c", "--call"),
    "just": ("-c",),
    "chokidar": ("-c", "--command"),
    "watchmedo": ("-c", "--command"),
    "when-changed": ("-c",),
    "inotify-hookable": ("-c",),
    "sbatch": ("--wrap",),
    "pagsh": ("-c",),
    "newrole": ("-c",),
    "mock": ("--shell", "--chroot"),
    "sops": ("exec-env", "exec-file"),
    "cargo": ("-s", "--shell"),
    "gksu": ("-c",),
    "gksudo": ("-c",),
    "kdesu": ("-c",),
    "kdesudo": ("-c",),
}
OPERANDS_AS_CODE = named("hyperfine pee mispipe bench")
WORDS_AS_CODE = named("watchexec on-change qsub")
