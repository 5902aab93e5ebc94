"""Programs that change, rename or replace the files that they are given, one by one or whole trees of them.

They are alike: options, then files and directories. What differs is by which option they enter directories, and by
which they leave what is there as it is. That stands here as data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from server_monitor.tasks.policy import paths, searching
from server_monitor.tasks.policy.calls import Call
from server_monitor.tasks.policy.options import Options, named, split
from server_monitor.tasks.policy.values import Field, globbed


@dataclass(frozen=True, slots=True)
class InPlace:
    """`enters`: options by which it enters directories; all of them when it does so always.

    `needs`: one of these makes it change anything at all. `keeps`: with one of these nothing is changed. `skip`: words
    before the files. `does` is a verb for people.
    """

    does: str
    enters: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    keeps: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()
    skip: int = 0
    always_enters: bool = False


def _packer(needs: str = "", takes: str = "S suffix T threads memlimit") -> InPlace:
    keeps = named("c stdout to-stdout k keep l list t test h help V version n-dry")
    return InPlace("packs or unpacks", named("r recursive"), named(needs), keeps, named(takes))


def _always(does: str, *, needs: str = "", keeps: str = "", takes: str = "", skip: int = 0) -> InPlace:
    return InPlace(does, frozenset(), named(needs), named(keeps), named(takes), skip, always_enters=True)


_TABLE: dict[str, InPlace] = {
    **dict.fromkeys(named("gzip gunzip pigz unpigz bzip2 bunzip2 pbzip2 lbzip2 xz unxz lzma unlzma pixz"), _packer()),
    **dict.fromkeys(named("lzip plzip compress uncompress brotli"), _packer()),
    **dict.fromkeys(named("zstd unzstd zstdmt lz4 unlz4"), _packer("rm", "o T M D")),
    "lzop": _packer("U delete"),
    "zip": InPlace(
        "packs and deletes", named("r recurse-paths"), named("m move"), named("T-only"), named("P t tt i x"), 1
    ),
    "7z": _always("packs and deletes", needs="sdel", takes="", skip=2),
    "7za": _always("packs and deletes", needs="sdel", takes="", skip=2),
    "rar": _always("packs and deletes", needs="df", skip=2),
    **dict.fromkeys(
        named("dos2unix unix2dos fromdos todos mac2unix"), InPlace("rewrites", keeps=named("n newfile i info"))
    ),
    "recode": InPlace("rewrites", takes=named(""), skip=1),
    "convmv": InPlace("renames", named("r"), named("notest"), takes=named("f t")),
    "detox": InPlace("renames", named("r"), keeps=named("n dry-run"), takes=named("s f")),
    **dict.fromkeys(
        named("prename perl-rename file-rename"),
        InPlace("renames", keeps=named("n nono dry-run"), takes=named("e E"), skip=1),
    ),
    "rename.ul": InPlace("renames", keeps=named("n no-act"), skip=2),
    "mmv": InPlace("renames", keeps=named("n")),
    "rpl": InPlace("rewrites", named("R recursive"), keeps=named("s simulate"), takes=named("x t"), skip=2),
    "sd": InPlace("rewrites", keeps=named("p preview"), takes=named("n f"), skip=2),
    "ruplacer": _always("rewrites", needs="go", takes="t", skip=2),
    "fastmod": _always("rewrites", takes="e d g extensions dir glob", skip=2),
    "ccrypt": InPlace("encrypts", named("r recursive R rec-symlinks"), takes=named("K E k P S s")),
    "ccencrypt": InPlace("encrypts", named("r recursive"), takes=named("K E k P")),
    "aescrypt": InPlace("encrypts", needs=named("delete")),
    "mcrypt": InPlace("encrypts", needs=named("u unlink"), takes=named("k a m")),
    **dict.fromkeys(
        named("fdupes jdupes"), InPlace("deletes files of", named("r recurse R"), named("d delete"), takes=named("X o"))
    ),
    "rdfind": _always("deletes files of", needs="deleteduplicates makehardlinks makesymlinks"),
    "hardlink": _always("joins files of", keeps="n dry-run", takes="x s S"),
    **dict.fromkeys(named("tmpwatch tmpreaper"), _always("deletes files of", keeps="t test T showdeleted", skip=1)),
    **dict.fromkeys(
        named("wipe scrub sfill secure-delete"),
        InPlace("wipes", named("r R"), takes=named("q Q S p P D s n"), always_enters=True),
    ),
    **dict.fromkeys(named("strip objcopy patchelf upx sstrip"), InPlace("rewrites", takes=named("o O N K F R"))),
    "symlinks": _always("changes the links of", needs="d c s"),
}


def judge(call: Call) -> None:
    """Judge the files that a program of this kind is given."""
    if call.name == "rename":
        _rename(call)
    elif (kind := _TABLE.get(call.name)) is not None:
        _judge(call, kind)


def _judge(call: Call, kind: InPlace) -> None:
    options = split(call.args, kind.takes, single_dash=call.name in ("7z", "7za", "rdfind", "rar"))
    if not _changes(call, kind, options):
        return
    enters = kind.always_enters or options.has(*kind.enters)
    has_expression = call.name == "prename" and options.has("e", "E")
    for operand in options.operands[0 if has_expression else kind.skip :]:
        for parts in (operand.parts, *operand.alts):
            # What stands in quotes for this one is a pattern of its own.
            field = Field(globbed(operand.shown) if call.name == "mmv" else parts, operand.span)
            _changed(field, kind.does, call, is_tree=enters)


def _changes(call: Call, kind: InPlace, options: Options) -> bool:
    if call.name == "rar" and options.operands[:1] and options.operands[0].text in ("m", "mf"):
        return True
    return not options.has(*kind.keeps) and (not kind.needs or options.has(*kind.needs))


def _changed(operand: Field, does: str, call: Call, *, is_tree: bool) -> None:
    place = searching.meant(call.place(operand))
    find = call.walker.find
    is_relative = not operand.prefix.startswith("/")
    if is_relative and place.text == call.state.home:
        return
    if searching.is_found(place):
        if (lost := searching.change(place, call.state, is_relative=is_relative)) is not None:
            rule = "fs.overwrite_critical_file" if lost.is_certain else "opaque.target"
            find(rule, f"{does} {lost.what}", operand.span)
        elif does in ("encrypts", "wipes") and place.text in searching.BROAD:
            find("opaque.target", f"{does} files by name all over {place.text}", operand.span)
    elif (is_tree or not place.is_exact) and (loss := paths.tree_loss(place, call.state)):
        find("fs.overwrite_critical_file", f"{does} everything in {loss}", operand.span)
    elif loss := paths.file_loss(place):
        find("fs.rm_critical_file", f"{does} {loss}", operand.span)
    elif paths.is_device(place):
        find("fs.write_device", f"{does} the device {place.text}", operand.span)


def _rename(call: Call) -> None:
    """There are two: one takes an expression, the other a text and what to put in its place."""
    options = split(call.args, named("e E"))
    if options.has("n", "nono", "dry-run", "no-act"):
        return
    operands = options.operands
    is_expression = bool(operands) and re.match(r"(?:s|y|tr)\W|\$", operands[0].text or "") is not None
    skip = 0 if options.has("e", "E") else 1 if is_expression else 2
    for operand in operands[skip:]:
        _changed(operand, "renames", call, is_tree=False)
