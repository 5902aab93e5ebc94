"""Whatever is done to the file of a recording is noticed, and nothing crashes over it."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from server_monitor.db.ids import new_id
from server_monitor.errors import NotFound
from server_monitor.terminal import chain, recording
from server_monitor.terminal.chain import LENGTH_BYTES, Check, Logged, Verdict
from server_monitor.terminal.keys import Keyring, RecordingUnreadable
from server_monitor.terminal.recording import Damaged
from tests.support.recordings import KEYRING, begun, settled, shown

CHUNKS = 6
STRANGE_KEYRING = Keyring(SecretStr("another key of recordings"))


@dataclass(frozen=True, slots=True)
class Made:
    """A recording that has ended, its bytes, and what the audit log has of it."""

    session_id: str
    data: bytes
    logged: tuple[Logged, ...]
    text: bytes

    def parts(self) -> tuple[bytes, list[bytes]]:
        """The header, and the chunks with their lengths."""
        line, _, rest = self.data.partition(b"\n")
        chunks = []
        while rest:
            end = LENGTH_BYTES + int.from_bytes(rest[:LENGTH_BYTES], "big")
            chunks.append(rest[:end])
            rest = rest[end:]
        return line + b"\n", chunks


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Made]:
    def made() -> Made:
        return asyncio.run(_made(tmp_path_factory.mktemp("made")))

    return made


@pytest.fixture(scope="module")
def whole(make: Callable[[], Made]) -> Made:
    return make()


async def _made(directory: Path) -> Made:
    session_id = new_id()
    path = directory / f"{session_id}.rec"
    recorder = await begun(path, session_id)
    logged = [Logged(0, recorder.progress.head)]
    for number in range(CHUNKS):
        recorder.output(f"line {number} of what was shown\r\n".encode() * 5)
        progress = await settled(recorder)
        logged.append(Logged(progress.chunks, progress.head))
    progress = await recorder.end(0)
    logged.append(Logged(progress.chunks, progress.head, is_last=True))
    return Made(session_id, path.read_bytes(), tuple(logged), shown(path, session_id))


def judged(
    made: Made, data: bytes, directory: Path, keyring: Keyring = KEYRING, logged: tuple[Logged, ...] | None = None
) -> Check:
    """The judgement of these bytes as the recording of this session."""
    path = directory / f"{made.session_id}.rec"
    path.write_bytes(data)
    check = Check(made.session_id, made.logged if logged is None else logged, is_over=True)
    recording.check(path, keyring, check)
    return check


def codes(check: Check) -> set[str]:
    return {finding.code for finding in check.findings}


def test_what_was_not_touched_is_intact(whole: Made, tmp_path: Path) -> None:
    assert judged(whole, whole.data, tmp_path).verdict is Verdict.INTACT


@settings(max_examples=400)
@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_flipped_byte_is_noticed_wherever_it_is(
    whole: Made, tmp_path_factory: pytest.TempPathFactory, at: float, flip: int
) -> None:
    """With the key and without it; and reading it gives a part of what was shown, or says that it is damaged."""
    place = int(at * len(whole.data))
    data = bytearray(whole.data)
    data[place] ^= flip
    directory = tmp_path_factory.getbasetemp()
    assert judged(whole, bytes(data), directory).verdict is Verdict.DAMAGED
    assert judged(whole, bytes(data), directory, STRANGE_KEYRING).verdict is Verdict.DAMAGED
    _require_a_part(whole, directory)


def test_every_byte_counts(whole: Made, tmp_path: Path) -> None:
    """The same, for each byte of the file once."""
    rng = random.Random(1)
    for place in range(len(whole.data)):
        data = bytearray(whole.data)
        data[place] ^= rng.randrange(1, 256)
        assert judged(whole, bytes(data), tmp_path).verdict is Verdict.DAMAGED, place


def _require_a_part(made: Made, directory: Path) -> None:
    read = b""
    try:
        for event in recording.events(directory / f"{made.session_id}.rec", KEYRING, made.session_id):
            read += event.data if event.code == "o" else b""
    except (Damaged, RecordingUnreadable):
        pass
    assert made.text.startswith(read)


@settings(max_examples=100)
@given(at=st.floats(0, 1, exclude_max=True))
def test_a_cut_file_is_noticed(whole: Made, tmp_path_factory: pytest.TempPathFactory, at: float) -> None:
    directory = tmp_path_factory.getbasetemp()
    assert judged(whole, whole.data[: int(at * len(whole.data))], directory).verdict is Verdict.DAMAGED
    _require_a_part(whole, directory)


@pytest.mark.parametrize("more", [b"\0", b"garbage that somebody has appended", b"\0\0\0\x20" + b"x" * 32])
def test_what_was_appended_is_noticed(whole: Made, tmp_path: Path, more: bytes) -> None:
    assert "extended" in codes(judged(whole, whole.data + more, tmp_path))


def test_a_chunk_that_the_key_itself_has_sealed_is_noticed_behind_the_end(whole: Made, tmp_path: Path) -> None:
    """Who has the key can seal more; the audit log says that there was no more."""
    header = chain.parse(whole.parts()[0])
    key = KEYRING.open(whole.session_id, header.wrapped, header.wrapped_by)
    forged = key.seal(b"nothing of ours", whole.logged[-1].head)
    assert {"extended", "does_not_open"} <= codes(judged(whole, whole.data + chain.frame(forged), tmp_path))


def test_chunks_in_another_order_are_noticed(whole: Made, tmp_path: Path) -> None:
    header, chunks = whole.parts()
    chunks[1], chunks[2] = chunks[2], chunks[1]
    check = judged(whole, header + b"".join(chunks), tmp_path)
    assert {"head_differs", "does_not_open"} <= codes(check)


def test_a_chunk_left_out_or_doubled_is_noticed(whole: Made, tmp_path: Path) -> None:
    header, chunks = whole.parts()
    for kept in ([*chunks[:2], *chunks[3:]], [*chunks[:2], chunks[1], *chunks[2:]], []):
        assert judged(whole, header + b"".join(kept), tmp_path).verdict is Verdict.DAMAGED


def test_even_without_a_log_a_key_notices_what_was_moved(whole: Made, tmp_path: Path) -> None:
    """Each chunk is sealed to everything before it."""
    header, chunks = whole.parts()
    del chunks[2]
    check = judged(whole, header + b"".join(chunks), tmp_path, logged=())
    assert "does_not_open" in codes(check)


def test_a_chunk_of_another_recording_is_noticed(whole: Made, make: Callable[[], Made], tmp_path: Path) -> None:
    header, chunks = whole.parts()
    chunks[3] = make().parts()[1][3]
    assert {"head_differs", "does_not_open"} <= codes(judged(whole, header + b"".join(chunks), tmp_path))


def test_the_file_of_another_session_is_noticed(whole: Made, make: Callable[[], Made], tmp_path: Path) -> None:
    other = make()
    assert {"wrong_session", "head_differs"} <= codes(judged(whole, other.data, tmp_path))
    with pytest.raises(Damaged):
        shown(tmp_path / f"{whole.session_id}.rec", whole.session_id)


def test_a_file_that_is_no_recording_says_so(whole: Made, tmp_path: Path) -> None:
    for data in (b"", b"\n", b"{}\n", b"x" * 100_000, b'{"format":2}\n', b"[]\n", b'{"format":1,"cols":"x"}\n'):
        assert codes(judged(whole, data, tmp_path)) == {"not_a_recording"}


def test_a_missing_file_is_missing(whole: Made, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        recording.check(tmp_path / "nothing.rec", KEYRING, Check(whole.session_id, whole.logged, is_over=True))


def test_without_its_key_the_chain_alone_is_proven(whole: Made, tmp_path: Path) -> None:
    check = judged(whole, whole.data, tmp_path, STRANGE_KEYRING)
    assert (check.verdict, codes(check)) == (Verdict.UNPROVEN, {"no_key"})
    with pytest.raises(RecordingUnreadable, match="ENCRYPTION_PREVIOUS_KEY"):
        next(recording.events(tmp_path / f"{whole.session_id}.rec", STRANGE_KEYRING, whole.session_id))


def test_an_earlier_key_still_opens(whole: Made, tmp_path: Path) -> None:
    for previous in ("a key of recordings for tests", "an older one,a key of recordings for tests"):
        keyring = Keyring(SecretStr("the key of today"), SecretStr(previous))
        assert judged(whole, whole.data, tmp_path, keyring).verdict is Verdict.INTACT


def test_where_the_log_says_too_little_nothing_is_proven(whole: Made, tmp_path: Path) -> None:
    assert codes(judged(whole, whole.data, tmp_path, logged=())) == {"not_logged"}
    assert codes(judged(whole, whole.data, tmp_path, logged=whole.logged[:1])) == {"not_closed"}
    assert judged(whole, whole.data, tmp_path, logged=()).verdict is Verdict.UNPROVEN


def test_a_session_that_runs_may_be_in_the_middle_of_a_chunk(whole: Made, tmp_path: Path) -> None:
    path = tmp_path / f"{whole.session_id}.rec"
    path.write_bytes(whole.data + b"\0\0\1\0the beginning of")
    check = Check(whole.session_id, whole.logged[:-1], is_over=False)
    recording.check(path, KEYRING, check)
    assert check.verdict is Verdict.INTACT
