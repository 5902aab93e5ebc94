"""`server-monitor runs`: what was asked for, and what became of it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from server_monitor.cli import interrupts
from server_monitor.cli.inventory import vault
from server_monitor.cli.output import (
    NEEDS_DECISION,
    WRONG_USAGE,
    Workplace,
    counted,
    emit,
    fail,
    is_interactive,
    record,
    run,
    say,
    table,
    workplace,
)
from server_monitor.cli.run import document, explain, follow, secrets_from_environment, see

app = typer.Typer(no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, from `runs list`.")]
OneServer = Annotated[str, typer.Option("--server", metavar="NAME", help="Only on this server; its name or id.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

LINE = 60  # characters of a command in a list


@app.command("list")
def list_runs(
    server: OneServer = "",
    status: Annotated[str, typer.Option(help="Only runs with a task in this state.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The newest so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Runs, newest first."""
    from server_monitor.tasks import listing
    from server_monitor.tasks.listing import Filters
    from server_monitor.tasks.run import Status, summary

    if status and status not in set(Status):
        fail(f"There is no state {status!r}. Write one of {', '.join(Status)}.", WRONG_USAGE)

    async def work() -> list[dict[str, Any]]:
        async with workplace() as place, place.db.reading() as conn:
            filters = Filters(server_id=await _server_id(conn, place, server), status=status or None)
            rows, _ = await listing.run_page(conn, filters, limit, None, actor=place.actor)
            counts = await listing.counts(conn, [row.id for row in rows], actor=place.actor)
        names = ("id", "command", "user_name", "reason", "ruling", "decision", "created_at", "finished_at")
        return [{name: getattr(row, name) for name in names} | {"progress": summary(counts[row.id])} for row in rows]

    found = run(work)
    if as_json:
        emit({"items": found})
        return
    table(
        ("RUN", "ASKED FOR AT", "BY", "STATE", "COMMAND"),
        [
            (
                one["id"],
                f"{one['created_at']:%Y-%m-%d %H:%M:%S}",
                one["user_name"],
                _state(one["progress"]),
                one["command"] if len(one["command"]) <= LINE else one["command"][: LINE - 1] + "…",
            )
            for one in found
        ],
        empty="Nothing has been run yet. Begin with `server-monitor run COMMAND --on SELECTOR`.",
    )


@app.command()
def show(run_id: RunId, as_json: AsJson = False) -> None:
    """One run: what was asked for, who decided, and how each of its tasks stands."""
    from server_monitor.cli.run_screen import outcome
    from server_monitor.tasks import listing

    async def work() -> tuple[dict[str, Any], Sequence[Any]]:
        async with workplace() as place:
            async with place.db.reading() as conn:
                tasks = await listing.tasks_of(conn, run_id, actor=place.actor)
            return await document(place, run_id, tasks), tasks

    shown, tasks = run(work)
    if as_json:
        emit(shown)
        return
    decision = f"{shown['decision']} by {shown['decided_name'] or 'the clock'}" if shown["decision"] else ""
    fields = {
        "command": shown["command"],
        "asked for by": shown["user_name"],
        "at": f"{shown['created_at']:%Y-%m-%d %H:%M:%S} UTC",
        "because": shown["reason"] or "",
        "decision": decision,
        "state": _state(shown["progress"]),
    }
    record({name: value for name, value in fields.items() if value})
    table(("SERVER", "STATE"), [(task.server_name, outcome(task)) for task in tasks])
    if shown["verdict"]["verdict"] != "allow":
        explain(shown["verdict"])


@app.command()
def output(run_id: RunId, server: OneServer = "", as_json: AsJson = False) -> None:
    """What a run printed: of one server all that is kept, of several grouped by what is alike."""
    from server_monitor.cli.run_screen import Screen, show_grouped, show_stored
    from server_monitor.lifecycle.worker import outputs_of
    from server_monitor.tasks import listing, rows

    async def work() -> None:
        async with workplace() as place:
            async with place.db.reading() as conn:
                await rows.get_run(conn, run_id, actor=place.actor)
                tasks = await listing.tasks_of(conn, run_id, actor=place.actor)
            wanted = [task for task in tasks if not server or server in {task.server_name, task.server_id}]
            if not wanted:
                fail(f"This run has no task on {server!r}.")
            if as_json:
                emit(await document(place, run_id, wanted))
            elif len(wanted) > 1:
                await show_grouped(place, run_id)
            else:
                writers = Screen([wanted[0].server_name]).writers(wanted[0].server_name)
                await show_stored(place, outputs_of(place.settings), wanted[0], writers)

    run(work)


