"""Where words point to, and what would be lost there."""

import pytest

from server_monitor.tasks.policy import paths
from server_monitor.tasks.policy.paths import place_of
from server_monitor.tasks.policy.state import fresh_state
from server_monitor.tasks.policy.values import Gap, globbed


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/etc", "/etc"),
        ("//etc/./x/..", "/etc"),
        ("x/../../y", "/home/y"),
        ("../../../../etc", "/etc"),
        ("/proc/self/root/etc", "/etc"),
        ("/proc/1/root/usr/bin", "/usr/bin"),
        (".", "/home/ada"),
    ],
)
def test_paths_are_made_absolute_and_normal(text: str, path: str) -> None:
    assert paths.absolute(text, fresh_state("ada")) == path


def test_links_of_the_task_are_followed_and_loops_end() -> None:
    state = fresh_state("ada")
    state.links = {"/tmp/x": "/etc", "/tmp/a": "/tmp/b", "/tmp/b": "/tmp/a"}

    assert paths.absolute("/tmp/x/passwd", state) == "/etc/passwd"
    assert paths.absolute("/tmp/a", state) in ("/tmp/a", "/tmp/b")


@pytest.mark.parametrize(
    "text",
    [
        "/",
        "/etc",
        "/usr/lib/x",
        "/home",
        "/home/bob",
        "/var/lib/mysql/db",
        "/home/ada",
        "/e*",
        "/[a-f]tc",
        "/*",
        "/home/*",
    ],
)
def test_a_tree_that_the_host_needs_is_a_loss(text: str) -> None:
    state = fresh_state("ada")
    assert paths.tree_loss(place_of(globbed(text), state), state) is not None


@pytest.mark.parametrize(
    "text",
    [
        "/tmp/x",
        "/tmp/*",
        "/opt/app",
        "/home/bob/x",
        "/var/cache/apt",
        "/usr/local/src/x",
        "cache/*",
        "/var/lib/apt/lists/*",
    ],
)
def test_a_tree_of_ones_own_is_none(text: str) -> None:
    state = fresh_state("ada")
    assert paths.tree_loss(place_of(globbed(text), state), state) is None


def test_an_unknown_name_below_the_system_counts_as_the_system() -> None:
    state = fresh_state("ada")

    assert paths.tree_loss(place_of(("/etc/", Gap()), state), state) == "/etc"
    assert paths.is_device(place_of(("/dev/", Gap()), state))
    assert not paths.is_device(place_of(("/dev/null",), state))
