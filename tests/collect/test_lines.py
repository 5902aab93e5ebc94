"""What a host may send, and what becomes of the rest."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_monitor.collect import linux
from server_monitor.collect.lines import (
    ANSWER_LIMIT_BYTES,
    LINE_LIMIT_BYTES,
    Assembler,
    Filesystem,
    FloodError,
    Hello,
    Partial,
    ProcessCount,
    Reading,
    Refused,
    Unable,
    decode,
    text,
)

CPU = "[37841,0,38797,273882,1349,0,537,3402]"
MEMORY = "[24684092,22601324,23702692,21944,1196756,0,0,1488,8856,186904]"
PRESSURE = "[248467576,0,0,36807603,9386886]"
DISKS = '[["vda",72503,4398378,44806,57837,7249096,38603,27080]]'
INTERFACES = '[["eth0",1090175677,43082,0,0,2227573,20678,0,0]]'


def line(  # noqa: PLR0917
    cpu: str = CPU,
    memory: str = MEMORY,
    pressure: str = PRESSURE,
    disks: str = DISKS,
    interfaces: str = INTERFACES,
    rest: str = "",
    uptime: str = "1776.93",
) -> bytes:
    return f"[1,{uptime},{cpu},{memory},{pressure},{disks},{interfaces}{rest}]".encode()


def test_a_plain_line_is_a_reading_with_named_counters() -> None:
    found = decode(line())
    assert isinstance(found, Reading)
    assert found.cpu is not None
    assert (found.cpu.user, found.cpu.steal) == (37841, 3402)
    assert found.memory is not None
    assert found.memory.available == 23702692
    assert found.disks is not None
    assert found.disks[0].name == "vda"
    assert found.load is None


@pytest.mark.parametrize(
    "bad",
    [
        "[-1,0,38797,273882,1349,0,537,3402]",
        "[18446744073709551615,0,38797,273882,1349,0,537,3402]",
        "[99999999999999999999999999,0,38797,273882,1349,0,537,3402]",
        "[1e309,0,38797,273882,1349,0,537,3402]",
        "[1.5,0,38797,273882,1349,0,537,3402]",
        '["1",0,38797,273882,1349,0,537,3402]',
        "[null,0,38797,273882,1349,0,537,3402]",
        "[1,2,3]",
        "[1,2,3,4,5,6,7,8,9]",
        "{}",
        '"x"',
        "7",
    ],
)
def test_a_bad_section_is_dropped_and_counted_and_the_others_are_kept(bad: str) -> None:
    found = decode(line(cpu=bad))
    assert isinstance(found, Partial)
    assert found.dropped == 1
    assert found.reading.cpu is None
    whole = decode(line())
    assert isinstance(whole, Reading)
    assert found.reading.memory == whole.memory
    assert found.reading.interfaces == whole.interfaces


def test_a_bad_device_is_dropped_and_the_others_of_its_section_are_kept() -> None:
    disks = '[["vda",1,2,3,4,5,6,7],["vdb",-1,2,3,4,5,6,7],["",1,2,3,4,5,6,7],["vdc",1,2,3,4,5,6,7],[]]'
    found = decode(line(disks=disks))
    assert isinstance(found, Partial)
    assert found.reading.disks is not None
    assert [disk.name for disk in found.reading.disks] == ["vda", "vdc"]


def test_more_devices_than_any_host_has_are_cut_to_the_limit() -> None:
    disks = ",".join(f'["d{number}",1,2,3,4,5,6,7]' for number in range(500))
    found = decode(line(disks=f"[{disks}]"))
    assert isinstance(found, Partial)
    assert found.reading.disks is not None
    assert len(found.reading.disks) == 128


def test_a_label_of_more_than_128_letters_is_dropped() -> None:
    found = decode(line(disks=f'[["{"d" * 129}",1,2,3,4,5,6,7]]'))
    assert isinstance(found, Partial)
    assert found.reading.disks == []


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"[1",
        b"[1,",
        b"[1,NaN,null,null,null,[],[]]",
        b"[1,Infinity,null,null,null,[],[]]",
        b"[1,1e309,null,null,null,[],[]]",
        b"[1,-5,null,null,null,[],[]]",
        b"[1,12,34,null,null,null,[],[],[],[],[],[],[],[],[],[]]",  # a comma as decimal point, and too many sections
        b"[1,null,null,null,null,[],[]]",
        b"[1,1.5]",
        b"[2,1.5,null,null,null,[],[]]",
        b"[1,1.5,null,null,null,[],[]]x",
        b"\x00\xff\xfe",
        b"[1,\xff",
        b'[1,1.5,null,null,null,[["\xff\xfe",1,2,3,4,5,6,7',
        b'["hello",1]',
        b'["hello",1,"mawk",[],null,null,"\xff","","","",1,null,""]',
        b"F 1 2 3",
        b"F -1 2 3 4 5 6 /",
        b"F 4096 1 1 1 1 1 relative",
        b"F 99999999999999999999 1 1 1 1 1 /",
        b"P -1",
        b"P many",
        b"Welcome to this host",
        b"refused by policy",
    ],
)
def test_what_the_probe_does_not_write_is_refused(bad: bytes) -> None:
    assert isinstance(decode(bad), Refused)


def test_background_lines_have_their_own_form() -> None:
    assert decode(b"P 939") == ProcessCount(939)
    found = decode(b"F 4096 66053021 59755530 20300237 16777216 16316143 /srv/two words")
    assert found == Filesystem("/srv/two words", 4096, 66053021, 59755530, 20300237, 16777216, 16316143)
    found = decode("F 4096 1 1 1 1 1 /x\u202e\x07".encode() + b"\xff")
    assert isinstance(found, Filesystem)
    assert found.mount_point == "/x\ufffd\ufffd\ufffd"


def test_a_host_that_cannot_be_collected_says_why() -> None:
    assert decode(b"refused no_awk") == Unable("no_awk")
    assert decode(b"refused no_proc\r") == Unable("no_proc")


def test_labels_are_bytes_that_are_read_as_utf8() -> None:
    assert text("eth0") == "eth0"
    assert text("caf\xc3\xa9") == "café"
    assert text("\xff") == "\ufffd"
    assert text("a\x1bb") == "a\ufffdb"
    assert text("\u4e2d") == "?"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**70), max_value=2**70)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=40,
)
sections = st.one_of(
    json_values,
    st.lists(st.integers(min_value=-1, max_value=2**64), min_size=8, max_size=8),
    st.lists(st.tuples(st.text(max_size=130), *[st.integers(-1, 2**64)] * 7), max_size=4),
)


@given(st.binary(max_size=300))
def test_no_bytes_make_decoding_fail(data: bytes) -> None:
    for prefix in (b"", b"[1", b"[1,", b'["hello",', b"F ", b"P ", b"refused "):
        decode(prefix + data)


@given(st.lists(sections, max_size=14), st.lists(sections, max_size=14))
def test_no_line_of_json_makes_a_rate_that_is_negative_or_not_finite(first: list[object], second: list[object]) -> None:
    readings = []
    for uptime_s, body in ((100.0, first), (101.0, second)):
        found = decode(msgspec.json.encode([1, uptime_s, *body]))
        if isinstance(found, Partial):
            found = found.reading
        if isinstance(found, Reading):
            readings.append(found)
    if len(readings) < 2:
        return
    values = linux.rates(readings[0], readings[1], 1.0) | linux.gauges(readings[1]) | linux.slow_gauges(readings[1])
    if (before := readings[0].pressure) is not None and (after := readings[1].pressure) is not None:
        values |= linux.pressure_rates(before, after, 1.0)
    for name, value in values.items():
        assert math.isfinite(value), name
        assert value >= 0 or name.startswith("temperature_celsius:"), name


@given(st.lists(st.binary(max_size=50), max_size=20), st.lists(st.integers(0, 300), max_size=30))
def test_lines_are_the_same_however_the_network_cuts_them(lines: list[bytes], cuts: list[int]) -> None:
    lines = [each.replace(b"\n", b"") for each in lines]
    data = b"".join(each + b"\n" for each in lines) + b"unfinished"
    assembler = Assembler()
    found = []
    start = 0
    for cut in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
        found += assembler.feed(data[start:cut])
        start = cut
    assert found == lines


def test_a_line_over_64_kib_is_skipped_and_the_next_is_read() -> None:
    assembler = Assembler()
    assert assembler.feed(b"x" * LINE_LIMIT_BYTES) == []
    assert assembler.feed(b"x" * 10) == []
    assert assembler.feed(b"rest\nnext\n") == [b"next"]
    assert assembler.overlong == 1


def test_a_whole_line_over_64_kib_is_skipped_too() -> None:
    assembler = Assembler()
    assert assembler.feed(b"x" * (LINE_LIMIT_BYTES + 1) + b"\nnext\n") == [b"next"]


def test_more_than_any_answer_between_two_ticks_is_a_flood() -> None:
    assembler = Assembler()
    chunk = b"x" * 1023 + b"\n"
    for _ in range(ANSWER_LIMIT_BYTES // 1024):
        assembler.feed(chunk)
    with pytest.raises(FloodError):
        assembler.feed(chunk)
    assembler.refill()
    assert assembler.feed(b"P 1\n") == [b"P 1"]


def test_ten_megabytes_in_one_line_leave_nothing_behind() -> None:
    assembler = Assembler()
    with pytest.raises(FloodError):
        feed_often(assembler, b"x" * 65536, times=160)


def feed_often(assembler: Assembler, data: bytes, times: int) -> None:
    for _ in range(times):
        assembler.feed(data)


def test_a_hello_names_its_version_and_its_host() -> None:
    found = decode(
        b'["hello",1,"mawk",["cpu"],1795468284,1776.93,"Debian GNU/Linux 12","6.1.0","x86_64","web-1",2,2468,"44b"]'
    )
    assert isinstance(found, Hello)
    assert (found.version, found.hostname, found.cpus) == (1, "web-1", 2)
