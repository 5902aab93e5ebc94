"""What the policy says about a command for some servers, in the form that runs store."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from server_monitor.auth.actor import Actor
from server_monitor.fleet.servers import Server
from server_monitor.settings import Settings
from server_monitor.tasks.clearing import Rule
from server_monitor.tasks.judge import Judge, rules_of
from server_monitor.tasks.placing import Ruled
from server_monitor.tasks.policy.verdict import Context
from server_monitor.tasks.shell_parser import ShellParser

Item = TypeVar("Item")


def judge_of(settings: Settings) -> Judge:
    """The policy as it is set. Raises Invalid naming the setting whose pattern does not compile."""
    return Judge(rules_of(settings), ShellParser())


def rule_of(judge: Judge) -> Rule:
    """Asks `judge` about a command for servers and whoever wants to run it."""

    async def rule(
        command: str, shell: str, servers: Sequence[Server], actor: Actor, secret_names: Collection[str]
    ) -> Ruled:
        context = replace(context_of(shell, servers, actor), secret_names=tuple(secret_names))
        verdict = await judge.judge(command, context)
        return Ruled(verdict.ruling.value, verdict.digest, verdict.rule, verdict.as_json())

    return rule


def context_of(shell: str, servers: Sequence[Server], actor: Actor) -> Context:
    """Where and as whom the command would run: what all the servers have in common."""
    accounts = {server.username for server in servers}
    return replace(
        Context(shell="sh") if shell == "sh" else Context(),  # noqa: S604  # A dialect, not a subprocess.
        user=accounts.pop() if len(accounts) == 1 else "",
        role=actor.role.value if actor.role else "",
        hosts=len(servers),
        host_ids=tuple(server.id for server in servers),
        groups=tuple(sorted(_common([server.group_ids for server in servers]))),
        labels=dict(_common([server.labels.items() for server in servers])),
    )


def _common(each: Sequence[Iterable[Item]]) -> set[Item]:
    """What all of them hold."""
    first, *others = each or ((),)
    return set(first).intersection(*others)
