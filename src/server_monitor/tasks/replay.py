"""What other rules would have said about the runs of the last days, before anybody sets them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, ScalarSelect, exists, func, select

from server_monitor.auth.actor import Actor
from server_monitor.db.engine import Database
from server_monitor.db.tables import runs, tasks
from server_monitor.errors import Invalid
from server_monitor.tasks.judge import Judge
from server_monitor.tasks.listing import visible_tasks
from server_monitor.tasks.policy.decide import APPROVE_LABEL, RuleSet
from server_monitor.tasks.policy.patterns import BadPattern, Patterns, compiled
from server_monitor.tasks.policy.verdict import Context, Mode, Verdict
from server_monitor.tasks.shell_parser import ShellParser

RUNS_MAX = 5_000


@dataclass(frozen=True, slots=True)
class Changed:
    """A run that the other rules would have judged differently."""

    run: Row[Any]
    now: Verdict


def changed_rules(rules: RuleSet, mode: str | None, deny: Sequence[str] | None, allow: Sequence[str] | None) -> RuleSet:
    """The rules in force with what is given in place of their own. Raises Invalid naming the bad pattern."""
    return replace(
        rules,
        mode=rules.mode if mode is None else Mode(mode),
        deny=rules.deny if deny is None else _compiled("deny_patterns", deny),
        allow=rules.allow if allow is None else _compiled("allow_patterns", allow),
    )


async def replay(db: Database, rules: RuleSet, since: datetime, *, actor: Actor) -> tuple[int, list[Changed]]:
    """How many runs there were, the newest 5,000 at most, and those that `rules` judge otherwise than was judged."""
    seen = exists().where(tasks.c.run_id == runs.c.id, visible_tasks(actor))
    wanted = (
        select(runs, _account(func.min).label("first_account"), _account(func.max).label("last_account"))
        .where(runs.c.created_at >= since, seen)
        .order_by(runs.c.created_at.desc())
        .limit(RUNS_MAX)
    )
    async with db.reading() as conn:
        found = (await conn.execute(wanted)).all()
    judge = Judge(rules, ShellParser())
    try:
        judged: dict[str, Verdict] = {}
        changed = []
        for run in found:
            context = _context(run)
            key = repr((run.command, context))
            if key not in judged:
                judged[key] = await judge.judge(run.command, context)
            if judged[key].ruling.value != run.ruling:
                changed.append(Changed(run, judged[key]))
        return len(found), changed
    finally:
        judge.close()


def _account(of: Callable[[ColumnElement[str]], ColumnElement[str]]) -> ScalarSelect[str]:
    """One of the accounts that a run was asked for: when the least is the greatest, there is only one."""
    return select(of(tasks.c.account)).where(tasks.c.run_id == runs.c.id).correlate(runs).scalar_subquery()


def _context(run: Row[Any]) -> Context:
    """All that the verdict of that time was about. Labels have changed since: what was found of them counts."""
    label, value = APPROVE_LABEL
    was_labelled = any(found.get("rule") == "context.label" for found in run.verdict.get("findings", ()))
    return replace(
        Context(shell="sh") if run.shell == "sh" else Context(),  # noqa: S604  # A dialect.
        user=run.first_account if run.first_account == run.last_account else "",
        hosts=run.tasks,
        labels={label: value} if was_labelled else {},
        secret_names=tuple(run.secret_names),
    )


def _compiled(field: str, texts: Sequence[str]) -> Patterns:
    try:
        return compiled(tuple(texts))
    except BadPattern as bad:
        raise Invalid.one(field, str(bad)) from None
