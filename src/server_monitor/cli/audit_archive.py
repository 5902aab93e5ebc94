"""`server-monitor audit archive` and `audit hold`: what leaves the database, and what must not."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from server_monitor.cli.output import FAILED, WRONG_USAGE, emit, name_and_value, run, say, table, workplace

if TYPE_CHECKING:
    from server_monitor.audit.holds import Hold
    from server_monitor.audit.housekeeping import Summary

hold = typer.Typer(no_args_is_help=True, help="What must not be deleted from the log, whatever its age.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def archive(
    now: Annotated[
        bool, typer.Option("--now", help="Archive every record up to this moment, not only what is due.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Archive the log, verify what was archived, then delete from the database what is old enough."""

    async def work() -> "Summary":
        from server_monitor.audit import checkpoints
        from server_monitor.audit.archive import Archive
        from server_monitor.audit.housekeeping import Housekeeping, record_request, rules_of
        from server_monitor.auth.actor import audited

        async with workplace() as place:
            signer = await checkpoints.open_signer(place.db, place.settings.data_dir)
            rules = rules_of(place.settings)
            keeping = Housekeeping(
                place.db, signer, Archive(place.settings.audit_archive), rules, place.settings.data_dir
            )
            await record_request(place.db, audited(place.actor))
            return await keeping.once(datetime.now(UTC), everything=now)

    done = run(work)
    obstacle = done.verdict.obstacle
    if as_json:
        emit(
            {
                "archived_segments": done.archived,
                "pruned_records": done.pruned,
                "obstacle": obstacle,
                "failure": done.failure,
            }
        )
        raise typer.Exit(FAILED if done.failure else 0)
    why = "" if obstacle is None else f" What stays, stays because: {obstacle.replace('_', ' ')}"
    why += f" by {done.verdict.hold!r}." if done.verdict.hold else "." if why else ""
    say(f"{done.archived} segments archived and verified, {done.pruned} records deleted from the database.{why}")
    if done.failure:
        say(done.failure)
        raise typer.Exit(FAILED)


@hold.command("add")
def add(
    name: str,
    reason: Annotated[str, typer.Option(help="Why these records are kept.")],
    given: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="NAME=VALUE", help="As in the list: from, to, action, user_id …; repeat."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Keep what the filters choose; without a filter, everything."""
    filters = dict(name_and_value(text) for text in given or ())

    async def work() -> "Hold":
        from server_monitor.audit import holds
        from server_monitor.auth.actor import audited

        async with workplace() as place, place.db.transaction() as conn:
            return await holds.add(conn, name, reason, filters, actor=audited(place.actor))

    made = run(work, when_invalid=WRONG_USAGE)
    if as_json:
        emit(_shown(made))
        return
    say(f"Held: {made.name}.")


@hold.command("list")
def list_(as_json: AsJson = False) -> None:
    """What is held."""

    async def work() -> "list[Hold]":
        from server_monitor.audit import holds

        async with workplace() as place, place.db.reading() as conn:
            return list(await holds.active(conn))

    found = run(work)
    if as_json:
        emit({"items": [_shown(one) for one in found]})
        return
    rows = [
        (h.name, " ".join(f"{name}={value}" for name, value in h.filters.items()) or "everything", h.reason)
        for h in found
    ]
    table(("name", "holds", "reason"), rows, empty="Nothing is held.")


@hold.command("remove")
def remove(name: str, as_json: AsJson = False) -> None:
    """Let go of a hold, by its name or id."""

    async def work() -> "Hold":
        from server_monitor.audit import holds
        from server_monitor.auth.actor import audited

        async with workplace() as place, place.db.transaction() as conn:
            return await holds.release(conn, name, actor=audited(place.actor))

    gone = run(work)
    if as_json:
        emit(_shown(gone))
        return
    say(f"No longer held: {gone.name}.")


def _shown(one: "Hold") -> dict[str, object]:
    return {
        "id": one.id,
        "name": one.name,
        "reason": one.reason,
        "filters": dict(one.filters),
        "damaged": one.is_damaged,
    }
