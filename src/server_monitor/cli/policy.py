"""`server-monitor policy`: judge commands by the rules in force, without running them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from server_monitor.cli.output import FAILED, NEEDS_DECISION, WRONG_USAGE, emit, fail, harmless, say, table

if TYPE_CHECKING:
    from server_monitor.tasks.judge import Judge
    from server_monitor.tasks.policy.verdict import Context, Verdict

app = typer.Typer(no_args_is_help=True)

LONGEST_LINE_BYTES = 256 * 1024
EXPECTED = ("allow", "needs_approval", "deny", "stopped")

Mode = Annotated[str | None, typer.Option("--mode", help="denylist or allowlist; TASK_POLICY_MODE unless set.")]
Shell = Annotated[str, typer.Option("--shell", help="The shell that would run it: bash or sh.")]
User = Annotated[str, typer.Option("--user", help="The account that would run it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def check(  # noqa: PLR0917  # The framework passes options by name.
    command: Annotated[str | None, typer.Argument(help="The command, as one word.", show_default=False)] = None,
    mode: Mode = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help='Judge the {"cmd": …} lines of standard input.')] = False,
    shell: Shell = "bash",
    user: User = "",
    as_json: AsJson = False,
) -> None:
    """Judge a command: exit 0 allow, 1 deny, 2 needs approval, 3 wrong usage."""
    if (command is None) is not jsonl:
        fail("Give one command, or --jsonl and lines on standard input.", WRONG_USAGE)
    judge = _judge(mode)
    context = _context(shell, user)
    if jsonl:
        for line in _lines(sys.stdin.buffer):
            sys.stdout.write(_answer(line, judge, context) + "\n")
            sys.stdout.flush()
        return
    assert command is not None
    # Bytes that are not UTF-8 come as halves of surrogate pairs, which the engine names and refuses.
    verdict = judge.judge_now(command, context)
    if as_json:
        emit(verdict.as_json())
    else:
        _show(command, verdict)
    raise typer.Exit({"allow": 0, "deny": FAILED, "needs_approval": NEEDS_DECISION}[verdict.ruling.value])


@app.command("test")
def run_examples(
    file: Annotated[Path, typer.Argument(help='Lines of {"cmd": …, "expect": …}.')],
    mode: Mode = None,
    as_json: AsJson = False,
) -> None:
    """Hold the rules to examples: expect allow, needs_approval, deny, or stopped (either of the last two)."""
    judge = _judge(mode)
    examples = _examples(file)
    failures = []
    for number, cmd, expect, shell in examples:
        verdict = judge.judge_now(cmd, _context(shell, ""))
        if not _meets(verdict, expect):
            failures.append(
                {"line": number, "cmd": cmd, "expect": expect, "verdict": verdict.ruling.value, "rule": verdict.rule}
            )
    if as_json:
        emit({"examples": len(examples), "failures": failures})
    else:
        rows = [
            (str(f["line"]), str(f["expect"]), str(f["verdict"]), str(f["rule"] or ""), str(f["cmd"])) for f in failures
        ]
        table(("line", "expected", "verdict", "rule", "command"), rows, empty="Every example is judged as expected.")
        say(f"{len(examples)} examples, {len(failures)} judged otherwise.")
    raise typer.Exit(FAILED if failures else 0)


@app.command()
def rules(as_json: AsJson = False) -> None:
    """List the built-in rules."""
    from server_monitor.tasks.policy.rules.table import RULES

    if as_json:
        emit(
            [
                {
                    "id": rule.id,
                    "category": rule.category,
                    "severity": rule.severity,
                    "verdict": rule.ruling,
                    "text": rule.text,
                    "hint": rule.hint,
                    "references": rule.references,
                    "stops": rule.stops,
                    "passes": rule.passes,
                }
                for rule in RULES
            ]
        )
        return
    table(("rule", "verdict", "severity", "what it stops"), [(r.id, r.ruling, r.severity, r.text) for r in RULES])


def _judge(mode: str | None) -> "Judge":
    from server_monitor.errors import Invalid
    from server_monitor.settings import Settings
    from server_monitor.tasks.judge import Judge, rules_of
    from server_monitor.tasks.shell_parser import ShellParser

    try:
        return Judge(rules_of(Settings.look(task_policy_mode=mode)), ShellParser())
    except Invalid as error:
        for mistake in error.errors:
            say(f"{mistake.field}: {mistake.message}")
        raise typer.Exit(WRONG_USAGE) from None


def _context(shell: str, user: str) -> "Context":
    from server_monitor.tasks.policy.verdict import Context

    if shell not in ("bash", "sh"):
        fail("--shell must be bash or sh.", WRONG_USAGE)
    return Context(shell="sh" if shell == "sh" else "bash", user=user)


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines of bounded length; what is longer is cut, and then no JSON."""
    while line := stream.readline(LONGEST_LINE_BYTES):
        whole = line
        while not line.endswith(b"\n") and len(line) == LONGEST_LINE_BYTES:
            line = stream.readline(LONGEST_LINE_BYTES)
        if whole.strip():
            yield whole


