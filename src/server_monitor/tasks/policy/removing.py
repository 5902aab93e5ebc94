"""Checks of what deletes, moves away or wipes."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from server_monitor.tasks.policy import critical, paths, searching, units
from server_monitor.tasks.policy.calls import Call
from server_monitor.tasks.policy.copying import copied_into
from server_monitor.tasks.policy.options import named, split
from server_monitor.tasks.policy.paths import Place
from server_monitor.tasks.policy.values import Field, Gap, Shape, Source
from server_monitor.tasks.policy.writing import write


def rm(call: Call) -> None:
    options = split(call.args)
    is_tree = options.has("r", "R", "recursive")
    for operand in options.operands:
        removal(operand, call, is_tree=is_tree)


def unlink(call: Call) -> None:
    for operand in split(call.args).operands:
        removal(operand, call, is_tree=False)


def shred(call: Call) -> None:
    options = split(call.args, named("n s iterations size random-source"))
    for operand in options.operands:
        place = call.place(operand)
        if paths.is_in(place.text, "/var/log"):
            call.walker.find("log.tamper", f"overwrites the log {operand.shown}", operand.span)
        elif paths.is_device(place):
            call.walker.find("fs.wipe", f"overwrites the device {place.text}", operand.span)
        elif loss := paths.file_loss(place):
            call.walker.find("fs.wipe", f"overwrites {loss}", operand.span)
        else:
            removal(operand, call, is_tree=True)


def removal(operand: Field, call: Call, *, is_tree: bool) -> None:
    """Judge that this operand goes, with everything below it when `is_tree`."""
    for parts in (operand.parts, *operand.alts):
        _removal(Field(parts, operand.span), call, is_tree=is_tree)


def _removal(operand: Field, call: Call, *, is_tree: bool) -> None:
    place = call.place(operand)
    find = call.walker.find
    shown = operand.shown
    if paths.is_log(place) or (is_tree and _is_logs(place)):
        find("log.tamper", f"deletes the log {place.text}", operand.span, resolved=f"{call.name} {shown}")
        return
    if _is_boot(place):
        find("kernel.boot", f"deletes {shown}, which the host starts from", operand.span)
        return
    if searching.is_found(place):
        _found_by_search(place, operand, call)
        return
    if is_tree and (loss := paths.tree_loss(place, call.state)):
        find(
            "fs.rm_critical_tree",
            f"deletes {loss} with everything in it",
            operand.span,
            resolved=f"{call.name} -r {shown}",
        )
        return
    if loss := paths.file_loss(place):
        rule = "net.name_resolution" if loss in ("/etc/hosts", "/etc/resolv.conf") else "fs.rm_critical_file"
        rule = "perm.account_files" if rule != "net.name_resolution" and _is_account(place) else rule
        rule = "fs.rm_critical_file" if rule == "perm.account_files" else rule
        find(rule, f"deletes {loss}, which the host needs", operand.span, resolved=f"{call.name} {shown}")
        return
    _single(place, operand, call)
    if paths.is_device(place) and place.text != "/dev":
        find("fs.rm_critical_file", f"deletes the device {place.text}", operand.span)
        return
    if is_tree and paths.is_top_level(place):
        find("opaque.target", f"deletes {place.text}, a directory of the root", operand.span)
    elif is_tree:
        _unknown_tree(place, operand, call)


def _single(place: Place, operand: Field, call: Call) -> None:
    """What else a file may be: one by which a unit starts, or whichever a listing of the system's directory names."""
    if place.is_exact:
        _removed_start(place.text, operand, call)
    elif place.gap is not None and place.gap.detail == "ls" and paths.holds_the_system(place.text):
        call.walker.find("opaque.target", f"deletes what is in {place.text}", operand.span)


def _removed_start(path: str, operand: Field, call: Call) -> None:
    """Files by which units start."""
    if not units.is_dropped_in(path) and (unit := units.of_file(path)):
        call.walker.find("sys.stop_critical_service", f"deletes {path}, by which {unit} starts", operand.span)
    if path.endswith("/default.target"):
        call.walker.find("sys.default_target", "deletes what the host starts into", operand.span)


def _is_logs(place: Place) -> bool:
    return place.text == "/var/log" and (place.is_exact or place.is_directory_content)


def _is_boot(place: Place) -> bool:
    return paths.is_in(place.text, "/boot") and (place.text != "/boot" or not place.is_exact)


def _is_account(place: Place) -> bool:
    return place.text in ("/etc/passwd", "/etc/shadow")


