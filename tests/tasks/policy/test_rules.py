"""Every rule is held to its own examples."""

import pytest

from server_monitor.tasks.judge import Judge
from server_monitor.tasks.policy.rules.rule import Rule
from server_monitor.tasks.policy.rules.table import BY_ID, RULES
from server_monitor.tasks.policy.verdict import Context, Ruling


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_stops_what_it_says_and_nothing_beside_it(judge: Judge, rule: Rule) -> None:
    for command in rule.stops:
        verdict = judge.judge_now(command, Context())
        assert rule.id in {finding.rule for finding in verdict.findings}, command
        assert verdict.ruling.weight >= Ruling(rule.ruling).weight, command

    for command in rule.passes:
        verdict = judge.judge_now(command, Context())
        assert verdict.ruling is Ruling.ALLOW, (command, verdict.rule, verdict.reason)


def test_every_rule_has_five_examples_of_each_kind_and_says_what_to_do() -> None:
    assert [rule.id for rule in RULES if len(rule.stops) < 5 or len(rule.passes) < 5] == []
    assert [rule.id for rule in RULES if not (rule.text.endswith(".") and rule.hint)] == []
    assert len(BY_ID) == len(RULES)
