"""How the C library shares out memory among the console's threads."""

import ctypes

_M_ARENA_MAX = -8  # malloc.h
ARENAS = 2


def share_heap() -> None:
    """Have all threads take memory from the same two arenas; to be called before there are any.

    The C library gives each thread that allocates an arena of its own, up to eight for each processor, and hardly ever
    gives back what is free in one. Ours take turns anyway, under the interpreter's lock.
    Source: mallopt(3), M_ARENA_MAX. Other C libraries than glibc have neither arenas nor this function's parameter.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)
