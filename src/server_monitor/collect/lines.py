"""The probe's line protocol: what a host may send, how much of it, and nothing else.

A host answers with lines of ASCII, each a JSON array, save the two that plain tools print in the background:

    ["hello",1,"mawk",["cpu","memory"],1795468284,1776.93,"Debian GNU/Linux 12","6.1.0","x86_64","web-1",2,2468,"44b…"]
    [1,1776.93,[37841,0,38797,273882,1349,0,537,3402],[24684092,…],[…],[["vda",72503,…]],[["eth0",1090175677,…]]]
    F 4096 66053021 59755530 20300237 16777216 16316143 /
    P 939

docs/reference/probe-protocol.md names every field. All of it is hostile input: counters are whole numbers from 0 to
2^63-1, lists and labels are bounded, and a section that breaks a rule is dropped while the others are kept.
"""

import re
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

LINE_LIMIT_BYTES: Final = 65_536
# Between two ticks: an answer of the largest size, its filesystems, and what a talkative login script prints.
ANSWER_LIMIT_BYTES: Final = 4 * LINE_LIMIT_BYTES
PROTOCOL_VERSION: Final = 1

# A counter above 2^63 is a driver that went below zero, never a real count.
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Label = Annotated[str, Meta(min_length=1, max_length=128)]
Text = Annotated[str, Meta(max_length=256)]
Seconds = Annotated[float, Meta(ge=0, le=1e10)]
Average = Annotated[float, Meta(ge=0, le=1e7)]


class _Array(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """A JSON array whose places have names."""


class CpuTimes(_Array, frozen=True):
    """Jiffies since boot. Guest time is already inside user and nice. Source: proc_stat(5)."""

    user: Count
    nice: Count
    system: Count
    idle: Count
    iowait: Count
    irq: Count
    softirq: Count
    steal: Count


class MemoryKib(_Array, frozen=True):
    """Kibibytes. `available` is absent before Linux 3.14. Source: proc_meminfo(5)."""

    total: Count
    free: Count
    available: Count | None
    buffers: Count
    cached: Count
    swap_total: Count
    swap_free: Count
    dirty: Count
    shared: Count
    reclaimable: Count | None


class PressureUs(_Array, frozen=True):
    """Microseconds since boot that some, or all, tasks waited. Source: Documentation/accounting/psi.rst."""

    cpu: Count
    memory: Count
    memory_full: Count
    io: Count
    io_full: Count


class Disk(_Array, frozen=True):
    """One block device since boot; sectors are 512 bytes whatever the disk says. Source: iostats.rst."""

    name: Label
    reads: Count
    sectors_read: Count
    reading_ms: Count
    writes: Count
    sectors_written: Count
    writing_ms: Count
    busy_ms: Count


class Interface(_Array, frozen=True):
    """One network interface since it was made. Source: proc_pid_net(5)."""

    name: Label
    rx_bytes: Count
    rx_packets: Count
    rx_errors: Count
    rx_drops: Count
    tx_bytes: Count
    tx_packets: Count
    tx_errors: Count
    tx_drops: Count


class Load(_Array, frozen=True):
    load1: Average
    load5: Average
    load15: Average
    running: Count
    threads: Count


class OpenFiles(_Array, frozen=True):
    used: Count
    limit: Count | None


class Sensor(_Array, frozen=True):
    name: Label
    millidegrees: Annotated[int, Meta(ge=-273_150, le=1_000_000)] | None


class OwnCost(_Array, frozen=True):
    """The probe's own CPU time: jiffies of it and its children, and nanoseconds of it alone where the kernel counts."""

    user: Count
    system: Count
    children_user: Count
    children_system: Count
    run_ns: Count | None

    def cpu_s(self) -> float:
        children_s = (self.children_user + self.children_system) / 100
        if self.run_ns is not None:
            return self.run_ns / 1e9 + children_s
        return (self.user + self.system) / 100 + children_s


class Process(_Array, frozen=True):
    """One of the processes that use most. `jiffies` counts since the last such list, `pages` are resident."""

    pid: Count
    name: Text
    jiffies: Count
    pages: Count


class Hello(_Array, frozen=True, tag="hello", tag_field="kind"):
    """The first line: who the host is and what it can be asked."""

    version: Count
    awk: Text
    sections: Annotated[list[Label], Meta(max_length=32)]
    booted_at: Count | None
    uptime_s: Seconds | None
    system: Text
    kernel: Text
    architecture: Text
    hostname: Text
    cpus: Annotated[int, Meta(ge=0, le=65_536)]
    memory_kib: Count | None
    boot_id: Text


class Reading(_Array, frozen=True):
    """Raw counters of one instant. A section the host lacks, or that was not asked for, is None."""

    version: Annotated[int, Meta(ge=PROTOCOL_VERSION, le=PROTOCOL_VERSION)]
    uptime_s: Seconds
    cpu: CpuTimes | None
    memory: MemoryKib | None
    pressure: PressureUs | None
    disks: Annotated[list[Disk], Meta(max_length=128)] | None
    interfaces: Annotated[list[Interface], Meta(max_length=128)] | None
    load: Load | None = None
    files: OpenFiles | None = None
    sensors: Annotated[list[Sensor], Meta(max_length=32)] | None = None
    own: OwnCost | None = None
    cores: Annotated[list[CpuTimes], Meta(max_length=1024)] | None = None
    top: Annotated[list[Process], Meta(max_length=20)] | None = None


class Partial(NamedTuple):
    """A reading of which some sections were refused."""

    reading: Reading
    dropped: int


class Filesystem(NamedTuple):
    """Space and inodes of one mounted filesystem; `available` is what an ordinary user may still use."""

    mount_point: str
    block_bytes: int
    blocks: int
    free: int
    available: int
    inodes: int
    inodes_free: int


class ProcessCount(NamedTuple):
    processes: int


class Unable(NamedTuple):
    """The host can not be collected; `reason` is a code of `fleet/reasons.py`."""

    reason: str


class Refused(NamedTuple):
    """A line that breaks the protocol."""

    why: str


Line = Hello | Reading | Partial | Filesystem | ProcessCount | Unable | Refused

_reading = msgspec.json.Decoder(Reading)
_hello = msgspec.json.Decoder(Hello)
_raw_sections = msgspec.json.Decoder(list[msgspec.Raw])
_section = tuple(msgspec.json.Decoder(field.type) for field in msgspec.structs.fields(Reading))
_section_items = {
    place: (msgspec.json.Decoder(kind), limit)
    for place, kind, limit in ((5, Disk, 128), (6, Interface, 128), (9, Sensor, 32), (12, Process, 20))
}
_UNABLE = {b"refused no_awk": Unable("no_awk"), b"refused no_proc": Unable("no_proc")}
_FILESYSTEM = re.compile(rb"F (\d{1,9}) (\d{1,18}) (\d{1,18}) (\d{1,18}) (\d{1,18}) (\d{1,18}) (/.{0,127})", re.DOTALL)
_PROCESSES = re.compile(rb"P (\d{1,9})")


def decode(line: bytes) -> Line:
    """What the host says in one line, without its newline. Never raises: a bad line is a value too."""
    if line[:2] == b"[1":
        try:
            return _reading.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return _decode_by_section(line)
    return _decode_rare(line)


def _decode_rare(line: bytes) -> Line:
    if line.startswith(b'["hello"'):
        try:
            return _hello.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return Refused("malformed hello")
    if found := _FILESYSTEM.fullmatch(line):
        numbers = [int(digits) for digits in found.groups()[:6]]
        return Filesystem(printable(found[7].decode("utf-8", "replace")), *numbers)
    if found := _PROCESSES.fullmatch(line):
        return ProcessCount(int(found[1]))
    return _UNABLE.get(line.rstrip(), Refused("unknown line"))


def _decode_by_section(line: bytes) -> Partial | Refused:
    """What is left of a reading when every section, and every device of one, must stand by itself."""
    try:
        raw = _raw_sections.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Refused("malformed line")
    if not 7 <= len(raw) <= len(_section):
        return Refused("wrong number of sections")
    dropped = 0
    values: list[object] = []
    for place, section in enumerate(raw):
        try:
            values.append(_section[place].decode(section))
        except msgspec.MsgspecError:
            dropped += 1
            values.append(_good_items(place, section))
    if values[0] is None or values[1] is None:
        return Refused("no version or uptime")
    return Partial(Reading(*values), dropped)  # type: ignore[arg-type]  # Each was decoded by its field's own decoder.


def _good_items(place: int, section: msgspec.Raw) -> list[object] | None:
    if place not in _section_items:
        return None
    item, limit = _section_items[place]
    kept: list[object] = []
    try:
        for raw in _raw_sections.decode(section)[:limit]:
            try:
                kept.append(item.decode(raw))
            except msgspec.MsgspecError:
                continue
    except msgspec.MsgspecError:
        return None
    return kept


def printable(label: str) -> str:
    """A label fit to be shown: what could reorder or hide the text around it is replaced."""
    if label.isascii() and label.isprintable():
        return label
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in label)


