"""Memory is shared among threads, so that none keeps what others could use."""

import ctypes
import subprocess
import sys

import pytest

from server_monitor.lifecycle import heap

THREADS = """
import ctypes, threading
from server_monitor.lifecycle.heap import share_heap
share_heap()
together = threading.Barrier(8)
def allocate():
    together.wait()
    kept = [bytes(2000) for _ in range(200)]
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="not the GNU C library")
def test_threads_share_two_arenas() -> None:
    told = subprocess.run([sys.executable, "-c", THREADS], check=True, capture_output=True, text=True).stdout

    assert 1 <= told.count("<heap nr=") <= heap.ARENAS
