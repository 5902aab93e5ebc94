"""Keeps opened secrets out of core files and away from other processes of the same user."""

import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def harden_process() -> None:
    """No core dumps, and no reading of this process's memory by others (ptrace, /proc/PID/mem), root excepted.

    The kernel then gives most of /proc/PID to root, so a console that does not run as root cannot list its own open
    files there. Children start without it: it ends at execve(2).
    Source: prctl(2), PR_SET_DUMPABLE; core(5).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")
