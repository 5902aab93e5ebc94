"""The parser as a child process: what it says, and every way in which it can fail."""

import threading
from pathlib import Path

import pytest

from server_monitor.tasks.policy.parsing import ParserFailed, SyntaxWrong, TooComplex
from server_monitor.tasks.policy.tree import CallExpr, Lit
from server_monitor.tasks.shell_parser import ShellParser, found_program
from tests.support.patience import PATIENCE_S


def program(folder: Path, body: str, version: str = "v3.14.1", *, deadline_s: float = PATIENCE_S) -> ShellParser:
    """A parser that answers `--version` and otherwise does what `body` says."""
    path = folder / "shfmt"
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && {{ echo {version}; exit 0; }}\n{body}\n')
    path.chmod(0o755)
    return ShellParser(str(path), deadline_s=deadline_s)


def test_the_tree_has_the_words_and_where_they_stand() -> None:
    tree = ShellParser(deadline_s=PATIENCE_S).parse("ls 'a b'")

    call = tree.stmts[0].cmd
    assert isinstance(call, CallExpr)
    first, second = call.args
    assert isinstance(first.parts[0], Lit)
    assert first.parts[0].value == "ls"
    assert (second.pos.offset, second.end.offset) == (3, 8)


def test_the_dialect_decides_what_is_right() -> None:
    parser = ShellParser(deadline_s=PATIENCE_S)

    assert parser.parse("cat <(ls)", "bash").stmts
    with pytest.raises(SyntaxWrong):
        parser.parse("cat <(ls)", "posix")


@pytest.mark.parametrize(("text", "offset"), [("echo 'x", 5), ("ls\nif", 3), ("a )", 2)])
def test_a_mistake_is_told_with_its_place(text: str, offset: int) -> None:
    with pytest.raises(SyntaxWrong) as caught:
        ShellParser(deadline_s=PATIENCE_S).parse(text)

    assert caught.value.offset == offset


def test_the_text_of_a_command_is_never_an_option() -> None:
    assert ShellParser(deadline_s=PATIENCE_S).parse("--version").stmts


def test_the_program_beside_this_one_is_used() -> None:
    assert found_program() is not None
    assert ShellParser(deadline_s=PATIENCE_S).version().startswith("3.")


def test_a_parser_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ParserFailed, match="No such file"):
        ShellParser(str(tmp_path / "none")).parse("ls")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("exec sleep 60", "did not answer in time"),
        ("cat >/dev/null; exec sleep 60", "did not answer in time"),
        ("kill -SEGV $$", "failed with status -11"),
        ("exit 3", "failed with status 3"),
        ("echo '{}'", "tree"),
        ("echo 'not JSON'", "tree"),
        ('echo \'{"Type":"File","Pos":{},"End":{},"Stmts":[{"Pos":{},"End":{},"Cmd":{"Type":"New"}}]}\'', "tree"),
        ("exec >&-; exec sleep 60", "did not answer in time"),
    ],
)
def test_a_parser_that_misbehaves_is_a_failure(tmp_path: Path, body: str, says: str) -> None:
    is_silent = says == "did not answer in time"
    with pytest.raises(ParserFailed, match=says):
        program(tmp_path, body, deadline_s=1 if is_silent else PATIENCE_S).parse("ls")


@pytest.mark.parametrize("body", ["head -c 250000000 /dev/zero", "yes"])
def test_output_without_end_is_cut(tmp_path: Path, body: str) -> None:
    with pytest.raises(TooComplex):
        program(tmp_path, body).parse("ls")


@pytest.mark.parametrize("version", ["v2.6.4", "v3.13.1", "v3.99.0", "v4.0.0", "nonsense", ""])
def test_another_version_is_not_used(tmp_path: Path, version: str) -> None:
    with pytest.raises(ParserFailed, match="was not tested"):
        program(tmp_path, "exit 0", version).parse("ls")


def test_a_parser_that_is_replaced_is_asked_again(tmp_path: Path) -> None:
    parser = program(tmp_path, "exit 3")
    assert parser.version() == "3.14.1"

    (tmp_path / "shfmt").unlink()
    program(tmp_path, "exit 3", "v9.0.0")

    with pytest.raises(ParserFailed, match="was not tested"):
        parser.version()


def test_the_child_gets_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "canary")
    seen = tmp_path / "seen"

    with pytest.raises(ParserFailed):
        program(tmp_path, f"cat /proc/self/environ > {seen}; exit 3").parse("ls")

    assert b"canary" not in seen.read_bytes()


def test_no_more_than_two_run_at_once(tmp_path: Path) -> None:
    """Each child leaves a file while it runs; none ever sees three of them."""
    count = tmp_path / "most"
    body = (
        f"cat >/dev/null; mkdir -p {tmp_path}/run; touch {tmp_path}/run/$$; ls {tmp_path}/run | wc -l >> {count}; "
        f"rm {tmp_path}/run/$$; exit 3"
    )
    parser = program(tmp_path, body)

    def run() -> None:
        with pytest.raises(ParserFailed):
            parser.parse("ls")

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)

    assert 1 <= max(int(line) for line in count.read_text().split()) <= 2
