"""Checks of what changes modes, owners and attributes."""

from __future__ import annotations

import re
from collections.abc import Callable

from server_monitor.tasks.policy import critical, paths, searching
from server_monitor.tasks.policy.calls import Call
from server_monitor.tasks.policy.options import named, split
from server_monitor.tasks.policy.paths import Place
from server_monitor.tasks.policy.programs import KNOWN, LENDERS
from server_monitor.tasks.policy.values import Field

_SYMBOLIC = re.compile(r"[ugoa]*[-+=][rwxXstugo]*(,[ugoa]*[-+=][rwxXstugo]*)*")
_WIDE = frozenset(("/", "/var", "/home", "/root", "/run", "/var/lib", "/var/log", "/usr/local", "/var/spool"))
_GIVEN = frozenset(
    (
        "/usr/local",
        "/usr/local/bin",
        "/usr/local/lib",
        "/usr/local/share",
        "/usr/local/etc",
        "/srv",
        "/opt",
        "/data",
        "/mnt",
        "/var/www",
        "/backup",
        "/backups",
        "/media",
    )
)
_EXPOSING = frozenset((*critical.CONTAINERS, "/srv", "/opt", "/data"))


def chmod(call: Call) -> None:
    args = [arg for arg in call.args if not re.match(r"-[rwxXst]+$", arg.text or "")]
    minus = next((arg.text or "" for arg in call.args if re.match(r"-[rwxXst]+$", arg.text or "")), "")
    options = split(args, named("reference"))
    words = options.operands
    mode = minus or (words[0].text if words else None) or ""
    targets = words if minus or options.has("reference") else words[1:]
    if _gives_rights(mode):
        call.walker.find("perm.setuid", f"sets the mode {mode}, which lends the owner's rights", call.span)
    model = options.value("reference")
    if model is not None and (model.text or "").rpartition("/")[2] in LENDERS:
        call.walker.find("perm.setuid", f"sets the mode of {model.shown}, which lends the owner's rights", model.span)
    is_tree = options.has("R", "recursive")
    for target in targets:
        for parts in (target.parts, *target.alts):
            _judge_mode(Field(parts, target.span), mode, call, is_tree=is_tree)


def _gives_rights(mode: str) -> bool:
    if re.fullmatch(r"0*[4-7][0-7]{3}", mode):
        return mode.lstrip("0")[0] in "4567"
    return re.search(r"(?:^|,)(?:[ugoa]*u[ugoa]*|a|)[+=][rwxX]*s", mode) is not None


def _opens(mode: str) -> bool:
    """Can everybody write then?"""
    return (
        re.fullmatch(r"[0-7]*[2367]", mode) is not None
        or re.search(r"(?:^|,)[ug]*[oa]*[oa][ug]*[+=][rxX]*w|^\+[rxX]*w", mode) is not None
    )


def _shuts(mode: str) -> bool:
    """Can nobody use it then?"""
    if re.fullmatch(r"0*[0-3]?0{1,3}|0*[0-7]?[0-3][0-7]{2}", mode):
        return True
    return re.search(r"^(a|ugo|u|)-[rwxX]*[rx]|(?:^|,)[ugoa]*=(,|$)|^-[wx]*[rx]", mode) is not None


def _judge_mode(target: Field, mode: str, call: Call, *, is_tree: bool) -> None:
    place = searching.meant(call.place(target))
    find = call.walker.find
    loss = _tree(place, call) if is_tree or _is_search(place) else None
    if loss is None and is_tree and _opens(mode) and (wide := paths.tree_loss(place, call.state)):
        loss = wide
    if loss is not None:
        find("perm.recursive_system", f"changes the mode of everything in {loss}", target.span)
        return
    if place.text in ("/etc/shadow", "/etc/gshadow") and re.search(r"[1-7]$|[oa][+=]|^\+r", mode):
        find("perm.recursive_system", f"lets everybody read {place.text}", target.span)
    elif _is_guarded(place) and (_opens(mode) or _shuts(mode)):
        what = "lets everybody write" if _opens(mode) else "shuts"
        find("perm.recursive_system", f"{what} {place.text}", target.span)
    elif searching.is_found(place) and searching.is_wide(place.text) and (_opens(mode) or _shuts(mode)):
        find("perm.recursive_system", f"changes the mode of what a search of {place.text} finds", target.span)
    elif paths.is_device(place) and _opens(mode):
        find("perm.recursive_system", f"lets everybody write {place.text}", target.span)
    elif is_tree and place.gap is not None and not place.text:
        find("opaque.target", f"changes the mode of what {place.gap.source.value} names", target.span)
    elif place.is_exact and place.text in call.state.files:
        found = call.state.files[place.text]
        call.state.files[place.text] = type(found)(found.content, True)


def _is_search(place: Place) -> bool:
    return searching.is_found(place) and not searching.is_by_name(place)