def _unknown_tree(place: Place, operand: Field, call: Call) -> None:
    """A tree whose name is not known: what it may be decides."""
    gap = place.gap
    if gap is None:
        return
    if not place.text:
        if gap.shape is Shape.NAME and gap.detail == "mktemp":
            return
        if gap.source is Source.ALL_PROCESSES:
            return
        call.walker.find("opaque.target", f"deletes what {gap.source.value} names", operand.span)
        return
    broad = place.text in (*searching.BROAD, call.state.home) or paths.is_system(place.text)
    if broad or (gap.splits and gap.shape is Shape.ANY and not paths.is_in_temporary(place.text)):
        call.walker.find(
            "opaque.target", f"deletes a directory below {place.text} whose name is not known", operand.span
        )


def _found_by_search(place: Place, operand: Field, call: Call) -> None:
    lost = searching.loss(place, call.state, is_relative=operand.prefix.startswith("."))
    if lost is not None:
        rule = "fs.find_delete_critical" if lost.is_certain else "opaque.target"
        call.walker.find(rule, f"deletes {lost.what}", operand.span)
    elif paths.is_system(place.text):
        call.walker.find("opaque.target", f"deletes files by name all over {place.text}", operand.span)


def find(call: Call) -> None:
    """`find … -delete`, and its like: the root is what matters."""
    texts = call.texts
    if "-delete" not in texts:
        _find_writes(call, texts)
        return
    # A test that stands behind -delete chooses nothing.
    tests = texts[: texts.index("-delete")]
    for root in searching.roots(call.args):
        _removal(Field(searching.found(root, tests), root.span), call, is_tree=True)


def _find_writes(call: Call, texts: list[str]) -> None:
    for place, text in enumerate(texts[:-1]):
        if text in ("-fprint", "-fprint0", "-fls", "-fprintf"):
            write(call.args[place + 1], (Gap(Source.OUTPUT),), call.walker, is_appended=False)


def mv(call: Call) -> None:
    options = split(call.args, named("t S target-directory suffix"))
    target = options.value("t", "target-directory")
    sources = options.operands if target is not None else options.operands[:-1]
    target = target or (options.operands[-1] if len(options.operands) > 1 else None)
    for source in sources:
        for parts in (source.parts, *source.alts):
            _moved_away(Field(parts, source.span), target, call)
    if target is not None:
        copied_into(target, sources, call)


def _moved_away(source: Field, target: Field | None, call: Call) -> None:
    place = call.place(source)
    to = call.place(target) if target is not None else None
    loss = paths.tree_loss(place, call.state)
    if loss == call.state.home and not source.prefix.startswith("/"):
        loss = None
    if loss is not None and place.is_exact and loss == place.text and _is_only_a_file(place.text):
        loss = None
    loss = loss or paths.file_loss(place)
    if to is not None and to.text == "/dev/null":
        call.walker.find("fs.mv_critical", f"moves {source.shown} into nothing", source.span)
    elif paths.is_log(place):
        call.walker.find("log.tamper", f"moves the log {place.text} away", source.span)
    elif _is_boot(place):
        call.walker.find("kernel.boot", f"moves {source.shown} away, which the host starts from", source.span)
    elif place.is_exact and (unit := units.of_file(place.text)):
        call.walker.find("sys.stop_critical_service", f"moves {place.text} away, by which {unit} starts", source.span)
    elif loss is not None and searching.is_by_name(place):
        call.walker.find("opaque.target", f"moves files of {loss} away by name", source.span)
    elif loss is not None:
        call.walker.find("fs.mv_critical", f"moves {loss} away", source.span)


def _is_only_a_file(path: str) -> bool:
    """Below /etc and in the homes, a single name may be moved as long as no rule names it."""
    if not paths.is_in(path, "/etc") or path == "/etc" or paths.is_critical_file(path):
        return False
    return not any(paths.is_in(file, path) for file in critical.FILES)


def git(call: Call) -> None:
    """`git clean` takes everything that is not in the repository, wherever that is."""
    texts = call.texts
    if "clean" not in texts or not any(re.match(r"-\w*f|--force", text) for text in texts):
        return
    folder = next((arg for option, arg in pairwise(call.args) if option.text in ("-C", "--work-tree")), None)
    last = call.args[-1] if call.args[-1].prefix.startswith("/") else None
    for operand in (folder, last):
        if operand is not None and (loss := paths.tree_loss(call.place(operand), call.state)):
            call.walker.find("fs.rm_critical_tree", f"deletes what is in {loss}", operand.span)


CHECKS: dict[str, Callable[[Call], None]] = {
    "rm": rm,
    "unlink": unlink,
    "shred": shred,
    "srm": rm,
    "trash": rm,
    "trash-put": rm,
    "rmdir": lambda _call: None,
    "find": find,
    "git": git,
    "mv": mv,
}
