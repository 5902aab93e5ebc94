"""`server-monitor audit verify`: is this log what it was when it was written? And what somebody needs to ask that."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server_monitor.cli.output import FAILED, WRONG_USAGE, emit, fail, name_and_value, record, run, say, workplace
from server_monitor.errors import Failure, Invalid, Unavailable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from server_monitor.audit.checkpoints import Made
    from server_monitor.audit.lines import Compared, Lines
    from server_monitor.audit.note import Verifier
    from server_monitor.audit.sources import Log
    from server_monitor.audit.verify import Aspect, Progress, Report
    from server_monitor.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
UNPROVEN = WRONG_USAGE  # nothing is wrong, and not all is shown that was asked
VERDICTS = {
    "intact": "intact",
    "broken": "BROKEN",
    "unproven": "not proven",
}


@dataclass(frozen=True, slots=True)
class Where:
    """What the person at the shell said of where the log lies."""

    database: str | None
    archives: Sequence[str]
    bundle: Path | None

    @property
    def is_own(self) -> bool:
        return self.database is None and not self.archives and self.bundle is None


@dataclass(frozen=True, slots=True)
class Judged:
    """A log that was verified: with which keys, and what came out. `is_live`: it is this installation's own.

    `warnings` are about the keys, and more than the report has.
    """

    report: "Report"
    warnings: Sequence[str]
    keys: "Sequence[Verifier]"
    are_pinned: bool
    is_live: bool
    compared: "Compared | None" = None  # with an export
    are_filters_known: bool = False  # those of the export

    @property
    def is_export_proven(self) -> bool:
        """Is every line of it a record that is under a trusted checkpoint of an intact log?"""
        compared = self.compared
        is_covered = compared is not None and self._is_covered(compared.last_seq or 0)
        return compared is not None and compared.is_proven and self.report.is_intact and is_covered

    @property
    def is_export_complete(self) -> bool:
        """Is it also shown that no line is missing?"""
        compared = self.compared
        if compared is None or not self.is_export_proven or not compared.is_complete:
            return False
        return compared.exported is None or self._is_covered(compared.exported.seq)

    def _is_covered(self, seq: int) -> bool:
        return seq < (self.report.proven_size or 0)


def verify(  # noqa: PLR0917  # Each is an option of the command line, given by its name.
    database: Annotated[
        str | None, typer.Option(metavar="URL", help="The database to check; the console's own unless set.")
    ] = None,
    archive: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="An archive to check: alone, or as the beginning of --database; repeat when it was moved.",
        ),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(metavar="PATH", help="A bundle to check, instead of a database.", show_default=False)
    ] = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A checkpoint that you kept; repeat for several.")
    ] = None,
    public_key: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="The public key that you trust; repeat for several.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An export: every line has to be a record of this log.")
    ] = None,
    jsonl: Annotated[Path | None, typer.Option(metavar="FILE", help="The same for an export as JSON lines.")] = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="NAME=VALUE", help="What the export was asked for: then none may be missing."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that nothing in the log was changed, removed or reordered. Exit 0 intact, 1 broken, 3 not shown."""
    try:
        exported = _exported(csv, jsonl, given or ())
        judged = _judged(Where(database, archive or (), bundle), checkpoint or (), public_key or (), exported)
    except Failure as error:
        fail(str(error), WRONG_USAGE)
    if judged.is_live:
        _record(judged)
    if as_json:
        emit(_document(judged))
    else:
        _print(judged)
    raise typer.Exit(_exit_code(judged))


def key(as_json: AsJson = False) -> None:
    """Print the public key to pin: whoever keeps it can check what this installation signed, anywhere."""
    _, verifier = run(_signed)
    if as_json:
        emit({"origin": verifier.name, "vkey": verifier.vkey})
    else:
        typer.echo(verifier.vkey)


def checkpoint(as_json: AsJson = False) -> None:
    """Print the newest signed checkpoint. Keep it elsewhere: it shows later whether the log was rewritten."""
    newest, _ = run(_signed)
    if as_json:
        emit({"size": newest.size, "note": newest.note, "made_at": newest.made_at})
    else:
        sys.stdout.write(newest.note)


def repair(as_json: AsJson = False) -> None:
    """Make anew what the database keeps beside its records, from records that are verified to be intact.

    Only for what `audit verify` says that it is for. Records, checkpoints and signatures are never changed.
    """
    from server_monitor.audit import repairing
    from server_monitor.auth.actor import audited

    where = run(_own_places)
    try:
        judged = _judged(where, (), (), nullcontext())
    except Failure as error:
        fail(str(error), WRONG_USAGE)
    wanted = judged.report.repair
    if wanted is None and not judged.report.is_intact:
        _print(judged)
        fail("The records themselves are not shown to be intact, so nothing may be made from them. Restore a backup.")

    async def work() -> None:
        async with workplace() as place:
            if wanted is not None:
                await repairing.apply(place.db, wanted, actor=audited(place.actor))

    run(work)
    made = 0 if wanted is None else len(wanted.put)
    removed = 0 if wanted is None else len(wanted.remove)
    is_prefix = wanted is not None and wanted.prefix is not None
    if as_json:
        emit({"nodes_made": made, "nodes_removed": removed, "prefix_made": is_prefix})
    elif wanted is None:
        say("There is nothing to repair.")
    else:
        prefix = ", and what is kept of the pruned records" if is_prefix else ""
        say(f"{made} inner nodes were made anew and {removed} removed{prefix}. Run `audit verify` again.")


