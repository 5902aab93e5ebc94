"""Checks of what deletes, moves away or wipes."""

from __future__ import annotations

from collections.abc import Callable

from server_monitor.tasks.policy import paths
from server_monitor.tasks.policy.calls import Call
from server_monitor.tasks.policy.options import named, split
from server_monitor.tasks.policy.paths import Place
from server_monitor.tasks.policy.values import Field, Gap, Shape, Source

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
        if paths.is_device(place):
            call.walker.find("fs.wipe", f"overwrites the device {place.text}", operand.span)
        elif (loss := paths.file_loss(place)) or paths.is_log(place):
            rule = "log.tamper" if paths.is_log(place) else "fs.wipe"
            call.walker.find(rule, f"overwrites {loss or place.text}", operand.span)


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
        find("fs.rm_critical_tree", f"deletes {loss} with everything in it", operand.span, resolved=f"{call.name} -r {shown}")
        return
    if loss := paths.file_loss(place):
        rule = "net.name_resolution" if loss in ("/etc/hosts", "/etc/resolv.conf") else "fs.rm_critical_file"
        rule = "perm.account_files" if rule != "net.name_resolution" and _is_account(place) else rule
        rule = "fs.rm_critical_file" if rule == "perm.account_files" else rule
        find(rule, f"deletes {loss}, which the host needs", operand.span, resolved=f"{call.name} {shown}")
        return
    if place.is_exact and place.text.endswith("/default.target"):
        find("sys.default_target", "deletes what the host starts into", operand.span)
    if paths.is_device(place) and place.text != "/dev":
        find("fs.rm_critical_file", f"deletes the device {place.text}", operand.span)
        return
    if is_tree:
        _unknown_tree(place, operand, call)


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
    broad = place.text in _BROAD or paths.is_system(place.text)
    if broad or (gap.splits and gap.shape is Shape.ANY and not paths.is_in_temporary(place.text)):
        call.walker.find("opaque.target", f"deletes a directory below {place.text} whose name is not known", operand.span)


def _found_by_search(place: Place, operand: Field, call: Call) -> None:
    gap = place.gap
    assert gap is not None
    root = place.text
    everything = gap.detail == "find everything"
    by_name = gap.detail == "find names"
    place_itself = Place(root)
    if everything and not paths.is_in_temporary(root) and paths.tree_loss(place_itself, call.state):
        why = f"deletes everything that a search of {root} finds"
        call.walker.find("fs.find_delete_critical", why, operand.span)
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
        parts = (*root.parts, "/", Gap(Source.OUTPUT, Shape.PATH, detail=detail)) if root.parts else ()
        _removal(Field(tuple(parts), root.span), call, is_tree=True)
    # A test that stands behind -delete chooses nothing.
    if call.texts.index("-delete") < min((i for i, t in enumerate(texts) if t in ("-name", "-iname", "-path")), default=9**9):
        for root in search_roots(call.args):
            parts = (*root.parts, "/", Gap(Source.OUTPUT, Shape.PATH, detail=search_detail(texts[: texts.index("-delete")])))
            _removal(Field(parts, root.span), call, is_tree=True)


def _find_writes(call: Call, texts: list[str]) -> None:
    from server_monitor.tasks.policy.writing import write

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
    return roots or [Field((".",))]


_BY_NAME = named("-name -iname -path -ipath -wholename -iwholename -regex -iregex -samefile -inum -lname")
_BY_OTHER = named("-mtime -mmin -ctime -cmin -atime -amin -newer -size -user -group -perm -nouser -nogroup -links -newermt")


def search_detail(texts: list[str]) -> str:
    """How much a search chooses: `find names`, `find some` or `find everything`."""
    if "-o" in texts or "-or" in texts:
        return "find some" if any(t in _BY_NAME | _BY_OTHER for t in texts) else "find everything"
    for place, text in enumerate(texts):
        negated = place > 0 and texts[place - 1] in ("!", "-not")
        if text in _BY_NAME and not negated and place + 1 < len(texts):
            if texts[place + 1].strip("*.?/") and not set(texts[place + 1]) <= set("*.?/[^]"):
                return "find names"
    if "-empty" in texts:
        return "find names"
    return "find some" if any(text in _BY_OTHER for text in texts) else "find everything"


def mv(call: Call) -> None:
    from server_monitor.tasks.policy.writing import copied_into

    options = split(call.args, named("t S target-directory suffix"))
    target = options.value("t", "target-directory")
    sources = options.operands if target is not None else options.operands[:-1]
    target = target or (options.operands[-1] if len(options.operands) > 1 else None)
    for source in sources:
        for parts in (source.parts, *source.alts):
            _moved_away(Field(parts, source.span), target, call)
    if target is not None:
        copied_into(target, sources, call, is_move=True)


def _moved_away(source: Field, target: Field | None, call: Call) -> None:
    place = call.place(source)
    to = call.place(target) if target is not None else None
    loss = paths.tree_loss(place, call.state)
    if loss is not None and place.is_exact and loss == place.text and _is_only_a_file(place.text):
        loss = None
    loss = loss or paths.file_loss(place)
    if to is not None and to.text == "/dev/null":
        call.walker.find("fs.mv_critical", f"moves {source.shown} into nothing", source.span)
    elif paths.is_log(place):
        call.walker.find("log.tamper", f"moves the log {place.text} away", source.span)
    elif _is_boot(place):
        call.walker.find("kernel.boot", f"moves {source.shown} away, which the host starts from", source.span)
    elif loss is not None:
        call.walker.find("fs.mv_critical", f"moves {loss} away", source.span)


def _is_only_a_file(path: str) -> bool:
    """Below /etc and in the homes, a single name may be moved as long as no rule names it."""
    return paths.is_in(path, "/etc") and path != "/etc" and not paths.is_critical_file(path)


CHECKS: dict[str, Callable[[Call], None]] = {
    "rm": rm,
    "unlink": unlink,
    "shred": shred,
    "srm": rm,
    "trash": rm,
    "trash-put": rm,
    "rmdir": lambda _call: None,
    "find": find,
    "mv": mv,
}
