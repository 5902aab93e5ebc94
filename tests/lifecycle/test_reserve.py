"""The last of the disk is there when it is needed, and taken again when it is not."""

import asyncio
import shutil
from pathlib import Path

from server_monitor.lifecycle.reserve import Reserve
from tests.support.disk import fill

SIZE_BYTES = 2 * 1024 * 1024


async def test_the_reserve_is_given_up_when_the_disk_is_full_and_taken_again(small_disk: Path) -> None:
    reserve = Reserve(small_disk, SIZE_BYTES)
    file = small_disk / "reserve"
    await asyncio.to_thread(reserve.look)
    assert file.stat().st_blocks * 512 >= SIZE_BYTES, "the room is really taken"

    filler = await asyncio.to_thread(fill, small_disk)
    await asyncio.to_thread(reserve.look)
    await asyncio.to_thread(reserve.look)
    assert not file.exists()
    assert shutil.disk_usage(small_disk).free >= SIZE_BYTES

    filler.unlink()
    await asyncio.to_thread(reserve.look)
    assert file.stat().st_size == SIZE_BYTES


async def test_a_small_disk_keeps_what_it_has(small_disk: Path) -> None:
    await asyncio.to_thread(Reserve(small_disk, 10 * SIZE_BYTES).look)

    assert not (small_disk / "reserve").exists()
