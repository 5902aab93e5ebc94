"""Commands that bring something in or make it: downloads, devices, numbers without end."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from server_monitor.tasks.policy import endless
from server_monitor.tasks.policy.options import split
from server_monitor.tasks.policy.printing.decoding import DECODERS, unhex
from server_monitor.tasks.policy.printing.filtered import filtered
from server_monitor.tasks.policy.programs import CURL_VALUES, WGET_VALUES
from server_monitor.tasks.policy.values import Field, Gap, Parts, Shape, Source, is_endless

if TYPE_CHECKING:
    from server_monitor.tasks.policy.calls import Call


def _cat(call: Call) -> Parts:
    return call.input()


def _seq(call: Call) -> Parts:
    if any(re.fullmatch(r"(?i)[+]?inf(inity)?|nan|\d{10,}(\.\d*)?|\d+e\d{2,}", text) for text in call.texts):
        return (Gap(Source.ENDLESS, Shape.NUMBER, detail="seq"),)
    numbers = [arg.text for arg in call.args if arg.text and re.fullmatch(r"-?\d+", arg.text)]
    if not numbers or len(numbers) != len(call.args):
        return (Gap(Source.OUTPUT, Shape.NUMBER),)
    first = int(numbers[0]) if len(numbers) > 1 else 1
    step = int(numbers[1]) if len(numbers) > 2 else 1
    last = int(numbers[-1])
    many = range(first, last + (1 if step > 0 else -1), step or 1)
    if len(many) > 256:
        return (Gap(Source.OUTPUT, Shape.NUMBER, detail="seq many" if len(many) >= endless.HUGE_COUNT else "seq"),)
    return ("\n".join(map(str, many)) + "\n",)


def _jot(call: Call) -> Parts:
    """`jot - 1`: a count that is left open has no end."""
    is_open = bool(call.args) and call.args[0].text in ("-", "0")
    return (Gap(Source.ENDLESS if is_open else Source.OUTPUT, Shape.NUMBER, detail="jot"),)


def _curl(call: Call) -> Parts:
    options = split(call.args, CURL_VALUES)
    if options.has("o", "output", "O", "remote-name"):
        to = options.value("o", "output")
        if to is None or to.text not in ("-", "/dev/stdout"):
            return ()
    if any(arg.prefix.startswith("file://") for arg in call.args):
        return (Gap(Source.FILE),)
    return (Gap(Source.NETWORK, detail="curl"),)


def _wget(call: Call) -> Parts:
    options = split(call.args, WGET_VALUES)
    to = options.value("O", "output-document")
    return (Gap(Source.NETWORK, detail="wget"),) if to is not None and to.text in ("-", "/dev/stdout") else ()


def _openssl(call: Call) -> Parts:
    words = [arg.text for arg in call.args]
    source = call.input()
    if any(isinstance(part, Gap) and is_endless(part) for part in source) and "enc" in words:
        return source
    if "s_client" in words:
        return (Gap(Source.NETWORK, detail="openssl s_client"),)
    if ("-d" in words or "-D" in words) and any(w in words for w in ("base64", "-base64", "-a")):
        if any(w and re.match(r"-(aes|des|bf|rc4|camellia|chacha)", w) for w in words):
            return (Gap(Source.OUTPUT),)
        return filtered(call, DECODERS["base64"])
    return (Gap(Source.RANDOM if "rand" in words else Source.OUTPUT, Shape.NAME),)


def _dd(call: Call) -> Parts:
    values = dict(arg.prefix.partition("=")[::2] for arg in call.args)
    if "of" in values:
        return ()
    source = next((a for a in call.args if a.prefix.startswith("if=")), None)
    given: Parts = (Gap(Source.INPUT),) if call.stdin is None else call.stdin
    if source is not None:
        given = call.walker.content(Field((source.prefix[3:], *source.parts[1:])))
    return (Gap(Source.FILE),) if "count" in values else given


def _yes(_call: Call) -> Parts:
    return (Gap(Source.ENDLESS, detail="yes"),)


def _env(_call: Call) -> Parts:
    return (Gap(Source.OUTPUT, detail="env"),)


def _xxd(call: Call) -> Parts:
    return filtered(call, unhex)


SOURCES: dict[str, Callable[[Call], Parts]] = {
    "cat": _cat,
    "seq": _seq,
    "jot": _jot,
    "curl": _curl,
    "wget": _wget,
    "openssl": _openssl,
    "dd": _dd,
    "yes": _yes,
    "env": _env,
    "xxd": _xxd,
}
