"""What a search such as `find /etc -type f` chooses, and what it means to lose or change what it finds.

The words of its result are the root, an unknown path below it, and the name when there is only one that it looks for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from server_monitor.tasks.policy import paths
from server_monitor.tasks.policy.options import named
from server_monitor.tasks.policy.paths import Place
from server_monitor.tasks.policy.state import State
from server_monitor.tasks.policy.values import Field, Gap, Glob, Parts, Shape, Source, joined

# Roots below which a search takes the host with it, even when it looks only for old or large files.
BROAD = named("/ /home /root /var /var/lib /opt /srv /usr /etc /bin /lib /boot /mnt /media /data /backup /backups")


@dataclass(frozen=True, slots=True)
class Loss:
    """What of a search's result a host or its users cannot lose. Whether they do is not always certain."""

    what: str
    is_certain: bool


def is_found(place: Place) -> bool:
    """Is this what a search finds?"""
    return place.gap is not None and place.gap.detail.startswith("find")


def is_by_name(place: Place) -> bool:
    return place.gap is not None and place.gap.detail.startswith("find names")


def loss(place: Place, state: State, *, is_relative: bool = False) -> Loss | None:
    """What goes when everything that a search finds is deleted, emptied or overwritten."""
    root = place.text
    everything = place.gap is not None and place.gap.detail.startswith("find everything")
    if root == state.home and is_relative:
        # Where the task starts is not a choice that its author made.
        return Loss("everything that a search finds where the task starts", False) if everything else None
    if everything and not paths.is_in_temporary(root) and paths.tree_loss(Place(root), state):
        return Loss(f"everything that a search of {root} finds", True)
    if everything and paths.is_top_level(Place(root)):
        return Loss(f"everything that a search of {root} finds", False)
    if not is_by_name(place) and (root in BROAD or (paths.is_system(root) and paths.depth(root) < 4)):
        return Loss(f"whatever old, large or otherwise chosen files a search of {root} finds", True)
    return Loss(f"files by name all over {root}", False) if is_wide(root) else None


def change(place: Place, state: State, *, is_relative: bool) -> Loss | None:
    """The same when everything that it finds is changed. Below where the task starts, that is what tools are for."""
    if place.text == state.home and is_relative:
        return None
    if place.tail and not is_by_name(place):
        return None  # A name that a command makes from the one that was found, such as `{}.bak`.
    return loss(place, state)


def meant(place: Place) -> Place:
    """The one file that a search by its name can only mean, when a host needs it; else the place as it is."""
    file = paths.file_loss(place) if is_by_name(place) and place.tail else None
    return Place(file) if file is not None and file.endswith("/" + place.tail) else place


def is_wide(root: str) -> bool:
    """A root so high that a name is found in places nobody thinks of."""
    return root == "/" or (paths.is_system(root) and paths.depth(root) < 2)


def found(root: Field, texts: list[str]) -> Parts:
    """The words that a search of this root prints."""
    chosen = detail(texts)
    # A root that is a pattern chooses by name itself.
    if any(isinstance(part, Glob) for part in root.parts) and not root.shown.endswith("/*"):
        chosen = "find names"
    name = _only_name(texts) if chosen.startswith("find names") else ""
    below = root.parts if root.parts[-1:] == ("/",) else joined(root.parts, ("/",))
    return joined(below, (Gap(Source.OUTPUT, Shape.PATH, detail=chosen),), (name,) if name else ())


def worst(candidates: list[Field], state: State) -> Field:
    """The root whose loss is the greatest."""
    places = [(paths.place_of(root.parts, state), root) for root in candidates]
    weights = [
        (
            not paths.is_in_temporary(place.text),
            paths.tree_loss(place, state) is not None or place.text in BROAD,
            not root.prefix.startswith("."),
            -number,
        )
        for number, (place, root) in enumerate(places)
    ]
    return places[weights.index(max(weights))][1]


def _only_name(texts: list[str]) -> str:
    names = [name for option, name in pairwise(texts) if option in ("-name", "-iname")]
    is_plain = len(names) == 1 and "-o" not in texts and "-or" not in texts and not set(names[0]) & set("*?[\\…")
    return names[0] if is_plain else ""


def roots(args: list[Field]) -> list[Field]:
    found: list[Field] = []
    for arg in args:
        if arg.text in ("-H", "-L", "-P"):
            continue
        if arg.prefix.startswith(("-", "(", "!")):
            break
        found.append(arg)
    # An empty word is no directory, and nothing is searched.
    return [root for root in found if root.parts] if found else [Field((".",))]


_BY_NAME = named("-name -iname -path -ipath -wholename -iwholename -regex -iregex -samefile -inum -lname")
_BY_OWNER = named("-user -group -uid -gid -nouser -nogroup -perm")
_BY_OTHER = named("-mtime -mmin -ctime -cmin -atime -amin -newer -size -links -newermt")


def detail(texts: list[str]) -> str:
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
