"""Text behind filters that decode and unpack: base64, hexadecimal, gzip and their like, within bounds.

What is no such text raises one of `ERRORS`.
"""

from __future__ import annotations

import base64
import binascii
import bz2
import codecs
import lzma
import re
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from server_monitor.tasks.policy.values import MAX_TEXT

if TYPE_CHECKING:
    from server_monitor.tasks.policy.calls import Call

MAX_MEMORY = 64 * 1024 * 1024
ERRORS = (ValueError, OSError, EOFError, binascii.Error, zlib.error, lzma.LZMAError, UnicodeDecodeError)


def _base64(call: Call, text: str) -> str | None:
    if call.name == "openssl" or any(_is_decoding(arg.prefix) for arg in call.args):
        return _text(base64.b64decode(_padded("".join(text.split()), 4)))
    return base64.b64encode(text.encode()).decode() + "\n"


def _base32(call: Call, text: str) -> str | None:
    if any(_is_decoding(arg.prefix) for arg in call.args):
        return _text(base64.b32decode(_padded("".join(text.split()), 8)))
    return base64.b32encode(text.encode()).decode() + "\n"


def _basenc(call: Call, text: str) -> str | None:
    flags = {arg.text for arg in call.args}
    if not any(_is_decoding(arg.prefix) for arg in call.args):
        return None
    clean = "".join(text.split())
    if "--base16" in flags:
        return _text(bytes.fromhex(clean))
    if "--base32" in flags:
        return _text(base64.b32decode(_padded(clean, 8)))
    if "--base64url" in flags:
        return _text(base64.urlsafe_b64decode(_padded(clean, 4)))
    return _text(base64.b64decode(_padded(clean, 4))) if "--base64" in flags else None


def _is_decoding(flag: str) -> bool:
    if flag.startswith("--"):
        return len(flag) > 2 and "--decode".startswith(flag)
    return flag.startswith("-") and ("d" in flag or "D" in flag)


def _padded(text: str, block: int) -> str:
    return text + "=" * (-len(text) % block)


def unhex(call: Call, text: str) -> str | None:
    flags = "".join(arg.prefix for arg in call.args if arg.prefix.startswith("-"))
    if "r" not in flags:
        return None
    if "p" in flags:
        return _text(bytes.fromhex(re.sub(r"[^0-9a-fA-F]", "", text)))
    rows = [re.sub(r"\s{2,}.*$", "", line.partition(":")[2] or line) for line in text.splitlines()]
    return _text(bytes.fromhex(re.sub(r"[^0-9a-fA-F]", "", "".join(rows))))


def _gunzip(_call: Call, text: str) -> str | None:
    return _text(zlib.decompressobj(31).decompress(_raw(text), MAX_TEXT + 1))


def _gzip(call: Call, text: str) -> str | None:
    if call.name == "gzip" and not any(_is_decoding(arg.prefix) for arg in call.args):
        return None
    return _gunzip(call, text)


def _bunzip(call: Call, text: str) -> str | None:
    if call.name == "bzip2" and not any(_is_decoding(arg.prefix) for arg in call.args):
        return None
    return _text(bz2.BZ2Decompressor().decompress(_raw(text), MAX_TEXT + 1))


def _unxz(call: Call, text: str) -> str | None:
    if call.name == "xz" and not any(_is_decoding(arg.prefix) for arg in call.args):
        return None
    return _text(lzma.LZMADecompressor(memlimit=MAX_MEMORY).decompress(_raw(text), MAX_TEXT + 1))


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    if len(data) > MAX_TEXT:
        raise ValueError("more than is looked at")
    return data.decode("utf-8", "surrogateescape")


def _rot13(_call: Call, text: str) -> str:
    return codecs.encode(text, "rot13")


DECODERS: dict[str, Callable[[Call, str], str | None]] = {
    "base64": _base64,
    "gbase64": _base64,
    "base32": _base32,
    "basenc": _basenc,
    "gunzip": _gunzip,
    "zcat": _gunzip,
    "gzip": _gzip,
    "pigz": _gzip,
    "bunzip2": _bunzip,
    "bzcat": _bunzip,
    "bzip2": _bunzip,
    "unxz": _unxz,
    "xzcat": _unxz,
    "xz": _unxz,
    "rot13": _rot13,
}
