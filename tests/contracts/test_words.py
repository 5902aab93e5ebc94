"""What no file of the repository says."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = {".py", ".md", ".toml", ".ts", ".svelte", ".css", ".html", ".yml", ".yaml", ".json", ".sh", ".awk", ".txt", ""}

# Written in pieces, so that this file does not say them either.
PROMISES = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
REGISTRIES = re.compile(r"py" + r"pi\.org|pythonhosted" + r"\.org|registry\.npm" + r"js|deb\.deb" + r"ian\.org")
OVERCLAIMS = re.compile(r"tamper-" + r"proof|zero " + r"overhead", re.IGNORECASE)
SOMEBODYS_MACHINE = re.compile(r"(?<![\w.])/(?:work|root|home/[a-z]+)/[a-z.]")


def test_nothing_is_left_for_later() -> None:
    assert found(PROMISES) == []


def test_no_file_names_a_registry() -> None:
    """Mirrors and air-gapped installations work unchanged only when nothing here names the usual hosts."""
    assert found(REGISTRIES) == []


def test_no_file_claims_what_cannot_be_true() -> None:
    """The audit log is tamper-evident; and everything that measures costs something."""
    assert found(OVERCLAIMS) == []


def test_no_file_names_the_folders_of_the_machine_it_was_written_on() -> None:
    """Captures keep what a machine said, and the policy for commands is about such folders."""
    policy = {"src/server_monitor/tasks/policy/", "tests/tasks/policy/", "docs/reference/policy.md"}
    assert found(SOMEBODYS_MACHINE, apart_from={"tests/captures/", *policy}) == []


def found(pattern: re.Pattern[str], apart_from: frozenset[str] | set[str] = frozenset()) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in tracked()
        if not str(path.relative_to(ROOT)).startswith(tuple(apart_from))
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]


def tracked() -> Iterator[Path]:
    """Every text file that git has or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.suffix in TEXT and path.is_file():
            yield path
