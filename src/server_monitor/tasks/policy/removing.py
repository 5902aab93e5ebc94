"""Checks of what deletes, moves away or wipes."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from server_monitor.tasks.policy import critical, paths, units
from server_monitor.tasks.policy.calls import Call
from server_monitor.tasks.policy.copying import copied_into
from server_monitor.tasks.policy.options import named, split
from server_monitor.tasks.policy.paths import Place
from server_monitor.tasks.policy.values import Field, Gap, Glob, Shape, Source, joined
from server_monitor.tasks.policy.writing import write

# Roots below which a search that deletes takes the host with it, even when it looks only for old or large files.
_BROAD = named("/ /home /root /var /var/lib /opt /srv /usr /etc /bin /lib /boot /mnt /media /data /backup /backups")


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
    if place.gap is not None and place.gap.detail.startswith("find"):
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
    if place.is_exact:
        _removed_start(place.text, operand, call)
    if paths.is_device(place) and place.text != "/dev":
        find("fs.rm_critical_file", f"deletes the device {place.text}", operand.span)
        return
    if is_tree and paths.is_top_level(place):
        find("opaque.target", f"deletes {place.text}, a directory of the root", operand.span)
    elif is_tree:
        _unknown_tree(place, operand, call)


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
    broad = place.text in (*_BROAD, call.state.home) or paths.is_system(place.text)
    if broad or (gap.splits and gap.shape is Shape.ANY and not paths.is_in_temporary(place.text)):
        call.walker.find(
            "opaque.target", f"deletes a directory below {place.text} whose name is not known", operand.span
        )


def _found_by_search(place: Place, operand: Field, call: Call) -> None:
    gap = place.gap
    assert gap is not None
    root = place.text
    everything = gap.detail.startswith("find everything")
    by_name = gap.detail.startswith("find names")
    place_itself = Place(root)
    if root == call.state.home and operand.prefix.startswith("."):
        # Where the task starts is not a choice that its author made.
        if everything:
            call.walker.find(
                "opaque.target", "deletes everything that a search finds where the task starts", operand.span
            )
        return
    if everything and not paths.is_in_temporary(root) and paths.tree_loss(place_itself, call.state):
        why = f"deletes everything that a search of {root} finds"
        call.walker.find("fs.find_delete_critical", why, operand.span)
    elif everything and paths.is_top_level(place_itself):
        call.walker.find("opaque.target", f"deletes everything that a search of {root} finds", operand.span)
    elif not by_name and (root in _BROAD or (paths.is_system(root) and paths.depth(root) < 4)):
        why = f"deletes whatever old, large or otherwise chosen files a search of {root} finds"
        call.walker.find("fs.find_delete_critical", why, operand.span)
    elif root == "/" or paths.is_system(root):
        why = f"deletes files by name all over {root}"
        call.walker.find("opaque.target", why, operand.span)


def find(call: Call) -> None:
    """`find … -delete`, and its like: the root is what matters."""
    texts = call.texts
    if "-delete" not in texts:
        _find_writes(call, texts)
        return
    for root in search_roots(call.args):
        detail = search_detail(texts)
        _removal(_below(root, detail), call, is_tree=True)
    # A test that stands behind -delete chooses nothing.
    if call.texts.index("-delete") < min(
        (i for i, t in enumerate(texts) if t in ("-name", "-iname", "-path")), default=9**9
    ):
        for root in search_roots(call.args):
            _removal(_below(root, search_detail(texts[: texts.index("-delete")])), call, is_tree=True)


def _below(root: Field, detail: str) -> Field:
    """What a search of this root finds; a root that is a pattern chooses by name itself."""
    if any(isinstance(part, Glob) for part in root.parts) and not root.shown.endswith("/*"):
        detail = "find names"
    return Field(joined(root.parts, ("/",), (Gap(Source.OUTPUT, Shape.PATH, detail=detail),)), root.span)


def _find_writes(call: Call, texts: list[str]) -> None:
    for place, text in enumerate(texts[:-1]):
        if text in ("-fprint", "-fprint0", "-fls", "-fprintf"):
            write(call.args[place + 1], (Gap(Source.OUTPUT),), call.walker, is_appended=False)


def search_roots(args: list[Field]) -> list[Field]:
    roots: list[Field] = []
    for arg in args:
        if arg.text in ("-H", "-L", "-P"):
            continue
        if arg.prefix.startswith(("-", "(", "!")):
            break
        roots.append(arg)
    # An empty word is no directory, and nothing is searched.
    return [root for root in roots if root.parts] if roots else [Field((".",))]


_BY_NAME = named("-name -iname -path -ipath -wholename -iwholename -regex -iregex -samefile -inum -lname")
_BY_OWNER = named("-user -group -uid -gid -nouser -nogroup -perm")
_BY_OTHER = named("-mtime -mmin -ctime -cmin -atime -amin -newer -size -links -newermt")


def search_detail(texts: list[str]) -> str:
    """How much a search chooses: `find names`, `find some` or `find everything`, and whether only what is old."""
    old = any(t in ("-mtime", "-mmin", "-ctime", "-cmin", "-atime") and f.startswith("+") for t, f in pairwise(texts))
    names = [f for t, f in pairwise(texts) if t in ("-name", "-iname", "-regex", "-path")]
    rotated = bool(names) and all(re.search(r"\.(gz|old|xz|bz2|zst|bak)$|[\d\]]\*?$|-20|\.\d", name) for name in names)
    return _chosen(texts) + (" old" if old or rotated else "")


def _chosen(texts: list[str]) -> str:
    if "-o" in texts or "-or" in texts:
        return "find some" if any(t in _BY_NAME | _BY_OTHER for t in texts) else "find everything"
    for place, (text, name) in enumerate(pairwise(texts)):
        negated = place > 0 and texts[place - 1] in ("!", "-not")
        if text in _BY_NAME and not negated and not set(name) <= set("*.?/[^]"):
            return "find names"
    if "-empty" in texts or any(text in _BY_OWNER for text in texts):
        return "find names"
    return "find some" if any(text in _BY_OTHER for text in texts) else "find everything"


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
    elif loss is not None and place.gap is not None and place.gap.detail.startswith("find names"):
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
