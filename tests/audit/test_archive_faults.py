"""Whatever an object store answers, nothing is deleted before a verified object, and in the end there is one."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from server_monitor.audit import sealing
from server_monitor.audit.archive import Archive
from server_monitor.audit.retention import State
from server_monitor.db.engine import Database
from server_monitor.errors import Failure, Unavailable
from tests.support.faulty_s3 import Fault, FaultyS3, faulty
from tests.support.keeping import SEGMENT, fill, housekeeping, later, signer_of
from tests.support.s3 import Bucket, locked_bucket


def _kind(fault: Fault) -> str:
    return next((name for name in ("after", "cuts", "flips", "forgets") if getattr(fault, name)), "")


URL = "s3://audit/console"
FOR_EVER = 1000


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with locked_bucket() as made:
        yield made


@pytest.fixture
def proxy(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """The way to the bucket, to be spoiled."""
    with faulty(bucket.url) as made:
        for name, value in {**bucket.environment, "AWS_ENDPOINT_URL": made.url}.items():
            monkeypatch.setenv(name, value)
        yield made


async def require_only_pruned_what_is_archived(db: Database, bucket: Bucket, data_dir: Path) -> list[sealing.Row]:
    """Every segment of which records are gone is in the bucket, asked without the proxy, and right."""
    async with db.reading() as conn:
        rows = list(await sealing.listing(conn))
    for row in rows:
        if row.state in {State.VERIFIED, State.PRUNED}:
            found = await asyncio.to_thread(
                bucket.client.get_object, Bucket=bucket.name, Key=f"console/{row.key}", VersionId=row.version
            )
            data = await asyncio.to_thread(found["Body"].read)
            assert sealing.what_is_wrong(data, row, signer_of(data_dir), 1) is None
    return rows


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PUT", 1, status=409),
        Fault("PUT", FOR_EVER, status=409),
        Fault("PUT", 1, status=412),
        Fault("PUT", FOR_EVER, status=412),
        Fault("PUT", 1, status=500),
        Fault("PUT", FOR_EVER, status=503),
        Fault("PUT", 2, status=500, after=True),
        Fault("PUT", 2, cuts=True),
        Fault("PUT", FOR_EVER, forgets=True),
        Fault("GET", 1, status=500),
        Fault("GET", FOR_EVER, status=403),
        Fault("GET", 2, cuts=True),
        Fault("GET", 1, flips=True),
        Fault("HEAD", FOR_EVER, status=500),
    ],
    ids=lambda fault: " ".join(str(part) for part in (fault.method, fault.times, fault.status or "", _kind(fault))),
)
async def test_a_bad_day_of_the_store_loses_nothing_and_leaves_one_object(
    sqlite_db: Database, tmp_path: Path, bucket: Bucket, proxy: FaultyS3, fault: Fault
) -> None:
    await fill(sqlite_db, 350)
    proxy.faults.append(fault)
    with suppress(Failure):
        await housekeeping(sqlite_db, tmp_path, URL).once(later())
    await require_only_pruned_what_is_archived(sqlite_db, bucket, tmp_path)

    proxy.faults.clear()
    done = await housekeeping(sqlite_db, tmp_path, URL).once(later())

    assert done.failure is None
    rows = await require_only_pruned_what_is_archived(sqlite_db, bucket, tmp_path)
    assert rows[0].state is State.PRUNED
    assert rows[0].end_seq == SEGMENT
    keys = [key for key in await asyncio.to_thread(bucket.keys) if ".tar.gz" in key]
    assert sorted(keys) == sorted(f"console/{row.key}" for row in rows)
    for row in rows:
        assert await asyncio.to_thread(bucket.versions, f"console/{row.key}") == [row.version]


async def test_a_store_that_reads_wrong_bytes_prunes_nothing(
    sqlite_db: Database, tmp_path: Path, bucket: Bucket, proxy: FaultyS3
) -> None:
    """Verified once, and wrong when it is read again before its records go: whatever the store says, they stay."""
    await fill(sqlite_db, 350)
    await housekeeping(sqlite_db, tmp_path, URL).once(later(0))
    proxy.faults.append(Fault("GET", FOR_EVER, flips=True))

    done = await housekeeping(sqlite_db, tmp_path, URL).once(later())

    assert done.pruned == 0
    assert "is not what was put there" in str(done.failure)
    proxy.faults.clear()
    assert (await housekeeping(sqlite_db, tmp_path, URL).once(later())).pruned > 0
    await require_only_pruned_what_is_archived(sqlite_db, bucket, tmp_path)


async def test_a_store_that_never_answers_is_given_up(bucket: Bucket, proxy: FaultyS3) -> None:
    archive = Archive(URL, timeout_s=0.5)
    proxy.faults += [Fault("PUT", FOR_EVER, hangs=True), Fault("GET", FOR_EVER, hangs=True)]

    with pytest.raises(Unavailable, match="takes nothing"):
        await archive.put("one.tar.gz", b"bytes")
    with pytest.raises(Unavailable, match="cannot be read"):
        await archive.get("one.tar.gz")
