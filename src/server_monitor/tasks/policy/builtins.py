"""Builtins of the shell: those that change what later commands mean, and those that run text."""

from __future__ import annotations

import re
from collections.abc import Callable

from server_monitor.tasks.policy import assigning, effects, endless, paths, scripts
from server_monitor.tasks.policy.calls import Call, Lookup, again
from server_monitor.tasks.policy.options import Options, named, split
from server_monitor.tasks.policy.parameters import target_of
from server_monitor.tasks.policy.printing import formats, places
from server_monitor.tasks.policy.printing.listed import listed
from server_monitor.tasks.policy.state import Var
from server_monitor.tasks.policy.values import Field, Gap, Part, Parts, Shape, Source, flat, globbed, joined, text_of
from server_monitor.tasks.policy.words import split_text

Builtin = Callable[[Call], Parts | None]  # None: go on as with a program of that name.

MAX_LINES = 256


def _cd(call: Call) -> Parts:
    operands = split(call.args).operands
    target = operands[0] if operands else Field((call.state.home,))
    if target.text == "-":
        old = call.state.vars.get("OLDPWD")
        target = Field(old.values[0]) if old else target
    search = call.state.vars.get("CDPATH")
    folder = (text_of(search.values[0]) or "").partition(":")[0] if search else ""
    if folder not in ("", ".") and not target.prefix.startswith(("/", ".")):
        target = Field(joined((folder + "/",), target.parts), target.span)
    _move(target, call)
    return ()


def _move(target: Field, call: Call) -> None:
    state = call.state
    place = paths.place_of(target.parts, state)
    before = state.cwd
    # The rest of a path that is not known lies below what is known of it.
    state.cwd = place.text if place.is_exact else _below(place)
    if before is not None:
        state.vars["OLDPWD"] = Var.of(before)
    state.vars["PWD"] = Var.of(state.cwd) if state.cwd is not None else Var(((Gap(Source.PARAMETER, Shape.PATH),),))


def _below(place: paths.Place) -> str | None:
    if place.gap is not None or not place.text or paths.depth(place.text) < 1:
        return None
    return f"{place.text}/*"


def _pushd(call: Call) -> Parts:
    operands = split(call.args).operands
    call.state.dirs.append(call.state.cwd)
    if operands:
        _move(operands[0], call)
    return ()


def _popd(call: Call) -> Parts:
    call.state.cwd = call.state.dirs.pop() if call.state.dirs else call.state.cwd
    return ()


def _eval(call: Call) -> Parts:
    pieces: list[Parts] = []
    for arg in call.args:
        pieces += [(" ",), flat(arg.parts)] if pieces else [flat(arg.parts)]
    span = (call.args[0].span[0], call.args[-1].span[1]) if call.args else call.span
    return scripts.run_parts(joined(*pieces), call, "eval", span, in_this_shell=True)


def _source(call: Call) -> Parts:
    if not call.args:
        return ()
    file = call.args[0]
    text = call.walker.content(file)
    place = call.place(file)
    is_written = place.is_exact and place.text in call.state.files
    if is_written or any(isinstance(part, Gap) and part.source is Source.NETWORK for part in text):
        return scripts.run_parts(
            text, call, f"source {file.shown}", file.span, tuple(call.args[1:]), in_this_shell=True
        )
    if (number := paths.descriptor(place)) is not None:
        given = call.stdin if number == "0" and call.stdin is not None else text
        return scripts.run_parts(given, call, "source", file.span, in_this_shell=True)
    return scripts.run_path(file, call, ())


def _exec(call: Call) -> Parts | None:
    options = split(call.args, ("a",), stops=True)
    return again(call, options.operands, "exec") if options.operands else ()


def _command(call: Call) -> Parts | None:
    options = split(call.args, (), stops=True)
    if options.has("v", "V"):
        return places.which(call)
    return again(call, options.operands, call.name, lookup=Lookup.BUILTIN) if options.operands else ()


