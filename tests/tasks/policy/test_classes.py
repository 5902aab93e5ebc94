"""Ways of doing harm that no list of lines can name, class by class, and the everyday work that looks like them.

The examples stand in `corpus/classes.jsonl`, in the form that `server-monitor policy test` reads.
"""

import json
from pathlib import Path

import pytest

from server_monitor.tasks.judge import Judge
from server_monitor.tasks.policy.verdict import Context, Ruling

EXAMPLES = [
    json.loads(line) for line in (Path(__file__).parent / "corpus" / "classes.jsonl").read_text().splitlines() if line
]
CLASSES = sorted({example["class"] for example in EXAMPLES})


def examples(name: str, expect: str) -> list[str]:
    return [e["cmd"] for e in EXAMPLES if e["class"] == name and e["expect"] == expect]


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_of_harm_is_stopped_in_many_spellings(judge: Judge, name: str) -> None:
    passed = [c for c in examples(name, "stopped") if judge.judge_now(c, Context()).ruling is Ruling.ALLOW]

    assert passed == []


@pytest.mark.parametrize("name", CLASSES)
def test_everyday_work_beside_it_is_allowed(judge: Judge, name: str) -> None:
    verdicts = {c: judge.judge_now(c, Context()) for c in examples(name, "allow")}

    assert {c: (v.rule, v.reason) for c, v in verdicts.items() if v.ruling is not Ruling.ALLOW} == {}
