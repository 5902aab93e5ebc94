"""Checks of what ends processes."""

from __future__ import annotations

import re
from collections.abc import Callable

from server_monitor.tasks.policy.calls import Call
from server_monitor.tasks.policy.values import Field, Gap, Source, is_endless

MAX_PROCESSES = 40
_SIGNAL = re.compile(r"-(?:[A-Za-z][A-Za-z0-9+-]*|\d+)")
_ASKS_ONLY = ("-0", "-l", "-L", "--list", "--table")


def kill(call: Call) -> None:
    texts = call.texts
    if any(text in _ASKS_ONLY for text in texts):
        return
    processes = _targets(call)
    harmless = texts[:1] in (["-HUP"], ["-USR1"], ["-USR2"], ["-CONT"], ["-WINCH"], ["-SIGHUP"], ["-QUIT"])
    for process in processes:
        for parts in (process.parts, *process.alts):
            _judge(Field(parts, process.span), call, is_harmless=harmless)
    if len(processes) > MAX_PROCESSES:
        call.walker.find("sys.kill_all", f"ends {len(processes)} processes", call.span)


def _targets(call: Call) -> list[Field]:
    args = call.args
    place = 0
    while place < len(args):
        text = args[place].text or ""
        if text == "--":
            return args[place + 1 :]
        if text in ("-s", "-n", "--signal", "-q"):
            place += 2
            continue
        if place == 0 and _SIGNAL.fullmatch(text) and len(args) > 1:
            place += 1
            continue
        if text.startswith("--"):
            place += 1
            continue
        break
    return args[place:]


def _judge(process: Field, call: Call, *, is_harmless: bool) -> None:
    text = process.text
    find = call.walker.find
    if text in ("-1", "-0"):
        find("sys.kill_all", "ends every process", process.span)
    elif text == "1" and not is_harmless:
        find("sys.kill_all", "ends the first process, and with it the host", process.span)
    elif (text is not None and re.search(r"[*\[?]", text)) or any(
        not isinstance(part, str | Gap) for part in process.parts
    ):
        find("sys.kill_all", "ends every process of a list", process.span)
    elif (gap := process.gap) is not None and not is_harmless:
        if gap.source is Source.ALL_PROCESSES or gap.detail in ("seq", "seq many", "ls"):
            find("sys.kill_all", "ends every process that runs", process.span)
        elif gap.source in (Source.NETWORK, Source.INPUT):
            find("opaque.target", f"ends processes that {gap.source.value} names", process.span)


def pkill(call: Call) -> None:
    """Without a pattern, a user or a terminal, every process is meant."""
    words = [arg for arg in call.args if not arg.prefix.startswith("-")]
    chooses = any(
        re.match(r"-[^-]*[uUPgGtsF]|--(e?uid|uid|parent|pgroup|group|terminal|session|pidfile|full)", a.prefix)
        for a in call.args
    )
    if not words and not chooses and call.args:
        call.walker.find("sys.kill_all", "ends every process", call.span)
    for word in words:
        if word.gap is not None and word.gap.source in (Source.ALL_PROCESSES, Source.NETWORK):
            call.walker.find("sys.kill_all", "ends every process that runs", word.span)


def containers(call: Call) -> None:
    """`docker rm -f $(docker ps -aq)`: a list that nothing chose from is all of them."""
    verbs = {"delete"} if call.name in ("kubectl", "oc") else {"rm", "kill", "stop"}
    if not verbs & set(call.texts[:6]):
        return
    for arg in call.args:
        if arg.gap is not None and arg.gap.detail == call.name:
            call.walker.find("data.drop", f"removes everything that {call.name} lists", arg.span)


def hold(call: Call) -> None:
    """Programs that read everything before they print anything."""
    if any(isinstance(part, Gap) and is_endless(part) for part in call.input()):
        call.walker.find("bomb.fill", f"reads an endless source into memory with {call.name}", call.span)


CHECKS: dict[str, Callable[[Call], None]] = {"kill": kill, "pkill": pkill}
CHECKS |= dict.fromkeys(("docker", "podman", "nerdctl", "kubectl", "oc"), containers)
CHECKS |= dict.fromkeys(("sort", "tac", "tail", "shuf", "rev", "sponge", "paste", "column"), hold)