@app.command("follow")
def follow_run(run_id: RunId, as_json: AsJson = False) -> None:
    """See a run through to its end, as `run` does."""
    from server_monitor.tasks import rows

    async def work() -> int:
        async with workplace() as place:
            async with place.db.reading() as conn:
                await rows.get_run(conn, run_id, actor=place.actor)
            with interrupts.kept() as kept:
                return await follow(place, run_id, kept, as_json=as_json)

    raise typer.Exit(run(work))


@app.command()
def cancel(run_id: RunId, server: OneServer = "", as_json: AsJson = False) -> None:
    """End a run, or its task on one server: what waits at once, what runs when its host confirms it."""
    from server_monitor.tasks import cancelling, listing

    async def work() -> int:
        now = datetime.now(UTC)
        async with workplace() as place, place.db.transaction() as conn:
            if not server:
                return await cancelling.cancel_run(conn, run_id, actor=place.actor, now=now)
            tasks = await listing.tasks_of(conn, run_id, actor=place.actor)
            wanted = [task.id for task in tasks if server in {task.server_name, task.server_id}]
            if not wanted:
                fail(f"This run has no task on {server!r}.")
            await cancelling.cancel_task(conn, wanted[0], actor=place.actor, now=now)
            return 1

    count = run(work)
    if as_json:
        emit({"run_id": run_id, "tasks": count})
    else:
        say(f"Told to end: {counted(count, 'task')}. What runs is over as soon as its host confirms it.")


@app.command()
def approve(run_id: RunId, yes: Yes = False, as_json: AsJson = False) -> None:
    """Let a run begin that somebody else asked for and that waits for a decision."""
    from server_monitor.tasks import approval

    async def work() -> None:
        async with workplace() as place:
            asked = await _asked(place, run_id)
            _require_yes(asked, "Let it begin?", yes)
            async with place.db.transaction() as conn:
                await approval.approve(conn, run_id, asked.digest, actor=place.actor, now=datetime.now(UTC))

    run(work)
    if as_json:
        emit({"run_id": run_id, "decision": "approve"})
    else:
        say(f"It begins as soon as a console runs. See it through: server-monitor runs follow {run_id}")


@app.command()
def reject(
    run_id: RunId,
    reason: Annotated[str, typer.Option(help="Why, for whoever asked.")] = "",
    as_json: AsJson = False,
) -> None:
    """Refuse a run that waits for a decision."""
    from server_monitor.tasks import approval

    async def work() -> None:
        async with workplace() as place, place.db.transaction() as conn:
            await approval.reject(conn, run_id, reason or None, actor=place.actor, now=datetime.now(UTC))

    run(work)
    if as_json:
        emit({"run_id": run_id, "decision": "reject"})
    else:
        say("It is refused.")


@app.command()
def retry(
    run_id: RunId,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Hand on this variable of your environment; secrets are not kept."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the same command again where it did not succeed, and see it through."""
    from server_monitor.tasks import asking, rulings

    secrets = secrets_from_environment(secret or [])

    async def work() -> int:
        async with workplace() as place:
            rule = rulings.rule_of(rulings.judge_of(place.settings))
            with interrupts.kept() as kept:
                retried = await asking.retry(place.db, rule, vault(place), run_id, secrets, actor=place.actor)
                for one in retried.left_out:
                    say(f"Left out: {one.server_name or 'others'}: {one.sentence}")
                return await see(place, retried.placed, kept, as_json=as_json)

    raise typer.Exit(run(work))


async def _asked(place: Workplace, run_id: str) -> Any:
    from server_monitor.tasks import rows

    async with place.db.reading() as conn:
        return await rows.get_run(conn, run_id, actor=place.actor)


def _require_yes(asked: Any, question: str, yes: bool) -> None:
    """Show what is decided about, and ask when somebody is there; otherwise take --yes for an answer."""
    say(f"{asked.user_name} asks to run, on {counted(asked.tasks, 'server')}:\n  {asked.command}")
    if asked.reason:
        say(f"Because: {asked.reason}")
    explain(asked.verdict)
    if yes:
        return
    if not is_interactive():
        fail("Nobody is here to be asked; decide with --yes.", NEEDS_DECISION)
    if not typer.confirm(question, err=True):
        fail("Nothing was decided.")


async def _server_id(conn: Any, place: Workplace, name: str) -> str | None:
    from server_monitor.fleet import servers

    return (await servers.find(conn, name, actor=place.actor)).id if name else None


def _state(progress: dict[str, Any]) -> str:
    return ", ".join(f"{count:,} {status.replace('_', ' ')}" for status, count in progress["by_status"].items())