def text(label: str) -> str:
    """The text behind a label of the probe, which writes each byte above 126 as one character."""
    if label.isascii():
        return printable(label)
    return printable(label.encode("latin-1", "replace").decode("utf-8", "replace"))


class FloodError(Exception):
    """The host sent far more than it was asked for."""


class Assembler:
    """Cuts what arrives into lines, within bounds that `refill` renews at every tick."""

    __slots__ = ("_rest", "_room", "_skipping", "overlong")

    def __init__(self) -> None:
        self._rest = b""
        self._room = ANSWER_LIMIT_BYTES
        self._skipping = False
        self.overlong = 0

    def refill(self) -> None:
        self._room = ANSWER_LIMIT_BYTES

    def charge(self, size_bytes: int) -> None:
        """Count bytes that came, as lines or beside them. Raises FloodError beyond what any answer can be."""
        self._room -= size_bytes
        if self._room < 0:
            self._rest = b""
            raise FloodError

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their newlines; one over 64 KiB is skipped and counted.

        Raises FloodError when more has come since the last tick than any answer can be.
        """
        self.charge(len(data))
        joined = self._rest + data if self._rest else data
        lines = joined.split(b"\n")
        self._rest = lines.pop()
        if self._skipping and lines:
            del lines[0]
            self._skipping = False
        if len(joined) > LINE_LIMIT_BYTES or self._skipping:
            self._skip_overlong(lines)
        return lines

    def _skip_overlong(self, lines: list[bytes]) -> None:
        found = len(lines)
        lines[:] = [line for line in lines if len(line) <= LINE_LIMIT_BYTES]
        self.overlong += found - len(lines)
        if self._skipping or len(self._rest) > LINE_LIMIT_BYTES:
            self.overlong += not self._skipping
            self._rest = b""
            self._skipping = True
