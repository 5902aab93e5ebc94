"""Recordings on real disks: what was shown comes back, and what cannot be recorded says so."""

import asyncio
import os
import random
import signal
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server_monitor.db.ids import new_id
from server_monitor.terminal import recording
from server_monitor.terminal.chain import Check, Logged, Verdict
from server_monitor.terminal.recording import (
    BEHIND_BYTES,
    CHUNK_BYTES,
    OVERRUN_BYTES,
    Progress,
    RecordingFailed,
)
from tests.support.disk import fill, mounted
from tests.support.patience import PATIENCE_S
from tests.support.recording_writer import block
from tests.support.recordings import KEYRING, begun, contents, mode, settled, shown, until, write

ID = new_id()
OUTPUTS = st.binary(max_size=200) | st.text(max_size=80).map(str.encode)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "2026-11" / f"{ID}.rec"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", 1) as disk:
        yield disk


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    outputs=st.lists(st.binary(max_size=200) | st.text(max_size=80).map(str.encode), max_size=40), cut=st.integers(1, 7)
)
def test_every_byte_that_was_shown_comes_back_in_order(tmp_path: Path, outputs: list[bytes], cut: int) -> None:
    """Whatever the bytes are, and wherever they were cut, also through the middle of a character."""
    session_id = new_id()
    path = tmp_path / f"{session_id}.rec"

    async def record() -> Progress:
        recorder = await begun(path, session_id)
        whole = b"".join(outputs)
        for start in range(0, len(whole), cut):
            recorder.output(whole[start : start + cut])
            if start % 5 == 0:
                await settled(recorder)
        return await recorder.end(None)

    progress = asyncio.run(record())

    assert shown(path, session_id) == b"".join(outputs)
    assert progress.output_bytes == len(b"".join(outputs))


async def test_what_else_happens_is_in_the_recording(path: Path) -> None:
    recorder = await begun(path, ID)
    recorder.output(b"$ ")
    recorder.resized(100, 30)
    recorder.mark("no-echo")
    await recorder.end(3)

    found = [(event.code, event.data) for event in recording.events(path, KEYRING, ID)]
    assert found == [("o", b"$ "), ("r", b"100x30"), ("m", b"no-echo"), ("x", b"3")]


async def test_only_its_owner_may_read_the_file(path: Path) -> None:
    recorder = await begun(path, ID)
    recorder.output(b"secret")
    await recorder.end(0)

    assert [mode(path), mode(path.parent)] == [0o600, 0o700]
    assert b"secret" not in contents(path)


async def test_an_existing_file_is_never_written_over(path: Path) -> None:
    await (await begun(path, ID)).end(0)
    before = contents(path)

    with pytest.raises(RecordingFailed):
        await begun(path, ID)
    assert contents(path) == before


async def test_news_becomes_durable_by_itself(path: Path) -> None:
    recorder = await begun(path, ID)
    heard = asyncio.Event()
    recorder.on_progress = lambda _: heard.set()
    recorder.output(b"a little")
    async with asyncio.timeout(PATIENCE_S):
        await heard.wait()

    assert recorder.progress.chunks == 1
    assert shown(path, ID) == b"a little"
    await recorder.end(0)


async def test_news_does_not_wait_twice_when_the_disk_was_slow(path: Path) -> None:
    """What came while a write was under way has waited already."""
    with ThreadPoolExecutor(1) as threads:
        recorder = await begun(path, ID, threads=threads, give_up_s=PATIENCE_S)
        free = threading.Event()
        threads.submit(free.wait)
        recorder.output(b"x" * CHUNK_BYTES)
        recorder.output(b"y")
        pending = recorder._pending[0]
        await until(lambda: recorder._now_us() - pending.at_us >= recording.FLUSH_AFTER_S * 1_000_000)
        free.set()
        await until(lambda: recorder.progress.chunks >= 1)
        assert recorder._is_writing or recorder.progress.until_us >= pending.at_us
        await recorder.end(0)


async def test_much_output_becomes_chunks_of_a_bounded_size(path: Path) -> None:
    recorder = await begun(path, ID)
    recorder.output(b"x" * (5 * CHUNK_BYTES + 1))
    progress = await recorder.end(0)

    parts = list(recording.read(path, KEYRING, ID))
    assert [part.number for part in parts] == list(range(1, progress.chunks + 1))
    assert all(sum(len(event.data) for event in part.events) <= CHUNK_BYTES for part in parts)


