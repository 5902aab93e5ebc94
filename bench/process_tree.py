"""CPU and memory of a process with all its children, from /proc.

CPU counts the children that have ended as well, as long as their parent waited for them: a living process carries
their time in cutime and cstime. Source: proc_pid_stat(5), proc_pid_smaps_rollup(5).
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tree has used so far, and what it holds now. `pss_bytes` counts shared pages in part only."""

    at_s: float
    cpu_s: float
    rss_bytes: int
    pss_bytes: int
    processes: int

    def cores_since(self, earlier: "Usage") -> float:
        """Cores kept busy on average since then."""
        return (self.cpu_s - earlier.cpu_s) / (self.at_s - earlier.at_s)


def usage(pid: int) -> Usage:
    """Of the process `pid` and its descendants. Raises ProcessLookupError when it has ended."""
    members = _tree(pid)
    if pid not in members:
        raise ProcessLookupError(pid)
    return Usage(
        time.monotonic(),
        sum(_cpu_s(fields) for fields in members.values()),
        sum(_rollup_bytes(member, "Rss:") for member in members),
        sum(_rollup_bytes(member, "Pss:") for member in members),
        len(members),
    )


def _tree(root: int) -> dict[int, list[str]]:
    """The stat fields, from the third on, of the root and of all below it."""
    everyone = dict(_stats())
    children: dict[int, list[int]] = {}
    for pid, fields in everyone.items():
        children.setdefault(int(fields[1]), []).append(pid)
    found: dict[int, list[str]] = {}
    waiting = [root] if root in everyone else []
    while waiting:
        pid = waiting.pop()
        found[pid] = everyone[pid]
        waiting.extend(children.get(pid, ()))
    return found


def _stats() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            text = (entry / "stat").read_text()
        except OSError:
            continue
        # The name in parentheses may hold anything, also parentheses and spaces.
        yield int(entry.name), text.rpartition(")")[2].split()


def _cpu_s(fields: list[str]) -> float:
    return sum(int(field) for field in fields[11:15]) / _TICKS_PER_SECOND


def _rollup_bytes(pid: int, key: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
