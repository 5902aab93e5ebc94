"""Options of a command, split from its operands the way getopt_long does it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from server_monitor.tasks.policy.values import Field, known


def named(text: str) -> frozenset[str]:
    """The words of a text as a set: tables are easier to read without quotes."""
    return frozenset(text.split())


@dataclass(slots=True)
class Options:
    """What was given: flags without their dashes, values by flag, operands in order."""

    flags: set[str] = field(default_factory=set)
    values: dict[str, list[Field]] = field(default_factory=dict)
    operands: list[Field] = field(default_factory=list)

    def has(self, *names: str) -> bool:
        """Was one of these given? Long names may have been abbreviated."""
        for name in names:
            if name in self.flags or name in self.values:
                return True
            if len(name) > 1 and any(len(f) > 2 and name.startswith(f) for f in (*self.flags, *self.values)):
                return True
        return False

    def value(self, *names: str) -> Field | None:
        """The last value given for one of these."""
        found = [given for name in names for given in self.values.get(name, ())]
        if not found:
            found = [
                v
                for name in names
                if len(name) > 1
                for given, values in self.values.items()
                if len(given) > 2 and name.startswith(given)
                for v in values
            ]
        return found[-1] if found else None

    def all_values(self, *names: str) -> list[Field]:
        return [given for name in names for given in self.values.get(name, ())]


def split(args: list[Field], takes: Iterable[str] = (), *, stops: bool = False, single_dash: bool = False) -> Options:
    """Split arguments. `takes` names the options that take a value; with `stops`, the first operand ends the options.

    `single_dash` is for programs whose long options have one dash, such as find and java.
    """
    wanted = takes if isinstance(takes, frozenset | set) else frozenset(takes)
    found = Options()
    place = 0
    while place < len(args):
        arg = args[place]
        place += 1
        text = arg.text if arg.text is not None else arg.prefix
        if text == "--":
            found.operands += args[place:]
            break
        if not text.startswith("-") or text == "-":
            found.operands.append(arg)
            if stops:
                found.operands += args[place:]
                break
            continue
        if text.startswith("--") or single_dash:
            place += _long(text.lstrip("-"), arg, args[place : place + 1], wanted, found)
        else:
            place += _cluster(text[1:], arg, args[place : place + 1], wanted, found)
    return found


def _long(text: str, arg: Field, following: list[Field], takes: frozenset[str] | set[str], found: Options) -> int:
    name, equals, value = text.partition("=")
    if equals:
        whole = known(value, arg.span) if arg.text is not None else Field((value, *arg.parts[1:]), arg.span)
        found.values.setdefault(name, []).append(whole)
        return 0
    if following and (name in takes or _unique_start(name, takes)):
        found.values.setdefault(name, []).append(following[0])
        return 1
    found.flags.add(name)
    return 0


def _unique_start(name: str, takes: frozenset[str] | set[str]) -> bool:
    return len(name) > 2 and sum(len(full) > 1 and full.startswith(name) for full in takes) == 1


def _cluster(text: str, arg: Field, following: list[Field], takes: frozenset[str] | set[str], found: Options) -> int:
    for position, letter in enumerate(text):
        if letter not in takes:
            found.flags.add(letter)
            continue
        rest = text[position + 1 :]
        if rest or arg.text is None:
            whole = known(rest, arg.span) if arg.text is not None else Field((rest, *arg.parts[1:]), arg.span)
            found.values.setdefault(letter, []).append(whole)
            return 0
        if following:
            found.values.setdefault(letter, []).append(following[0])
            return 1
        found.flags.add(letter)
        return 0
    return 0