def _builtin(call: Call) -> Parts | None:
    return again(call, split(call.args, (), stops=True).operands, "builtin", lookup=Lookup.BUILTIN)


def _alias(call: Call) -> Parts:
    for arg in call.args:
        name, equals, body = (arg.text or "").partition("=")
        if equals and name:
            call.state.aliases[name] = body
    return ()


def _unalias(call: Call) -> Parts:
    for arg in call.args:
        if arg.text == "-a":
            call.state.aliases.clear()
        call.state.aliases.pop(arg.text or "", None)
    return ()


def _set(call: Call) -> Parts:
    effects.judge(call)
    for place, arg in enumerate(call.args):
        if arg.text == "--":
            call.state.positional = tuple(call.args[place + 1 :])
            return ()
        if not arg.prefix.startswith(("-", "+")):
            call.state.positional = tuple(call.args[place:])
            return ()
        if arg.text in ("-o", "+o"):
            return ()
    return ()


def _shift(call: Call) -> Parts:
    count = call.args[0].text if call.args else "1"
    if count is not None and count.isdigit():
        call.state.positional = call.state.positional[int(count) :]
    return ()


def _unset(call: Call) -> Parts:
    options = split(call.args)
    for arg in options.operands:
        name = arg.text or ""
        call.walker.expand_text(name)
        if "f" in options.flags:
            call.state.functions.pop(name, None)
        else:
            call.state.vars.pop(name, None)
            call.state.functions.pop(name, None)
    effects.judge_unset([arg.text or "" for arg in options.operands], call)
    return ()


READ_VALUES = frozenset("adinNptu")


def _read(call: Call) -> Parts:
    options = split(call.args, READ_VALUES)
    descriptor = given.text if (given := options.value("u")) else None
    line = call.walker.stdin.line() if descriptor is None else call.walker.descriptors.get(descriptor or "", (Gap(),))
    if descriptor is None and not _ends(call.walker.stdin.parts, options):
        call.walker.find("bomb.fill", "reads an endless source into memory", call.span)
    if line is not None and (delimiter := options.value("d")) is not None and delimiter.text == "":
        line = _until_nul(line)
    for operand in options.operands:
        call.walker.expand_text(operand.text or "")
    if array := options.value("a"):
        words = _words(line or (), call)
        call.state.vars[array.text or "_"] = Var(items=tuple((str(i), w) for i, w in enumerate(words)))
        return ()
    names = [operand.text or "_" for operand in options.operands] or ["REPLY"]
    for name, value in zip(names, _shared(line or (), len(names), call), strict=True):
        call.state.vars[target_of(name, call.walker)] = Var((_as_names(value),))
    return ()


def _as_names(value: Parts) -> Parts:
    """A line that a pattern stands in is read as the pattern: the shell before the pipe had put names in its place."""
    text = text_of(value)
    return globbed(text) if text and text[0] in "/~." and " " not in text else value


def _until_nul(line: Parts) -> Parts:
    """What `read -d ''` takes of it: the NUL that ends the name is not part of it."""
    found: list[Part] = []
    for part in line:
        text, nul, _ = part.partition("\0") if isinstance(part, str) else (part, "", "")
        found += [text] if text else []
        if nul:
            break
    return tuple(found)


def _ends(given: Parts | None, options: Options) -> bool:
    """Does the end of the line that `read` waits for come?"""
    gap = endless.endless_part(given)
    if gap is None or any(name in options.values for name in "nNt"):
        return True
    delimiter = options.value("d")
    if gap.detail in ("/dev/zero", "/dev/full"):
        return delimiter is not None and delimiter.text == ""
    return delimiter is None or gap.detail not in ("yes", "seq") or delimiter.text in ("\n", "y", "1")


def _words(line: Parts, call: Call) -> list[Parts]:
    text = text_of(line)
    if text is None:
        return [line]
    return [(word,) for word in split_text(text, call.state.ifs or " \t\n")]


