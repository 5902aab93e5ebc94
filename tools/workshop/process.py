"""Starting other programs: no standard input, no prompts, a readable end when one fails."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from workshop.say import stop

# A company's own certificate authority is in the system's store; uv and Node carry other stores.
SYSTEM_CERTIFICATES = {"UV_SYSTEM_CERTS": "1", "NODE_USE_SYSTEM_CA": "1"}


def run(command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str] | None = None) -> None:
    """Run to the end. What it prints goes to standard error; a failure stops our command too."""
    words = [str(word) for word in command]
    ended = subprocess.run(
        words, cwd=cwd, env=environment(env), stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False
    )
    if ended.returncode:
        stop(f"This failed (exit {ended.returncode}): {shlex.join(words)}")


def exit_code(command: Sequence[str | Path], *, cwd: Path) -> int:
    """How a program ended whose output is the answer, such as that of the tests."""
    return subprocess.run(command, cwd=cwd, env=environment(), stdin=subprocess.DEVNULL, check=False).returncode


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, with certificates from the system's store, and no colours where nobody sees them."""
    plain = {} if sys.stderr.isatty() else {"NO_COLOR": "1"}
    return {**SYSTEM_CERTIFICATES, **plain, **os.environ, **(extra or {})}
