"""Where a word of a command points to, and what it would mean to delete, overwrite or open up what is there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from server_monitor.tasks.policy import critical
from server_monitor.tasks.policy.state import State
from server_monitor.tasks.policy.values import Gap, Glob, Parts, Shape, Source

MAX_LINKS = 8
_ALIAS_STARTS = ("/proc/", *critical.ROOT_ALIASES)
MAX_PATTERN = 256


@dataclass(frozen=True, slots=True)
class Place:
    """A path. `text` is absolute and normal; behind its first unknown or pattern part it ends and `rest` begins.

    `pattern` is a regular expression for the whole path when it holds patterns or gaps.
    """

    text: str
    pattern: str = ""
    gap: Gap | None = None
    is_directory_content: bool = False  # It ends in `/*`: everything in a directory.
    tail: str = ""  # What it ends with behind a gap, when that is known.

    @property
    def is_exact(self) -> bool:
        return not self.pattern


NOWHERE = Place("", "(?!)")  # What an empty word names.
# The detail of a gap whose words are names of files below the place that follows.
LISTED = "names in "
UNKNOWN = Place("", ".*", Gap(Source.PARAMETER))


def place_of(parts: Parts, state: State) -> Place:
    """Where these parts of a word point to, seen from the current directory."""
    if len(parts) == 1 and isinstance(parts[0], str):
        path = absolute(parts[0], state)
        return Place(path) if path is not None else UNKNOWN
    if not parts:
        return NOWHERE
    if parts[0] == "/" and isinstance(parts[1], Gap) and parts[1].detail.startswith(LISTED):
        parts = parts[1:]
    first = parts[0]
    gap = next((part for part in parts if isinstance(part, Gap)), None)
    if not isinstance(first, str):
        if isinstance(first, Gap) and first.detail.startswith(LISTED):
            found = Gap(first.source, Shape.PATH, first.splits, "find names")
            return _open_place(first.detail.removeprefix(LISTED), (found, *parts[1:]), found)
        is_name = isinstance(first, Gap) and first.shape is Shape.NAME and first.detail == "ls"
        if (isinstance(first, Gap) and not is_name) or state.cwd is None:
            return Place("", ".*", gap or Gap(Source.PARAMETER))
        parts = (state.cwd.rstrip("/") + "/", *parts)
    known = parts[0]
    assert isinstance(known, str)
    folder, slash, stem = known.rpartition("/")
    base = absolute(folder + slash, state) if slash else state.cwd
    if base is None:
        return UNKNOWN
    rest: Parts = (stem, *parts[1:]) if stem else parts[1:]
    return _open_place(base, rest, gap)


def _open_place(base: str, rest: Parts, gap: Gap | None) -> Place:
    text = "".join(part if isinstance(part, str) else part.text if isinstance(part, Glob) else "\0" for part in rest)
    climbs = text.count("../")
    while climbs and text.startswith(("*/../", "./", "../")):
        base, text = _climbed(base, text)
        climbs = text.count("../")
    prefix = base.rstrip("/")
    if len(text) > MAX_PATTERN:
        return Place(prefix or "/", re.escape(prefix) + "/.*", gap or Gap(Source.TOO_LONG))
    pattern = re.escape(prefix) + "/+" + _regex(text)
    content = text in ("*", "?*", "**", "*/", ".*", "./*", "[^.]*", "{*,.*}") or text.startswith(("*", "[!", "[^", "."))
    whole = content and re.fullmatch(r"[*.?]+/?(?:\*/?)*|\[[!^]\.\]\*|\.\[[^]]*\]\*", text) is not None
    tail = text.rpartition("\0")[2] if isinstance(rest[-1], str) and gap is not None else ""
    return Place(prefix or "/", pattern, gap, is_directory_content=whole, tail=tail)


def _climbed(base: str, text: str) -> tuple[str, str]:
    if text.startswith("./"):
        return base, text[2:]
    if text.startswith("../"):
        return base.rstrip("/").rpartition("/")[0] or "/", text[3:]
    return base, text[len("*/../") :]


def _regex(text: str) -> str:
    found = []
    for match in re.finditer(r"\0|\*+|\?|\[[^]]*\]|[?*+@!]\([^)]*\)|[^*?\[\0]+|.", text.rstrip("/")):
        token = match[0]
        if token == "\0":
            found.append(".*")
        elif token[0] == "*" and set(token) == {"*"}:
            found.append("[^/]*")
        elif token == "?":
            found.append("[^/]")
        elif token[0] == "[" and len(token) > 2:
            found.append(_bracket(token))
        elif len(token) > 1 and token[1] == "(":
            found.append("[^/]*")
        else:
            found.append(re.escape(token))
    return "".join(found)


def _bracket(token: str) -> str:
    body = token[1:-1]
    if body[:1] in ("!", "^"):
        return "[^/]"
    try:
        return "[^/]" if set(body) & set("[\\&|~") else re.compile(f"[{body}]").pattern
    except re.error:
        return "[^/]"


def absolute(text: str, state: State) -> str | None:
    """The path from the root, without `.`, `..`, doubled slashes, other names of the root, or links of the task."""
    if not text.startswith("/"):
        if state.cwd is None:
            return None
        text = f"{state.cwd}/{text}"
    path = normal(text)
    for _ in range(MAX_LINKS):
        moved = _moved(path, state.links)
        if moved == path:
            break
        path = moved
    return path


def _moved(path: str, links: dict[str, str]) -> str:
    if path.startswith(_ALIAS_STARTS):
        for alias in critical.ROOT_ALIASES:
            if is_in(path, alias):
                return normal(path[len(alias) :] or "/")
        if match := re.match(r"/proc/\d+/root(?=/|$)", path):
            return normal(path[match.end() :] or "/")
    for link in sorted(links, key=len, reverse=True) if links else ():
        if is_in(path, link):
            return normal(links[link] + path[len(link) :])
    return path


@lru_cache(maxsize=1024)
def normal(path: str) -> str:
    found: list[str] = []
    for name in path.split("/"):
        if name in ("", "."):
            continue
        if name == "..":
            if found:
                found.pop()
            continue
        found.append(name)
    return "/" + "/".join(found)


def is_in(path: str, tree: str) -> bool:
    return path == tree or path.startswith(tree.rstrip("/") + "/")


def in_any(path: str, trees: tuple[str, ...]) -> bool:
    # Each command asks this about dozens of trees, and nearly all of them begin otherwise.
    return path.startswith(trees) and any(is_in(path, tree) for tree in trees)


def depth(path: str) -> int:
    return path.count("/") if path != "/" else 0


def may_be(place: Place, path: str) -> bool:
    """Can this place be exactly that path?"""
    if place.is_exact:
        return place.text == path
    return _compiled(place.pattern).fullmatch(path) is not None


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)


def first_of(place: Place, candidates: Iterable[str]) -> str | None:
    """The first of these paths that this place, which is a pattern, can be."""
    match = _compiled(place.pattern).fullmatch
    return next((path for path in candidates if match(path)), None)


def may_hold(place: Place, path: str) -> bool:
    """Can this place be that path, or a directory above it?"""
    if place.is_exact:
        return is_in(path, place.text)
    while True:
        if may_be(place, path):
            return True
        if path == "/":
            return False
        path = path.rpartition("/")[0] or "/"


@lru_cache(maxsize=1024)
def is_system(path: str) -> bool:
    """Does what is at this path belong to the system?"""
    if in_any(path, critical.EXEMPT):
        return False
    return in_any(path, critical.SYSTEM_TREES) or in_any(path, critical.STATE_TREES)


def holds_the_system(path: str) -> bool:
    """Are there files of the system at this path or below it, as against those of one process or no file?"""
    return path == "/" or (is_system(path) and not is_in(path, "/proc") and path not in critical.HARMLESS_DEVICES)


def tree_loss(place: Place, state: State) -> str | None:
    """Which whole that a host cannot lose goes when this place is deleted or changed with all below it."""
    if place.is_exact:
        return _exact_tree_loss(place.text, state)
    if place.gap is not None:
        return None if not is_system(place.text) or depth(place.text) > 3 else place.text
    if place.is_directory_content and (loss := _content_loss(place.text, state)):
        return loss
    if place.text != "/" and is_system(place.text) and not in_any(place.text, critical.EXEMPT):
        return place.text if depth(place.text) <= 3 else None
    path = first_of(place, _WHOLES)
    return _WHOLES[path] if path is not None else (state.home if may_hold(place, state.home) else None)


def _wholes() -> dict[str, str]:
    """The trees that a host cannot lose and the directories above them, each with the first tree that goes with it."""
    found: dict[str, str] = {}
    for tree in (*critical.SYSTEM_TREES, *critical.CONTAINERS, *critical.STATE_TREES):
        path = tree
        while tree != "/" and path not in found:
            found[path] = tree
            path = path.rpartition("/")[0] or "/"
    return found


_WHOLES = _wholes()


def _content_loss(path: str, state: State) -> str | None:
    """Everything in a directory, which is that directory but for its name."""
    if in_any(path, critical.WRITABLE_BY_ALL):
        return None
    if path == "/var/log":
        return path
    return _exact_tree_loss(path, state)


def _exact_tree_loss(path: str, state: State) -> str | None:
    if path == state.home or path in critical.CONTAINERS:
        return path
    if path.startswith("/home/") and depth(path) == 2:
        return path
    if in_any(path, critical.STATE_TREES) and not in_any(path, critical.EXEMPT):
        return path
    if path.startswith("/var/lib/") and depth(path) == 3 and not in_any(path, critical.EXEMPT):
        return path
    if any(is_in(tree, path) for tree in (*critical.STATE_TREES, *critical.CONTAINERS)):
        return path
    if is_system(path) and depth(path) <= (3 if path.startswith(("/etc", "/usr/share")) else 99):
        return path
    return None


def is_top_level(place: Place) -> bool:
    """A directory in the root that no list names, and that somebody made for something."""
    return (place.is_exact or place.is_directory_content) and depth(place.text) == 1 and place.text != "/tmp"


def file_loss(place: Place) -> str | None:
    """Which single file that a host cannot lose this place is."""
    if place.is_exact:
        return place.text if is_critical_file(place.text) else None
    if place.gap is not None:
        return place.text if _is_program_tree(place.text + "/x") else _named_file(place)
    if _is_program_tree(place.text + "/x"):
        return place.text
    if place.text.startswith("/etc") or place.text == "/":
        path = first_of(place, _FILES)
        return _FILES[path] if path is not None else None
    return None


# Every way in which a file that a host cannot lose may be named, and how it is called.
_FILES = {name: path for path in critical.FILES for name in (path.replace("*", "any"), path)}


def _named_file(place: Place) -> str | None:
    """The file that a search by its name can only mean."""
    if not place.tail or (not place.text.startswith(("/etc", "/root")) and place.text != "/"):
        return None
    by_weight = sorted((*critical.ACCOUNT_FILES, *critical.FILES), key=lambda path: "*" in path)
    candidates = (path.replace("*", place.tail) for path in by_weight)
    return next((path for path in candidates if path.endswith("/" + place.tail) and may_be(place, path)), None)


@lru_cache(maxsize=1024)
def is_critical_file(path: str) -> bool:
    if in_any(path, critical.EXEMPT):
        return False
    if path in critical.FILES or _is_program_tree(path):
        return True
    folder = path.rpartition("/")[0]
    if folder + "/*" in critical.FILES:
        return True
    if path.endswith((".lock", ".pid", ".sock", ".log")):
        return False
    return in_any(path, critical.STATE_TREES) and not in_any(path, critical.EXEMPT)


def _is_program_tree(path: str) -> bool:
    return in_any(path, _PROGRAM_TREES)


_PROGRAM_TREES = (
    *("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/boot"),
    *("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64"),
)


def is_log(place: Place) -> bool:
    """Is this part of the record of who did what?"""
    if place.is_exact:
        return in_any(place.text, critical.LOGS) or place.text.rpartition("/")[2] in critical.HISTORIES
    if place.gap is not None:
        if place.gap.detail.startswith(("find", "ls")) and place.text == "/var/log":
            return not place.gap.detail.endswith(" old")
        return in_any(place.text, critical.LOGS) and not place.gap.detail.endswith(" old")
    return in_any(place.text, critical.LOGS) or any(
        may_be(place, log) for log in critical.LOGS if log.startswith(place.text)
    )


def is_device(place: Place) -> bool:
    """A device node behind which there is a disk, memory or a kernel interface."""
    if not is_in(place.text, "/dev"):
        return place.pattern != "" and place.gap is None and may_be(place, "/dev/sda")
    if place.text == "/dev":
        return not place.is_exact and (place.gap is not None or any(may_be(place, disk) for disk in DISKS))
    return not in_any(place.text, _HARMLESS) and not re.match(r"/dev/(tty|net/|tcp/|udp/)", place.text)


_HARMLESS = tuple(critical.HARMLESS_DEVICES)


def descriptor(place: Place) -> str | None:
    """The number of the descriptor that this place is another name of."""
    if not place.is_exact:
        found = re.search(r"/fd/(\d+)$", place.pattern) if place.text == "/proc" else None
        return found[1] if found else None
    match = _DESCRIPTOR.fullmatch(place.text)
    return None if match is None else match[1] or "0"


_DESCRIPTOR = re.compile(r"(?:/dev/fd/|/proc/(?:self|thread-self|\d+)/fd/)(\d+)|/dev/stdin")

DISKS = (
    "/dev/sda",
    "/dev/sdb",
    "/dev/sda1",
    "/dev/vda",
    "/dev/nvme0n1",
    "/dev/xvda",
    "/dev/hda",
    "/dev/mem",
    "/dev/dm-0",
)


def is_secret(place: Place) -> bool:
    return in_any(place.text, critical.SECRETS) or (
        place.is_exact
        and _SECRET.search(place.text) is not None
        and not place.text.endswith((".pub", "known_hosts", "authorized_keys", "/config"))
    )


_SECRET = re.compile(rf"(?:{'|'.join(map(re.escape, critical.SECRET_ENDS))})(?:/|\Z)")


def is_in_temporary(path: str) -> bool:
    return in_any(path, critical.WRITABLE_BY_ALL)


NAME_GAP = Gap(Source.OUTPUT, Shape.NAME)