def _shared(line: Parts, count: int, call: Call) -> list[Parts]:
    text = text_of(line)
    if text is None:
        gap = next(part for part in line if not isinstance(part, str)) if line else Gap()
        return [line, *[((gap,) if isinstance(gap, Gap) else line)] * (count - 1)]
    if count == 1:
        stripped = text.strip(" \t\n") if call.state.ifs else text
        return [(stripped,) if stripped else ()]
    ifs = call.state.ifs or " \t\n"
    words = split_text(text, ifs)
    if len(words) <= count:
        padded: list[Parts] = [(word,) if word else () for word in words]
        return [*padded, *[()] * (count - len(padded))]
    rest = re.split("[" + re.escape(ifs) + "]+", text.strip(), maxsplit=count - 1)
    found: list[Parts] = [(word,) if word else () for word in rest[:count]]
    return [*found, *[()] * max(0, count - len(rest))]


def _mapfile(call: Call) -> Parts:
    options = split(call.args, frozenset("dnOsuCc"))
    if callback := options.value("C"):
        scripts.run_parts(callback.parts, call, "mapfile -C", callback.span, in_this_shell=True)
    name = options.operands[0].text if options.operands else "MAPFILE"
    given = call.walker.stdin.parts
    text = text_of(given) if given is not None else None
    if "n" not in options.values and endless.endless_part(given) is not None:
        call.walker.find("bomb.fill", "reads an endless source into memory", call.span)
    if text is None:
        value = given or (Gap(Source.INPUT),)
        call.state.vars[name or "_"] = Var(items=(("0", value),))
        return ()
    delimiter = (d.text if (d := options.value("d")) else None) or "\n"
    lines = text.split(delimiter)[:MAX_LINES]
    lines = lines[:-1] if lines and not lines[-1] else lines
    keep = "" if "t" in options.flags else delimiter
    call.state.vars[name or "_"] = Var(items=tuple((str(i), (line + keep,)) for i, line in enumerate(lines)))
    return ()


def _printf(call: Call) -> Parts | None:
    if len(call.args) > 1 and (call.args[0].text or "").startswith("-v"):
        attached = (call.args[0].text or "")[2:]
        name = attached or call.args[1].text or ""
        rest = call.args[1:] if attached else call.args[2:]
        call.walker.expand_text(name)
        formats.judge_width(rest, call)
        assigning.set_variable(name.partition("[")[0], (formats.formatted(rest),), call.walker)
        return ()
    return None


def _trap(call: Call) -> Parts:
    options = split(call.args, (), stops=True)
    if len(options.operands) > 1 and options.operands[0].text not in ("-", ""):
        code = options.operands[0]
        scripts.run_parts(code.parts, call, "trap", code.span, in_this_shell=True)
    return ()


def _test(call: Call) -> Parts:
    texts = [arg.text or "" for arg in call.args]
    for place, text in enumerate(texts):
        if text in ("-eq", "-ne", "-lt", "-le", "-gt", "-ge"):
            for side in texts[max(0, place - 1) : place] + texts[place + 1 : place + 2]:
                call.walker.expand_text(side)
        if text in ("-v", "-R"):
            for side in texts[place + 1 : place + 2]:
                call.walker.expand_text(side)
    return ()


def _declare(call: Call) -> Parts:
    """`declare` and `export` behind a quote or a variable, where the parser sees a plain command."""
    flags = {"export": "x", "local": "", "readonly": ""}.get(call.name, "")
    for arg in call.args:
        text = arg.text
        if text is None:
            name, equals, value = arg.prefix.partition("=")
            if equals:
                value_parts: Parts = (value, *arg.parts[1:]) if value else arg.parts[1:]
                assigning.set_variable(name, (flat(value_parts),), call.walker, flags=flags)
        elif text.startswith("-"):
            flags += text[1:]
        elif "=" in text:
            name, _, value = text.partition("=")
            call.walker.expand_text(name)
            values: tuple[Parts, ...] = ((value,) if value else (),)
            is_added = name.endswith("+")
            assigning.set_variable(name.rstrip("+"), values, call.walker, append=is_added, flags=flags)
    return ()


