"""Records for ever into one file, and says on standard output what has become durable; to be killed."""

import asyncio
import sys
from pathlib import Path

from server_monitor.terminal.recording import Progress
from tests.support.recordings import begun

BLOCK = 4_000


def block(number: int) -> bytes:
    """What is printed: no two blocks are alike, and a missing or doubled one shows."""
    return f"{number:09}\r\n".encode() * (BLOCK // 11)


async def main(path: Path, session_id: str) -> None:
    recorder = await begun(path, session_id)

    def say(progress: Progress) -> None:
        sys.stdout.write(f"{progress.chunks} {progress.head.hex()} {progress.size_bytes} {progress.output_bytes}\n")
        sys.stdout.flush()

    recorder.on_progress = say
    say(recorder.progress)
    number = 0
    while True:
        if not recorder.is_behind:
            recorder.output(block(number))
            number += 1
        await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
