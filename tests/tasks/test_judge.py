"""The engine with its parser, as the console calls it."""

import asyncio
from pathlib import Path

import pytest

from server_monitor.errors import Invalid
from server_monitor.settings import Settings
from server_monitor.tasks.judge import Judge, rules_of
from server_monitor.tasks.policy.decide import RuleSet
from server_monitor.tasks.policy.verdict import Context, Mode, Ruling
from server_monitor.tasks.shell_parser import ShellParser
from tests.support.patience import PATIENCE_S


async def test_commands_are_judged_side_by_side() -> None:
    judge = Judge(RuleSet(), ShellParser(deadline_s=PATIENCE_S))

    verdicts = await asyncio.gather(*(judge.judge(c, Context()) for c in ["ls", "reboot", "uptime", "rm -rf /"] * 5))

    assert [v.ruling for v in verdicts] == [Ruling.ALLOW, Ruling.DENY, Ruling.ALLOW, Ruling.DENY] * 5
    judge.close()


@pytest.mark.parametrize("body", ["exit 3", "kill -SEGV $$", "exec sleep 60", "echo nonsense"])
@pytest.mark.parametrize(("mode", "ruling"), [(Mode.DENYLIST, Ruling.NEEDS_APPROVAL), (Mode.ALLOWLIST, Ruling.DENY)])
async def test_without_a_parser_that_works_nothing_is_allowed(
    tmp_path: Path, body: str, mode: Mode, ruling: Ruling
) -> None:
    path = tmp_path / "shfmt"
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && {{ echo v3.14.1; exit 0; }}\n{body}\n')
    path.chmod(0o755)
    judge = Judge(RuleSet(mode=mode), ShellParser(str(path), deadline_s=0.5))

    verdict = await judge.judge("ls", Context())

    assert (verdict.ruling, verdict.rule) == (ruling, "engine.parser")
    assert (await judge.judge("rm\0x", Context())).ruling is Ruling.DENY
    judge.close()


async def test_an_absent_parser_is_named(tmp_path: Path) -> None:
    judge = Judge(RuleSet(), ShellParser(str(tmp_path / "none")))

    verdict = await judge.judge("ls", Context())

    assert verdict.ruling is Ruling.NEEDS_APPROVAL
    assert verdict.rule == "engine.parser"
    judge.close()


def test_the_settings_make_the_rules() -> None:
    settings = Settings.look(
        task_policy_mode="allowlist",
        task_allow_patterns=r"ls( \S+){0,3},df",
        task_deny_patterns="x",
        task_allow_write_paths="/srv/a,/srv/b",
    )

    rules = rules_of(settings)

    assert rules.mode is Mode.ALLOWLIST
    assert rules.allow.texts == (r"ls( \S+){0,3}", "df")
    assert rules.write_paths == ("/srv/a", "/srv/b")


@pytest.mark.parametrize("name", ["task_deny_patterns", "task_allow_patterns"])
def test_a_pattern_that_does_not_compile_names_its_setting(name: str) -> None:
    with pytest.raises(Invalid) as caught:
        rules_of(Settings.look(**{name: "fine,("}))

    assert caught.value.errors[0].field == name.upper()


def test_patterns_may_come_from_a_file_one_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "patterns"
    file.write_text("# what we never run\nrm .*, .*\n\nmkfs\n")
    monkeypatch.setenv("TASK_DENY_PATTERNS_FILE", str(file))

    assert Settings.look().task_deny_patterns == ("rm .*, .*", "mkfs")


def test_another_mode_stops_the_start() -> None:
    with pytest.raises(Invalid) as caught:
        Settings.look(task_policy_mode="off")

    assert caught.value.errors[0].field == "TASK_POLICY_MODE"
