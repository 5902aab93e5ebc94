"""Wrappers that change the environment of the command: `env`, and assignments in front of it."""

from __future__ import annotations

import re

from server_monitor.tasks.policy import paths
from server_monitor.tasks.policy.calls import Call, again
from server_monitor.tasks.policy.options import named, split
from server_monitor.tasks.policy.values import Field, Gap, Parts, Source, joined, known

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*|BASH_FUNC_[^=]+(?:%%|\(\)))=(.*)", re.DOTALL)
_SPLIT_STRING = re.compile(r"(?:-[iv0]*S|--split-string=?)(.*)", re.DOTALL)


def assigned(fields: list[Field], call: Call) -> list[Field]:
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


def env(call: Call) -> Parts:
    args = _split_strings(call)
    options = split(args, named("u C a unset chdir argv0 block-signal default-signal ignore-signal"), stops=True)
    rest = assigned([o for o in options.operands if o.text != "-"] if options.operands else [], call)
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
    place = looked_at = 0
    while place < len(args):
        if any(not field.prefix.startswith("-") for field in found[looked_at:]):
            return [*found, *args[place:]]  # Behind the first word that is none, nothing is an option of `env`.
        looked_at = len(found)
        match = _SPLIT_STRING.fullmatch(args[place].text or "")
        if match is None:
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
