"""What happens when a simple command runs: an alias, a function, a builtin, a wrapper, a script, or a program."""

from __future__ import annotations

import re
from dataclasses import replace

from server_monitor.tasks.policy import carriers, critical, effects, globs, hidden, paths, programs, scripts
from server_monitor.tasks.policy.builtins import BUILTINS, Builtin
from server_monitor.tasks.policy.calls import Call, Frame, Lookup, again
from server_monitor.tasks.policy.printing.printed import printed
from server_monitor.tasks.policy.redirects import Redirections
from server_monitor.tasks.policy.shell import SimpleCommand
from server_monitor.tasks.policy.state import UNSET
from server_monitor.tasks.policy.values import Gap, Glob, Parts, Source, known, quoted, rendered
from server_monitor.tasks.policy.wrapping.wrappers import WRAPPERS

MAX_CANDIDATES = 12
MAX_RECURSION = 4
SYSTEM_PROGRAMS = tuple(f"{folder}/" for folder in critical.SYSTEM_PROGRAM_DIRECTORIES)


def invoke(call: Call, redirections: Redirections | None = None, lookup: Lookup = Lookup.FUNCTION) -> Parts:
    """Judge one simple command; what it prints."""
    call.walker.account.step()
    word = call.word.text
    if word is None:
        return _unknown_name(call, redirections)
    if lookup is Lookup.FUNCTION:
        if word in call.state.aliases:
            return _aliased(call, word)
        if word in call.state.functions:
            return _function(call, word)
    call.name = _name(word, call)
    _note(call)
    if redirections is not None and redirections.network and _is_given_away(call, redirections):
        why = f"connects {call.name} with the network"
        call.walker.find("rce.reverse_shell", why, redirections.span, resolved=call.line)
    effects.judge_environment(call)
    if (builtin := BUILTINS.get(call.name)) and ("/" not in word or word.startswith(SYSTEM_PROGRAMS)):
        printed = _built_in(builtin, call, is_program=lookup is Lookup.PROGRAM or "/" in word)
        if printed is not None:
            return printed
    return _program(call, word)


def _built_in(builtin: Builtin, call: Call, *, is_program: bool) -> Parts | None:
    """A builtin. Some systems have programs of the same names, scripts that call it in a shell of their own."""
    if not is_program:
        return builtin(call)
    with call.walker.subshell():
        return builtin(call)


def _is_given_away(call: Call, redirections: Redirections) -> bool:
    """Does what runs code listen to the network? `exec` alone only opens a descriptor, unless it is the shell's own."""
    name, *rest = (call.name, *call.texts)
    while rest and name in ("command", "builtin"):
        name, *rest = rest
    if name == "exec" and not rest:
        return redirections.is_standard
    return programs.runs_code(name)


def _name(word: str, call: Call) -> str:
    """The program that a word means. A link or a copy that this task made is the program behind it."""
    if "/" not in word:
        return programs.canonical(word)
    path = paths.absolute(word, call.state) or word
    name = programs.canonical(call.state.programs.get(path, path))
    own = programs.canonical(word)
    # A program of many goes by the name under which it is called.
    return own if name in programs.MANY and own != name and own in programs.KNOWN else name


_START_SCRIPT = re.compile(r"/etc/(?:rc\.d/)?(?:init\.d|rc\.d)/([^/]+)")


def _program(call: Call, word: str) -> Parts:
    if (script_of := _START_SCRIPT.fullmatch(word)) is not None:
        return again(call, [known("service", call.word.span), known(script_of[1], call.word.span), *call.args], word)
    script = scripts.written(word, call)
    if script is not None and script.text not in call.state.programs:
        return scripts.run_file(script, call)
    hidden.judge(call)
    if unwrap := WRAPPERS.get(call.name):
        effects.judge(call)
        carriers.judge(call)
        return unwrap(call)
    if call.name in programs.SHELLS:
        return scripts.shell(call)
    scripts.judge_place(call.state.programs.get(paths.absolute(word, call.state) or "", word), call)
    effects.judge(call)
    carriers.judge(call)
    return printed(call)


def _note(call: Call) -> None:
    is_opaque = any(isinstance(part, Gap) for field in call.args for part in field.parts)
    rest = call.rendered
    line = f"{quoted(call.name)} {rest}".rstrip(" ")
    word = call.word.text or ""
    folder, slash, base = word.rpartition("/")
    is_from_system = not slash or folder in critical.SYSTEM_PROGRAM_DIRECTORIES
    called = f"{quoted(base if is_from_system else word)} {rest}".rstrip(" ")
    noted = SimpleCommand(line, call.span, call.walker.via, is_opaque, call.name, called, is_from_system)
    call.walker.note(noted)


def _unknown_name(call: Call, redirections: Redirections | None) -> Parts:
    gap = call.word.gap
    if gap is None:
        return _matched_name(call, redirections)
    _note_unknown(call)
    if gap.source is Source.NETWORK:
        call.walker.find("rce.download_to_interpreter", "runs what it downloads as a command", call.word.span)
    else:
        why = f"runs a command whose name comes from {gap.source.value}"
        call.walker.find("opaque.command_name", why, call.word.span, resolved=call.word.shown)
    return (Gap(gap.source),)


def _note_unknown(call: Call) -> None:
    line = rendered([call.word, *call.args])
    call.walker.note(SimpleCommand(line, call.span, call.walker.via, True, "", line))


def _matched_name(call: Call, redirections: Redirections | None) -> Parts:
    """A command named by a pattern, such as `/bin/r?`: every program that it can be."""
    pattern = "".join(
        part.text if isinstance(part, Glob) else part for part in call.word.parts if not isinstance(part, Gap)
    )
    folder, slash, last = pattern.rpartition("/")
    expression = re.compile(globs.regex(last), re.DOTALL)
    candidates = [name for name in programs.KNOWN if expression.fullmatch(name)]
    _note_unknown(call)
    if not candidates or len(candidates) > MAX_CANDIDATES:
        call.walker.find("opaque.command_name", "runs a command that is named by a pattern", call.word.span)
    printed: Parts = (Gap(Source.OUTPUT),)
    for name in candidates[:MAX_CANDIDATES]:
        word = known(folder + slash + name, call.word.span)
        printed = invoke(replace(call, word=word, args=list(call.args)), redirections)
    return printed


def _aliased(call: Call, name: str) -> Parts:
    body = call.state.aliases.pop(name)
    try:
        line = f"{body} {call.rendered}" if call.args else body
        return call.walker.run_text(line, f"alias {name}", call.span)
    finally:
        call.state.aliases[name] = body


def _function(call: Call, name: str) -> Parts:
    walker = call.walker
    running = [frame for frame in walker.frames if frame.name == name]
    if running and (running[-1].is_forked or call.is_background):
        walker.find("bomb.fork", f"the function {name} starts itself in new processes without end", call.span)
        return ()
    if len(running) >= MAX_RECURSION or walker.depth > 30:
        return (Gap(Source.OUTPUT),)
    line = rendered([call.word, *call.args])
    walker.note(SimpleCommand(line, call.span, walker.via, False, name, line))
    kept, walker.frames = walker.frames, [*walker.frames, Frame(name, call.is_background)]
    positional, walker.state.positional = walker.state.positional, tuple(call.args)
    for key, value in call.env.items():
        walker.state.vars[key] = replace(walker.state.vars.get(key, UNSET), values=(value,))
    try:
        with walker.through(f"{name}()"):
            return walker.statement(walker.state.functions[name])
    finally:
        walker.frames = kept
        walker.state.positional = positional