async def _own_places() -> Where:
    """The console's own database, with every archive that holds what was pruned from it."""
    from sqlalchemy import select

    from server_monitor.audit import verifying
    from server_monitor.db.tables import audit_head

    async with workplace() as place, place.db.reading() as conn:
        min_index = (await conn.execute(select(audit_head.c.min_index))).scalar_one()
        archives = await verifying.places(conn) if min_index else []
        return Where(place.settings.database, archives, None)


async def _signed() -> "tuple[Made, Verifier]":
    from server_monitor.audit import checkpoints, note, sources

    async with workplace() as place, place.db.reading() as conn:
        newest = await checkpoints.newest(conn)
    if newest is None:
        raise Unavailable("Nothing has been signed yet; the console does it within a second of its first start.")
    origin = note.read(newest.note)[0].origin
    for verifier in sources.local_keys(place.settings.data_dir, sources.EPOCHS):
        if verifier.name == origin:
            return newest, verifier
    raise Unavailable(f"The signing key in {place.settings.data_dir} is not there, or not that of this log.")


def _exported(csv: Path | None, jsonl: Path | None, given: Sequence[str]) -> "AbstractContextManager[Lines | None]":
    """The export that is to be held against the log. Raises Invalid and Unavailable."""
    from server_monitor.audit import export, lines, search

    if csv is not None and jsonl is not None:
        raise Invalid.one("csv", "is one export, and --jsonl another: check them one after the other")
    filters = search.parse(dict(name_and_value(text) for text in given)) if given else None
    if csv is not None:
        return lines.opened(csv, export.CSV, filters)
    if jsonl is not None:
        return lines.opened(jsonl, export.JSONL, filters)
    if filters is not None:
        raise Invalid.one("filter", "is about an export: name it with --csv or --jsonl")
    return nullcontext()


def _judged(
    where: Where, kept: Sequence[Path], pinned: Sequence[Path], exported: "AbstractContextManager[Lines | None]"
) -> Judged:
    from server_monitor.audit import sources
    from server_monitor.audit.verify import verify as judge

    if where.bundle is not None and (where.database or where.archives):
        raise Invalid.one("bundle", "is checked by itself; leave out --database and --archive")
    settings = _own_settings(is_needed=where.is_own)
    url = where.database or (settings.database if settings and where.is_own else "")
    outside = [note for path in kept for note in sources.kept_checkpoints(path)]
    keys = [verifier for path in pinned for verifier in sources.pinned_keys(path)]
    with exported as lines, _opened(url, where) as log, _progress(log.records) as progress:
        if not pinned and settings is not None:
            keys = sources.local_keys(settings.data_dir, log.epoch)
        now = datetime.now(UTC)
        outside += log.outside
        parts = log.parts if lines is None else lines.passing(log.parts)
        report = judge(parts, log.notes, outside=outside, trusted=keys, kept=log.kept, now=now, progress=progress)
        warnings = _about_keys(keys, are_pinned=bool(pinned))
        compared = None if lines is None else lines.compared()
        are_filters_known = lines is not None and lines.has_filters
    is_live = bool(url) and settings is not None and url == settings.database
    return Judged(report, warnings, keys, bool(pinned), is_live, compared, are_filters_known)


@contextmanager
def _opened(url: str, where: Where) -> "Iterator[Log]":
    from server_monitor.audit import sources

    if where.bundle is not None:
        yield sources.bundle(where.bundle)
    else:
        with sources.opened(url, where.archives) as log:
            yield log


def _own_settings(*, is_needed: bool) -> "Settings | None":
    """This installation's settings. An auditor's machine has none, and needs none to check what it was given."""
    from server_monitor.settings import Settings

    try:
        return Settings.look()
    except Invalid:
        if is_needed:
            raise
        return None


def _record(judged: Judged) -> None:
    """Say in the log that it was checked. A log that cannot take the record has been judged all the same."""
    from server_monitor.audit import log, verifying
    from server_monitor.audit.chain import Event
    from server_monitor.auth.actor import audited

    document = _document(judged)

    async def work() -> None:
        async with workplace() as place, place.db.transaction() as conn:
            outcome, meta = verifying.outcome_of(document), verifying.summary(document)
            await log.append(conn, Event(verifying.ACTION, audited(place.actor), outcome=outcome, meta=meta))

    try:
        asyncio.run(work())
    except Failure as error:
        say(f"That the log was checked could not be recorded: {error}")


