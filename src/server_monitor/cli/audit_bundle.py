"""`server-monitor audit bundle`: the whole log as one file for an auditor."""

import os
from contextlib import closing
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from server_monitor.cli.output import emit, run, say, workplace
from server_monitor.errors import Conflict, Unavailable


def bundle(
    output: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; the name of a new .tar.gz.")],
    archive: Annotated[
        str | None,
        typer.Option(
            metavar="[URL]", help="Begin with the first record ever, out of the archive; a URL only if that was moved."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write the log, its checkpoints and a verifier into one file that can be checked anywhere."""
    from server_monitor.audit import bundle as bundles
    from server_monitor.audit import checkpoints
    from server_monitor.auth.actor import audited

    async def work() -> dict[str, object]:
        async with workplace() as place:
            signer = await checkpoints.open_signer(place.db, place.settings.data_dir)
            is_whole = archive is not None
            bundled = bundles.started(
                place.db, signer, actor=audited(place.actor), is_whole=is_whole, url=archive or None
            )
            async with bundled as made:
                with closing(_new_file(output)) as file:
                    async for chunk in made.chunks():
                        file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())
                made.delivered()
        return {
            "file": str(output),
            "first_seq": made.manifest.first_seq,
            "records": made.rows,
            "bytes": made.size_bytes,
            "sha256": made.digest.hexdigest(),
        }

    written = run(work)
    if as_json:
        emit(written)
    else:
        say(f"{written['records']} records are in {output}. SHA-256: {written['sha256']}")
        if written["first_seq"]:
            say(f"It begins with record {written['first_seq']}: earlier ones are in the archive; --archive adds them.")


def _new_file(path: Path) -> BinaryIO:
    """Opened for its owner alone: a log says much about people."""
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except FileExistsError:
        raise Conflict(f"{path} is there already; give the bundle another name.") from None
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror}.") from error