def _answer(line: bytes, judge: "Judge", context: "Context") -> str:
    """The verdict line for one line of input. A line that holds no command is answered as denied."""
    import json

    cmd = _command_of(line)
    if cmd is None:
        answer: dict[str, Any] = {
            "cmd": None,
            "verdict": "deny",
            "rule": "lexical.input",
            "reason": 'is not a line of JSON with a text "cmd"',
            "span": None,
        }
        return json.dumps(answer)
    verdict = judge.judge_now(cmd, context)
    answer = {
        "cmd": cmd,
        "verdict": verdict.ruling.value,
        "rule": verdict.rule,
        "reason": verdict.reason,
        "span": list(verdict.span) if verdict.span else None,
    }
    # Not orjson: a command may hold half a surrogate pair, which only an escape can carry.
    return json.dumps(answer)


def _command_of(line: bytes) -> str | None:
    import json

    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    cmd = value.get("cmd") if isinstance(value, dict) else None
    return cmd if isinstance(cmd, str) else None


def _examples(file: Path) -> list[tuple[int, str, str, str]]:
    import json

    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        fail(f"{file} cannot be read.", WRONG_USAGE)
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            cmd, expect = value["cmd"], value["expect"]
            shell = value.get("shell", "bash")
        except (ValueError, KeyError, TypeError, AttributeError):
            fail(f'{file}, line {number}: is not {{"cmd": …, "expect": …}}.', WRONG_USAGE)
        if expect not in EXPECTED or not isinstance(cmd, str):
            fail(f"{file}, line {number}: expect must be one of {', '.join(EXPECTED)}.", WRONG_USAGE)
        found.append((number, cmd, expect, shell))
    return found


def _meets(verdict: "Verdict", expect: str) -> bool:
    if expect == "stopped":
        return verdict.ruling.value != "allow"
    return verdict.ruling.value == expect


def _show(command: str, verdict: "Verdict") -> None:
    """For a person: the command with the worst span underlined, and why, then the other findings."""
    words = {"allow": "allowed", "deny": "denied", "needs_approval": "needs approval"}
    sys.stdout.write(f"{words[verdict.ruling.value]}\n")
    if verdict.worst is not None:
        sys.stdout.write("\n" + _underlined(command, verdict.worst.span))
    for finding in verdict.findings:
        via = f" (through {', '.join(finding.via)})" if finding.via else ""
        sys.stdout.write(harmless(f"{finding.rule}: {finding.why}{via}") + "\n")
        if finding is verdict.worst:
            sys.stdout.write(harmless(f"  {finding.hint}") + "\n")


def _underlined(command: str, span: tuple[int, int]) -> str:
    """The lines that the span touches, each with carets below what is meant. Spans count bytes of UTF-8."""
    found = []
    begin = 0
    for line in command.split("\n"):
        raw = line.encode("utf-8", "surrogatepass")
        first, last = max(span[0] - begin, 0), min(span[1] - begin, len(raw))
        if first < last:
            before, meant = (harmless(raw[a:b].decode("utf-8", "replace")) for a, b in ((0, first), (first, last)))
            after = harmless(raw[last:].decode("utf-8", "replace"))
            found += [f"  {before}{meant}{after}", "  " + " " * len(before) + "^" * len(meant)]
        begin += len(raw) + 1
    return "\n".join(found) + "\n\n" if found else ""
