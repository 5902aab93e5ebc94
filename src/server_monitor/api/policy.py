"""Routes for the command policy: try a command, read the rules, see what other rules would have said."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import Field

from server_monitor.api.deps import ActorDep, Body, ConsoleDep, json_response
from server_monitor.api.selector import SelectorBody
from server_monitor.auth.actor import Actor, Permission, groups_allowing
from server_monitor.errors import Denied
from server_monitor.fleet import selection
from server_monitor.fleet.servers import Server
from server_monitor.tasks import replay, rulings
from server_monitor.tasks.asking import SHELL
from server_monitor.tasks.judge import Judge
from server_monitor.tasks.policy.rules.rule import Rule
from server_monitor.tasks.policy.rules.table import RULES
from server_monitor.tasks.replay import Changed
from server_monitor.tasks.shell_parser import ShellParser

router = APIRouter(prefix="/api/policy", tags=["policy"])

Mode = Literal["denylist", "allowlist"]
Patterns = Annotated[list[str], Field(max_length=1_000)]


class CheckBody(Body):
    """A command, and where it would run; the mode is the console's own unless another one is to be tried."""

    command: str
    mode: Mode | None = None
    selector: SelectorBody | None = None


class ReplayBody(Body):
    """Rules to try; what is left out is as it is set. Patterns replace those of the settings."""

    mode: Mode | None = None
    deny_patterns: Patterns | None = None
    allow_patterns: Patterns | None = None
    days: int = Field(30, ge=1, le=365)


@router.post("/check")
async def check_command(body: CheckBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """The verdict on a command. Nothing is started, and nothing recorded."""
    _require(actor, Permission.TASK_RUN)
    servers: list[Server] = []
    if body.selector is not None:
        async with parts.db.reading() as conn:
            chosen = await selection.choose(conn, body.selector.selector(), actor=actor)
        servers = [one.server for one in chosen if one.obstacle is None]
    context = rulings.context_of(SHELL, servers, actor)
    if body.mode is None:
        return json_response((await parts.judge.judge(body.command, context)).as_json())
    judge = Judge(replay.changed_rules(parts.judge.rules, body.mode, None, None), ShellParser())
    try:
        return json_response((await judge.judge(body.command, context)).as_json())
    finally:
        judge.close()


@router.get("/rules")
async def list_rules(parts: ConsoleDep, actor: ActorDep) -> Response:
    """The built-in rules with their examples, and the patterns of the settings."""
    _require(actor, Permission.TASK_READ)
    rules = parts.judge.rules
    return json_response(
        {
            "mode": rules.mode,
            "items": [_rule(rule) for rule in RULES],
            "next": None,
            "deny_patterns": rules.deny.texts,
            "allow_patterns": rules.allow.texts,
        }
    )


@router.post("/replay")
async def replay_runs(body: ReplayBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """The runs of the last days that other rules would have judged otherwise; one replay at a time for each person."""
    _require(actor, Permission.TASK_READ)
    rules = replay.changed_rules(parts.judge.rules, body.mode, body.deny_patterns, body.allow_patterns)
    since = datetime.now(UTC) - timedelta(days=body.days)
    with parts.replays.taken_by(actor.id or actor.name):
        count, changed = await replay.replay(parts.db, rules, since, actor=actor)
    return json_response({"runs": count, "items": [_changed(one) for one in changed], "next": None})


def _require(actor: Actor, permission: Permission) -> None:
    """Raises Denied for whoever holds the permission nowhere."""
    allowed = groups_allowing(actor, permission)
    if allowed is not None and not allowed:
        raise Denied(f"This takes the permission {permission.value}.")


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "category": rule.category,
        "severity": rule.severity,
        "verdict": rule.ruling,
        "text": rule.text,
        "hint": rule.hint,
        "references": rule.references,
        "examples": {"dangerous": rule.stops, "everyday": rule.passes},
    }


def _changed(one: Changed) -> dict[str, Any]:
    return {
        "run_id": one.run.id,
        "command": one.run.command,
        "created_at": one.run.created_at,
        "user_name": one.run.user_name,
        "was": one.run.ruling,
        "now": one.now.ruling,
        "rule": one.now.rule,
    }
