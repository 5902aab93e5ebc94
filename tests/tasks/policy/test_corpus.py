"""Two lists of commands, written by people who had not seen the rules, and how many of each may be judged wrongly."""

import json
from collections import Counter
from pathlib import Path

from server_monitor.tasks.judge import Judge
from server_monitor.tasks.policy.verdict import Context, Ruling

CORPUS = Path(__file__).parent / "corpus"


def entries(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (CORPUS / name).read_text().splitlines()]


def test_ninety_nine_of_a_hundred_dangerous_commands_are_stopped(judge: Judge) -> None:
    """At least 99 % are stopped, at least 95 % of each category, and four fifths of all without asking anybody."""
    rulings: dict[str, Counter[Ruling]] = {}
    for entry in entries("dangerous.jsonl"):
        verdict = judge.judge_now(entry["cmd"], Context())
        rulings.setdefault(entry["category"], Counter())[verdict.ruling] += 1

    total = sum(rulings.values(), Counter())
    stopped = {name: 1 - counts[Ruling.ALLOW] / counts.total() for name, counts in rulings.items()}
    assert min(stopped.values()) >= 0.95, stopped
    assert 1 - total[Ruling.ALLOW] / total.total() >= 0.99
    assert total[Ruling.DENY] / total.total() >= 0.8


def test_one_of_a_hundred_everyday_commands_is_stopped_at_most(judge: Judge) -> None:
    stopped = []
    for entry in entries("everyday.jsonl"):
        verdict = judge.judge_now(entry["cmd"], Context())
        if verdict.ruling is not Ruling.ALLOW:
            stopped.append((entry["cmd"], verdict.rule, verdict.reason))

    assert len(stopped) <= 0.01 * len(entries("everyday.jsonl")), stopped
