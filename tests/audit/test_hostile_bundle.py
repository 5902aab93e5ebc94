"""Whatever a bundle holds, the verifier that travels in bundles ends with words: by itself, with Python and no more."""

import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server_monitor.audit import segment, sources, standalone
from server_monitor.audit.note import Verifier
from server_monitor.audit.verify import Aspect, Verdict
from tests.audit.test_vectors import BUNDLE, LOG
from tests.audit.test_verify_database import _verified
from tests.support.patience import PATIENCE_S

OLDEST = "3.9"  # that is promised to an auditor
VKEY = LOG["vkey"]
MANIFEST = "manifest.json"

_JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.sampled_from([-5, -1, 0, 1, 2**53, 0.5, "", "x", "A" * 44, "\ud800", "\0"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "seq"]), inner, max_size=2),
    max_leaves=5,
)


def python() -> str:
    """The oldest Python that has to do, where there is one."""
    found = shutil.which(f"python{OLDEST}")
    asked = found and subprocess.run(
        [found, "--version"], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    return found if found and asked and OLDEST in asked.stdout else sys.executable


def members() -> dict[str, bytes]:
    with tarfile.open(BUNDLE) as archive:
        return {entry.name: content.read() for entry in archive if (content := archive.extractfile(entry)) is not None}


HONEST = members()


def write(files: Mapping[str, bytes], where: Path) -> None:
    for name, data in files.items():
        (where / name).parent.mkdir(exist_ok=True)
        (where / name).write_bytes(data)


def manifest(**changed: Any) -> bytes:
    return json.dumps({**json.loads(HONEST[MANIFEST]), **changed}, sort_keys=True, separators=(",", ":")).encode()


def is_proven(files: Mapping[str, bytes]) -> bool:
    """Of the unpacked files. Raises nothing but Unreadable, which is not proven."""
    with TemporaryDirectory() as folder:
        write(files, Path(folder))
        try:
            return standalone.is_proven(standalone.verify(folder, [standalone.parse_key(VKEY)], []))
        except standalone.Unreadable:
            return False


@given(name=st.sampled_from(sorted(json.loads(HONEST[MANIFEST]))), value=_JSON)
@settings(max_examples=200)
def test_no_value_of_a_manifest_makes_it_fall_over(name: str, value: Any) -> None:
    said = manifest(**{name: value})

    assert is_proven({**HONEST, MANIFEST: said}) == (said == HONEST[MANIFEST])


@given(
    name=st.sampled_from([name for name in sorted(HONEST) if name not in segment.BESIDE]),
    start=st.integers(0, 10_000),
    removed=st.integers(0, 200),
    put=st.binary(max_size=20),
)
@settings(max_examples=200)
def test_no_bytes_of_a_member_make_it_fall_over(name: str, start: int, removed: int, put: bytes) -> None:
    honest = HONEST[name]
    start %= len(honest)
    changed = honest[:start] + put + honest[start + removed :]

    was_proven = is_proven({**HONEST, name: changed})

    # Empty lines stand between checkpoints where somebody has collected them, and fewer of them prove the same end.
    assert was_proven == (changed == honest) or name.startswith(segment.CHECKPOINTS)


@given(noise=st.binary(max_size=300), is_packed=st.booleans())
@settings(max_examples=100)
def test_noise_is_no_bundle(noise: bytes, is_packed: bool) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "b.tar.gz"
        path.write_bytes((segment._GZIP_HEADER if is_packed else b"") + noise)
        with pytest.raises(standalone.Unreadable):
            standalone.verify(str(path), [], [])


@pytest.mark.parametrize(
    "changed",
    [
        {"first_seq": -5, "end_seq": 3, "prefix": ["A" * 43 + "="] * 2},
        {"first_seq": 10**30},
        {"first_seq": True},
        {"end_seq": "3"},
        {"end_seq": -1},
        {"prefix": {}},
        {"root": None},
        {"origin": ["x"]},
        {"format": "another"},
    ],
)
def test_a_malformed_manifest_ends_in_words(tmp_path: Path, changed: dict[str, Any]) -> None:
    write({**HONEST, MANIFEST: manifest(**changed)}, tmp_path)
    (tmp_path / "key.txt").write_text(VKEY)

    command = [python(), "-I", "-S", standalone.__file__, str(tmp_path), "--public-key", str(tmp_path / "key.txt")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    assert (ended.returncode, ended.stderr) == (3, ""), ended
    assert "cannot be checked: " in ended.stdout


def test_a_bundle_that_says_it_is_of_another_log_is_not_believed(tmp_path: Path) -> None:
    """Its records and checkpoints are whole: only who reads the manifest would think that they are another's."""
    path = tmp_path / "b.tar.gz"
    honest = segment.open_segment("b", lambda: BUNDLE.open("rb"))
    said = segment.Manifest("other/server-monitor/audit/1", 0, honest.manifest.end_seq, (), honest.manifest.root)
    bodies = [row[1] for rows in honest.records() for row in rows]
    path.write_bytes(b"".join(segment.pack(said, [stored.note for stored in honest.notes()], bodies)))

    ours = _verified(sources.bundle(path), [], [Verifier.parse(VKEY)])
    theirs = standalone.verify(str(path), [standalone.parse_key(VKEY)], [])

    assert ours.verdicts[Aspect.AUTHENTICITY] is Verdict.BROKEN
    assert theirs.verdict("authenticity") == "BROKEN"
