"""The commands that README and CONTRIBUTING promise exist."""

import re
from pathlib import Path

import pytest

from tools import reference

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_promised_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)", page.read_text())) <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_promised_commands_exist(page: Path) -> None:
    """Each `server-monitor WORD WORD` in a page is a command of the program."""
    known = {" ".join(words) for words, _ in reference.commands()}
    groups = {words.rpartition(" ")[0] for words in known}
    for promised in re.findall(r"(?:^|[`/\s])server-monitor((?: [a-z][a-z-]*){1,2})(?=[`\s])", code_of(page)):
        words = ["server-monitor", *promised.split()]
        assert " ".join(words) in known | groups or " ".join(words[:2]) in known, promised


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def code_of(page: Path) -> str:
    """Only what is set as code: inline between backticks or in a fenced block."""
    text = page.read_text()
    fenced = re.findall(r"```.*?\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"`[^`\n]+`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return "\n".join([*fenced, *inline])
