"""Texts that run as scripts: `sh -c`, standard input of a shell, `source`, and files that the task wrote itself."""

from __future__ import annotations

import re
from dataclasses import replace

from server_monitor.tasks.policy import paths, programs
from server_monitor.tasks.policy.calls import Call, Frame, again
from server_monitor.tasks.policy.options import split
from server_monitor.tasks.policy.parsing import Dialect
from server_monitor.tasks.policy.state import PATH, UNSET, Var, WrittenFile
from server_monitor.tasks.policy.values import Field, Gap, Parts, Shape, Source, Span, known, text_of

SHELL_VALUES = frozenset(("o", "O", "rcfile", "init-file"))
_SHEBANG = re.compile(r"#!\s*(\S+)(?:[ \t]+(\S+))?[^\n]*\n?")


def shell(call: Call) -> Parts:
    """A shell as a command: it runs a string, a file, or its standard input."""
    options = split(call.args, SHELL_VALUES, stops=True)
    if "n" in options.flags:  # It only reads what it is given.
        return ()
    for startup in (options.value("rcfile", "init-file"),):
        if startup is not None:
            run_path(startup, call, ())
    operands = options.operands
    if "c" in options.flags:
        if not operands:
            return ()
        return run_code(operands[0], call, call.name + " -c", operands[1:])
    if options.has("version", "help"):
        return (Gap(Source.OUTPUT),)
    if (
        operands
        and "s" not in options.flags
        and operands[0].text not in ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
    ):
        return run_path(operands[0], call, tuple(operands[1:]))
    if call.stdin is None:
        return (Gap(Source.OUTPUT),)
    return run_parts(call.stdin, call, f"{call.name} <", call.span, tuple(operands), is_stdin=True)


def run_code(code: Field, call: Call, how: str, args: list[Field]) -> Parts:
    """A string as a script; its first argument is `$0`, the others are its parameters."""
    zero = args[0].parts if args else (call.name,)
    printed = [run_parts(parts, call, how, code.span, tuple(args[1:]), zero=zero) for parts in (code.parts, *code.alts)]
    return printed[0]


def run_parts(
    parts: Parts,
    call: Call,
    how: str,
    span: Span,
    args: tuple[Field, ...] = (),
    *,
    zero: Parts = ("bash",),
    is_stdin: bool = False,
    in_this_shell: bool = False,
) -> Parts:
    """Text as a script, in a shell of its own unless `in_this_shell`. Gaps in it become variables."""
    walker = call.walker
    text = text_of(parts)
    names: dict[str, Var] = {}
    if text is None:
        if not _is_worth_reading(parts):
            return unknown(parts, call, span, is_stdin=is_stdin)
        text, names = _with_variables(parts)
        if any(isinstance(p, Gap) and p.shape is Shape.ANY and p.source is not Source.TRUSTED for p in parts):
            unknown(parts, call, span, is_stdin=is_stdin)
    dialect: Dialect = "posix" if programs.canonical(call.name) in ("sh", "dash") else "bash"
    if in_this_shell:
        walker.state.vars.update(names)
        if args:
            walker.state.positional = args
        return walker.run_text(text, how, span)
    kept = walker.state
    walker.state = kept.copy()
    walker.state.functions = {n: body for n, body in kept.functions.items() if n in kept.exported}
    walker.state.aliases = {}
    walker.state.vars.update(names)
    for key, value in call.env.items():
        walker.state.vars[key] = replace(walker.state.vars.get(key, UNSET), values=(value,))
    walker.state.positional, walker.state.zero = args, zero
    try:
        return walker.run_text(text, how, span, dialect=dialect, stdin=() if is_stdin else call.stdin)
    finally:
        walker.state = kept


def _is_worth_reading(parts: Parts) -> bool:
    """Is there known text around the gaps?"""
    return any(isinstance(part, str) and part.strip() for part in parts) and not any(
        isinstance(part, Gap) and part.source is Source.NETWORK for part in parts
    )


def _with_variables(parts: Parts) -> tuple[str, dict[str, Var]]:
    text, names = [], {}
    for place, part in enumerate(parts):
        if isinstance(part, str):
            text.append(part)
        elif isinstance(part, Gap):
            name = f"__gap{place}"
            names[name] = Var((((replace(part, splits=False)),),))
            text.append("${" + name + "}")
        else:
            text.append(part.text)
    return "".join(text), names


