"""`server-monitor server import` and `export`: whole lists of servers, from and to files of this machine."""

import getpass
import glob
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server_monitor.cli.output import (
    NEEDS_DECISION,
    WRONG_USAGE,
    Workplace,
    emit,
    fail,
    is_interactive,
    run,
    say,
    table,
    workplace,
)
from server_monitor.errors import Invalid

if TYPE_CHECKING:
    from server_monitor.fleet.imports import KeyFile
    from server_monitor.fleet.inventory.plan import Plan
    from server_monitor.ssh.vault import Vault

SSH_CONFIG = "~/.ssh/config"
STDIN = "-"
AUTO = "auto"
INCLUDED_FILES_MAX = 1_000
KEY_MAX_BYTES = 32_768


def import_servers(  # noqa: PLR0917  # Typer's options.
    file: Annotated[str, typer.Argument(help="ssh_config, Ansible INI or YAML, CSV or JSON; - is stdin.")] = SSH_CONFIG,
    format_: Annotated[
        str, typer.Option("--format", help="auto, ssh_config, ansible_ini, ansible_yaml, csv or json.")
    ] = AUTO,
    user: Annotated[str, typer.Option(help="The account for servers that name none; yours unless set.")] = "",
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Store the private keys that the file names, and log in with them.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be added.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Add every server that a file lists, or none when there is a mistake in it."""
    from server_monitor.fleet import imports
    from server_monitor.fleet.imports import Source
    from server_monitor.fleet.inventory import formats
    from server_monitor.fleet.inventory.formats import Format

    if format_ not in (AUTO, *Format):
        fail(f"--format {format_}: choose one of {AUTO}, {', '.join(Format)}.", WRONG_USAGE)

    async def work() -> "tuple[str, Plan, dict[str, str]]":
        text = _read(file)
        chosen = formats.detect(text) if format_ == AUTO else Format(format_)
        include = None if file == STDIN else _included
        parsed = formats.read(text, chosen, include)
        account = user or getpass.getuser()
        async with workplace() as place:
            async with place.db.reading() as conn:
                plan = await imports.preview(conn, parsed, account, actor=place.actor)
            if dry_run:
                return chosen, plan, {}
            keys = _keys(plan) if with_keys else {}
            async with place.db.transaction() as conn:
                plan, ids = await imports.carry_out(
                    conn,
                    parsed,
                    account,
                    source=Source(chosen, text),
                    vault=vault(place),
                    keys=keys,
                    actor=place.actor,
                )
                return chosen, plan, ids

    chosen, plan, ids = run(work)
    if as_json:
        shown = [imports.previewed(entry) | {"id": ids.get(entry.name)} for entry in plan.create]
        skipped = [{"line": one.line, "name": one.name, "why": one.why} for one in plan.skipped]
        emit({"format": chosen, "servers": shown, "skipped": skipped, "created": len(ids)})
        return
    _print(plan, dry_run)


def export_servers(
    _as_json: Annotated[bool, typer.Option("--json", help="What it prints anyway.")] = False,
) -> None:
    """Print all servers as JSON that `import` reads. Keys and passwords are never in it."""
    from server_monitor.fleet import imports, servers
    from server_monitor.fleet.servers import Server

    async def work() -> list[Server]:
        async with workplace() as place, place.db.reading() as conn:
            return await servers.listing(conn, actor=place.actor)

    emit({"servers": [imports.exported(server) for server in run(work) if not server.is_local]})


def vault(place: Workplace) -> "Vault":
    from server_monitor.ssh.vault import Vault

    return Vault(place.settings.key_vault_master_key, place.settings.key_vault_previous_key)


def read_key(path: Path) -> "KeyFile":
    """The private key in a file; asks for its passphrase when it has one and somebody is there to be asked.

    Raises Invalid when the file cannot be read or is no key.
    """
    from server_monitor.fleet.imports import KeyFile
    from server_monitor.ssh.private_keys import read_private_key

    text = _read_file(path, KEY_MAX_BYTES)
    try:
        read_private_key(text)
    except Invalid as refused:
        if not any(mistake.field == "passphrase" for mistake in refused.errors):
            raise Invalid.one(str(path), refused.errors[0].message) from None
    else:
        return KeyFile(text)
    if not is_interactive():
        fail(f"The key {path} has a passphrase, and nobody is here to type it. Use the agent instead.", NEEDS_DECISION)
    return KeyFile(text, typer.prompt(f"Passphrase of {path}", hide_input=True, err=True))


def _keys(plan: "Plan") -> "dict[str, KeyFile]":
    paths = dict.fromkeys(entry.identity_file for entry in plan.create if entry.identity_file)
    return {path: read_key(_expanded(path)) for path in paths}


def _expanded(path: str) -> Path:
    """As ssh reads it: ~ and %d are the home directory, and a relative path starts at the working directory."""
    return Path(path.replace("%d", str(Path.home()))).expanduser()


def _included(pattern: str) -> Sequence[tuple[str, str]]:
    """The files that an Include means: relative to ~/.ssh, with wildcards, in the order of their names."""
    from server_monitor.fleet.inventory.ssh_lines import UnreadableError

    paths = sorted(glob.glob(os.path.join(Path(SSH_CONFIG).expanduser().parent, _expanded(pattern))))
    if len(paths) > INCLUDED_FILES_MAX:
        raise UnreadableError(f"This includes {len(paths):,} files; at most {INCLUDED_FILES_MAX:,} are read.")
    try:
        return [(path, _read_file(Path(path))) for path in paths]
    except Invalid as refused:
        raise UnreadableError(f"{refused.errors[0].field}: {refused.errors[0].message}") from None


def _read(file: str) -> str:
    from server_monitor.fleet.imports import TEXT_MAX_BYTES

    if file != STDIN:
        return _read_file(Path(file).expanduser())
    return _decoded(STDIN, sys.stdin.buffer.read(TEXT_MAX_BYTES + 1), TEXT_MAX_BYTES)


def _read_file(path: Path, limit_bytes: int | None = None) -> str:
    from server_monitor.fleet.imports import TEXT_MAX_BYTES

    limit_bytes = limit_bytes or TEXT_MAX_BYTES
    try:
        with path.open("rb") as file:
            content = file.read(limit_bytes + 1)
    except OSError as error:
        raise Invalid.one(str(path), f"It cannot be read: {error.strerror}.") from None
    return _decoded(str(path), content, limit_bytes)


def _decoded(name: str, content: bytes, limit_bytes: int) -> str:
    if len(content) > limit_bytes:
        raise Invalid.one(name, f"It is larger than {limit_bytes // 1024:,} KiB.")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise Invalid.one(name, "It is not UTF-8 text.") from None


def _print(plan: "Plan", dry_run: bool) -> None:
    table(
        ("NAME", "ADDRESS", "GOES THROUGH", "GROUPS"),
        [
            (
                entry.name,
                f"{entry.username}@{entry.host}" + (f":{entry.port}" if entry.port != 22 else ""),
                entry.jump or "",
                " ".join(entry.groups),
            )
            for entry in plan.create
        ],
        empty="Nothing new in it.",
    )
    for entry in plan.create:
        for note in entry.notes:
            say(f"{entry.name}: {note}")
    for one in plan.skipped:
        say(f"line {one.line}: {one.name}: {one.why}")
    count = f"{len(plan.create):,} server{'' if len(plan.create) == 1 else 's'}"
    say(f"{count} would be added." if dry_run else f"{count} added.")
    if plan.create and not dry_run:
        say("Approve their host keys next: server-monitor server trust NAME, or all at once in the browser.")