def _hash(call: Call) -> Parts:
    """`hash -p /bin/rm ls` makes `ls` mean another program, as an alias does."""
    options = split(call.args, ("p",))
    if (path := options.value("p")) and path.text and options.operands:
        call.state.aliases[options.operands[0].text or ""] = path.text
    return ()


def _let(call: Call) -> Parts:
    for arg in call.args:
        call.walker.expand_text(arg.text or arg.shown)
    return ()


def _enable(call: Call) -> Parts | None:
    options = split(call.args, ("f",))
    if file := options.value("f"):
        why = "loads a library into the shell"
        call.walker.find("rce.loaded_library", why, file.span)
    return ()


def _getopts(call: Call) -> Parts:
    if len(call.args) > 1:
        call.state.vars[call.args[1].text or "_"] = Var(((Gap(Source.PARAMETER, Shape.NAME),),))
        call.state.vars["OPTARG"] = Var(((Gap(Source.PARAMETER),),))
    return ()


def _nothing(_call: Call) -> Parts:
    return ()


def _history(call: Call) -> Parts | None:
    effects.judge(call)
    options = split(call.args, (), stops=True)
    if "s" in options.flags and options.operands:
        # What is put into the history is there to be run from it.
        pieces = [part for arg in options.operands for part in ((" ",), flat(arg.parts))]
        scripts.run_parts(joined(*pieces), call, "history -s", options.operands[0].span)
    return (Gap(Source.OUTPUT),)


def _fc(call: Call) -> Parts:
    options = split(call.args, ("e",), stops=True)
    if "l" not in options.flags:
        call.walker.find("opaque.eval", "runs a command of the history", call.span)
    return (Gap(Source.INPUT, detail="history"),)


def _complete(call: Call) -> Parts:
    """`complete` says what the Tab key runs; `compgen` runs it at once."""
    options = split(call.args, frozenset("oAGWFCXPS"))
    if code := options.value("C"):
        scripts.run_parts(code.parts, call, f"{call.name} -C", code.span)
    if list_ := options.value("W"):
        call.walker.expand_text(list_.text or list_.shown)
    if (function := options.value("F")) and (function.text or "") in call.state.functions:
        again(call, [function], f"{call.name} -F", lookup=Lookup.FUNCTION)
    return listed(call, (Gap(Source.OUTPUT),)) if call.name == "compgen" else ()


def _bind(call: Call) -> Parts:
    if any(arg.text == "-x" for arg in call.args):
        call.walker.find("opaque.eval", "binds a key to a command", call.span)
    return ()


BUILTINS: dict[str, Builtin] = {
    "cd": _cd,
    "chdir": _cd,
    "pushd": _pushd,
    "popd": _popd,
    "eval": _eval,
    "source": _source,
    ".": _source,
    "exec": _exec,
    "command": _command,
    "builtin": _builtin,
    "alias": _alias,
    "unalias": _unalias,
    "set": _set,
    "shift": _shift,
    "unset": _unset,
    "read": _read,
    "mapfile": _mapfile,
    "readarray": _mapfile,
    "printf": _printf,
    "trap": _trap,
    "test": _test,
    "[": _test,
    "declare": _declare,
    "typeset": _declare,
    "export": _declare,
    "local": _declare,
    "readonly": _declare,
    "let": _let,
    "hash": _hash,
    "enable": _enable,
    "getopts": _getopts,
    "history": _history,
    "fc": _fc,
    "shopt": _history,
    "complete": _complete,
    "compgen": _complete,
    "bind": _bind,
} | dict.fromkeys(
    named(": true false return exit break continue umask jobs bg fg wait times disown suspend logout dirs caller"),
    _nothing,
)
