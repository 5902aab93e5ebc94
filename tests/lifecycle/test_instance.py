"""The name of an installation."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server_monitor.errors import Invalid
from server_monitor.lifecycle.instance import instance_id


def test_whoever_comes_first_names_it_and_everybody_reads_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        names = set(threads.map(instance_id, [tmp_path / "data"] * 64))

    assert len(names) == 1
    assert instance_id(tmp_path / "data") in names
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["instance_id"]
    assert stat.S_IMODE((tmp_path / "data" / "instance_id").stat().st_mode) == 0o600


def test_an_empty_name_is_no_reason_to_make_up_another(tmp_path: Path) -> None:
    (tmp_path / "instance_id").write_text("\n")

    with pytest.raises(Invalid, match="put the id back"):
        instance_id(tmp_path)
