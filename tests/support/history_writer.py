"""A process that appends to a history and says so, to be killed: `python -m tests.support.history_writer FILE`.

It writes a line `SEQUENCE` to stdout after each append; the sample appended holds that number as its value. Blocks are
made every few flushes and settled, so that a kill meets all kinds of writing.
"""

import asyncio
import sys
from pathlib import Path

from server_monitor.series.sample import Sample
from server_monitor.series.store import History
from server_monitor.series.tiers import Tiers

START = 1_700_006_400.0
STEP_S = 20.0


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def write(path: Path, first: int) -> None:
    history = await History.open(path, Tiers(), keep_free_bytes=0, clock=lambda: START)
    sequence = first
    while True:
        at = START + sequence * STEP_S
        history.append([Sample(f"server{n}", at, {"threads": float(sequence), "load1": 1.5}) for n in range(5)])
        say(f"{sequence}")
        if sequence % 3 == 0:
            await history.flush()
            say(f"flushed {sequence}")
        if sequence % 20 == 0:
            await history.divide()
        if sequence % 50 == 0:
            await history.compact(at)
        if sequence % 90 == 0:
            await history.prune(at)
        sequence += 1


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2])))
