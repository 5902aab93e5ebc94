"""Wrappers that run the command in another root or namespace, or find its program in another way."""

from __future__ import annotations

from collections.abc import Callable

from server_monitor.tasks.policy.calls import Call, again
from server_monitor.tasks.policy.options import named, split
from server_monitor.tasks.policy.programs import MANY
from server_monitor.tasks.policy.values import Gap, Parts, Source, known


def _chroot(call: Call) -> Parts:
    options = split(call.args, named("userspec groups"), stops=True)
    if not options.operands:
        return ()
    root = call.place(options.operands[0])
    rest = options.operands[1:]
    if not rest:
        return again(call, [known("bash", call.span)], "chroot", stdin=call.stdin) if call.stdin is not None else ()
    return again(call, rest, f"chroot {root.text}")


def _nsenter(call: Call) -> Parts:
    options = split(call.args, named("t S G target setuid setgid"), stops=True)
    rest = options.operands
    return again(call, rest, "nsenter") if rest else ()


def _bwrap(call: Call) -> Parts:
    two = named(
        "bind ro-bind dev-bind bind-try ro-bind-try symlink setenv file bind-data ro-bind-data chmod overlay-src"
    )
    args, place = call.args, 0
    while place < len(args):
        text = args[place].text or ""
        if not text.startswith("--"):
            break
        place += (
            3 if text[2:] in two else 1 if text[2:].startswith(("unshare", "share", "die", "new", "clearenv")) else 2
        )
    return again(call, args[place:], "bwrap")


def _ip(call: Call) -> Parts:
    texts = call.texts
    if "netns" in texts and "exec" in texts:
        place = texts.index("exec")
        return again(call, call.args[place + 2 :], "ip netns exec")
    if "vrf" in texts and "exec" in texts:
        return again(call, call.args[texts.index("exec") + 2 :], "ip vrf exec")
    return (Gap(Source.OUTPUT),)


def _capsh(call: Call) -> Parts:
    for place, arg in enumerate(call.args):
        if arg.text in ("--", "=="):
            return again(call, [known("bash", arg.span), *call.args[place + 1 :]], "capsh")
    return (Gap(Source.OUTPUT),)


def _applet(call: Call) -> Parts:
    rest = list(call.args)
    while rest and rest[0].prefix.startswith("--"):
        option, equals, program = rest.pop(0).prefix.partition("=")
        if equals and option in ("--coreutils-prog", "--coreutils-prog-shebang"):
            rest.insert(0, known(program, call.span))
            break
    return again(call, rest, call.name) if rest else (Gap(Source.OUTPUT),)


def _loader(call: Call) -> Parts:
    options = split(call.args, named("library-path preload argv0 inhibit-rpath audit glibc-hwcaps-prepend"), stops=True)
    if options.has("preload", "audit"):
        call.walker.find("rce.loaded_library", "loads a library into a program", call.span)
    return again(call, options.operands, call.name)


OTHER_ROOTS: dict[str, Callable[[Call], Parts]] = {
    "chroot": _chroot,
    "nsenter": _nsenter,
    "capsh": _capsh,
    "bwrap": _bwrap,
    "ip": _ip,
    **dict.fromkeys(MANY, _applet),
    **dict.fromkeys(
        named("ld.so ld-linux.so.2 ld-linux-x86-64.so.2 ld-linux-aarch64.so.1 ld-musl-x86_64.so.1"),
        _loader,
    ),
}
