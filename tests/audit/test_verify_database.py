"""Nothing that an owner of the database does to its records goes unseen, and nothing makes the verifier fall over.

Each forgery is done to a whole log and to one that was pruned, on both databases, and judged three times: in the
database, and in the bundle that a console that believes its database would give out, there by the console's verifier
and by the one that travels in bundles.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from server_monitor.audit import checkpoints, note, sources, standalone, tree
from server_monitor.audit.chain import Event
from server_monitor.audit.checkpoints import Signer
from server_monitor.audit.note import Checkpoint, Verifier
from server_monitor.audit.verify import Aspect, Report, StoredNote, Verdict, verify
from server_monitor.db.engine import Database
from server_monitor.errors import Unavailable
from tests.support import forger as forging
from tests.support.forger import ACTOR, Forger
from tests.support.postgres import Postgres

SIGNED = (100, 250, 300)
SIZE = SIGNED[-1]
PRUNED = 130
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER = Signer("test-node", KEY)
STRANGER = Signer("test-node", Ed25519PrivateKey.from_private_bytes(b"\7" * 32))
INTEGRITY, COMPLETENESS, AUTHENTICITY = Aspect


async def write(db: Database, middle: Event) -> None:
    """A log of SIZE records, of which `middle` is one, with checkpoints at SIGNED."""
    await forging.fill(db, SIGNER, [100])
    await forging.append(db, *map(forging.event, range(50)), middle, *map(forging.event, range(99)))
    await forging.sign(db, SIGNER)
    await forging.fill(db, SIGNER, [50])


@pytest.fixture
async def forger(db: Database, database_url: str) -> Forger:
    """A whole log in the hands of an attacker."""
    return await whole_log(db, database_url)


@pytest.fixture
async def pruned(db: Database, database_url: str) -> Forger:
    return await pruned_log(db, database_url)


async def whole_log(db: Database, url: str) -> Forger:
    await write(db, forging.event(150))
    return Forger(url)


async def pruned_log(db: Database, url: str) -> Forger:
    """The same log; its first PRUNED records have been pruned, and it says so."""
    await write(db, Event("audit.cleanup", ACTOR, meta={"end_seq": PRUNED}))
    forger = Forger(url)
    await forger.prune(PRUNED)
    return forger


async def judge(url: str, outside: list[str] | None = None, keys: list[Verifier] | None = None) -> Report:
    """Beside the event loop, as PostgreSQL is read by one of its own."""
    return await asyncio.to_thread(judged, url, outside or [], keys)


def judged(url: str, outside: list[str], keys: list[Verifier] | None = None) -> Report:
    with sources.database(url) as log:
        return _verified(log, outside, [SIGNER.verifier(1)] if keys is None else keys)


def _verified(log: sources.Log, outside: list[str], keys: list[Verifier]) -> Report:
    kept = [StoredNote(text, place="kept", is_outside=True) for text in outside]
    return verify(log.parts, log.notes, outside=kept, trusted=keys, kept=log.kept, now=datetime.now(UTC))


def verdicts_of_bundle(path: Path, outside: list[str]) -> list[dict[str, str]]:
    return verdicts_of(path, SIGNER.verifier(1), outside)


def verdicts_of(path: Path, trusted: Verifier, outside: Sequence[str] = ()) -> list[dict[str, str]]:
    """What both verifiers say about a bundle."""
    ours = _verified(sources.bundle(path), list(outside), [trusted])
    theirs = standalone.verify(str(path), [standalone.parse_key(trusted.vkey)], list(outside))
    words = {"intact": "intact", "BROKEN": "broken", "not proven": "unproven"}
    return [
        {aspect.value: verdict.value for aspect, verdict in ours.verdicts.items()},
        {aspect.value: words[theirs.verdict(aspect.value)] for aspect in Aspect},
    ]


async def test_an_untouched_log_is_intact(forger: Forger, tmp_path: Path) -> None:
    report = await judge(forger.url)

    assert report.is_intact, report
    assert (report.first_seq, report.size, report.proven_size, report.findings) == (0, SIZE, SIZE, ())
    path = tmp_path / "bundle.tar.gz"
    path.write_bytes(await forger.bundle())
    intact = {"integrity": "intact", "completeness": "intact", "authenticity": "intact"}
    assert verdicts_of_bundle(path, []) == [intact, intact]


# --- the matrix ---

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Forgery:
    """What is done, which verdict breaks by it, and where the first bad record must be said to be.

    A place may depend on the first record that has not been pruned; where it says otherwise, it begins there at least.
    """

    do: Callable[[Forger], Awaitable[object]]
    breaks: Aspect
    place: Place | Callable[[int], Place] | None = None
    is_in_bundle: bool = True

    def expected(self, first: int) -> Place | None:
        if self.place is None or callable(self.place):
            return self.place and self.place(first)
        return max(self.place[0], first), self.place[1]


def column(name: str, value: object) -> Forgery:
    return Forgery(
        lambda f: f.run(f"UPDATE audit_records SET {name} = ? WHERE seq = 200", value), INTEGRITY, (200, 200), False
    )


async def change_body(f: Forger) -> None:
    body = (await f.records())[200].replace(b'"web ', b'"wob ')
    await f.run("UPDATE audit_records SET body = ? WHERE seq = 200", body)


async def spell_otherwise(f: Forger) -> None:
    body = (await f.records())[200].replace(b'"seq":200', b'"seq": 200')
    await f.run("UPDATE audit_records SET body = ? WHERE seq = 200", body)


async def change_time(f: Forger) -> None:
    moved = "'2020-01-01T00:00:00.000000Z'" if f.is_sqlite else "'2020-01-01T00:00:00Z'"
    await f.run(f"UPDATE audit_records SET ts = {moved} WHERE seq = 200")


async def delete_first(f: Forger) -> None:
    await f.run("DELETE FROM audit_records WHERE seq = ?", await f.first())


async def delete_and_renumber(f: Forger) -> None:
    await f.run("DELETE FROM audit_records WHERE seq = 200")
    records = await f.records()
    moved = [(seq, renumber(records[seq + 1], seq), seq + 1) for seq in range(200, SIZE - 1)]
    await f.run_many("UPDATE audit_records SET seq = ?, body = ? WHERE seq = ?", moved)
    await f.fix_head()


async def insert_and_renumber(f: Forger) -> None:
    records = await f.records()
    moved = [(seq + 1, renumber(records[seq], seq + 1), seq) for seq in range(SIZE - 1, 199, -1)]
    await f.run_many("UPDATE audit_records SET seq = ?, body = ? WHERE seq = ?", moved)
    await insert_copy(f, 200, records[199])
    await f.fix_head()


async def append_beyond_the_head(f: Forger) -> None:
    await insert_copy(f, SIZE, (await f.records())[199])


async def insert_copy(f: Forger, seq: int, body: bytes) -> None:
    """Of record 199, whose body this is."""
    columns = "ts, action, actor_id, actor_name, target_type, target_id, outcome"
    await f.run(
        f"INSERT INTO audit_records (seq, body, id, {columns}) "
        f"SELECT {seq}, ?, 'x', {columns} FROM audit_records WHERE seq = 199",
        renumber(body, seq),
    )


async def swap(f: Forger) -> None:
    records = await f.records()
    for seq, other in ((200, 201), (201, 200)):
        await f.run("UPDATE audit_records SET body = ? WHERE seq = ?", records[other], seq)


async def swap_with_numbers(f: Forger) -> None:
    records = await f.records()
    for seq, other in ((200, 201), (201, 200)):
        await f.run("UPDATE audit_records SET body = ? WHERE seq = ?", renumber(records[other], seq), seq)
    await f.fix_head()


async def reverse(f: Forger) -> None:
    records = await f.records()
    reversed_ = [(renumber(body, seq), seq) for seq, body in zip(records, reversed(records.values()), strict=True)]
    await f.run_many("UPDATE audit_records SET body = ? WHERE seq = ?", reversed_)
    await f.fix_head()


async def cut_tail_leaving_the_head(f: Forger) -> None:
    await f.run("DELETE FROM audit_records WHERE seq >= 260")


async def cut_tail(f: Forger) -> None:
    await cut_tail_leaving_the_head(f)
    await f.fix_head()


async def delete_everything(f: Forger) -> None:
    await f.run("DELETE FROM audit_records")
    await f.fix_head()


async def pretend_to_have_pruned(f: Forger) -> None:
    await f.prune(140)


async def forge_checkpoint(f: Forger) -> None:
    """Signed by a stranger under the name of the log."""
    root = tree.root((await f.frontier(200))[1])
    text = note.sign(Checkpoint(SIGNER.origin(1), 200, root), {SIGNER.origin(1): STRANGER.key})
    await f.add_checkpoint(200, root, text)


async def forge_signature(f: Forger) -> None:
    """The right key's name and id over a signature of nobody's."""
    root = b"\1" * 32
    text = note.sign(Checkpoint(SIGNER.origin(1), 200, root), {SIGNER.origin(1): KEY})
    honest = (await f.run("SELECT note FROM audit_checkpoints WHERE size = 250"))[0][0]
    await f.add_checkpoint(200, root, text.rpartition("\n\n")[0] + "\n\n" + honest.rpartition("\n\n")[2])


async def borrow_another_logs_checkpoint(f: Forger) -> None:
    other = Signer("other-node", KEY)
    text = note.sign(Checkpoint(other.origin(1), 200, b"\1" * 32), {other.origin(1): KEY})
    await f.add_checkpoint(200, b"\1" * 32, text)


async def sign_a_fork(f: Forger) -> None:
    """With the stolen key, for a size that has been signed already."""
    text = note.sign(Checkpoint(SIGNER.origin(1), 250, b"\1" * 32), {SIGNER.origin(1): KEY})
    await f.add_checkpoint(250, b"\1" * 32, text)


async def sign_more_than_there_is(f: Forger) -> None:
    text = note.sign(Checkpoint(SIGNER.origin(1), 301, b"\1" * 32), {SIGNER.origin(1): KEY})
    await f.add_checkpoint(301, b"\1" * 32, text)


async def rewrite_with_another_key(f: Forger) -> None:
    await f.rewrite(rename, STRANGER)


def rename(body: bytes) -> bytes:
    return body.replace(b'"name":"ada"', b'"name":"eve"')


def renumber(body: bytes, seq: int) -> bytes:
    return forging.renumbered(body, seq)


async def delete_all_checkpoints(f: Forger) -> None:
    await f.run("DELETE FROM audit_checkpoints")


def on_head(assignment: str, *values: object, breaks: Aspect = INTEGRITY) -> Forgery:
    return Forgery(lambda f: f.run(f"UPDATE audit_head SET {assignment}", *values), breaks, is_in_bundle=False)


def on_checkpoint(assignment: str, *values: object, breaks: Aspect = INTEGRITY) -> Forgery:
    return Forgery(
        lambda f: f.run(f"UPDATE audit_checkpoints SET {assignment} WHERE size = 250", *values), breaks, None, False
    )


FORGERIES = {
    **{f"column {name}": column(name, "x") for name in ("id", "action", "actor_id", "actor_name", "target_type")},
    **{f"column {name}": column(name, "x") for name in ("target_id", "outcome", "ip", "request_id")},
    "column ts": Forgery(change_time, INTEGRITY, (200, 200), False),
    "column seq": Forgery(
        lambda f: f.run("UPDATE audit_records SET seq = 1000 WHERE seq = 200"), COMPLETENESS, (200, 200), False
    ),
    "column body emptied": Forgery(
        lambda f: f.run("UPDATE audit_records SET body = ? WHERE seq = 200", b""), INTEGRITY, (200, 200)
    ),
    "column body not JSON": Forgery(
        lambda f: f.run("UPDATE audit_records SET body = ? WHERE seq = 200", b"\xff{"), INTEGRITY, (200, 200)
    ),
    "record changed": Forgery(change_body, INTEGRITY, (100, 249)),
    "record spelled otherwise": Forgery(spell_otherwise, INTEGRITY, (200, 200)),
    "record deleted": Forgery(lambda f: f.run("DELETE FROM audit_records WHERE seq = 200"), COMPLETENESS, (200, 200)),
    "first record deleted": Forgery(delete_first, COMPLETENESS, lambda first: (first, first)),
    "record deleted and the others renumbered": Forgery(delete_and_renumber, INTEGRITY),
    "record inserted and the others renumbered": Forgery(insert_and_renumber, INTEGRITY),
    "record appended beyond the head": Forgery(append_beyond_the_head, INTEGRITY, (SIZE, SIZE)),
    "records swapped": Forgery(swap, INTEGRITY, (200, 200), False),
    "records swapped with their numbers": Forgery(swap_with_numbers, INTEGRITY),
    "records in reverse": Forgery(reverse, INTEGRITY),
    "tail cut, head left": Forgery(cut_tail_leaving_the_head, COMPLETENESS, (260, SIZE - 1)),
    "tail cut, head fixed": Forgery(cut_tail, COMPLETENESS, (260, SIZE - 1)),
    "everything deleted": Forgery(delete_everything, COMPLETENESS, lambda first: (0, PRUNED - 1 if first else 99)),
    "first records deleted as if pruned": Forgery(pretend_to_have_pruned, COMPLETENESS, lambda first: (first, 139)),
    "checkpoint of a stranger": Forgery(forge_checkpoint, AUTHENTICITY),
    "checkpoint with a forged signature": Forgery(forge_signature, AUTHENTICITY),
    "checkpoint of another log": Forgery(borrow_another_logs_checkpoint, AUTHENTICITY),
    "checkpoint of a fork, with the stolen key": Forgery(sign_a_fork, INTEGRITY),
    "checkpoint of more than there is": Forgery(sign_more_than_there_is, COMPLETENESS, (SIZE, SIZE)),
    "everything rewritten with another key": Forgery(rewrite_with_another_key, AUTHENTICITY),
    "head size": on_head("size = size - 1"),
    "head size grown": on_head("size = size + 1", breaks=COMPLETENESS),
    "head frontier": on_head("frontier = ?", b"\1" * 128),
    "head frontier cut": on_head("frontier = ?", b"\1" * 31),
    "head start": on_head("min_index = 7"),
    "head start beyond the end": on_head(f"min_index = {SIZE + 1}"),
    "head size negative": on_head("size = -1"),
    "head prefix": on_head("prefix = ?", b"\1" * 32),
    "checkpoint column size": on_checkpoint("size = 251"),
    "checkpoint column root": on_checkpoint("root = ?", b"\1" * 32),
    "checkpoint note emptied": on_checkpoint("note = ''", breaks=AUTHENTICITY),
    "checkpoint note noise": on_checkpoint("note = ?", "—\n\n— x y\n", breaks=AUTHENTICITY),
}


@pytest.fixture(params=[whole_log, pruned_log])
async def any_log(request: pytest.FixtureRequest, db: Database, database_url: str) -> Forger:
    log: Forger = await request.param(db, database_url)
    return log


@pytest.mark.parametrize("name", FORGERIES)
async def test_a_forgery_is_seen_and_located(any_log: Forger, tmp_path: Path, name: str) -> None:
    forgery, forger = FORGERIES[name], any_log
    place = forgery.expected(await forger.first())
    await forgery.do(forger)

    report = await judge(forger.url)

    assert report.verdicts[forgery.breaks] is Verdict.BROKEN, report
    if place is not None:
        assert report.first_bad == place, report
    if forgery.is_in_bundle:
        path = tmp_path / "bundle.tar.gz"
        path.write_bytes(await forger.bundle())
        for verdicts in verdicts_of_bundle(path, []):
            assert "broken" in verdicts.values()


async def test_a_log_without_its_checkpoints_is_not_proven(forger: Forger) -> None:
    await delete_all_checkpoints(forger)

    report = await judge(forger.url)

    assert report.verdicts[AUTHENTICITY] is Verdict.UNPROVEN
    assert not report.is_intact


async def test_a_key_that_nobody_pinned_proves_nothing(forger: Forger) -> None:
    await rewrite_with_another_key(forger)

    assert (await judge(forger.url, keys=[])).verdicts[AUTHENTICITY] is Verdict.UNPROVEN
    assert (await judge(forger.url, keys=[STRANGER.verifier(1)])).is_intact


# --- what only a checkpoint from outside shows ---


async def kept_note(forger: Forger, size: int) -> str:
    return str((await forger.run("SELECT note FROM audit_checkpoints WHERE size = ?", size))[0][0])


async def roll_back(f: Forger) -> None:
    """All of the log, checkpoints and head as they were at 100 records."""
    await f.run("DELETE FROM audit_records WHERE seq >= 100")
    await f.run("DELETE FROM audit_checkpoints WHERE size > 100")
    await f.fix_head()


async def rewrite_with_the_stolen_key(f: Forger) -> None:
    await f.rewrite(rename, SIGNER)


@pytest.mark.parametrize(("attack", "breaks"), [(roll_back, COMPLETENESS), (rewrite_with_the_stolen_key, INTEGRITY)])
async def test_only_a_kept_checkpoint_shows_what_the_owner_of_the_key_did(
    forger: Forger, tmp_path: Path, attack: Callable[[Forger], Awaitable[None]], breaks: Aspect
) -> None:
    """Without one nobody can tell, and the verifier warns that it cannot."""
    kept = await kept_note(forger, 250)
    await attack(forger)

    without, held = await judge(forger.url), await judge(forger.url, [kept])

    assert without.is_intact
    assert any("could have rewritten" in warning for warning in without.warnings)
    assert held.verdicts[breaks] is Verdict.BROKEN
    path = tmp_path / "bundle.tar.gz"
    path.write_bytes(await forger.bundle())
    for verdicts in verdicts_of_bundle(path, [kept]):
        assert verdicts[breaks.value] == "broken"


async def test_an_older_copy_of_the_file_is_shown_by_a_kept_checkpoint(
    sqlite_db: Database, sqlite_url: str, tmp_path: Path
) -> None:
    await forging.fill(sqlite_db, SIGNER, [100])
    await sqlite_db.close()
    older = tmp_path / "older.sqlite3"
    shutil.copyfile(Forger(sqlite_url).path, older)
    reopened = await Database.open(sqlite_url, node="test-node")
    kept = (await forging.fill(reopened, SIGNER, [50]))[0]
    await reopened.close()

    report = await judge(f"sqlite:///{older}", [kept])

    assert report.verdicts[COMPLETENESS] is Verdict.BROKEN
    assert report.first_bad == (100, 149)


async def test_records_newer_than_the_last_kept_checkpoint_may_be_cut(forger: Forger) -> None:
    """Nobody can detect it: how often checkpoints leave the house is the honest bound."""
    kept = await kept_note(forger, 250)
    await forger.run("DELETE FROM audit_records WHERE seq >= 250")
    await forger.run("DELETE FROM audit_checkpoints WHERE size > 250")
    await forger.fix_head()

    assert (await judge(forger.url, [kept])).is_intact


# --- after pruning ---


async def test_a_pruned_log_is_intact(pruned: Forger, tmp_path: Path) -> None:
    report = await judge(pruned.url)

    assert report.is_intact, report
    assert (report.first_seq, report.size) == (PRUNED, SIZE)
    path = tmp_path / "bundle.tar.gz"
    path.write_bytes(await pruned.bundle())
    assert all(set(verdicts.values()) == {"intact"} for verdicts in verdicts_of_bundle(path, []))


PRUNED_FORGERIES: dict[str, tuple[Callable[[Forger], Awaitable[object]], Aspect]] = {
    "prefix": (lambda f: f.run("UPDATE audit_head SET prefix = ?", b"\1" * 64), INTEGRITY),
    "prefix of another length": (lambda f: f.run("UPDATE audit_head SET prefix = ?", b"\1" * 32), INTEGRITY),
    "prefix emptied": (lambda f: f.run("UPDATE audit_head SET prefix = NULL"), INTEGRITY),
    "start": (lambda f: f.run("UPDATE audit_head SET min_index = 129"), COMPLETENESS),
    "more pruned than said": (lambda f: f.run("DELETE FROM audit_records WHERE seq < 140"), COMPLETENESS),
    "record changed": (
        lambda f: f.run("UPDATE audit_records SET actor_name = 'x' WHERE seq = 200"),
        INTEGRITY,
    ),
}


@pytest.mark.parametrize("name", PRUNED_FORGERIES)
async def test_a_forgery_of_a_pruned_log_is_seen(pruned: Forger, name: str) -> None:
    do, breaks = PRUNED_FORGERIES[name]
    await do(pruned)

    assert (await judge(pruned.url)).verdicts[breaks] is Verdict.BROKEN


async def test_a_kept_checkpoint_of_pruned_records_is_said_to_be_unchecked(pruned: Forger) -> None:
    report = await judge(pruned.url, [await kept_note(pruned, 100)])

    assert report.is_intact
    assert any("older than what is left" in warning for warning in report.warnings)


# --- reading ---


async def test_a_log_is_judged_while_others_write(db: Database, database_url: str) -> None:
    await forging.fill(db, SIGNER, [200])
    is_done = asyncio.Event()

    async def write() -> None:
        while not is_done.is_set():
            await forging.fill(db, SIGNER, [7])

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        reports = [await judge(database_url) for _ in range(5)]
        is_done.set()

    assert all(report.is_intact for report in reports)


async def test_a_connection_that_breaks_says_nothing_about_the_log(postgres: Postgres, postgres_url: str) -> None:
    database = await Database.open(postgres_url, node="test-node")
    await forging.fill(database, SIGNER, [1200])
    await database.close()
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"

    def break_all(_: int) -> None:
        asyncio.run(Forger(postgres_url).run(f"{others} AND pid <> pg_backend_pid()"))

    def judged_meanwhile() -> Report:
        with sources.database(postgres_url) as log:
            trusted = [SIGNER.verifier(1)]
            return verify(log.parts, log.notes, trusted=trusted, now=datetime.now(UTC), progress=break_all)

    report = await asyncio.to_thread(judged_meanwhile)

    assert report.unreached is not None
    assert (report.findings, set(report.verdicts.values())) == ((), {Verdict.UNPROVEN})


async def test_a_copy_on_read_only_media_is_judged(sqlite_db: Database, sqlite_url: str, tmp_path: Path) -> None:
    await forging.fill(sqlite_db, SIGNER, [10])
    await sqlite_db.close()
    folder = tmp_path / "media"
    folder.mkdir()
    shutil.copyfile(Forger(sqlite_url).path, folder / "copy.sqlite3")
    folder.chmod(0o500)

    assert (await judge(f"sqlite:///{folder / 'copy.sqlite3'}")).is_intact


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 4096])
async def test_what_is_no_database_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.sqlite3"
    path.write_bytes(content)

    with pytest.raises(Unavailable):
        await judge(f"sqlite:///{path}")
    with pytest.raises(Unavailable):
        await judge(f"sqlite:///{tmp_path / 'absent'}")


def test_the_local_key_is_found_and_never_made(tmp_path: Path) -> None:
    assert sources.local_keys(tmp_path, 1) == []
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "instance_id").write_text("test-node\n")
    signer = checkpoints.load_signer(tmp_path, "test-node")

    assert sources.local_keys(tmp_path, 2) == [signer.verifier(1), signer.verifier(2)]
