"""`server-monitor audit`: the log of who did what. Each group of commands has a file of its own."""

import typer

from server_monitor.cli import audit_archive, audit_bundle, audit_export, audit_verify
from server_monitor.cli.output import ArchiveCommand

app = typer.Typer(no_args_is_help=True)
app.command("verify")(audit_verify.verify)
app.command("bundle", cls=ArchiveCommand)(audit_bundle.bundle)
app.command("export", cls=ArchiveCommand)(audit_export.export)
app.command("repair")(audit_verify.repair)
app.command("key")(audit_verify.key)
app.command("checkpoint")(audit_verify.checkpoint)
app.command("archive")(audit_archive.archive)
app.add_typer(audit_archive.hold, name="hold")
