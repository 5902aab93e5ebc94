"""Every line of an export is a record of the log it comes from, byte for byte, or the first that is not is named."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server_monitor.audit import cells, chain, lines, search, sources, standalone, verify
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.audit.lines import Compared
from server_monitor.db.engine import Database
from tests.audit.test_verify_database import SIGNER
from tests.support import forger as forging
from tests.support.forger import ACTOR, Forger

COUNT = 40
HOSTILE = ("=1+1", "\u202eevil", 'a,b\r\n"c"', "x" * 2000, "Zoë", "＝cmd", "", " @x", "\x1b[2J")


@pytest.fixture
async def log(sqlite_db: Database, sqlite_url: str, tmp_path: Path) -> list[bytes]:
    """The bodies of a log whose bundle is in `bundle.tar.gz`."""
    for number in range(COUNT):
        text = HOSTILE[number % len(HOSTILE)]
        target = AuditTarget("server", f"s{number}", text)
        kind = "user.create" if number % 4 == 0 else "server.update"
        await forging.append(sqlite_db, Event(kind, ACTOR, target, meta={"text": text, "number": number}))
    await forging.sign(sqlite_db, SIGNER)
    forger = Forger(sqlite_url)
    (tmp_path / "bundle.tar.gz").write_bytes(await forger.bundle())
    return await forger.bodies()


Make = Callable[[Sequence[tuple[int, bytes]]], bytes]
FORMS: Mapping[str, Make] = {"csv": lambda rows: cells.CSV_HEADER + cells.csv_rows(rows), "jsonl": cells.json_lines}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def compare(tmp_path: Path, data: bytes, form: str, **given: str) -> Compared:
    """What the console's verifier finds; the one that travels in bundles finds the same."""
    path = tmp_path / "export"
    path.write_bytes(data)
    found = compared(tmp_path, path, form, **given)
    theirs = standalone.Export(data, is_csv=form == "csv")
    keys = [standalone.parse_key(SIGNER.verifier(1).vkey)]
    standalone.verify(str(tmp_path / "bundle.tar.gz"), keys, [], theirs)
    assert (theirs.wrong is None) == (found.wrong is None)
    if theirs.wrong is not None and found.wrong is not None:
        assert theirs.wrong[0] == found.wrong.line
    return found


def compared(tmp_path: Path, path: Path, form: str, **given: str) -> Compared:
    with lines.opened(path, form, search.parse(given) if given else None) as exported:
        log = sources.bundle(tmp_path / "bundle.tar.gz")
        report = verify.verify(
            exported.passing(log.parts), log.notes, trusted=[SIGNER.verifier(1)], now=datetime.now(UTC)
        )
        assert report.is_intact
        return exported.compared()


def rows(log: Sequence[bytes], *seqs: int) -> list[tuple[int, bytes]]:
    return [(seq, log[seq]) for seq in seqs or range(len(log))]


def test_a_whole_export_is_proven(log: list[bytes], form: str, tmp_path: Path) -> None:
    found = compare(tmp_path, FORMS[form](rows(log)), form)

    assert found == Compared(COUNT, 0, COUNT - 1, 0, None, None)
    assert (found.is_proven, found.is_complete) == (True, False), "the log knows nothing of such an export"
    assert compare(tmp_path, FORMS[form](rows(log)[::-1]), form) == found


def test_a_part_says_how_many_it_leaves_out(log: list[bytes], form: str, tmp_path: Path) -> None:
    found = compare(tmp_path, FORMS[form](rows(log, 3, 5, 9)), form)

    assert (found.is_proven, found.first_seq, found.last_seq, found.gaps) == (True, 3, 9, 4)
    assert found.missing == ((4, 4), (6, 8))


def test_an_export_without_a_record_shows_nothing(log: list[bytes], form: str, tmp_path: Path) -> None:
    for data in (FORMS[form]([]), b""):
        assert not compare(tmp_path, data, form, to="2020-01-01").is_proven


def test_a_line_that_was_removed_is_missed_when_the_filters_are_known(
    log: list[bytes], form: str, tmp_path: Path
) -> None:
    users = [seq for seq in range(COUNT) if seq % 4 == 0]
    whole = FORMS[form](rows(log, *users))
    without_12 = FORMS[form](rows(log, *[seq for seq in users if seq != 12]))
    without_the_end = FORMS[form](rows(log, *users[:-1]))

    assert compare(tmp_path, whole, form, action="user.*").lacking is None
    assert compare(tmp_path, without_12, form, action="user.*").lacking == 12
    assert compare(tmp_path, without_the_end, form, action="user.*").lacking is None
    assert not compare(tmp_path, without_the_end, form, action="user.*").is_complete
    assert compare(tmp_path, whole, form, action="user.*", to="2100-01-01").is_complete
    assert compare(tmp_path, without_the_end, form, action="user.*", to="2100-01-01").lacking == users[-1]


