"""`server-monitor audit bundle`: the whole log as one file for an auditor."""

from pathlib import Path
from typing import Annotated

import typer

from server_monitor.cli.output import emit, new_file, require_free, run, say, workplace


def bundle(
    output: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; the name of a new .tar.gz.")],
    archive: Annotated[
        str | None,
        typer.Option(
            metavar="[URL]", help="Begin with the first record ever, out of the archive; a URL only if that was moved."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write the log, its checkpoints and a verifier into one file that can be checked anywhere."""
    from server_monitor.audit import bundle as bundles
    from server_monitor.audit import checkpoints
    from server_monitor.auth.actor import audited

    async def work() -> dict[str, object]:
        require_free(output, force=force)
        async with workplace() as place:
            signer = await checkpoints.open_signer(place.db, place.settings.data_dir)
            is_whole = archive is not None
            bundled = bundles.started(
                place.db, signer, actor=audited(place.actor), is_whole=is_whole, url=archive or None
            )
            async with bundled as made:
                with new_file(output, force=force) as file:
                    async for chunk in made.chunks():
                        file.write(chunk)
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