def _tree(place: Place, call: Call) -> str | None:
    """The part of the system that a change of everything below this place hits."""
    if place.gap is not None:
        root = place.text
        return root if root in _WIDE or (paths.is_system(root) and not searching.is_by_name(place)) else None
    if place.is_exact or place.is_directory_content:
        path = place.text
        if path in _WIDE or (path == call.state.home and path == "/root"):
            return path
        in_state = paths.in_any(path, critical.STATE_TREES)
        return path if paths.is_system(path) and not in_state else None
    hit = next(
        (path for path in (*critical.SYSTEM_TREES, "/home", "/var", "/root") if paths.may_hold(place, path)), None
    )
    return hit or (place.text if place.text != "/" and paths.is_system(place.text) else None)


def _is_guarded(place: Place) -> bool:
    if not place.is_exact:
        return paths.file_loss(place) is not None
    path = place.text
    return (
        paths.is_critical_file(path)
        or (path in critical.CONTAINERS and path != "/tmp")
        or path in critical.SYSTEM_TREES
        or path in ("/root/.ssh", "/usr/bin/sudo")
    )


def chown(call: Call) -> None:
    options = split(call.args, named("from reference"))
    words = options.operands
    owner = (words[0].text or "…") if words and not options.has("reference") else ""
    targets = words if options.has("reference") else words[1:]
    is_tree = options.has("R", "recursive")
    for target in targets:
        for parts in (target.parts, *target.alts):
            _judge_owner(Field(parts, target.span), owner, call, is_tree=is_tree)


def _judge_owner(target: Field, owner: str, call: Call, *, is_tree: bool) -> None:
    place = searching.meant(call.place(target))
    loss = _tree(place, call) if is_tree or _is_search(place) else None
    if loss is not None and not paths.is_in(loss, "/usr/local"):
        call.walker.find("perm.recursive_system", f"changes the owner of everything in {loss}", target.span)
    elif (
        _is_guarded(place)
        and not paths.in_any(place.text, critical.STATE_TREES)
        and _is_known(place)
        and not owner.startswith(("root", "0:", "0"))
        and place.text not in _GIVEN
    ):
        call.walker.find("perm.recursive_system", f"gives {place.text} away", target.span)
    elif is_tree and place.gap is not None and not place.text:
        call.walker.find("opaque.target", f"changes the owner of what {place.gap.source.value} names", target.span)


def _is_known(place: Place) -> bool:
    """Below the directories of programs, only those that much else stands on."""
    return not paths.in_any(place.text, critical.PROGRAM_DIRECTORIES) or place.text.rpartition("/")[2] in KNOWN


def chattr(call: Call) -> None:
    texts = call.texts
    words = [arg for arg in call.args if not re.match(r"[-+=]", arg.prefix)]
    is_tree = any(re.match(r"-\w*R", text) for text in texts)
    for target in words:
        place = searching.meant(call.place(target))
        if place.text in critical.ACCOUNT_FILES:
            call.walker.find("perm.account_files", f"changes how {place.text} is guarded", target.span)
        elif paths.is_log(place):
            call.walker.find("log.tamper", f"changes how the log {place.text} is guarded", target.span)
        elif (
            _is_guarded(place)
            or (is_tree and paths.tree_loss(place, call.state))
            or (searching.is_found(place) and searching.loss(place, call.state))
        ):
            call.walker.find("perm.recursive_system", f"changes how {place.text} is guarded", target.span)


def setfacl(call: Call) -> None:
    options = split(call.args, named("m x M X modify remove set modify-file remove-file restore"))
    for target in options.operands:
        place = searching.meant(call.place(target))
        if place.text in critical.ACCOUNT_FILES:
            call.walker.find("perm.account_files", f"opens {place.text}", target.span)
        elif _is_guarded(place) or (options.has("R", "recursive") and paths.tree_loss(place, call.state)):
            call.walker.find("perm.recursive_system", f"opens {place.text}", target.span)
    if options.has("restore"):
        call.walker.find("perm.recursive_system", "replaces the access lists of many files", call.span)


def mode_option(call: Call) -> None:
    """Programs that are told the mode of what they make or unpack."""
    takes = {"rsync": ("chmod",), "tar": ("mode",)}.get(call.name, ("m", "mode"))
    known_values = named("o g t S owner group target-directory suffix f C e exclude rsh chmod mode")
    options = split(call.args, known_values | set(takes))
    for mode in options.all_values(*takes):
        texts = [text.lstrip("DF") for text in (mode.text or mode.shown).split(",")]
        if any(_gives_rights(text) for text in texts):
            call.walker.find("perm.setuid", f"sets the mode {mode.shown}, which lends the owner's rights", mode.span)


CHECKS: dict[str, Callable[[Call], None]] = {
    "chmod": chmod,
    "chown": chown,
    "chgrp": chown,
    "chattr": chattr,
    "setfacl": setfacl,
    **dict.fromkeys(("install", "rsync", "tar", "mkdir", "mknod", "mkfifo", "bsdtar", "cpio", "pax"), mode_option),
}
