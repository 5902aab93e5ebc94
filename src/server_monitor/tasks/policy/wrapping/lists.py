"""Wrappers that run the command for each item of a list: `xargs`, `parallel`, `find -exec`."""

from __future__ import annotations

import re

from server_monitor.tasks.policy import endless, scripts
from server_monitor.tasks.policy.calls import Call, again
from server_monitor.tasks.policy.options import Options, named, split
from server_monitor.tasks.policy.printing import places
from server_monitor.tasks.policy.values import (
    Field,
    Gap,
    Parts,
    Shape,
    Source,
    globbed,
    is_endless,
    joined,
    known,
    text_of,
)
from server_monitor.tasks.policy.wrapping.code import joined_code

MAX_ITEMS = 32
XARGS = named("I L n P s d E a arg-file delimiter max-args max-procs max-chars process-slot-var")


def xargs(call: Call) -> Parts:
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
            items = [_item(item, call) for item in _items(text, options, placeholder)]
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


def _item(text: str, call: Call) -> Field:
    """A word of the list. Where the shell put names in the place of a pattern, the list is read as the pattern."""
    return (
        Field(globbed(text), call.span) if text[:1] in ("/", "~", ".") and " " not in text else known(text, call.span)
    )


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


def parallel(call: Call) -> Parts:
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
        printed.append(joined_code(call, filled, "parallel"))
    return joined(*printed)


def _put_any(command: list[Field], item: Field) -> list[Field]:
    marks = ("{}", "{.}", "{/}", "{//}", "{/.}", "{1}", "{2}", "{3}")
    for mark in marks:
        command = _put(command, mark, item)
    return command


def find(call: Call) -> Parts:
    """`-exec` and its like; what `find` deletes by itself is a rule of its own."""
    printed = places.find(call)
    args = call.args
    place = 0
    is_run = False
    while place < len(args):
        if args[place].text not in FIND_RUNS:
            place += 1
            continue
        end = place + 1
        while end < len(args) and args[end].text not in (";", "+", "\\;"):
            end += 1
        item = Field(tuple(part for part in printed if part != "\n"), args[place].span)
        command = args[place + 1 : end]
        inner = _put(command, "{}", item)
        if call.name == "fd" and inner == command:
            inner = [*command, item]
        again(call, inner, f"{call.name} {args[place].text}")
        is_run = True
        place = end + 1
    return (Gap(Source.OUTPUT),) if is_run else printed


FIND_RUNS = ("-exec", "-execdir", "-ok", "-okdir", *places.FD_RUNS)
