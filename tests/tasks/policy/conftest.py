"""The real parser, and a shell to expand words in."""

from collections.abc import Callable

import pytest

from server_monitor.tasks.judge import Judge
from server_monitor.tasks.policy.decide import RuleSet
from server_monitor.tasks.policy.invoke import invoke
from server_monitor.tasks.policy.shell import Account
from server_monitor.tasks.policy.state import fresh_state
from server_monitor.tasks.policy.verdict import Context, Verdict
from server_monitor.tasks.policy.walk import Walker
from server_monitor.tasks.shell_parser import ShellParser
from tests.support.patience import PATIENCE_S


@pytest.fixture(scope="session")
def parser() -> ShellParser:
    return ShellParser(deadline_s=PATIENCE_S)


@pytest.fixture(scope="session")
def judge(parser: ShellParser) -> Judge:
    return Judge(RuleSet(), parser)


@pytest.fixture
def verdict(judge: Judge) -> Callable[[str], Verdict]:
    """The verdict on a command under the built-in rules."""
    return lambda command: judge.judge_now(command, Context())


@pytest.fixture
def commands(parser: ShellParser) -> Callable[[str], list[str]]:
    """The simple commands that a script comes down to, as patterns see them."""

    def walked(script: str) -> list[str]:
        raw = script.encode()
        account = Account(raw, parser.parse, "bash")
        walker = Walker(account, fresh_state("ada"), invoke, carrier=(0, len(raw)))
        walker.run(parser.parse(script).stmts)
        return [command.rendered for command in account.commands]

    return walked
