"""Sources that never end, the programs that pass them on, and what bounds them.

`/dev/zero` and its like may be the input of any program: as an operand, as the value of an option, as an address such
as `file:///dev/zero` or `OPEN:/dev/zero`, through a pipe, or as a process substitution. What the program prints then
never ends either, unless it was told how much to read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from server_monitor.tasks.policy.options import named
from server_monitor.tasks.policy.values import Gap, Parts, Source, is_endless

if TYPE_CHECKING:
    from server_monitor.tasks.policy.calls import Call

HUGE_COUNT = 100_000
HUGE_WIDTH = 100_000_000
MANY_AT_ONCE = 256
SHORT_S = 300

_DEVICE = re.compile(r"(?:^|[=:@,]|^file:/*)(/dev/(?:zero|full|u?random))(?=$|[,;])")
# Programs that read their standard input to its end. Others, which ask a question and go on, end by themselves.
_EATERS = named(
    "cat tac nl rev grep egrep fgrep rg zgrep sed awk tr cut wc sort uniq od xxd hexdump strings base64 base32 "
    "basenc gzip bzip2 xz zstd lz4 lzop pigz pbzip2 compress 7z zip tar cpio openssl gpg pv tee split csplit sum "
    "cksum sha1sum sha224sum sha256sum sha384sum sha512sum md5sum b2sum sponge dd mbuffer buffer cmp diff comm "
    "paste join fold fmt column expand unexpand iconv jq yq shuf aespipe ccrypt pax socat nc ncat logger xxhsum b3sum "
    "lzma brotli curl ssh xargs"
)
# Programs that only look at the name of a file, or to which it is text.
_NAMES_ONLY = named(
    "ls stat file test [ rm mknod chmod chown chgrp ln mount find fuser lsof echo printf git docker podman "
    "cryptsetup rngd haveged shred mv touch readlink realpath basename dirname man cp install dd ssh sudo xargs "
    "mdadm losetup mkfifo setfacl getfacl chattr lsattr udevadm set export systemd-run strace kubectl bwrap"
)
_BOUNDED = {
    "od": r"^-\w*N|^--read-bytes",
    "xxd": r"^-l|^-len",
    "hexdump": r"^-\w*n|^--length",
    "grep": r"^-\w*[mq]|^--(max-count|quiet|silent)",
    "egrep": r"^-\w*[mq]",
    "fgrep": r"^-\w*[mq]",
    "sed": r"(^|[;{\d\s])q\s*;?\s*\d*\s*}?$",
    "awk": r"\bexit\b",
    "curl": r"^-[mr]|^--(max-time|range|max-filesize)",
    "socat": r"readbytes=|^-T",
    "cmp": r"^-n|^--bytes",
    "pv": r"^-\w*S|^--stop-at-size",
    "dd": r"^count=",
    "openssl": r"^rand$|^genrsa$|^req$|^genpkey$|^s_client$",
    "head": r".",
    "shuf": r"^-\w*i|^--input-range|^-\w*e",
    "gpg": r"^--gen",
    "ssh": r"^-n",
}
_SKIPPED_VALUES = named("--random-source -rand --rand --key-file --keyfile -r --rng -R --rng-device --master-key-file")
_WRITES_TO = re.compile(
    r"^(?:-o|-O|-out|--out|--output|--output-document)$|^(?:--output=|of=|CREATE:|OPEN:[^,]*,creat)"
)


def source_of(call: Call) -> Gap | None:
    """The endless source that this call reads to its end, if there is one."""
    if _is_bounded(call):
        return None
    named_ = None if call.name in _NAMES_ONLY else _named(call)
    return named_ or _piped(call)


def _is_bounded(call: Call) -> bool:
    bound = _BOUNDED.get(call.name)
    return bound is not None and any(re.search(bound, text) for text in call.texts)


def _named(call: Call) -> Gap | None:
    before = ""
    for arg in call.args:
        text = arg.text or ""
        option, before = before, text
        if option in _SKIPPED_VALUES or text.partition("=")[0] in _SKIPPED_VALUES:
            continue
        if (match := _DEVICE.search(text)) is not None:
            return Gap(Source.ENDLESS, detail=match[1])
        if text.startswith("/dev/fd/pipe") and (gap := endless_part(call.walker.content(arg))) is not None:
            return gap
    return None


def _piped(call: Call) -> Gap | None:
    if call.name not in _EATERS or call.name in ("ssh", "xargs", "curl") or call.stdin is None:
        return None
    if call.name == "cat" and any(not text.startswith("-") for text in call.texts):
        return None
    return endless_part(call.stdin)


def endless_part(parts: Parts | None) -> Gap | None:
    return next((part for part in parts or () if isinstance(part, Gap) and is_endless(part)), None)


def passed_on(call: Call, printed: Parts) -> Parts:
    """What the call prints, which has no end when its input has none."""
    if call.name != "head" and endless_part(printed) is not None and _is_bounded(call):
        return (Gap(Source.OUTPUT),)
    if endless_part(printed) is not None or any(isinstance(p, Gap) and p.detail == "head" for p in printed):
        return printed
    gap = source_of(call)
    if gap is None or call.name in _NAMES_ONLY:
        return printed
    for place, text in enumerate(call.texts):
        if _WRITES_TO.search(text) and not any(t in ("/dev/null", "-") for t in call.texts[place + 1 : place + 2]):
            call.walker.find("bomb.fill", f"writes {gap.detail or 'an endless source'} without end", call.span)
    return (gap,)


def timed(printed: Parts, duration: str) -> Parts:
    """What a command prints that is ended after a while: a short one is no different from any other."""
    gap = endless_part(printed)
    if gap is None:
        return printed
    return (Gap(Source.OUTPUT),) if seconds(duration) <= SHORT_S else (Gap(gap.source, gap.shape, detail=""),)


def seconds(text: str) -> float:
    """A duration as `sleep` and `timeout` take it; without end when it is not known."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)([smhd]?)", text)
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]] if match else float("inf")
