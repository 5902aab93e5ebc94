"""Commands that print names of files and directories."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from server_monitor.tasks.policy import paths, searching
from server_monitor.tasks.policy.options import named, split
from server_monitor.tasks.policy.values import Field, Gap, Parts, Shape, Source, known

if TYPE_CHECKING:
    from server_monitor.tasks.policy.calls import Call


def _pwd(call: Call) -> Parts:
    return (call.state.cwd + "\n",) if call.state.cwd is not None else (Gap(Source.OUTPUT, Shape.PATH),)


def _mktemp(call: Call) -> Parts:
    options = split(call.args, ("p", "tmpdir", "suffix"))
    operand = options.operands[0].prefix if options.operands else ""
    folder = operand.rpartition("/")[0] or "/tmp"
    return (folder + "/", Gap(Source.OUTPUT, Shape.NAME, detail="mktemp"))


def which(call: Call) -> Parts:
    names = [arg for arg in call.args if not arg.prefix.startswith("-")]
    if not names or names[0].text is None:
        return (Gap(Source.OUTPUT, Shape.PATH),)
    return (f"/usr/bin/{names[0].text.rpartition('/')[2]}\n",)


def _dirname(call: Call) -> Parts:
    operand = next((arg for arg in call.args if not arg.prefix.startswith("-")), None)
    if operand is None or operand.text is None:
        return (operand.prefix.rpartition("/")[0], Gap(Source.OUTPUT, Shape.PATH)) if operand else ()
    return ((operand.text.rstrip("/").rpartition("/")[0] or ("/" if operand.text.startswith("/") else ".")) + "\n",)


def _basename(call: Call) -> Parts:
    operands = [arg for arg in call.args if not arg.prefix.startswith("-")]
    if operands and operands[0].text is None and operands[0].prefix == "/proc/":
        return (Gap(Source.ALL_PROCESSES, Shape.NUMBER),)
    if not operands or operands[0].text is None:
        return (Gap(Source.OUTPUT, Shape.NAME),)
    name = operands[0].text.rstrip("/").rpartition("/")[2]
    suffix = operands[1].text if len(operands) > 1 else ""
    return ((name.removesuffix(suffix) if suffix and name != suffix else name) + "\n",)


def _realpath(call: Call) -> Parts:
    operand = next((arg for arg in call.args if not arg.prefix.startswith("-")), None)
    if operand is None:
        return ()
    if operand.text is None:
        return operand.parts
    path = paths.absolute(operand.text, call.state)
    return (path + "\n",) if path is not None else (Gap(Source.OUTPUT, Shape.PATH),)


def find(call: Call) -> Parts:
    texts = call.texts
    roots = searching.roots(call.args)
    if call.name == "fd":
        texts, roots = _of_fd(call)
    if not roots:
        return ()
    worst = searching.worst(roots, call.state)
    if not worst.prefix and worst.gap is None:
        return ("./", Gap(Source.OUTPUT, Shape.PATH, detail=searching.detail(texts)))
    return searching.found(worst, texts)


def _of_fd(call: Call) -> tuple[list[str], list[Field]]:
    """`fd PATTERN ROOT …` in the words of find."""
    end = next((i for i, arg in enumerate(call.args) if arg.text in FD_RUNS), len(call.args))
    options = split(call.args[:end], _FD)
    pattern, *roots = options.operands or [known(".")]
    roots += options.all_values("search-path", "base-directory")
    is_all = pattern.text in (".", "", ".*") and not options.has("e", "extension", "g", "glob")
    chosen = [] if is_all else ["-name", "*" + pattern.shown]
    chosen += ["-mtime", "+1"] if options.has("changed-before", "changed-within", "S", "size") else []
    return chosen, roots or [known(".")]


FD_RUNS = ("-x", "-X", "--exec", "--exec-batch")
_FD = named(
    "d t e E S o c j extension type size exclude max-depth min-depth exact-depth owner color threads search-path "
    "base-directory changed-within changed-before format max-results path-separator and ignore-file batch-size"
)


def _locate(_call: Call) -> Parts:
    return ("/", Gap(Source.OUTPUT, Shape.PATH, detail="find names"))


def _ls(call: Call) -> Parts:
    operands = [arg for arg in call.args if not arg.prefix.startswith("-")]
    if len(operands) == 1 and any(not isinstance(part, str) for part in operands[0].parts):
        return operands[0].parts
    if len(operands) == 1 and any(a.prefix.startswith("-") and "d" in a.prefix for a in call.args):
        return operands[0].parts
    if len(operands) == 1 and paths.is_critical_file(paths.absolute(operands[0].text or "", call.state) or ""):
        return (f"{operands[0].text}\n",)
    return (Gap(Source.OUTPUT, Shape.NAME, detail="ls"),)


PLACES: dict[str, Callable[[Call], Parts]] = {
    "pwd": _pwd,
    "mktemp": _mktemp,
    "tempfile": _mktemp,
    "which": which,
    "dirname": _dirname,
    "basename": _basename,
    "realpath": _realpath,
    "readlink": _realpath,
    "find": find,
    "fd": find,
    "locate": _locate,
    "mlocate": _locate,
    "plocate": _locate,
    "ls": _ls,
}
