"""Wrappers that run the command as another account: `sudo`, `su`, `runuser`."""

from __future__ import annotations

from server_monitor.tasks.policy import scripts
from server_monitor.tasks.policy.calls import Call, again
from server_monitor.tasks.policy.options import named, split
from server_monitor.tasks.policy.values import Field, Gap, Parts, Source, known
from server_monitor.tasks.policy.wrapping.environment import assigned

SUDO = named(
    "u g h p C D R T U r t a c user group host prompt close-from chdir chroot command-timeout other-user role type"
)


def sudo(call: Call) -> Parts:
    options = split(call.args, SUDO, stops=True)
    rest = assigned(options.operands, call)
    if options.has("e", "edit"):
        return again(call, [known("sudoedit", call.span), *rest], "sudo") if rest else ()
    if options.has("l", "list", "v", "k", "K", "V") and not rest:
        return (Gap(Source.OUTPUT),)
    if options.has("i", "login", "s", "shell") and not rest:
        return again(call, [known("bash", call.span)], "sudo", stdin=call.stdin) if call.stdin is not None else ()
    user = options.value("u", "user")
    home = call.state.home
    if options.has("i", "login", "H", "set-home"):
        call.state.home = _home_of(user)
    try:
        return again(call, rest, "sudo")
    finally:
        call.state.home = home


def _home_of(user: Field | None) -> str:
    name = user.text if user is not None and user.text else "root"
    return "/root" if name == "root" else f"/home/{name}"


def su(call: Call) -> Parts:
    options = split(call.args, named("c s g G u w T command shell group supp-group user session-command"))
    code = options.value("c", "command", "session-command")
    operands = [operand for operand in options.operands if operand.text != "-"]
    with call.walker.through(call.name):
        if code is not None:
            return scripts.run_code(code, call, f"{call.name} -c", operands[1:])
    if call.name == "runuser" and options.has("u", "user"):
        rest = split(call.args, named("c s g G u w command shell group user"), stops=True).operands
        return again(call, rest, call.name)
    if len(operands) > 1:
        return again(call, [known("bash", call.span), *operands[1:]], call.name)
    if call.stdin is not None:
        return again(call, [known("bash", call.span)], call.name, stdin=call.stdin)
    return (Gap(Source.OUTPUT),)


def sg(call: Call) -> Parts:
    """`sg GROUP [-c] COMMAND`: the command is one word that a shell reads."""
    rest = [arg for arg in call.args if arg.text not in ("-", "-c", "--")][1:]
    if not rest:
        return newgrp(call)
    return scripts.run_code(rest[0], call, "sg", rest[1:])


def newgrp(call: Call) -> Parts:
    """A shell with another group, which reads from where this one does."""
    options = split(call.args, named("c command"))
    if (code := options.value("c", "command")) is not None:
        return scripts.run_code(code, call, f"{call.name} -c", [])
    if call.stdin is not None:
        return again(call, [known("bash", call.span)], call.name, stdin=call.stdin)
    return (Gap(Source.OUTPUT),)