@contextmanager
def _progress(total: int) -> "Iterator[Progress | None]":
    """A bar for a person at a terminal, nothing for anybody else."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Checking", total=total)
        yield lambda done: bar.update(task, completed=done)


def _exit_code(judged: Judged) -> int:
    if judged.report.is_intact and (judged.compared is None or judged.is_export_complete):
        return 0
    if judged.report.unreached is not None and not judged.report.is_broken:
        return WRONG_USAGE
    if judged.keys and judged.report.is_only_open:
        return UNPROVEN
    if judged.is_export_proven or (judged.report.is_intact and judged.compared and judged.compared.is_empty):
        return UNPROVEN
    # Without a key there is nothing to prove anything with: the question was asked wrongly.
    return FAILED if judged.report.is_broken or judged.keys else WRONG_USAGE


def _about_keys(keys: "Sequence[Verifier]", *, are_pinned: bool) -> list[str]:
    if are_pinned:
        return []
    if keys:
        warning = (
            "No --public-key was given: signatures were checked with the key that lies on this machine, so this says "
            "nothing to anybody who does not trust this machine."
        )
    else:
        warning = (
            "No --public-key was given, and a key that comes with a log proves nothing: who signed it is unknown. "
            "Give the key that you got from the console's operator before."
        )
    return [warning]


def _print(judged: Judged) -> None:
    report = judged.report
    last = f"{report.first_seq} to {report.size - 1}" if report.size > report.first_seq else "none"
    signed = "nothing" if not report.proven_size else f"up to record {report.proven_size - 1}"
    record(
        {aspect.value: _words(report, aspect) for aspect in report.verdicts}
        | {"records": last, "checkpoints": str(report.checkpoints), "signed": signed}
    )
    if report.first_bad is not None:
        first, last_bad = report.first_bad
        record({"first bad record": str(first) if first == last_bad else f"between {first} and {last_bad}"})
    if judged.compared is not None:
        _print_export(judged, judged.compared)
    for finding in report.findings:
        say(f"{finding.aspect.value}: {finding.message}")
    if report.hidden_findings:
        say(f"… and {report.hidden_findings} more.")
    for warning in (*judged.warnings, *report.warnings):
        say(f"warning: {warning}")
    if report.unreached is not None:
        say(f"Not read to its end, so nothing is proven: {report.unreached}")


def _print_export(judged: Judged, compared: "Compared") -> None:
    record({"export": _export_words(judged), "lines": str(compared.lines)})
    if compared.first_seq is not None:
        left_out = f"{compared.gaps or 'none'} left out between"
        record({"of records": f"{compared.first_seq} to {compared.last_seq}, {left_out}"})
    if compared.wrong is not None:
        say(f"export: line {compared.wrong.line} {compared.wrong.message}.")
    if compared.lacking is not None:
        say(f"export: record {compared.lacking} is missing, which the filters choose.")
    if compared.is_empty:
        say("export: it holds no record, so there is nothing to prove.")
    elif compared.wrong is None:
        _print_completeness(judged, compared)


def _export_words(judged: Judged) -> str:
    if judged.is_export_complete:
        return "proven, and nothing is missing"
    return "every line is proven, NOT that none is missing" if judged.is_export_proven else "NOT PROVEN"


def _print_completeness(judged: Judged, compared: "Compared") -> None:
    exported = compared.exported
    if exported is not None:
        rows = "" if exported.rows is None else f", {exported.rows} records"
        say(
            f"export: exactly what {exported.by} exported, as record {exported.seq} says ({exported.at}{rows}; "
            f"{exported.words})."
        )
        if judged.is_export_proven and not judged.is_export_complete:
            say("export: that record is under no checkpoint yet; a running console signs it within a minute.")
        return
    if compared.missing and not judged.are_filters_known:
        places = ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in compared.missing)
        more = "" if compared.are_all_shown else " …"
        say(f"export: not in it: {places}{more}. A filter left them out, or somebody removed the lines.")
    if not compared.is_complete:
        say(
            "export: the log knows no export of exactly these bytes, so lines may have been removed, at the end too. "
            "Repeat its filters, the end of its time among them (--filter), to have this log asked what is missing."
        )


def _words(report: "Report", aspect: "Aspect") -> str:
    words = VERDICTS[report.verdicts[aspect].value]
    if aspect.value != "completeness" or report.open_from is None:
        return words
    beyond = f"not proven beyond record {report.open_from - 1}"
    return {"intact": f"intact, {beyond}", "not proven": beyond}.get(words, words)


def _document(judged: Judged) -> dict[str, Any]:
    from server_monitor.audit.judge import document

    return {
        **document(judged.report, judged.warnings),
        "keys": [verifier.vkey for verifier in judged.keys],
        "keys_pinned": judged.are_pinned,
        "export": None if judged.compared is None else _export_document(judged, judged.compared),
    }


def _export_document(judged: Judged, compared: "Compared") -> dict[str, Any]:
    """`proven`: every line; `complete`: and nothing is missing."""
    said = {name: value for name, value in asdict(compared).items() if name != "is_complete"}
    return {"proven": judged.is_export_proven, "complete": judged.is_export_complete, **said}
