"""Build tools that run commands, or do what commands do: `cmake -E rm`, `mvn exec:exec`."""

from __future__ import annotations

import re
from collections.abc import Callable

from server_monitor.tasks.policy import paths, scripts
from server_monitor.tasks.policy.calls import Call, again
from server_monitor.tasks.policy.options import named
from server_monitor.tasks.policy.printing.printed import printed
from server_monitor.tasks.policy.values import Field, Parts, known

# The tools that CMake brings for systems without them.
_CMAKE_TOOLS: dict[str, tuple[str, ...]] = {
    "rm": ("rm",),
    "remove": ("rm", "-f"),
    "remove_directory": ("rm", "-r"),
    "copy": ("cp",),
    "copy_if_different": ("cp",),
    "copy_directory": ("cp", "-rT"),
    "copy_directory_if_different": ("cp", "-rT"),
    "copy_directory_if_newer": ("cp", "-rT"),
    "rename": ("mv",),
    "touch": ("touch",),
    "make_directory": ("mkdir", "-p"),
    "create_symlink": ("ln", "-sf"),
    "create_hardlink": ("ln",),
    "env": ("env",),
    "time": (),
    "tar": ("tar",),
    "cat": ("cat",),
}


def _cmake(call: Call) -> Parts:
    texts = call.texts
    if "-E" not in texts[:-1]:
        return printed(call)
    place = texts.index("-E") + 1
    tool, rest = texts[place], call.args[place + 1 :]
    if tool == "chdir" and len(rest) > 1:
        return _in_directory(call, rest[0], rest[1:])
    words = _CMAKE_TOOLS.get(tool)
    if words is None:
        return printed(call)
    return again(call, [*(known(word, call.args[place].span) for word in words), *rest], "cmake -E")


def _in_directory(call: Call, folder: Field, command: list[Field]) -> Parts:
    kept = call.state.cwd
    place = paths.place_of(folder.parts, call.state)
    call.state.cwd = place.text if place.is_exact else None
    try:
        return again(call, command, "cmake -E chdir")
    finally:
        call.state.cwd = kept


def _maven(call: Call) -> Parts:
    values = dict(re.findall(r"-Dexec\.(executable|args)=(.*)", "\n".join(call.texts)))
    if (program := values.get("executable")) is None:
        return printed(call)
    return scripts.run_parts((f"{program} {values.get('args', '')}",), call, "mvn exec", call.span)


def _bazel(call: Call) -> Parts:
    """`bazel run --run_under=COMMAND`."""
    for place, arg in enumerate(call.args):
        option, equals, value = (arg.text or "").partition("=")
        if option == "--run_under":
            code = known(value, arg.span) if equals else next(iter(call.args[place + 1 :]), known(""))
            return scripts.run_code(code, call, "bazel run", [])
    return printed(call)


BUILDERS: dict[str, Callable[[Call], Parts]] = {
    **dict.fromkeys(named("cmake cmake3"), _cmake),
    **dict.fromkeys(named("mvn mvnw mvnd"), _maven),
    **dict.fromkeys(named("bazel bazelisk"), _bazel),
}
