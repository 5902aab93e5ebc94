"""The locks hold every package with its hashes and name no host, so that mirrors and air gaps work unchanged."""

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))
PIN = re.compile(r"^([a-z0-9.-]+)(?:\[[a-z,-]+\])?==([^ ;\\]+)", re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_names_no_host_and_no_path(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert "--index-url" not in text
    assert "--find-links" not in text
    assert " @ " not in text


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_pin_has_a_hash(lock: Path) -> None:
    entries = re.split(r"\n(?=[a-z])", lock.read_text())
    unhashed = [entry.partition("\n")[0] for entry in entries if PIN.match(entry) and "--hash=sha256:" not in entry]
    assert unhashed == []


def test_what_is_declared_is_locked() -> None:
    """A dependency added to pyproject.toml without `tools/dev.py lock` is noticed here and not by a newcomer."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = [
        *project["project"]["dependencies"],
        *(line for group in project["dependency-groups"].values() for line in group),
    ]
    locked = {name for lock in LOCKS for name, _ in PIN.findall(lock.read_text())}
    assert {distribution(line) for line in declared} - locked == set()


def test_sets_that_are_installed_together_agree() -> None:
    run, test, build = (pins(name) for name in ("run", "test", "build"))
    assert run.items() <= test.items()
    assert all(test.get(name, versions) == versions for name, versions in build.items())


def test_the_web_lock_names_no_host() -> None:
    packages = json.loads((ROOT / "web" / "package-lock.json").read_text())["packages"]
    assert [name for name, package in packages.items() if "resolved" in package] == []
    assert [name for name, package in packages.items() if name and "integrity" not in package] == []


def distribution(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def pins(name: str) -> dict[str, frozenset[str]]:
    """Each package with its versions: more than one when older Pythons need another."""
    found: dict[str, set[str]] = {}
    for package, version in PIN.findall((ROOT / "locks" / f"{name}.txt").read_text()):
        found.setdefault(package, set()).add(version)
    return {package: frozenset(versions) for package, versions in found.items()}
