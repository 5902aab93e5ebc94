"""`policy` judges on the command line what the console would, and says it in an exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE_S

PROGRAM = Path(sys.executable).with_name("server-monitor")


def run(
    folder: Path, *arguments: str | bytes, stdin: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [PROGRAM, "policy", *arguments],
        env={**os.environ, "DATA_DIR": str(folder / "data"), **environment},
        cwd=folder,
        input=stdin,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize(("command", "code"), [("uptime", 0), ("rm -rf /etc", 1), ("sh /tmp/x.sh", 2)])
def test_the_exit_code_is_the_verdict(tmp_path: Path, command: str, code: int) -> None:
    ended = run(tmp_path, "check", command, "--json")

    assert ended.returncode == code
    assert json.loads(ended.stdout)["verdict"] == ("allow", "deny", "needs_approval")[code]
    assert not (tmp_path / "data").exists(), "judging needs no secrets and keeps nothing"


def test_a_person_sees_the_span_underlined_and_the_reason(tmp_path: Path) -> None:
    lines = run(tmp_path, "check", "sudo rm -rf /etc; ls").stdout.decode().splitlines()

    assert lines[0] == "denied"
    assert lines[2:4] == ["  sudo rm -rf /etc; ls", "              ^^^^"]
    assert "fs.rm_critical_tree: deletes /etc with everything in it (through sudo)" in lines


def test_bytes_that_are_not_utf_8_are_denied(tmp_path: Path) -> None:
    ended = run(tmp_path, "check", b"ls \xff")

    assert ended.returncode == 1
    assert b"lexical.encoding" in ended.stdout


@pytest.mark.parametrize("arguments", [[], ["ls", "--jsonl"], ["ls", "--mode", "off"], ["ls", "--shell", "fish"]])
def test_wrong_usage_is_3(tmp_path: Path, arguments: list[str]) -> None:
    assert run(tmp_path, "check", *arguments).returncode == 3


def test_a_setting_that_does_not_compile_is_named(tmp_path: Path) -> None:
    ended = run(tmp_path, "check", "ls", TASK_DENY_PATTERNS="ok,(")

    assert ended.returncode == 3
    assert b"TASK_DENY_PATTERNS" in ended.stderr


def test_the_mode_of_the_command_line_wins(tmp_path: Path) -> None:
    patterns = {"TASK_ALLOW_PATTERNS": r"df( -h)?", "TASK_POLICY_MODE": "denylist"}

    assert run(tmp_path, "check", "df -h", "--mode", "allowlist", **patterns).returncode == 0
    assert run(tmp_path, "check", "uptime", "--mode", "allowlist", **patterns).returncode == 1
    assert run(tmp_path, "check", "uptime", **patterns).returncode == 0


def test_each_line_of_input_gets_its_line_of_output(tmp_path: Path) -> None:
    lines = [
        b'{"cmd": "ls"}',
        b"nonsense",
        b'{"cmd": 1}',
        b'["cmd"]',
        b'{"cmd": "r\\u006d -rf /etc", "more": true}',
        b'{"cmd": "\\ud800"}',
        b"",
        b"\xff",
        b'{"cmd": "' + b"x" * 300_000 + b'"}',
        b'{"cmd": "reboot"}',
    ]
    ended = run(tmp_path, "check", "--jsonl", stdin=b"\n".join(lines) + b"\n")
    answers = [json.loads(line) for line in ended.stdout.splitlines()]

    assert ended.returncode == 0, ended.stderr
    assert [a["verdict"] for a in answers] == ["allow", *["deny"] * 8]
    assert answers[4] == {
        "cmd": "rm -rf /etc",
        "verdict": "deny",
        "rule": "fs.rm_critical_tree",
        "reason": "deletes /etc with everything in it",
        "span": [7, 11],
    }


def test_verdicts_come_while_the_input_is_still_open(tmp_path: Path) -> None:
    with subprocess.Popen(
        [PROGRAM, "policy", "check", "--jsonl"],
        env={**os.environ, "DATA_DIR": str(tmp_path)},
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b'{"cmd": "ls"}\n')
        child.stdin.flush()

        assert json.loads(child.stdout.readline())["verdict"] == "allow"


def test_examples_that_are_judged_otherwise_are_listed(tmp_path: Path) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text(
        '{"cmd": "ls", "expect": "allow"}\n\n{"cmd": "reboot", "expect": "deny"}\n'
        '{"cmd": "sh /tmp/x", "expect": "stopped"}\n{"cmd": "uptime", "expect": "deny"}\n'
    )
    ended = run(tmp_path, "test", str(file), "--json")

    assert ended.returncode == 1
    assert json.loads(ended.stdout) == {
        "examples": 4,
        "failures": [{"line": 5, "cmd": "uptime", "expect": "deny", "verdict": "allow", "rule": None}],
    }

    file.write_text('{"cmd": "ls", "expect": "allow"}\n')
    assert run(tmp_path, "test", str(file)).returncode == 0


@pytest.mark.parametrize("text", ["nonsense", '{"cmd": "ls"}', '{"cmd": "ls", "expect": "maybe"}', "[]"])
def test_a_file_of_examples_that_is_wrong_is_wrong_usage(tmp_path: Path, text: str) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text(text)

    assert run(tmp_path, "test", str(file)).returncode == 3
    assert run(tmp_path, "test", str(tmp_path / "none")).returncode == 3


def test_the_rules_are_listed(tmp_path: Path) -> None:
    rules = json.loads(run(tmp_path, "rules", "--json").stdout)

    assert len(rules) >= 38
    assert {"id", "category", "severity", "verdict", "text", "hint", "stops", "passes"} <= rules[0].keys()
    assert b"fs.rm_critical_tree" in run(tmp_path, "rules").stdout
