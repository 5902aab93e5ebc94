"""What commands print, where that can be told without running them.

Pure filters are computed, within bounds. Of the others it is known where their output comes from and what it looks
like: a number, a name, a path below a directory, a download.
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
from dataclasses import replace
from typing import TYPE_CHECKING

from server_monitor.tasks.policy import ansi_c, endless, paths
from server_monitor.tasks.policy.options import named, split
from server_monitor.tasks.policy.programs import CURL_VALUES, WGET_VALUES
from server_monitor.tasks.policy.removing import search_detail, search_roots
from server_monitor.tasks.policy.values import (
    MAX_TEXT,
    Field,
    Gap,
    Glob,
    Parts,
    Shape,
    Source,
    flat,
    is_endless,
    joined,
    text_of,
)

if TYPE_CHECKING:
    from server_monitor.tasks.policy.calls import Call
HUGE_BYTES = 50 * 10**9
MAX_MEMORY = 64 * 1024 * 1024

Filter = Callable[["Call", str], str | None]

NUMBERS = named("pgrep pidof nproc wc stat du id getconf tput umask lsof fuser expr bc")
NAMES = named("whoami hostname uname date arch logname basename uuidgen hostid groups tty lsb_release cksum nproc")
NAMES |= named("docker podman kubectl git aws systemctl openssl sha256sum md5sum rpm dpkg")
DOWNLOADS = named("curl wget fetch lynx w3m links http https aria2c nc ncat netcat socat telnet dig host nslookup")
DOWNLOADS |= named("ftp tftp lwp-request GET httpie xh elinks rsync scp sftp finger")
STREAMS = named("zstd lz4 lzop gpg cpio ccrypt mbuffer buffer socat")
CRITICAL_PROCESSES = named(
    "sshd systemd init systemd-logind systemd-journald systemd-udevd dbus-daemon dockerd containerd kubelet "
    "NetworkManager "
    "auditd rsyslogd syslogd journald syslog-ng udevd agetty falco wazuh-agentd osqueryd filebeat crond"
)
TRUSTED = named("ssh-agent dircolors lesspipe direnv keychain brew rbenv pyenv nodenv starship zoxide conda minikube")
TRUSTED |= named("docker-machine resize tput locale opam fnm mise asdf npm poetry register-python-argcomplete")
COMPLETIONS = named("kubectl helm docker gh pip npm oc k3s kind minikube")
KEEPS = named(
    "sort uniq nl tac rev shuf awk gawk mawk cut head tail sed tr cat xargs column fold fmt paste tee pv uconv iconv"
)
NARROWS = named("grep egrep fgrep rg ag zgrep jq yq xmllint")


def printed(call: Call) -> Parts:
    """What this call writes to standard output."""
    return endless.passed_on(call, _printed(call))


def _printed(call: Call) -> Parts:
    maker = MAKERS.get(call.name)
    if maker is not None:
        return maker(call)
    change = FILTERS.get(call.name)
    if change is not None:
        return _filtered(call, change)
    return _described(call)


def _filtered(call: Call, change: Filter) -> Parts:
    given = call.input()
    text = text_of(given)
    if text is None:
        return _passed_on(call, given)
    try:
        new = change(call, text)
    except (ValueError, OSError, EOFError, binascii.Error, zlib.error, lzma.LZMAError, UnicodeDecodeError, re.error):
        return ()
    if new is None or len(new) > MAX_TEXT:
        return (Gap(Source.OUTPUT),)
    return (new,) if new else ()


def _passed_on(call: Call, given: Parts) -> Parts:
    """What remains of unknown text behind a filter: where it came from."""
    gap = next((part for part in given if isinstance(part, Gap)), None)
    if gap is None:
        first = given[0] if given else ""
        return (first, Gap(Source.OUTPUT, Shape.PATH)) if isinstance(first, str) and first else (Gap(Source.OUTPUT),)
    source = gap.source
    if source is Source.ALL_PROCESSES and (call.name in NARROWS or _narrows(call)):
        source = Source.SOME_PROCESSES
    if is_endless(gap) and call.name == "head" and not _is_huge(call):
        gap, source = replace(gap, detail="head"), Source.OUTPUT
    if call.name in NARROWS and gap.detail in NAMES:
        gap = replace(gap, detail="")
    keeps = gap.shape if call.name in KEEPS | NARROWS else Shape.ANY
    if not gap.splits and given and isinstance(given[0], str) and any(isinstance(part, Glob) for part in given):
        return (given[0], Gap(Source.OUTPUT, Shape.PATH))
    prefix = given[0] if call.name in ("grep", "sort", "head", "tail", "egrep", "uniq", "tac", "tee") else ""
    if isinstance(prefix, str) and prefix:
        return (prefix, replace(gap, source=source))
    return (replace(gap, source=source, shape=keeps),)


def _is_huge(call: Call) -> bool:
    """`head -c 64G`, which is as good as no end."""
    text = " ".join(call.texts)
    match = re.search(r"(?:-\w*c ?|--bytes[= ])(\d+)([KMGTPE]?)", text)
    return match is not None and int(match[1]) * 1024 ** " KMGTPE".index(match[2] or " ") > HUGE_BYTES


def _narrows(call: Call) -> bool:
    """An awk program with a condition that picks lines; `NR>1` picks all but the heading."""
    if call.name not in ("awk", "gawk", "mawk", "sed"):
        return call.name in ("head", "tail") and any(a.prefix in ("-1", "-n1") for a in call.args)
    program = next((a.prefix for a in call.args if not a.prefix.startswith("-")), "")
    return re.search(r"/[^/]+/|\$\d+\s*[=~!<>]|index\(|\$NF\s*[=~]", program) is not None


def _described(call: Call) -> Parts:
    name = call.name
    gap = Gap(Source.OUTPUT, Shape.ANY, detail=name)
    if name in STREAMS and call.stdin is not None and any(isinstance(p, Gap) and is_endless(p) for p in call.stdin):
        return call.stdin
    if name in DOWNLOADS:
        gap = Gap(Source.NETWORK, Shape.ANY, detail=name)
    elif name in TRUSTED or (name in COMPLETIONS and any(a.text == "completion" for a in call.args)):
        gap = Gap(Source.TRUSTED, Shape.ANY, detail=name)
    elif name in NUMBERS:
        gap = Gap(Source.SOME_PROCESSES if name in ("pgrep", "pidof") else Source.OUTPUT, Shape.NUMBER, detail=name)
    elif name in NAMES:
        chosen = any(arg.prefix.startswith(("-f", "--filter", "-l", "--selector")) for arg in call.args)
        gap = Gap(Source.OUTPUT, Shape.NAME, detail="" if chosen else name)
    elif name in NARROWS | KEEPS:
        return _passed_on(call, call.input())
    return (gap,)


# --- makers: commands that print something of their own ---


def _echo(call: Call) -> Parts:
    args = list(call.args)
    escapes = call.is_posix
    newline = True
    while args and re.fullmatch(r"-[neE]+", args[0].text or "") and not (call.is_posix and args[0].text != "-n"):
        flags = args.pop(0).text or ""
        newline = newline and "n" not in flags
        escapes = "e" in flags or (escapes and "E" not in flags)
    text = _spaced(args)
    if escapes:
        text = tuple(ansi_c.decoded(part) if isinstance(part, str) else part for part in text)
    return joined(text, ("\n",) if newline else ())


def _spaced(args: list[Field]) -> Parts:
    pieces: list[Parts] = []
    for arg in args:
        pieces += [(" ",), flat(arg.parts)] if pieces else [flat(arg.parts)]
    return joined(*pieces)


_CONVERSION = re.compile(r"%(%|[-+ #0']*(?:\d+|\*)?(?:\.(?:\d+|\*))?(?:\([^)]*\)T|[a-zA-Z]))")


def _printf(call: Call) -> Parts:
    args = list(call.args)
    if args and args[0].text == "--":
        args = args[1:]
    if len(args) > 1 and args[0].text == "-v":
        args = args[2:]
    judge_width(args, call)
    return formatted(args)


def judge_width(args: list[Field], call: Call) -> None:
    """A width that no memory and no disk holds."""
    template = args[0].prefix if args else ""
    widths = re.findall(r"%[-+ #0']*\.?(\d+)", template)
    if "*" in template:
        widths += [arg.text for arg in args[1:] if (arg.text or "").isdigit()]
    if any(int(width) >= endless.HUGE_WIDTH for width in widths if width and len(width) < 4000):
        call.walker.find("bomb.fill", "pads a text to a size that no host has", call.span)


def formatted(args: list[Field]) -> Parts:
    """What `printf` makes of its format and arguments; the format is used again while arguments remain."""
    if not args:
        return ()
    template = args[0].text
    if template is None:
        return (Gap(Source.OUTPUT),)
    rest = args[1:]
    found: list[Parts] = []
    for _ in range(64):
        used = _one_format(template, rest, found)
        rest = rest[used:]
        if not rest or not used:
            break
    return joined(*found)


def _one_format(template: str, args: list[Field], found: list[Parts]) -> int:
    position = used = 0
    for match in _CONVERSION.finditer(template):
        found.append((ansi_c.decoded(template[position : match.start()]),))
        position = match.end()
        if match[1] == "%":
            found.append(("%",))
            continue
        value = flat(args[used].parts) if used < len(args) else ()
        used += 1
        found.append(_converted(match[1], value))
    found.append((ansi_c.decoded(template[position:]),))
    return used


def _converted(spec: str, value: Parts) -> Parts:
    kind = spec[-1]
    text = text_of(value)
    if text is None:
        return value if kind in "sbq" else (Gap(Source.OUTPUT, Shape.NUMBER),)
    if kind == "b":
        return (ansi_c.decoded(text),)
    if kind in "diouxX":
        return (_number(text, kind),)
    if kind == "c":
        return (text[:1],)
    if match := re.search(r"\.(\d+)", spec):
        text = text[: int(match[1])]
    return (text,)


def _number(text: str, kind: str) -> str:
    if text[:1] in ("'", '"') and len(text) > 1:
        value = ord(text[1])
    else:
        try:
            value = int(text or "0", 0)
        except ValueError:
            value = 0
    return format(value, {"i": "d", "u": "d"}.get(kind, kind))


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


def _pwd(call: Call) -> Parts:
    return (call.state.cwd + "\n",) if call.state.cwd is not None else (Gap(Source.OUTPUT, Shape.PATH),)


def _mktemp(call: Call) -> Parts:
    options = split(call.args, ("p", "tmpdir", "suffix"))
    operand = options.operands[0].prefix if options.operands else ""
    folder = operand.rpartition("/")[0] or "/tmp"
    return (folder + "/", Gap(Source.OUTPUT, Shape.NAME, detail="mktemp"))


def _which(call: Call) -> Parts:
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


def _find(call: Call) -> Parts:
    gap = Gap(Source.OUTPUT, Shape.PATH, detail=search_detail(call.texts))
    roots = search_roots(call.args)
    if not roots:
        return ()
    if [root.text for root in roots] == ["."]:
        return ("./", gap)
    if len(roots) == 1 and roots[0].text is not None:
        return (roots[0].text.rstrip("/") + "/", gap)
    if len(roots) == 1 and any(isinstance(part, Glob) for part in roots[0].parts):
        prefix = roots[0].prefix
        return (prefix, Gap(Source.OUTPUT, Shape.PATH, detail="find names")) if prefix else ("./", gap)
    worst = next((r for r in roots if r.text and r.text.startswith("/")), roots[0])
    return (worst.text.rstrip("/") + "/", gap) if worst.text is not None else (*worst.parts, gap)


def _locate(_call: Call) -> Parts:
    return ("/", Gap(Source.OUTPUT, Shape.PATH, detail="find names"))


def _ls(call: Call) -> Parts:
    operands = [arg for arg in call.args if not arg.prefix.startswith("-")]
    if len(operands) == 1 and any(not isinstance(part, str) for part in operands[0].parts):
        return operands[0].parts
    if len(operands) == 1 and any(a.prefix.startswith("-") and "d" in a.prefix for a in call.args):
        return operands[0].parts
    return (Gap(Source.OUTPUT, Shape.NAME, detail="ls"),)


def _ps(call: Call) -> Parts:
    chosen = any(re.match(r"-[^-]*[CupGgts]|--(pid|user|ppid|group|tty)", arg.prefix) for arg in call.args)
    chosen = chosen and not any(arg.prefix.lstrip("-").startswith(("aux", "ef", "ax")) for arg in call.args)
    return (Gap(Source.SOME_PROCESSES if chosen else Source.ALL_PROCESSES, Shape.NUMBER, detail="ps"),)


def _systemctl(call: Call) -> Parts:
    """`systemctl show -p MainPID UNIT` tells the number of a process."""
    if any("MainPID" in text or "ControlPID" in text for text in call.texts):
        return (Gap(Source.SOME_PROCESSES, Shape.NUMBER, detail=" ".join(call.texts)),)
    return _described(call)


def _lsof(call: Call) -> Parts:
    """Who holds a port or a file. At the port of SSH there is the server that everybody needs."""
    text = " ".join(call.texts)
    is_ssh = re.search(r"(?::|-i ?|(?<= ))(?:22|ssh)(?:/tcp)?(?= |$)", text) is not None
    return (Gap(Source.SOME_PROCESSES, Shape.NUMBER, detail="sshd " if is_ssh else call.name),)


def _pgrep(call: Call) -> Parts:
    pattern = [arg for arg in call.args if not arg.prefix.startswith("-")]
    if any(set((p.text or "").strip("^$").split()) & CRITICAL_PROCESSES for p in pattern):
        return (Gap(Source.ALL_PROCESSES, Shape.NUMBER, detail=call.name),)
    if any(arg.text in ("root", "0", "-uroot", "-u0") for arg in call.args) and len(pattern) < 2:
        return (Gap(Source.ALL_PROCESSES, Shape.NUMBER, detail=call.name),)
    everything = not pattern or pattern[-1].text in (".", "", ".*", "^", "[a-z]", "*")
    chosen = not everything or any(re.match(r"-[^-]*[uUPgGt]", arg.prefix) for arg in call.args)
    return (Gap(Source.SOME_PROCESSES if chosen else Source.ALL_PROCESSES, Shape.NUMBER, detail="pgrep"),)


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
        return _filtered(call, _base64)
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


def _nothing(_call: Call) -> Parts:
    return ()


def _env(_call: Call) -> Parts:
    return (Gap(Source.OUTPUT, detail="env"),)


def _xxd(call: Call) -> Parts:
    return _filtered(call, _unhex)


# --- filters ---


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


def _unhex(call: Call, text: str) -> str | None:
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


def _rev(_call: Call, text: str) -> str:
    return "".join(line.rstrip("\n")[::-1] + ("\n" if line.endswith("\n") else "") for line in text.splitlines(True))


def _tac(_call: Call, text: str) -> str:
    return "".join(line if line.endswith("\n") else line + "\n" for line in reversed(text.splitlines(True)))


def _sort(call: Call, text: str) -> str:
    lines = sorted(text.splitlines(), reverse=any("r" in a.prefix for a in call.args if a.prefix.startswith("-")))
    return "".join(line + "\n" for line in lines)


def _same(_call: Call, text: str) -> str:
    return text


_CLASSES = {
    "[:upper:]": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "[:lower:]": "abcdefghijklmnopqrstuvwxyz",
    "[:digit:]": "0123456789",
    "[:space:]": " \t\n\r\v\f",
    "[:blank:]": " \t",
}


def _tr(call: Call, text: str) -> str | None:
    flags = "".join(a.prefix[1:] for a in call.args if a.prefix.startswith("-") and len(a.prefix) > 1)
    sets = [arg.text for arg in call.args if not (arg.prefix.startswith("-") and len(arg.prefix) > 1)]
    if not sets or any(s is None for s in sets):
        return None
    first = _tr_set(sets[0] or "")
    if "c" in flags or "C" in flags:
        return "".join(c for c in text if c in first) if "d" in flags else None
    if "d" in flags:
        return "".join(c for c in text if c not in first)
    if len(sets) < 2:
        return text
    second = _tr_set(sets[1] or "") or first[:1]
    table = {ord(a): second[min(i, len(second) - 1)] for i, a in reversed(list(enumerate(first)))}
    return text.translate(table)


def _tr_set(text: str) -> str:
    for name, letters in _CLASSES.items():
        text = text.replace(name, letters)
    text = ansi_c.decoded(text)
    return re.sub(r"(.)-(.)", lambda m: "".join(map(chr, range(ord(m[1]), ord(m[2]) + 1))), text, flags=re.DOTALL)[
        :4096
    ]


def _head(call: Call, text: str) -> str | None:
    return _end(call, text, is_head=True)


def _tail(call: Call, text: str) -> str | None:
    return _end(call, text, is_head=False)


def _end(call: Call, text: str, *, is_head: bool) -> str | None:
    joined_args = " ".join(arg.text or "" for arg in call.args)
    match = re.search(r"-(?:-bytes=|c\s*)([+-]?\d+)", joined_args)
    unit: list[str] = list(text) if match else text.splitlines(True)
    match = match or re.search(r"-(?:-lines=|n\s*)?([+-]?\d+)", joined_args)
    count = match[1] if match else "10"
    if is_head:
        kept = unit[: int(count)]
    else:
        kept = unit[int(count) - 1 :] if count.startswith("+") else unit[-int(count.lstrip("-")) :]
    return "".join(kept)


def _cut(call: Call, text: str) -> str | None:
    options = split(call.args, ("c", "b", "d", "f", "characters", "bytes", "delimiter", "fields", "output-delimiter"))
    by_character = options.value("c", "b", "characters", "bytes")
    chosen = by_character or options.value("f", "fields")
    if chosen is None or chosen.text is None:
        return None
    delimiter = given.text if (given := options.value("d", "delimiter")) and given.text else "\t"
    rows = []
    for line in text.splitlines():
        units = list(line) if by_character else line.split(delimiter)
        if not by_character and len(units) == 1:
            rows.append(line)
            continue
        kept = [units[i] for i in _chosen(chosen.text, len(units))]
        rows.append(("" if by_character else delimiter).join(kept))
    return "".join(row + "\n" for row in rows)


def _chosen(ranges: str, size: int) -> list[int]:
    found: set[int] = set()
    for part in ranges.split(","):
        first, dash, last = part.partition("-")
        begin = int(first) if first else 1
        end = (int(last) if last else size) if dash else begin
        found.update(range(begin - 1, min(end, size)))
    return sorted(found)


_SUBSTITUTION = re.compile(r"s(.)(.*?)\1(.*?)\1([gI0-9]*)", re.DOTALL)


def _sed(call: Call, text: str) -> str | None:
    options = split(call.args, ("e", "f", "expression", "file"))
    scripts = [v.text for v in options.all_values("e", "expression")] or [
        options.operands[0].text if options.operands else None
    ]
    if options.has("f", "file", "n"):
        return None
    for script in scripts:
        for one in (script or "\0").split(";"):
            match = _SUBSTITUTION.fullmatch(one.strip())
            if match is None or re.search(r"[][*+?(){}|^$]", match[2].replace("\\/", "")) or "&" in match[3]:
                return _regular_sed(match, text) if match else None
            text = text.replace(_unescaped(match[2]), _unescaped(match[3]), -1 if "g" in match[4] else 1)
    return text


def _regular_sed(match: re.Match[str], text: str) -> str | None:
    """A substitution whose expression means the same to Python."""
    if re.search(r"[\\(){}|+?\[]", match[2]) or "\\" in match[3] or "&" in match[3]:
        return None
    return re.sub(match[2], lambda _: match[3], text, count=0 if "g" in match[4] else 1, flags=re.MULTILINE)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]), text)


def _awk(call: Call, text: str) -> str | None:
    options = split(call.args, ("F", "v", "f"))
    program = options.operands[0].text if options.operands else None
    match = re.fullmatch(r"\s*\{\s*print(?:\s+(\$\d+|\$NF))?\s*;?\s*\}\s*", program or "")
    if match is None or len(options.operands) > 1:
        return None
    separator = given.text if (given := options.value("F")) else None
    if separator is not None and len(separator) != 1:
        return None
    rows = []
    for line in text.splitlines():
        words = line.split(separator)
        which = match[1]
        if which in (None, "$0"):
            rows.append(line)
        elif which == "$NF":
            rows.append(words[-1] if words else "")
        else:
            place = int(which[1:])
            rows.append(words[place - 1] if place <= len(words) else "")
    return "".join(row + "\n" for row in rows)


def _grep(call: Call, text: str) -> str | None:
    operands = [arg.text for arg in call.args if not arg.prefix.startswith("-")]
    flags = "".join(arg.prefix[1:] for arg in call.args if arg.prefix.startswith("-"))
    if len(operands) != 1 or not operands[0] or re.search(r"[^\w ./:-]", operands[0]) or set(flags) - set("vFEi"):
        return None
    lines = [line for line in text.splitlines(True) if (operands[0] in line) != ("v" in flags)]
    return "".join(lines)


def _strings(_call: Call, text: str) -> str:
    return text


def _rot13(_call: Call, text: str) -> str:
    return codecs.encode(text, "rot13")


MAKERS: dict[str, Callable[[Call], Parts]] = {
    "echo": _echo,
    "printf": _printf,
    "cat": _cat,
    "seq": _seq,
    "jot": _jot,
    "pwd": _pwd,
    "mktemp": _mktemp,
    "tempfile": _mktemp,
    "which": _which,
    "dirname": _dirname,
    "basename": _basename,
    "realpath": _realpath,
    "readlink": _realpath,
    "find": _find,
    "fd": _find,
    "locate": _locate,
    "mlocate": _locate,
    "plocate": _locate,
    "ls": _ls,
    "ps": _ps,
    "pgrep": _pgrep,
    "pidof": _pgrep,
    "systemctl": _systemctl,
    "lsof": _lsof,
    "fuser": _lsof,
    "dd": _dd,
    "curl": _curl,
    "wget": _wget,
    "openssl": _openssl,
    "yes": _yes,
    "true": _nothing,
    "false": _nothing,
    ":": _nothing,
    "rm": _nothing,
    "cd": _nothing,
    "export": _nothing,
    "mkdir": _nothing,
    "touch": _nothing,
    "chmod": _nothing,
    "chown": _nothing,
    "sleep": _nothing,
    "test": _nothing,
    "[": _nothing,
    "set": _nothing,
    "kill": _nothing,
    "env": _env,
    "xxd": _xxd,
}

FILTERS: dict[str, Filter] = {
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
    "rev": _rev,
    "tac": _tac,
    "sort": _sort,
    "uniq": _same,
    "tee": _same,
    "pv": _same,
    "strings": _strings,
    "tr": _tr,
    "head": _head,
    "tail": _tail,
    "cut": _cut,
    "sed": _sed,
    "awk": _awk,
    "gawk": _awk,
    "mawk": _awk,
    "grep": _grep,
    "rot13": _rot13,
    "fold": _same,
    "stdbuf": _same,
    "unbuffer": _same,
    "dos2unix": _same,
    "iconv": _same,
    "envsubst": _same,
    "paste": _same,
    "column": _same,
}
