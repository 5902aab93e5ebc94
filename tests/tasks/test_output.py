"""What tasks print: its beginning in memory, all of it in files, and its end when it was too much."""

import asyncio
import contextlib
import hashlib
import os
import random
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from server_monitor.tasks.frames import Piece
from server_monitor.tasks.output import (
    READ_BYTES,
    RECENT_BYTES,
    RECENT_TOTAL_BYTES,
    STREAMS,
    TAIL_BYTES,
    LiveOutput,
    Outputs,
    Recent,
    Sizes,
    Spool,
)
from server_monitor.tasks.secrets import Mask
from tests.support.machines import NEEDS_ROOT
from tests.support.patience import PATIENCE_S

TASK = "01890000-0000-7000-8000-0000000000ab"
SMALL = Sizes(head_bytes=100, file_bytes=TAIL_BYTES + 10_000)


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    return Outputs(tmp_path, SMALL)


def bytes_of(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


def in_pieces(data: bytes, seed: int = 2, most: int = 4_000) -> Iterator[bytes]:
    chance, at = random.Random(seed), 0
    while at < len(data):
        size = chance.randint(1, most)
        yield data[at : at + size]
        at += size


def take(live: LiveOutput, stream: str, data: bytes, at: int = 0) -> int:
    for piece in in_pieces(data):
        at = live.add_at(stream, at, piece)
    return at


def pairwise_ends(pieces: list[Piece]) -> Iterator[tuple[int, Piece]]:
    """Where each piece ends, and the piece after it."""
    return ((one.at + len(one.data), after) for one, after in pairwise(pieces))


def whole(spool: Spool) -> bytes:
    found, at = bytearray(), 0
    while piece := spool.read(at := spool.readable_from(at), READ_BYTES):
        found += piece
        at += len(piece)
    return bytes(found)


@pytest.mark.parametrize("length", [0, 1, 99, 100])
async def test_what_fits_into_the_head_needs_no_file(outputs: Outputs, length: int) -> None:
    live = await outputs.begin(TASK, is_stored=True)
    take(live, "stdout", bytes_of(length))

    kept = await live.end(0)

    assert kept is not None
    assert (kept.stdout, kept.stdout_bytes, kept.truncated) == (bytes_of(length), length, False)
    assert not outputs.path(TASK, "stdout").exists()


@pytest.mark.parametrize("length", [101, 5_000, 10_000, 10_001, 10_000 + TAIL_BYTES])
async def test_what_is_longer_is_a_file_from_its_first_byte_on(outputs: Outputs, length: int) -> None:
    live, printed = await outputs.begin(TASK, is_stored=True), bytes_of(length)
    take(live, "stdout", printed)
    assert whole(live.streams["stdout"]) == printed

    kept = await live.end(0)

    assert kept is not None
    assert (kept.stdout, kept.stdout_bytes, kept.truncated) == (printed[:100], length, False)
    assert outputs.path(TASK, "stdout").read_bytes() == printed
    assert outputs.path(TASK, "stdout").stat().st_mode & 0o777 == 0o600
    assert whole(live.streams["stdout"]) == printed
    outputs.forget(TASK)


async def test_of_too_much_the_beginning_and_the_end_are_kept(outputs: Outputs) -> None:
    live, printed = await outputs.begin(TASK, is_stored=True), bytes_of(3 * TAIL_BYTES)
    take(live, "stderr", printed)

    kept = await live.end(0)

    expected = printed[:10_000] + printed[-TAIL_BYTES:]
    assert kept is not None
    assert (kept.stderr_bytes, kept.truncated) == (len(expected), True)
    assert outputs.path(TASK, "stderr").read_bytes() == expected
    outputs.forget(TASK)


async def test_bytes_that_two_channels_carry_count_once(outputs: Outputs) -> None:
    live, printed = await outputs.begin(TASK, is_stored=True), bytes_of(50_000)
    chance, ahead, behind = random.Random(5), 0, 0
    while behind < len(printed):
        if ahead < len(printed) and chance.random() < 0.5:
            piece = printed[ahead : ahead + chance.randint(1, 999)]
            ahead = live.add_at("stdout", ahead, piece)
        elif behind < ahead:
            piece = printed[behind : min(ahead, behind + chance.randint(1, 999))]
            behind = live.add_at("stdout", behind, piece)

    await live.end(0)

    assert outputs.path(TASK, "stdout").read_bytes() == printed
    outputs.forget(TASK)


async def test_readers_at_different_paces_each_see_all_of_it_in_order(outputs: Outputs) -> None:
    live, printed = await outputs.begin(TASK, is_stored=True), bytes_of(400_000)

    async def read(offset: int, every: int) -> bytes:
        found = bytearray()
        async for piece in live.read_on("stdout", offset):
            found += piece.data
            for _ in range(every):
                await asyncio.sleep(0)
        return bytes(found)

    async with asyncio.TaskGroup() as readers:
        quick = readers.create_task(read(0, 0))
        slow = readers.create_task(read(0, 50))
        late = readers.create_task(read(1_000, 3))
        at = 0
        for piece in in_pieces(printed):
            at = live.add_at("stdout", at, piece)
            await asyncio.sleep(0)
        await live.end(0)
        outputs.forget(TASK)

    assert (quick.result(), slow.result(), late.result()) == (printed, printed, printed[1_000:])


async def test_what_there_is_of_a_running_task_can_be_read_to_its_last_byte_and_no_further(outputs: Outputs) -> None:
    """Its end may still be in memory only."""
    live, printed = await outputs.begin(TASK, is_stored=True), bytes_of(500_000)
    at = take(live, "stdout", printed[:400_000])
    reading = live.read_now("stdout", 5)

    found = bytearray((await anext(reading)).data)
    take(live, "stdout", printed[400_000:], at=at)
    async for piece in reading:
        assert len(piece.data) <= READ_BYTES
        found += piece.data

    assert found == printed[5:400_000]
    outputs.forget(TASK)


async def test_wherever_a_console_dies_no_part_of_a_secret_is_kept(tmp_path: Path) -> None:
    """Also of one whose end is its own beginning, or that stands next to another one, or to asterisks."""
    secrets = [b"hunter-2-hunter", b"er-2", b"ab*ab"]
    printed = b"x" * 150 + b"\nhunter-2-hunter-2-hunter hunter** ab*ab*ab\nhunter-2-hunterhunter-2-hunter\n****"
    whole = Mask(secrets)
    expected = whole.feed(printed) + whole.rest()
    for cut in range(len(printed) + 1):
        directory = tmp_path / str(cut)
        before = Outputs(directory, SMALL)
        take(await before.begin(TASK, is_stored=True, secrets=secrets), "stdout", printed[:cut])

        after = Outputs(directory, SMALL)
        live = await after.resume(TASK, is_stored=True, secrets=secrets)
        at = live.taken_bytes("stdout")
        take(live, "stdout", printed[at:], at=at)
        kept = await live.end(0)

        assert after.path(TASK, "stdout").read_bytes() == expected, cut
        assert kept is not None
        assert kept.stdout_bytes == len(printed)
        after.forget(TASK)
        before.forget(TASK)


async def test_after_a_death_the_next_console_goes_on_where_the_file_ends(tmp_path: Path) -> None:
    printed = bytes_of(9_000)
    before = Outputs(tmp_path, SMALL)
    take(await before.begin(TASK, is_stored=True), "stdout", printed[:6_001])

    after = Outputs(tmp_path, SMALL)
    live = await after.resume(TASK, is_stored=True)
    assert live.taken_bytes("stdout") == 6_001
    take(live, "stdout", printed[6_001:], at=6_001)
    kept = await live.end(3)

    assert kept is not None
    assert (kept.stdout, kept.stdout_bytes) == (printed[:100], 9_000)
    assert after.path(TASK, "stdout").read_bytes() == printed
    both = hashlib.sha256(b"3" + hashlib.sha256(printed).digest() + hashlib.sha256(b"").digest())
    assert kept.digest == both.digest(), "the same as without a death"
    after.forget(TASK)
    before.forget(TASK)


async def test_equal_outputs_have_equal_digests_and_others_do_not(outputs: Outputs) -> None:
    digests = []
    for stdout, stderr, code in ((b"a", b"", 0), (b"a", b"", 0), (b"", b"a", 0), (b"a", b"", 1), (b"a", b"b", 0)):
        live = await outputs.begin(TASK, is_stored=True)
        live.add_at("stdout", 0, stdout)
        live.add_at("stderr", 0, stderr)
        kept = await live.end(code)
        assert kept is not None
        digests.append(kept.digest)
        outputs.forget(TASK)

    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


async def test_what_is_not_to_be_kept_is_only_in_memory(outputs: Outputs) -> None:
    live = await outputs.begin(TASK, is_stored=False)
    take(live, "stdout", bytes_of(50_000))

    assert await live.end(0) is None
    assert not outputs.path(TASK, "stdout").exists()


async def test_whoever_keeps_up_sees_all_of_what_is_not_kept(outputs: Outputs) -> None:
    live, printed = await outputs.begin(TASK, is_stored=False), bytes_of(3 * RECENT_BYTES)
    seen = bytearray()

    async def watch() -> None:
        async for piece in live.read_on("stdout", 0):
            seen.extend(piece.data)

    async with asyncio.TaskGroup() as watching:
        watching.create_task(watch())
        at = 0
        for piece in in_pieces(printed):
            at = live.add_at("stdout", at, piece)
            await asyncio.sleep(0)
        assert await live.end(0) is None

    assert seen == printed
    assert list(outputs.path(TASK, "stdout").parent.parent.iterdir()) == []


async def test_whoever_comes_late_sees_the_beginning_and_the_newest_of_what_is_not_kept(outputs: Outputs) -> None:
    live, printed = await outputs.begin(TASK, is_stored=False), bytes_of(3 * RECENT_BYTES)
    take(live, "stdout", printed)

    there = [piece async for piece in live.read_now("stdout", 0)]
    later = [piece async for piece in live.read_now("stdout", len(printed) - 10)]

    assert there == [Piece(0, printed[:100]), Piece(2 * RECENT_BYTES, printed[-RECENT_BYTES:])]
    assert later == [Piece(len(printed) - 10, printed[-10:])]


@pytest.mark.parametrize("is_stored", [True, False])
async def test_whoever_does_not_keep_up_is_told_where_it_goes_on_and_misses_nothing_after_that(
    outputs: Outputs, is_stored: bool
) -> None:
    """However the pieces fall, each holds what was printed there, and together they reach the end."""
    live, printed = await outputs.begin(TASK, is_stored=is_stored), bytes_of(4 * TAIL_BYTES)
    beginning = 10_000 if is_stored else 100
    seen: list[Piece] = []

    async def watch() -> None:
        async for piece in live.read_on("stdout", 0):
            seen.append(piece)
            for _ in range(40):
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as watching:
        watching.create_task(watch())
        at = 0
        for piece in in_pieces(printed, most=100_000):
            at = live.add_at("stdout", at, piece)
            await asyncio.sleep(0)
        await live.end(0)
        outputs.forget(TASK)

    assert all(piece.data == printed[piece.at : piece.at + len(piece.data)] for piece in seen)
    ends = [piece.at + len(piece.data) for piece in seen]
    assert ends[-1] == len(printed)
    gaps = [(end, after.at) for end, after in pairwise_ends(seen) if after.at != end]
    assert gaps, "it did not keep up"
    assert gaps[0][0] >= beginning, "the beginning is never left out"
    assert all(after > end for end, after in gaps)


async def test_what_was_too_much_is_read_on_to_its_end_although_more_and_more_of_its_middle_goes(
    outputs: Outputs,
) -> None:
    """Whoever has caught up sees what comes, far behind the limit of the file too."""
    live, printed = await outputs.begin(TASK, is_stored=True), bytes_of(3 * TAIL_BYTES)
    at = take(live, "stdout", printed[: 2 * TAIL_BYTES])
    reading = live.read_on("stdout", at)
    for begin in range(at, len(printed), 50_000):
        live.add_at("stdout", begin, printed[begin : begin + 50_000])
        assert await anext(reading) == Piece(begin, printed[begin : begin + 50_000])

    kept = await live.end(0)

    assert [piece async for piece in reading] == []
    assert kept is not None
    assert kept.truncated
    outputs.forget(TASK)


async def test_deleting_removes_the_files_of_these_tasks_only(outputs: Outputs) -> None:
    other = TASK[:-1] + "c"
    for task_id in (TASK, other):
        live = await outputs.begin(task_id, is_stored=True)
        take(live, "stdout", bytes_of(5_000))
        await live.end(0)
        outputs.forget(task_id)

    outputs.delete([TASK, "never was"])

    assert not outputs.path(TASK, "stdout").exists()
    assert outputs.path(other, "stdout").exists()


async def test_closed_files_stay_closed_and_leave_no_descriptor(outputs: Outputs) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        live = await outputs.begin(f"{TASK}{number}", is_stored=True)
        take(live, "stdout", bytes_of(5_000))
        await live.end(0)
        outputs.forget(f"{TASK}{number}")

    assert len(os.listdir("/proc/self/fd")) <= before  # what others have left may be closed meanwhile


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A disk of one mebibyte."""
    if os.geteuid() != 0:
        pytest.skip(NEEDS_ROOT)
    where = tmp_path / "small"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(where)]
    if subprocess.run(mount, check=False, capture_output=True, timeout=PATIENCE_S).returncode != 0:
        pytest.skip(NEEDS_ROOT)
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True, timeout=PATIENCE_S)


async def test_on_a_full_disk_what_is_kept_has_no_gap_and_the_task_says_that_it_is_not_all(full: Path) -> None:
    outputs, printed = Outputs(full, Sizes(100, 100 * TAIL_BYTES)), bytes_of(4 * TAIL_BYTES)
    live = await outputs.begin(TASK, is_stored=True)
    take(live, "stdout", printed, at=0)

    kept = await live.end(0)

    found = outputs.path(TASK, "stdout").read_bytes()
    assert kept is not None
    assert kept.truncated
    assert len(found) > TAIL_BYTES // 2
    assert found == printed[: len(found)]
    assert kept.stdout_bytes == len(found)
    outputs.forget(TASK)


async def test_a_disk_that_has_room_again_takes_the_end_and_the_middle_is_said_to_be_missing(full: Path) -> None:
    (full / "filler").write_bytes(bytes(700_000))
    outputs, printed = Outputs(full, Sizes(100, 100 * TAIL_BYTES)), bytes_of(3 * TAIL_BYTES)
    live = await outputs.begin(TASK, is_stored=True)
    half = take(live, "stdout", printed[: 2 * TAIL_BYTES])
    (full / "filler").unlink()
    take(live, "stdout", printed[2 * TAIL_BYTES :], at=half)
    seen = whole(live.streams["stdout"])

    kept = await live.end(0)

    assert kept is not None
    assert kept.truncated
    head = len(seen) - TAIL_BYTES
    assert 100_000 < head < 400_000
    assert seen == printed[:head] + printed[-TAIL_BYTES:]
    assert outputs.path(TASK, "stdout").read_bytes() == seen[: kept.stdout_bytes]
    outputs.forget(TASK)


async def test_where_no_file_can_be_made_the_beginning_is_kept(full: Path) -> None:
    with contextlib.suppress(OSError):
        (full / "filler").write_bytes(bytes(2 * TAIL_BYTES))
    outputs = Outputs(full / "filler", Sizes(100, TAIL_BYTES * 2))
    live = await outputs.begin(TASK, is_stored=True)
    take(live, "stdout", bytes_of(5_000))

    kept = await live.end(0)

    assert kept is not None
    assert (kept.stdout, kept.stdout_bytes, kept.truncated) == (bytes_of(5_000)[:100], 100, True)


def test_streams_that_are_not_kept_share_what_memory_there_is(tmp_path: Path) -> None:
    """Also those that have fallen silent give up what a newcomer takes."""
    total = 8 * RECENT_BYTES
    recent = Recent(total)
    spools = [Spool(None, Sizes(head_bytes=10), recent) for _ in range(100)]
    for number, spool in enumerate(spools):
        spool.add(bytes([number]) * 2 * RECENT_BYTES)

    held = [spool.recent_bytes for spool in spools]
    assert sum(held) <= total
    assert min(held) == total // 100
    assert spools[0].read(spools[0].readable_from(100), total) == b"\0" * held[0]

    for spool in spools[1:]:
        spool.close()
    spools[0].add(b"x" * RECENT_BYTES)
    assert spools[0].recent_bytes == RECENT_BYTES


async def test_the_outputs_of_a_console_share_one_memory(tmp_path: Path) -> None:
    outputs = Outputs(tmp_path, Sizes())
    most = RECENT_TOTAL_BYTES // RECENT_BYTES
    for number in range(most):
        live = await outputs.begin(f"{TASK[:-4]}{number:04}", is_stored=False)
        for stream in STREAMS:
            live.add_at(stream, 0, bytes(65_536 + RECENT_BYTES))

    spools = [spool for number in range(most) for spool in live_of(outputs, number).streams.values()]
    assert sum(spool.recent_bytes for spool in spools) == RECENT_TOTAL_BYTES


def live_of(outputs: Outputs, number: int) -> LiveOutput:
    live = outputs.live(f"{TASK[:-4]}{number:04}")
    assert live is not None
    return live
