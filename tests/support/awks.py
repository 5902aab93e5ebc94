"""Every awk of this machine that the probe has to run in."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from server_monitor.collect import probe
from tests.support.patience import PATIENCE_S

COMMANDS = {
    "mawk": ("mawk", "-W", "interactive"),
    "gawk": ("gawk",),
    "busybox": ("busybox", "awk"),
}
AWKS = tuple(name for name, command in COMMANDS.items() if shutil.which(command[0]))
CAPTURES = Path(__file__).parent.parent / "captures"


def run_probe(awk: str, ticks: Sequence[str], root: Path | None = None, path: str | None = None) -> list[bytes]:
    """What the probe prints for these ticks and the end of file, line by line."""
    command = [
        *COMMANDS[awk],
        *("-v", f"AWK={awk}", "-v", "STAT_F=1", "-v", "MACHINE=x86_64"),
        *("-v", f"ROOT={root or ''}"),
        "--",
        probe.program(),
    ]
    environment = {"LC_ALL": "C", "PATH": path or "/usr/local/bin:/usr/bin:/bin"}
    finished = subprocess.run(
        command,
        check=False,
        input="".join(f"{tick}\n" for tick in ticks).encode(),
        capture_output=True,
        timeout=PATIENCE_S,
        env=environment,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == b""
    return finished.stdout.splitlines()
