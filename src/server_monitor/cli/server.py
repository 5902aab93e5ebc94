"""`server-monitor server`: the servers that are watched."""

import getpass
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server_monitor.cli import inventory
from server_monitor.cli.output import (
    FAILED,
    NEEDS_DECISION,
    WRONG_USAGE,
    Workplace,
    emit,
    fail,
    record,
    require_consent,
    run,
    say,
    table,
    workplace,
)
from server_monitor.errors import Conflict

if TYPE_CHECKING:
    from server_monitor.fleet.changes import Login
    from server_monitor.fleet.reach import Reached
    from server_monitor.fleet.servers import Server
    from server_monitor.fleet.trust import HostKeys
    from server_monitor.ssh.hostkeys import HostKey
    from server_monitor.ssh.pool import Pool

app = typer.Typer(no_args_is_help=True)
app.command("import")(inventory.import_servers)
app.command("export")(inventory.export_servers)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="The server's name or id.")]


@app.command()
def add(  # noqa: PLR0917  # Typer's options.
    name: Annotated[str, typer.Argument(help="What to call it.")],
    host: Annotated[str, typer.Option(help="DNS name or address; the name unless set.")] = "",
    user: Annotated[str, typer.Option(help="The account to log in as; yours unless set.")] = "",
    port: Annotated[int, typer.Option(help="SSH port.")] = 22,
    key: Annotated[Path | None, typer.Option(help="Store this private key and log in with it.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Log in with the password on standard input.")
    ] = False,
    jump: Annotated[str, typer.Option(help="The server to go through, by name.")] = "",
    label: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; repeat for several.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add a server. Without a key or a password, the console's ssh-agent logs in."""
    from server_monitor.fleet import changes, servers
    from server_monitor.fleet.changes import NewServer

    if key is not None and password_stdin:
        fail("Give a key or a password, not both.", WRONG_USAGE)
    labels = _labels(label or [])

    async def work() -> "Server":
        login = _login(key, password_stdin)
        async with workplace() as place, place.db.transaction() as conn:
            through = (await servers.find(conn, jump, actor=place.actor)).id if jump else None
            account = user or getpass.getuser()
            new = NewServer(name, host or name, account, port, login, jump_server_id=through, labels=labels)
            return await changes.add(conn, inventory.vault(place), new, actor=place.actor)

    added = run(work, when_invalid=WRONG_USAGE)
    if as_json:
        emit(_document(added))
    else:
        say(f"{added.name} is added. Approve its host key next: server-monitor server trust '{added.name}'")


@app.command("list")
def list_servers(as_json: AsJson = False) -> None:
    """All servers, with their state."""
    from server_monitor.fleet import servers

    async def work() -> "list[Server]":
        async with workplace() as place, place.db.reading() as conn:
            return await servers.listing(conn, actor=place.actor)

    found = run(work)
    if as_json:
        emit({"items": [_document(server) for server in found], "next": None})
        return
    table(
        ("NAME", "ADDRESS", "STATE", "REASON", "GROUPS"),
        [
            (
                server.name,
                _address(server),
                server.status,
                server.status_reason or "",
                " ".join(group.name for group in server.groups),
            )
            for server in found
        ],
        empty="No servers yet. Add one with `server-monitor server add`, or many with `server-monitor server import`.",
    )


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """One server: how it is reached, its state, and what was found on it."""
    from server_monitor.fleet import servers, trust

    async def work() -> "tuple[Server, HostKeys, Mapping[str, Any]]":
        async with workplace() as place, place.db.reading() as conn:
            server = await servers.find(conn, name, actor=place.actor)
            keys = await trust.host_keys(conn, server.id, actor=place.actor)
            return server, keys, await servers.found_facts(conn, server.id) or {}

    server, keys, facts = run(work)
    if as_json:
        shown = {"pinned": _keys(keys.pinned), "offered": _keys(keys.offered)}
        emit(_document(server) | {"host_keys": shown, "facts": facts})
        return
    fields = {
        "name": server.name,
        "id": server.id,
        "address": _address(server),
        "logs in with": server.auth + (f" {server.key_fingerprint}" if server.key_fingerprint else ""),
        "goes through": server.jump_name or "",
        "labels": " ".join(f"{name}={value}" for name, value in sorted(server.labels.items())),
        "groups": ", ".join(group.name for group in server.groups),
        "capability": server.capability,
        "state": server.status if server.enabled else "switched off",
        "since": f"{server.status_at:%Y-%m-%d %H:%M:%S} UTC" if server.status_at else "",
        "host keys": ", ".join(f"{key.fingerprint} ({key.key_type})" for key in keys.pinned),
        "not approved": ", ".join(f"{key.fingerprint} ({key.key_type})" for key in keys.offered),
    }
    found = {name: str(value) for name, value in facts.items() if value is not None}
    record({name: value for name, value in (fields | found).items() if value})
    if server.status_reason is not None:
        _explain(server, server.status_reason, server.status_detail)


@app.command("test")
def try_server(name: Name, as_json: AsJson = False) -> None:
    """Really connect: exits 0 when the server lets the console in, 2 when its host key waits for approval."""
    from server_monitor.fleet import reach, servers

    async def work() -> "tuple[Server, Reached]":
        async with workplace() as place, _pool(place) as pool:
            async with place.db.reading() as conn:
                found = await servers.find(conn, name, actor=place.actor)
            return await reach.attempt(place.db, pool, found.id, actor=place.actor)

    server, seen = run(work)
    if as_json:
        document = {"reachable": seen.reachable, "logged_in": seen.logged_in, "reason": seen.reason}
        emit(document | {"detail": seen.detail, "offered": _keys(seen.offered), "latency_ms": seen.latency_ms})
    elif seen.reason is not None:
        _explain(server, seen.reason, seen.detail)
    elif server.is_local:
        say(f"{server.name} is the console's own machine; there is nothing to connect to.")
    else:
        say(f"{server.name} let us in as {server.username}; it showed its key after {seen.latency_ms} ms.")
    if seen.reason == "host_key_unknown":
        raise typer.Exit(NEEDS_DECISION)
    if seen.reason is not None:
        raise typer.Exit(FAILED)


@app.command("trust")
def trust_host_key(
    name: Name,
    fingerprint: Annotated[
        str, typer.Option(help="Approve this fingerprint without asking, such as SHA256:…", show_default=False)
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Approve the host key that a server shows, after comparing its fingerprint."""
    from server_monitor.fleet import reach, servers

    async def work() -> tuple[str, str]:
        async with workplace() as place, _pool(place) as pool:
            async with place.db.reading() as conn:
                server = await servers.find(conn, name, actor=place.actor)
                target = await servers.target_of(conn, server.id)
            if target is None:
                raise Conflict("The console's own machine is reached without SSH; it has no host key.")
            shown = await pool.scan(target)
            await reach.keep_offers(place.db, server.id, shown)
            chosen = fingerprint or _ask(server, shown)
            await reach.trust_what_is_shown(place.db, pool, server.id, chosen, actor=place.actor)
            return server.name, chosen

    trusted, chosen = run(work)
    if as_json:
        emit({"name": trusted, "fingerprint": chosen})
    else:
        say(f"{trusted} is trusted with {chosen}.")


@app.command("set")
def set_server(
    name: Name,
    capability: Annotated[
        str, typer.Option(help="What may be done there: observe, run commands, or open a terminal too.")
    ] = "",
    label: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE; repeat for several, NAME= takes one away.")
    ] = None,
    enabled: Annotated[
        bool | None, typer.Option("--on/--off", help="Watch it or leave it alone.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change what may be done on a server, its labels, or whether it is watched."""
    from server_monitor.auth.users import UNCHANGED
    from server_monitor.fleet import changes, servers
    from server_monitor.fleet.changes import Edit

    wanted = _labels(label or [])
    if not (capability or wanted) and enabled is None:
        fail("Say what to change; see --help.", WRONG_USAGE)

    async def work() -> "Server":
        async with workplace() as place, place.db.transaction() as conn:
            found = await servers.find(conn, name, actor=place.actor)
            labels = {key: value for key, value in {**found.labels, **wanted}.items() if value or key not in wanted}
            change = Edit(
                capability=capability or UNCHANGED,
                labels=labels if wanted else UNCHANGED,
                enabled=UNCHANGED if enabled is None else enabled,
            )
            return await changes.edit(conn, inventory.vault(place), found.id, change, actor=place.actor)

    changed = run(work, when_invalid=WRONG_USAGE)
    if as_json:
        emit(_document(changed))
    else:
        say(
            f"{changed.name} is at capability {changed.capability}" + ("." if changed.enabled else " and switched off.")
        )


@app.command()
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget a server and its history."""
    from server_monitor.fleet import changes, servers

    async def work() -> "Server":
        async with workplace() as place:
            async with place.db.reading() as conn:
                found = await servers.find(conn, name, actor=place.actor)
            if not yes:
                require_consent(
                    f"Remove {found.name}?",
                    unasked=f"This removes {found.name} and its history; say --yes.",
                    declined="Nothing was removed.",
                )
            async with place.db.transaction() as conn:
                return await changes.remove(conn, found.id, actor=place.actor)

    gone = run(work)
    if as_json:
        emit({"id": gone.id, "name": gone.name, "removed": True})
    else:
        say(f"{gone.name} is removed.")


@asynccontextmanager
async def _pool(place: Workplace) -> AsyncIterator["Pool"]:
    from server_monitor.ssh.pool import Limits, Pool

    limits = Limits(connect_timeout_s=place.settings.connect_timeout_seconds)
    pool = Pool(place.db, inventory.vault(place), limits, agent_socket=place.settings.ssh_auth_sock)
    try:
        yield pool
    finally:
        await pool.close()


def _login(key: Path | None, password_stdin: bool) -> "Login":
    from server_monitor.fleet.changes import Login

    if password_stdin:
        return Login("password", password=sys.stdin.readline().rstrip("\r\n"))
    if key is None:
        return Login()
    file = inventory.read_key(key)
    return Login("key", private_key=file.text, passphrase=file.passphrase)


def _labels(words: Sequence[str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    if bad := next((name for name, equals, _ in pairs if not equals), None):
        fail(f"The label {bad!r} has no value. Write NAME=VALUE.", WRONG_USAGE)
    return {name: value for name, _, value in pairs}


def _ask(server: "Server", shown: "Sequence[HostKey]") -> str:
    """The fingerprint that the person at the terminal approves."""
    say(f"{server.name} ({_address(server)}) shows:")
    for key in shown:
        say(f"  {key.fingerprint}  {key.key_type}")
    say("Compare with what the host prints itself: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
    require_consent(
        f"Trust {shown[0].fingerprint}?",
        unasked=f"Approve it with: --fingerprint {shown[0].fingerprint}",
        declined="Nothing was approved.",
    )
    return shown[0].fingerprint


def _explain(server: "Server", code: str, detail: str | None) -> None:
    from server_monitor.fleet.reasons import explain

    explained = explain(code, server.about(with_key=True))
    say(f"\n{explained.sentence}\n{explained.remedy}")
    if detail:
        say(f"({detail})")


def _address(server: "Server") -> str:
    if server.is_local:
        return "this machine"
    host = f"[{server.host}]" if ":" in server.host else server.host
    return f"{server.username}@{host}" + (f":{server.port}" if server.port != 22 else "")


def _keys(keys: "Sequence[HostKey]") -> list[dict[str, str]]:
    return [{"type": key.key_type, "fingerprint": key.fingerprint} for key in keys]


def _document(server: "Server") -> dict[str, Any]:
    names = ("id", "name", "host", "port", "username", "auth", "jump_server_id", "labels", "capability", "enabled")
    states = ("status", "status_reason", "status_detail", "status_at", "created_at", "updated_at", "key_fingerprint")
    document = {name: getattr(server, name) for name in (*names, *states)}
    return document | {"groups": [{"id": group.id, "name": group.name} for group in server.groups]}
