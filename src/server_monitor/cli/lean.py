"""Importing the console without what its libraries load, or look for, on behalf of others."""

import ctypes.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lean_imports() -> Iterator[None]:
    """Spare the start what the console never uses; every library expects that it may be missing.

    - `pydantic.v1`: FastAPI asks of each model whether it is one of Pydantic 1.
    - `rich`: structlog would colour tracebacks with it, and show what variables hold.
    - asyncssh runs ldconfig, gcc and ld to find liboqs and nettle, for algorithms that `ssh/algorithms.py` leaves out.
    """
    for unused in ("pydantic.v1", "rich"):
        sys.modules.setdefault(unused, None)  # type: ignore[arg-type]  # None makes an import fail.
    found = ctypes.util.find_library
    ctypes.util.find_library = lambda name: None  # noqa: ARG005  # It has to be called as the real one.
    try:
        yield
    finally:
        ctypes.util.find_library = found
