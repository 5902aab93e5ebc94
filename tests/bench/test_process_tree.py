import os
import subprocess
import sys

import pytest

from bench.process_tree import usage

BURN = "import time; end = time.process_time() + 0.2\nwhile time.process_time() < end: pass"


def test_a_tree_counts_its_children_alive_and_ended():
    """The parent burns nothing itself: all its CPU time comes from one child that ended and one that lives."""
    child = f"{BURN}\nprint('burnt', flush=True); input()"
    parent = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {BURN!r}])\n"
        f"subprocess.run([sys.executable, '-c', {child!r}])\n"
    )
    command = [sys.executable, "-c", parent]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "burnt\n"
        found = usage(process.pid)
        process.communicate("\n")

    assert found.processes == 2
    assert found.cpu_s >= 0.4
    assert found.rss_bytes > found.pss_bytes > 0


def test_a_process_that_ended_has_no_usage():
    ended = subprocess.Popen(["true"])
    ended.wait()

    with pytest.raises(ProcessLookupError):
        usage(ended.pid)


def test_our_own_process_can_be_measured():
    assert usage(os.getpid()).rss_bytes > 1024**2
