"""What every measurement is made with: sides in turn, several rounds, medians and ranges, goals, and a table.

A bench is a module of this folder with `measure(options) -> Result`. It runs alone by `python -m bench.<name>`, and
with all others by `make bench`. Absolute times differ from machine to machine and hour to hour: prefer ratios of
two sides measured in turn in one run, CPU seconds, and bytes for a unit of work.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


@dataclass(frozen=True, slots=True)
class Options:
    """`quick` asks for fewer hosts, rounds and seconds: to see that a bench works, not to quote it."""

    rounds: int = 3
    quick: bool = False
    hosts: int = 1000


@dataclass(frozen=True, slots=True)
class Goal:
    """The bound that a figure's median must keep."""

    bound: float
    at_most: bool

    def reached(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound


def at_most(bound: float) -> Goal:
    return Goal(bound, at_most=True)


def at_least(bound: float) -> Goal:
    return Goal(bound, at_most=False)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity: a value for each round."""

    what: str
    unit: str
    values: Sequence[float]
    goal: Goal | None = None

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        return "reached" if self.goal.reached(self.median) else "short"


@dataclass(frozen=True, slots=True)
class Result:
    """What a bench found. `notes` say how it was measured and what a reader should know to judge it."""

    name: str
    title: str
    figures: Sequence[Figure]
    notes: Sequence[str] = ()


Measure = Callable[[Options], Result]
Measured = Mapping[str, float]


def in_turn(sides: Mapping[str, Callable[[], Measured]], rounds: int) -> dict[str, list[Measured]]:
    """Run the sides A B A B …, so that both meet the same moods of the machine."""
    measured: dict[str, list[Measured]] = {side: [] for side in sides}
    for number in range(rounds):
        for side, run in sides.items():
            say(f"round {number + 1} of {rounds}: {side}")
            measured[side].append(run())
    return measured


def column(measured: Sequence[Measured], key: str) -> list[float]:
    return [one[key] for one in measured]


def ratios(ours: Sequence[float], others: Sequence[float]) -> list[float]:
    """How many times less ours is, round by round."""
    return [other / our for our, other in zip(ours, others, strict=True)]


def say(words: str) -> None:
    """Progress, for whoever waits."""
    print(f"  {words}", file=sys.stderr, flush=True)


def machine() -> dict[str, str]:
    """Facts without which no figure means anything."""
    cpu = _first(line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name"))
    memory_kib = _first(line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": f"{os.cpu_count()} × {cpu or platform.machine()}",
        "memory": f"{int(memory_kib or 0) / 1024**2:.1f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "speed": f"{_loop_ms():.1f} ms for a loop of a million steps",
        "load_before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def table(result: Result) -> str:
    """The result as Markdown."""
    lines = [
        f"### {result.title}",
        "",
        "| what | median | range | goal | |",
        "| --- | --- | --- | --- | --- |",
        *(_row(figure) for figure in result.figures),
        "",
        *(f"- {note}" for note in result.notes),
    ]
    return "\n".join(lines).rstrip() + "\n"


def page(results: Sequence[Result], facts: Mapping[str, str]) -> str:
    """Results and the machine they were measured on, as Markdown."""
    about = "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in facts.items())
    return "\n".join(["## Measured figures", "", about, "", *(table(result) for result in results)])


def document(results: Sequence[Result], facts: Mapping[str, str]) -> str:
    """The same as JSON."""
    found = [
        {
            "name": result.name,
            "title": result.title,
            "notes": list(result.notes),
            "figures": [
                {
                    "what": figure.what,
                    "unit": figure.unit,
                    "values": list(figure.values),
                    "median": figure.median,
                    "goal": None if figure.goal is None else _bound(figure.goal),
                    "reached": None if figure.goal is None else figure.goal.reached(figure.median),
                }
                for figure in result.figures
            ],
        }
        for result in results
    ]
    return json.dumps({"machine": dict(facts), "results": found}, indent=2) + "\n"


def keep(name: str, results: Sequence[Result], facts: Mapping[str, str]) -> Path:
    """Write both forms into bench/results; returns the Markdown file."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(document(results, facts))
    path = RESULTS / f"{name}.md"
    path.write_text(page(results, facts))
    return path


def main(measure: Measure, arguments: Sequence[str] | None = None) -> int:
    """Run one bench from the command line."""
    options = parse(argparse.ArgumentParser(description=measure.__module__), arguments)
    facts = machine()
    result = measure(options)
    print(table(result))
    print(f"written to {keep(result.name, [result], facts).relative_to(ROOT)}")
    return 0


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> Options:
    add_options(parser)
    given = parser.parse_args(arguments)
    return options_of(given)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3, help="how often each side is measured (3)")
    parser.add_argument("--hosts", type=int, default=1000, help="size of the simulated fleet (1000)")
    parser.add_argument("--quick", action="store_true", help="small and short: to see that it works")


def options_of(given: argparse.Namespace) -> Options:
    if given.quick:
        return Options(rounds=1, quick=True, hosts=min(given.hosts, 50))
    return Options(rounds=given.rounds, hosts=given.hosts)


def wait_until(happened: Callable[[], bool], *, timeout_s: float, what: str, poll_s: float = 0.05) -> None:
    """Raises TimeoutError naming `what` did not happen in time."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(poll_s)


def _row(figure: Figure) -> str:
    goal = "" if figure.goal is None else _bound(figure.goal)
    low, high = min(figure.values), max(figure.values)
    spread = "" if len(figure.values) == 1 else f"{number(low)} to {number(high)}"
    return f"| {figure.what} | {number(figure.median)} {figure.unit} | {spread} | {goal} | {figure.verdict} |"


def _bound(goal: Goal) -> str:
    return f"{'at most' if goal.at_most else 'at least'} {number(goal.bound)}"


def number(value: float) -> str:
    """Three figures that mean something, without an exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    return f"{value:.6f}".rstrip("0") if "e" in text else text


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _first(found: Iterable[str]) -> str | None:
    return next(iter(found), None)


def _loop_ms() -> float:
    """How fast Python runs here and now: on a busy machine CPU seconds are longer as well."""
    return 1000 * min(timeit.repeat("for _ in range(1_000_000): pass", number=1, repeat=5))


def _commit() -> str:
    try:
        head = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
        return subprocess.run(head, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
