"""How long a verdict takes: for everyday commands, for both lists of the tests, and for the worst inputs."""

import gc
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.harness import ROOT, Figure, Measured, Options, Result, at_most, column, in_turn, main

CORPUS = ROOT / "tests" / "tasks" / "policy" / "corpus"
LONGEST = 10_000

# Ten thousand characters each, of what a parser or an analysis might choke on.
WORST = {
    "words": "a " * 5000,
    "substitutions": "$(" * 3333 + ")" * 3333,
    "commands": "a;" * 5000,
    "pipes": "a|" * 4999 + "a",
    "quotes": "'\"" * 5000,
    "backslashes": "\\" * 10_000,
    "braces": "echo " + "{a,b}" * 1999,
    "one word": "a" * 10_000,
    "loops": "for i in {1..99}; do " * 8 + "rm $i" + "; done" * 8,
    "growing variables": "x=a;" + "x=$x$x;" * 1000,
    "payloads": "sh -c 'a | b';" * 700,
    "here-documents": "cat <<E\nx\nE\n" * 800,
    "patterns": "rm -rf " + "/*" * 4990,
    "base64": "echo " + "QUFB" * 2400 + " | base64 -d | sh",
    "arithmetic": "echo $((" + "1+" * 4990 + "1))",
    "python": "python3 -c '" + "(" * 9000 + "'",
    "sudo in itself": "sudo " * 890 + "rm -rf /etc",
    "xargs in itself": "xargs " * 890 + "rm -rf /etc",
    "eval in itself": "eval " * 890 + "rm -rf /etc",
    "a hundred evals": "eval " * 100 + "rm -rf /etc",
    "env in itself": "env " * 890 + "rm -rf /etc",
    "watch in itself": "watch " * 890 + "rm -rf /etc",
    "ssh in itself": "ssh h " * 445 + "rm -rf /etc",
    "scripts that differ": "; ".join(f"sh -c 'a | b{number}'" for number in range(400)),
    "expansions": "echo " + "$a" * 448,
    "forms": "echo " + "${a:1:2} " * 224,
    "sums": "echo " + "$((1+2+3+4+5+6+7+8)) " * 44,
    "assignments": "a=b;" * 299,
    "patterns that differ": "rm -rf " + " ".join(f"/e*{number}" for number in range(897)),
    "options that run something": "git " + "--exec=a " * 448,
    "a long script": "systemctl restart app-1 && echo done > /tmp/x\n" * 99,
}


def measure(options: Options) -> Result:
    everyday, dangerous = _commands("everyday.jsonl"), _commands("dangerous.jsonl")
    if options.quick:
        everyday, dangerous = everyday[:60], dangerous[:60]
    worst = [text[:LONGEST] for text in WORST.values()]
    sides = {
        "everyday": lambda: _measured(everyday),
        "both lists": lambda: _measured([*everyday, *dangerous]),
        "worst": lambda: _measured(worst * 3),
    }
    measured = in_turn(sides, options.rounds)
    return Result(
        "policy",
        "Judging commands",
        [
            Figure("an everyday command, median", "ms", column(measured["everyday"], "median_ms"), at_most(5)),
            Figure("an everyday command, CPU of console and parser", "ms", column(measured["everyday"], "cpu_ms")),
            Figure("both lists, 99th percentile", "ms", column(measured["both lists"], "p99_ms"), at_most(50)),
            Figure("both lists, most", "ms", column(measured["both lists"], "most_ms")),
            Figure("worst inputs, 99th percentile", "ms", column(measured["worst"], "p99_ms"), at_most(50)),
            Figure("worst inputs, CPU", "ms", column(measured["worst"], "cpu_ms")),
        ],
        [
            (
                f"{len(everyday)} everyday and {len(dangerous)} dangerous commands, one after the other, each with a "
                "parser process of its own."
            ),
            f"The worst inputs are {len(worst)} texts of up to {LONGEST:,} characters, each judged three times.",
            "Wall time as a caller waits for it; a busy machine shows in it, so the CPU stands beside it.",
        ],
    )


def _commands(name: str) -> list[str]:
    return [json.loads(line)["cmd"] for line in Path(CORPUS / name).read_text().splitlines()]


def _measured(commands: Sequence[str]) -> Measured:
    from server_monitor.tasks.judge import Judge
    from server_monitor.tasks.policy.decide import RuleSet
    from server_monitor.tasks.policy.verdict import Context
    from server_monitor.tasks.shell_parser import ShellParser

    judge = Judge(RuleSet(), ShellParser())
    judge.judge_now("true", Context())
    # As the console does when it has started: what was imported is not looked through in the middle of a verdict.
    gc.collect()
    gc.freeze()
    walls_ms = []
    cpu_before_s = _cpu_s()
    for command in commands:
        begin_s = time.perf_counter()
        judge.judge_now(command, Context())
        walls_ms.append((time.perf_counter() - begin_s) * 1000)
    cpu_ms = (_cpu_s() - cpu_before_s) * 1000 / len(commands)
    judge.close()
    walls_ms.sort()
    return {
        "median_ms": median(walls_ms),
        "p99_ms": walls_ms[math.ceil(len(walls_ms) * 0.99) - 1],
        "most_ms": walls_ms[-1],
        "cpu_ms": cpu_ms,
    }


def _cpu_s() -> float:
    """CPU of this process and of its children that have ended."""
    times = os.times()
    return float(times.user + times.system + times.children_user + times.children_system)


if __name__ == "__main__":
    raise SystemExit(main(measure))
