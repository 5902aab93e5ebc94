"""`server-monitor run`: a command on some servers, seen through to its end."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server_monitor.cli import interrupts
from server_monitor.cli.interrupts import Interrupts
from server_monitor.cli.inventory import vault
from server_monitor.cli.output import (
    FAILED,
    NEEDS_DECISION,
    WRONG_USAGE,
    Workplace,
    counted,
    emit,
    fail,
    harmless,
    run,
    say,
    table,
    workplace,
)

if TYPE_CHECKING:
    from server_monitor.fleet.selection import Chosen, Selector
    from server_monitor.tasks.asking import Preview
    from server_monitor.tasks.placing import Placed
    from server_monitor.tasks.run import Order

LEFT = 130
CALLED = {"allow": "allows this", "needs_approval": "wants a second person to decide", "deny": "does not allow this"}
VERDICT_EXITS = {"allow": 0, "needs_approval": NEEDS_DECISION}

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document at the end, and no output before.")]


def run_command(  # noqa: PLR0917  # Typer's options.
    command: Annotated[str, typer.Argument(help="What to run, as one word: quote it.")],
    on: Annotated[
        list[str],
        typer.Option(
            "--on",
            metavar="SELECTOR",
            help="Where: all, names, ids, group:NAME, label:KEY=VALUE; with commas or repeated. A server of one of the "
            "groups has to carry all the labels.",
        ),
    ],
    timeout: Annotated[int | None, typer.Option(help="Seconds it may take; TASKS_DEFAULT_TIMEOUT unless set.")] = None,
    max_parallel: Annotated[int, typer.Option(help="Servers at once.")] = 50,
    max_failures: Annotated[int | None, typer.Option(help="So many failed servers stop the run.")] = None,
    canary: Annotated[int, typer.Option(help="So many servers first; the others when all of them succeed.")] = 0,
    reason: Annotated[str, typer.Option(help="Why, for the audit log and whoever approves it.")] = "",
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Hand on this variable of your environment, masked and kept nowhere."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show where, where not, and the verdict.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a command on servers. Exits 0 when it succeeded on all of them, 1 when not, 2 when a second person decides.

    A running console does the work. Where none runs, this command does it, and no console can start meanwhile.
    """
    from server_monitor.fleet import selection
    from server_monitor.tasks import asking, rulings
    from server_monitor.tasks.run import Order

    words = [word.strip() for part in on for word in part.split(",") if word.strip()]
    secrets = secrets_from_environment(secret or [])

    async def work() -> int:
        async with workplace() as place:
            async with place.db.reading() as conn:
                selector = await selection.named(conn, words, actor=place.actor)
            order = Order(
                command=command,
                timeout_s=place.settings.tasks_default_timeout if timeout is None else timeout,
                max_parallel=max_parallel,
                max_failures=max_failures,
                canary=canary,
                store_output=place.settings.tasks_store_output_default,
                reason=reason or None,
                secrets=secrets,
            )
            if dry_run:
                return await _look(place, order, selector, as_json=as_json)
            rule = rulings.rule_of(rulings.judge_of(place.settings))
            with interrupts.kept() as kept:
                placed = await asking.ask(place.db, rule, vault(place), order, selector, actor=place.actor)
                return await see(place, placed, kept, as_json=as_json)

    raise typer.Exit(run(work, when_invalid=WRONG_USAGE))


async def see(place: Workplace, placed: "Placed", kept: Interrupts, *, as_json: bool) -> int:
    """Tell what became of what was asked for, and see it through when it begins. Returns the exit code."""
    from server_monitor.tasks.run import Status

    if placed.status is not Status.DENIED:
        return await follow(place, placed.run_id, kept, as_json=as_json)
    verdict = await _verdict_of(place, placed.run_id)
    if as_json:
        emit({"run_id": placed.run_id, "status": placed.status, "verdict": verdict, "tasks": []})
    else:
        explain(verdict)
    return FAILED


async def follow(place: Workplace, run_id: str, kept: Interrupts, *, as_json: bool) -> int:
    """See a run through. Returns the exit code."""
    from server_monitor.cli.run_follow import Follower
    from server_monitor.cli.run_screen import Screen, show_grouped, summarise
    from server_monitor.tasks import listing
    from server_monitor.tasks.run import Status

    async with place.db.reading() as conn:
        tasks = await listing.tasks_of(conn, run_id, actor=place.actor)
    with Screen([task.server_name for task in tasks], is_silent=as_json) as screen:
        follower = Follower(place, run_id, screen, kept)
        await follower.see_through()
    waits = any(task.status == Status.AWAITING_APPROVAL for task in follower.tasks)
    if as_json:
        emit(await document(place, run_id, follower.tasks))
    elif waits:
        explain(await _verdict_of(place, run_id))
        say(f"Somebody else decides: server-monitor runs approve {run_id}")
    elif not follower.is_left:
        if not screen.is_live:
            await show_grouped(place, run_id)
        summarise(run_id, follower.tasks)
    if waits:
        return NEEDS_DECISION
    if follower.is_left:
        return LEFT
    return 0 if all(task.status == Status.SUCCESS for task in follower.tasks) else FAILED