async def test_a_chunk_says_where_it_begins(path: Path) -> None:
    """So that reading can begin in the middle."""
    recorder = await begun(path, ID)
    recorder.output(b"one")
    await settled(recorder)
    recorder.resized(120, 40)
    await settled(recorder)
    recorder.output(b"two")
    await recorder.end(0)

    whole = list(recording.read(path, KEYRING, ID))
    (last,) = recording.read(path, KEYRING, ID, first=3)
    assert last == whole[2]
    assert (last.stand.cols, last.stand.rows) == (120, 40)
    assert last.stand.from_us == whole[1].events[-1].at_us


async def test_ending_twice_says_the_same(path: Path) -> None:
    recorder = await begun(path, ID)
    recorder.output(b"x")
    assert await recorder.end(0) == await recorder.end(0)


# --- kill -9 ---


@pytest.mark.parametrize("kill_after", [1, 2, 5, 17, 60])
async def test_a_killed_writer_leaves_a_recording_up_to_its_last_fsync(path: Path, kill_after: int) -> None:
    """Killed somewhere behind this many writes: everything that was said to be durable is there, and verifies."""
    said = await _killed(path, kill_after)
    found = recording.settle(path, KEYRING, ID)

    assert found is not None
    assert found.chunks >= said[-1].chunks
    check = Check(ID, [*(Logged(one.chunks, one.head) for one in said), Logged(found.chunks, found.head, True)], True)
    checked = recording.check(path, KEYRING, check)
    assert check.verdict is Verdict.INTACT, check.findings
    assert checked.torn_bytes == 0
    text = shown(path, ID)
    assert len(text) == found.output_bytes >= said[-1].output_bytes
    assert b"".join(block(number) for number in range(len(text) // len(block(0)) + 1)).startswith(text)


async def _killed(path: Path, kill_after: int) -> list[Progress]:
    """What the writer said before it was killed, at an instant that nothing in it has chosen."""
    writer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.recording_writer", str(path), ID), stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    lines = [await writer.stdout.readline() for _ in range(kill_after)]
    await asyncio.sleep(random.random() / 50)
    writer.send_signal(signal.SIGKILL)
    lines += (await writer.stdout.read()).splitlines(keepends=True)
    await writer.wait()
    numbers = [one.split() for one in lines if one.endswith(b"\n")]
    return [Progress(int(n[0]), bytes.fromhex(n[1].decode()), int(n[2]), int(n[3])) for n in numbers]


async def test_a_torn_chunk_is_cut_off_and_the_rest_stays(path: Path) -> None:
    recorder = await begun(path, ID)
    recorder.output(b"kept")
    progress = await settled(recorder)
    whole = contents(path)
    for torn in (b"\0", b"\0\0\0", b"\0\0\1\0half of a chunk", b"\xff\xff\xff\xff"):
        write(path, whole + torn)
        assert shown(path, ID) == b"kept"
        found = recording.settle(path, KEYRING, ID)
        assert found is not None
        assert (found.chunks, found.head, found.output_bytes) == (1, progress.head, 4)
        assert contents(path) == whole
    await recorder.end(None)


def test_of_what_never_began_there_is_nothing(path: Path) -> None:
    assert recording.settle(path, KEYRING, ID) is None
    path.parent.mkdir()
    path.write_bytes(b'{"format":1,"half of a hea')
    assert recording.settle(path, KEYRING, ID) is None


# --- a disk that is full, slow or dead ---


async def test_a_full_disk_ends_the_recording_and_nothing_claims_to_be_recorded(tiny_disk: Path) -> None:
    path = tiny_disk / "2026-11" / f"{ID}.rec"
    recorder = await begun(path, ID)
    begun_as = recorder.progress
    failed = asyncio.Event()
    recorder.on_failed = lambda _: failed.set()
    printed = b""
    async with asyncio.timeout(PATIENCE_S):
        while not failed.is_set():
            if not recorder.is_behind:
                piece = os.urandom(8_192)
                recorder.output(piece)
                printed += piece
            await asyncio.sleep(0.001)

    with pytest.raises(RecordingFailed, match="no space left"):
        await recorder.end(0)
    progress = recorder.progress
    await until(lambda: len(contents(path)) == progress.size_bytes)
    text = shown(path, ID)
    assert len(text) == progress.output_bytes > 0
    assert printed.startswith(text)
    logged = [Logged(0, begun_as.head), Logged(progress.chunks, progress.head, is_last=True)]
    check = Check(ID, logged, is_over=True)
    recording.check(path, KEYRING, check)
    assert check.verdict is Verdict.INTACT


async def test_no_recording_begins_on_a_full_disk(tiny_disk: Path) -> None:
    fill(tiny_disk)
    with pytest.raises(RecordingFailed):
        await begun(tiny_disk / "2026-11" / f"{ID}.rec", ID)


async def test_a_disk_that_has_room_again_goes_on(tiny_disk: Path) -> None:
    path = tiny_disk / "2026-11" / f"{ID}.rec"
    recorder = await begun(path, ID, give_up_s=PATIENCE_S)
    filler = fill(tiny_disk)
    piece = os.urandom(CHUNK_BYTES)
    recorder.output(piece)
    await asyncio.sleep(recording.RETRY_S)
    filler.unlink()
    await recorder.end(0)

    assert shown(path, ID) == piece


async def test_a_slow_disk_pauses_the_shell_and_memory_stays(path: Path) -> None:
    """The threads that write have other work for long: what is held meanwhile is bounded."""
    with ThreadPoolExecutor(1) as threads:
        recorder = await begun(path, ID, threads=threads, give_up_s=PATIENCE_S)
        free = threading.Event()
        threads.submit(free.wait)
        tracemalloc.start()
        printed = 0
        while not recorder.is_behind:
            recorder.output(os.urandom(1_024))
            printed += 1_024
        held_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert printed <= BEHIND_BYTES
        assert held_bytes < 2 * BEHIND_BYTES
        free.set()
        progress = await recorder.end(0)

    assert progress.output_bytes == printed
    assert not progress.is_behind


async def test_small_pieces_count_for_what_they_take_in_memory(path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        recorder = await begun(path, ID, threads=threads, give_up_s=PATIENCE_S)
        free = threading.Event()
        threads.submit(free.wait)
        count = 0
        while not recorder.is_behind:
            recorder.output(b"x")
            count += 1
        assert count < BEHIND_BYTES / recording.EVENT_BYTES + 1
        free.set()
        await recorder.end(0)


async def test_who_does_not_pause_the_shell_loses_the_recording_and_not_the_memory(path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        recorder = await begun(path, ID, threads=threads, give_up_s=PATIENCE_S)
        free = threading.Event()
        threads.submit(free.wait)
        failures: list[RecordingFailed] = []
        recorder.on_failed = failures.append
        for _ in range(OVERRUN_BYTES // CHUNK_BYTES + 2):
            recorder.output(b"x" * CHUNK_BYTES)
        assert len(failures) == 1
        free.set()
        with pytest.raises(RecordingFailed, match="not paused"):
            await recorder.end(0)


async def test_a_dead_disk_is_given_up(path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        recorder = await begun(path, ID, threads=threads, give_up_s=2)
        free = threading.Event()
        threads.submit(free.wait)
        failed = asyncio.Event()
        recorder.on_failed = lambda _: failed.set()
        recorder.output(b"x" * CHUNK_BYTES)
        async with asyncio.timeout(PATIENCE_S):
            await failed.wait()
        free.set()
        with pytest.raises(RecordingFailed, match="does not answer"):
            await recorder.end(0)
    # What came too late is taken back: it was said not to be recorded.
    await until(lambda: not shown(path, ID))


async def test_after_a_failure_nothing_is_taken(path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        recorder = await begun(path, ID, threads=threads, give_up_s=2)
        free = threading.Event()
        threads.submit(free.wait)
        recorder.output(b"x" * CHUNK_BYTES)
        await until(lambda: recorder.failure is not None)
        recorder.output(b"y")
        recorder.mark("z")
        assert recorder.progress.output_bytes == 0
        free.set()


async def test_files_are_let_go_of(path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    recorder = await begun(path, ID)
    recorder.output(b"x")
    await recorder.end(0)
    await until(lambda: len(os.listdir("/proc/self/fd")) == before)