def unknown(parts: Parts, call: Call, span: Span, *, is_stdin: bool = False) -> Parts:
    """A script that exists only once the command runs."""
    gap = next((part for part in parts if isinstance(part, Gap)), Gap())
    network = next((part for part in parts if isinstance(part, Gap) and part.source is Source.NETWORK), None)
    if network is not None:
        why = f"runs what {network.detail or 'a download'} fetches, unseen"
        call.walker.find("rce.download_to_interpreter", why, span, resolved=call.line)
    elif gap.source is not Source.TRUSTED:
        rule = "opaque.stdin_to_shell" if is_stdin else "opaque.eval"
        source = f"{gap.source.value} ({gap.detail})" if gap.detail else gap.source.value
        call.walker.find(rule, f"runs a script that comes from {source}", span, resolved=call.line)
    return (Gap(gap.source),)


def written(word: str, call: Call) -> Field | None:
    """The file that this command word runs, when the task wrote it itself."""
    state = call.state
    if "/" in word:
        path = paths.absolute(word, state)
        return known(path, call.word.span) if path is not None and path in state.files else None
    # A link may give a file another name; without one, only a file of this name can be the program.
    if not state.links and not any(path.endswith(f"/{word}") for path in state.files):
        return None
    found = state.vars.get("PATH")
    search = (text_of(found.values[0]) if found else None) or PATH
    for folder in search.split(":"):
        path = paths.absolute(f"{folder or '.'}/{word}", state)
        if path is not None and path in state.files:
            return known(path, call.word.span)
    return None


def run_file(file: Field, call: Call) -> Parts:
    return run_path(file, call, tuple(call.args), is_direct=True)


def run_path(file: Field, call: Call, args: tuple[Field, ...], *, is_direct: bool = False) -> Parts:
    """A file as a script: the one that the task wrote, or one that was there before and is not looked into."""
    if file.text is None and file.gap is not None:
        return unknown(file.parts, call, file.span)
    place = paths.place_of(file.parts, call.state)
    found = call.state.files.get(place.text) if place.is_exact else None
    if found is None and paths.descriptor(place) is not None:
        content = call.walker.content(file)
        return run_parts(content, call, f"{call.name or 'run'} {file.shown}", file.span, args, is_stdin=True)
    if found is None:
        if place.text.startswith(("/dev/tcp/", "/dev/udp/")):
            return unknown(call.walker.content(file), call, file.span)
        judge_place(file.text or file.shown, call)
        return (Gap(Source.OUTPUT, detail=place.text),)
    return _run_written(place.text, found, file, call, args, is_direct=is_direct)


def _run_written(
    path: str, found: WrittenFile, file: Field, call: Call, args: tuple[Field, ...], *, is_direct: bool
) -> Parts:
    walker = call.walker
    running = [frame for frame in walker.frames if frame.name == path]
    if running:
        if running[-1].is_forked or call.is_background:
            walker.find("bomb.fork", f"the script {path} starts itself in new processes without end", call.span)
        return ()
    text = text_of(found.content) or ""
    match = _SHEBANG.match(text)
    if is_direct and match is not None:
        program = match[1].rpartition("/")[2]
        program = (match[2] or "sh").rpartition("/")[2] if program == "env" else program
        if program not in programs.SHELLS:
            return _interpreted(program, found.content, file, call)
    kept, walker.frames = walker.frames, [*walker.frames, Frame(path, call.is_background)]
    try:
        return run_parts(found.content, call, path, file.span, args, zero=(path,))
    finally:
        walker.frames = kept


def _interpreted(program: str, content: Parts, file: Field, call: Call) -> Parts:
    """A script of another language, as its first line says."""
    flag = "-c" if program.startswith("python") else "-e"
    return again(call, [known(program, file.span), known(flag, file.span), Field(content, file.span)], file.shown)


def judge_place(word: str, call: Call) -> None:
    """A script that anybody may have put there: in a directory that every account can write to."""
    if "/" not in word:
        return
    path = paths.absolute(word, call.state)
    if path is not None and paths.is_in_temporary(path):
        why = f"runs {path}, which lies where every account can write"
        call.walker.find("opaque.script_from_tmp", why, call.span, resolved=call.line)
