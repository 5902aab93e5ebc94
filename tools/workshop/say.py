"""What the tools print: short lines on standard error, so that standard output stays the program's."""

import sys
from typing import NoReturn


class Stop(Exception):  # noqa: N818
    """Ends the command with this message and exit code 1. The message names the remedy."""


def step(text: str) -> None:
    print(f"» {text}", file=sys.stderr, flush=True)


def stop(text: str) -> NoReturn:
    raise Stop(text)