@pytest.mark.parametrize(
    ("seqs", "expected"),
    [
        ((0, 1, 3, 2, 4), (4, 2, "out of order")),
        ((0, 1, 1, 2), (3, 1, "again")),
        ((5, 4, 4), (3, 4, "again")),
        ((5, 4, 6), (3, 6, "out of order")),
        ((0, 1, COUNT), (3, COUNT, "ends before")),
    ],
)
def test_what_stands_where_it_does_not_belong_is_named(
    log: list[bytes], form: str, tmp_path: Path, seqs: tuple[int, ...], expected: tuple[int, int, str]
) -> None:
    later = [*log, forging.renumbered(log[0], COUNT)]

    wrong = compare(tmp_path, FORMS[form](rows(later, *seqs)), form).wrong

    line, seq, said = expected
    assert wrong is not None
    assert (wrong.line, wrong.seq) == (line + (form == "csv"), seq)
    assert said in wrong.message


@pytest.mark.parametrize("order", [1, -1])
def test_the_first_line_that_was_changed_is_named(log: list[bytes], form: str, tmp_path: Path, order: int) -> None:
    """In the order of the file, whatever the order of the log."""
    changed = [body.replace(b"ada", b"eve") if seq in {7, 20} else body for seq, body in enumerate(log)]

    wrong = compare(tmp_path, FORMS[form](rows(changed)[::order]), form).wrong

    assert wrong is not None
    first = 7 if order == 1 else COUNT - 1 - 20
    assert (wrong.line, wrong.seq) == (first + 1 + (form == "csv"), 7 if order == 1 else 20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(data=st.data())
def test_no_byte_can_be_changed(log: list[bytes], form: str, tmp_path: Path, data: st.DataObject) -> None:
    honest = FORMS[form](rows(log))
    at = data.draw(st.integers(0, len(honest) - 1))
    bit = data.draw(st.integers(0, 7))
    forged = bytearray(honest)
    forged[at] ^= 1 << bit

    assert not compare(tmp_path, bytes(forged), form).is_proven


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(noise=st.binary(max_size=200))
def test_noise_is_no_export(log: list[bytes], form: str, tmp_path: Path, noise: bytes) -> None:
    found = compare(tmp_path, noise, form)

    assert found.lines == 0
    assert not found.is_proven


def test_an_export_that_a_spreadsheet_saved_is_another_file(log: list[bytes], tmp_path: Path) -> None:
    saved = FORMS["csv"](rows(log)).replace(b"\r\n", b"\n")

    wrong = compare(tmp_path, saved, "csv").wrong

    assert wrong is not None
    assert (wrong.line, "as it was downloaded" in wrong.message) == (1, True)


_TEXT = st.one_of(
    st.sampled_from(["", "web 1", "a,b", ",", "=1", "Mozilla/5.0 (X11; Linux)", " @x", "\u202e", "\x7f", "x" * 1100]),
    st.text(max_size=20),
)


@settings(deadline=None, max_examples=300)
@given(
    texts=st.lists(_TEXT, min_size=9, max_size=9),
    outcome=st.sampled_from([None, "success"]),
    has=st.sets(st.sampled_from(["target", "source", "request", "meta"])),
)
def test_both_verifiers_write_the_same_line(texts: list[str], outcome: str | None, has: set[str]) -> None:
    """What a line of CSV has to be they find out apart from each other."""
    name, action, kind, target, ip, agent, request, key, said = texts
    parts = {
        "target": {"type": kind, "id": target},
        "source": {"ip": ip, "ua": agent},
        "request": {"id": request},
        "meta": {"text": said, "n": 1, "key": key},
    }
    record = {"v": 1, "seq": 7, "id": "i", "ts": "2026-11-23T10:00:00.000000Z", "action": action, "phase": "single"}
    record |= {"actor": {"type": "user", "name": name}, "outcome": outcome, **{one: parts[one] for one in has}}
    body = chain.canonical(record)
    value = standalone.read_record(body)
    assert value is not None

    assert standalone.csv_row(7, value, body) == cells.csv_rows([(7, body)])
