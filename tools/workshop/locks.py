"""Writing `locks/`: every package with its version and hashes, and no host, so that mirrors work unchanged."""

from collections.abc import Sequence
from dataclasses import dataclass

from workshop.environment import LOCKS, ROOT, installer
from workshop.process import run
from workshop.say import step

OLDEST_PYTHON = "3.11"


@dataclass(frozen=True, slots=True)
class Lock:
    name: str
    sources: Sequence[str]
    agrees_with: Sequence[str] = ()
    """Locks whose versions this one repeats, because all of them are installed together."""


ALL = [
    Lock("uv", ["--group", "uv"]),
    Lock("build", ["--group", "build"]),
    Lock("run", ["pyproject.toml"], agrees_with=["build"]),
    Lock("test", ["pyproject.toml", "--group", "check", "--group", "test"], agrees_with=["build", "run"]),
    Lock("web", ["--group", "web"]),
]


def write(*, upgrade: bool) -> None:
    uv = installer()[0]
    for lock in ALL:
        step(f"Resolving locks/{lock.name}.txt")
        constraints = [word for name in lock.agrees_with for word in ("--constraint", f"locks/{name}.txt")]
        run(
            [
                *[uv, "pip", "compile", "--quiet", *lock.sources, *constraints],
                *["--universal", "--python-version", OLDEST_PYTHON],
                *["--generate-hashes", "--no-emit-index-url", "--no-emit-find-links"],
                *["--custom-compile-command", "python3 tools/dev.py lock"],
                *(["--upgrade"] if upgrade else []),
                *["--output-file", str(LOCKS / f"{lock.name}.txt")],
            ],
            cwd=ROOT,
        )