def explain(verdict: Any) -> None:
    """Say what the policy said, in words."""
    called = {
        "allow": "allows this",
        "needs_approval": "wants a second person to decide",
        "deny": "does not allow this",
    }
    rule = f" ({verdict['rule']})" if verdict.get("rule") else ""
    say(f"The command policy {called[verdict['verdict']]}{rule}.")
    if verdict.get("reason"):
        say(verdict["reason"])


async def _look(place: Workplace, order: "Order", selector: "Selector", *, as_json: bool) -> int:
    from server_monitor.tasks import asking, rulings

    order = order.checked()
    rule = rulings.rule_of(rulings.judge_of(place.settings))
    seen = await asking.preview(place.db, rule, order.command, selector, order.secrets, actor=place.actor)
    if as_json:
        _emit_preview(order, seen)
    else:
        _show_preview(seen)
    return VERDICT_EXITS.get(seen.ruled.ruling, FAILED) if seen.fit else FAILED


def _show_preview(seen: "Preview") -> None:
    from server_monitor.fleet.selection import OBSTACLES

    rows = [(one.server.name, "would run", one.server.status) for one in seen.fit]
    rows += [(one.server.name, "left out", OBSTACLES[one.obstacle or ""]) for one in seen.unfit]
    table(("SERVER", "", ""), rows, empty="No server matches.")
    say(f"It would run on {counted(len(seen.fit), 'server')}; {len(seen.unfit):,} are left out.")
    explain(seen.ruled.document)


def _emit_preview(order: "Order", seen: "Preview") -> None:
    from server_monitor.fleet.selection import OBSTACLES

    def shown(one: "Chosen") -> dict[str, Any]:
        return {"id": one.server.id, "name": one.server.name, "status": one.server.status}

    left_out = [
        shown(one) | {"obstacle": one.obstacle, "sentence": OBSTACLES[one.obstacle or ""]} for one in seen.unfit
    ]
    emit(
        {
            "command": order.command,
            "servers": [shown(one) for one in seen.fit],
            "excluded": left_out,
            "verdict": seen.ruled.document,
        }
    )


async def _verdict_of(place: Workplace, run_id: str) -> Any:
    from server_monitor.tasks import rows

    async with place.db.reading() as conn:
        return (await rows.get_run(conn, run_id, actor=place.actor)).verdict


async def document(place: Workplace, run_id: str, tasks: Sequence[Any]) -> dict[str, Any]:
    """A run and its tasks with the first bytes of what they printed, for a machine."""
    from server_monitor.tasks import listing, rows
    from server_monitor.tasks.causes import CAUSES
    from server_monitor.tasks.output import STREAMS
    from server_monitor.tasks.run import summary

    async with place.db.reading() as conn:
        made = await rows.get_run(conn, run_id, actor=place.actor)
        counts = await listing.counts(conn, [run_id], actor=place.actor)
        kept = {task.id: await listing.output(conn, task.id) for task in tasks}

    def shown(task: Any) -> dict[str, Any]:
        names = ("id", "server_id", "server_name", "status", "cause", "detail", "exit_code", "mode")
        one = {name: getattr(task, name) for name in names} | {"sentence": CAUSES.get(task.cause)}
        output = kept[task.id]
        for stream in STREAMS:
            one[stream] = getattr(output, stream).decode("utf-8", "replace") if output else None
            one[f"{stream}_bytes"] = getattr(output, f"{stream}_bytes") if output else None
        return one | {"started_at": task.started_at, "finished_at": task.finished_at}

    return {
        "run_id": run_id,
        "command": made.command,
        "user_name": made.user_name,
        "reason": made.reason,
        "verdict": made.verdict,
        "decision": made.decision,
        "decided_name": made.decided_name,
        "created_at": made.created_at,
        "finished_at": made.finished_at,
        "progress": summary(counts[run_id]),
        "tasks": [shown(task) for task in tasks],
    }


def secrets_from_environment(names: Sequence[str]) -> dict[str, str]:
    if missing := [name for name in names if name not in os.environ]:
        fail(f"Your environment has no variable {', '.join(map(harmless, missing))}.", WRONG_USAGE)
    return {name: os.environ[name] for name in names}
