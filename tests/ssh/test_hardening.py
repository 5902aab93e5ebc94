import subprocess
import sys

from tests.support.patience import PATIENCE_S

LOOK = """
import ctypes, resource
from server_monitor.ssh.hardening import harden_process
harden_process()
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


def test_a_hardened_process_leaves_no_core_and_lets_nobody_read_its_memory() -> None:
    """PR_GET_DUMPABLE is 3 in linux/prctl.h."""
    seen = subprocess.run([sys.executable, "-c", LOOK], check=True, capture_output=True, text=True, timeout=PATIENCE_S)

    assert seen.stdout == "(0, 0) 0\n"
