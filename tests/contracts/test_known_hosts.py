"""Host keys are always judged: nothing in the package turns that off."""

import ast
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from server_monitor.ssh.dial import base_options

SOURCE = Path(__file__).parents[2] / "src" / "server_monitor"
UNJUDGED = {"get_server_host_key", "get_server_auth_methods", "connect", "connect_reverse", "run_client"}


def offences(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "known_hosts":
            if isinstance(node.value, ast.Constant) and node.value.value is None:
                yield "known_hosts=None"
        elif isinstance(node, ast.Attribute) and node.attr in UNJUDGED:
            if isinstance(node.value, ast.Name) and node.value.id == "asyncssh":
                yield f"asyncssh.{node.attr}"
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                is_attribute = isinstance(target, ast.Attribute) and "known_hosts" in target.attr
                if is_attribute and isinstance(node.value, ast.Constant) and node.value.value is None:
                    yield "known_hosts = None"


def test_no_module_connects_without_judging_the_host_key() -> None:
    found = {
        f"{path.relative_to(SOURCE)}: {offence}"
        for path in SOURCE.rglob("*.py")
        for offence in offences(ast.parse(path.read_text()))
    }

    assert found == set()


@pytest.mark.parametrize(
    "code",
    [
        "asyncssh.connect('host')",
        "f(known_hosts=None)",
        "options.known_hosts = None",
        "self._known_hosts = None",
        "asyncssh.get_server_host_key('host')",
    ],
)
def test_the_check_sees_what_it_looks_for(code: str) -> None:
    assert list(offences(ast.parse(code)))


def test_asyncssh_itself_trusts_no_key_for_us() -> None:
    assert base_options().known_hosts == ([], [], [])


def test_asyncssh_is_new_enough_for_strict_key_exchange() -> None:
    """CVE-2023-46445, CVE-2023-46446 and CVE-2023-48795 (Terrapin) were fixed in 2.14.2."""
    assert tuple(int(part) for part in asyncssh.__version__.split(".")) >= (2, 14, 2)
