"""Routes for servers: the list, one server, adding, importing, host keys, trying the connection."""

import asyncio
import getpass
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field, SecretStr

from server_monitor.api import pages
from server_monitor.api.deps import ActorDep, Body, Console, ConsoleDep, encoded_json, json_response
from server_monitor.api.roster import of_row, of_sample, reason
from server_monitor.auth.actor import Actor, Permission, allows
from server_monitor.auth.users import UNCHANGED
from server_monitor.fleet import changes, imports, reach, servers, trust
from server_monitor.fleet.changes import Edit, Login, NewServer
from server_monitor.fleet.imports import Source
from server_monitor.fleet.inventory import formats
from server_monitor.fleet.inventory.formats import Format
from server_monitor.fleet.inventory.plan import Plan
from server_monitor.fleet.reach import Reached
from server_monitor.fleet.reasons import About, explain
from server_monitor.fleet.servers import Server
from server_monitor.series.sample import Sample
from server_monitor.ssh.hostkeys import HostKey

router = APIRouter(prefix="/api/servers", tags=["servers"])

Capability = Literal["observe", "run", "terminal"]


class LoginBody(Body):
    """How to log in: `key` takes `key_id` or `private_key` (and its `passphrase`), `password` takes `password`."""

    type: Literal["agent", "key", "password"] = "agent"
    key_id: str | None = None
    private_key: SecretStr | None = None
    passphrase: SecretStr | None = None
    password: SecretStr | None = None

    def login(self) -> Login:
        return Login(
            self.type, self.key_id, _secret(self.private_key), _secret(self.passphrase), _secret(self.password)
        )


class ServerBody(Body):
    name: str
    host: str
    port: int = 22
    username: str
    auth: LoginBody = LoginBody()
    jump_server_id: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    capability: Capability = "observe"
    groups: list[str] = Field(default_factory=list, max_length=1_000)

    def server(self) -> NewServer:
        return NewServer(
            name=self.name,
            host=self.host,
            port=self.port,
            username=self.username,
            login=self.auth.login(),
            jump_server_id=self.jump_server_id,
            labels=self.labels,
            capability=self.capability,
            groups=self.groups,
        )


class ServerEdit(Body):
    """What to change; what is left out stays."""

    name: str = ""
    host: str = ""
    port: int = 22
    username: str = ""
    auth: LoginBody = LoginBody()
    jump_server_id: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    capability: Capability = "observe"
    enabled: bool = True

    def edit(self) -> Edit:
        given = {name: getattr(self, name) for name in self.model_fields_set}
        login = given.pop("auth", None)
        return Edit(**given, login=login.login() if login else UNCHANGED)


class ImportBody(Body):
    """A whole inventory as text. `username` is the account for servers that name none; by default the console's own."""

    format: Literal["auto", "ssh_config", "ansible_ini", "ansible_yaml", "csv", "json"] = "auto"
    text: str
    dry_run: bool = False
    username: str | None = None


class FingerprintBody(Body):
    fingerprint: str = Field(max_length=64)


class Approval(Body):
    server_id: str
    fingerprint: str = Field(max_length=64)


class ApprovalsBody(Body):
    items: list[Approval] = Field(max_length=trust.BULK_MAX)


@router.get("")
async def list_servers(
    parts: ConsoleDep,
    actor: ActorDep,
    limit: Annotated[int, Query(ge=1, le=pages.LIMIT_MAX)] = pages.LIMIT_MAX,
    cursor: Annotated[str | None, Query(max_length=1_024)] = None,
) -> Response:
    """The servers that the actor may see, by name, each with its newest values."""
    return encoded_json(await parts.roster.page(limit, cursor, actor=actor))


@router.post("", status_code=201)
async def add_server(body: ServerBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """A new server. Nothing is sent to it before a person has approved its host key."""
    async with parts.db.transaction() as conn:
        server = await changes.add(conn, parts.vault, body.server(), actor=actor)
    return json_response(_detail(server, None, None, actor), 201)


@router.post("/test")
async def test_new_server(body: ServerBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Whether a server that is not added yet can be reached, and which host keys it shows. Nobody logs in."""
    async with parts.db.reading() as conn:
        target = await changes.trial(conn, body.server(), actor=actor)
    seen = await reach.look(parts.pool, target)
    about = About(target.name, target.host, target.port, target.username, target.auth)
    return json_response(_reached(seen, about))


@router.post("/import")
async def import_servers(body: ImportBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Add every server of an inventory, or nothing. With `dry_run` it only tells what would be added."""
    imports.require_importing(actor)
    chosen = formats.detect(body.text) if body.format == "auto" else Format(body.format)
    parsed = await asyncio.to_thread(formats.read, body.text, chosen)
    username = body.username or _own_account()
    if body.dry_run:
        async with parts.db.reading() as conn:
            plan = await imports.preview(conn, parsed, username, actor=actor)
        return json_response(_imported(chosen, plan, {}))
    source = Source(chosen, body.text)
    async with parts.db.transaction() as conn:
        plan, ids = await imports.carry_out(conn, parsed, username, source=source, vault=parts.vault, actor=actor)
    return json_response(_imported(chosen, plan, ids))


@router.get("/export")
async def export_servers(parts: ConsoleDep, actor: ActorDep) -> Response:
    """The servers that the actor may see, as a text that `import` reads. Keys and passwords are never in it."""
    async with parts.db.reading() as conn:
        found = await servers.listing(conn, actor=actor)
    return json_response({"servers": [imports.exported(server) for server in found if not server.is_local]})


@router.post("/host-keys/trust")
async def trust_host_keys(body: ApprovalsBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Approve many host keys at once; those that cannot be approved are told with the reason."""
    wanted = [(approval.server_id, approval.fingerprint) for approval in body.items]
    async with parts.db.transaction() as conn:
        trusted, failed = await trust.trust_many(conn, wanted, actor=actor)
    refused = [{"server_id": one.server_id, "code": one.code, "detail": one.detail} for one in failed]
    return json_response({"trusted": trusted, "failed": refused})


@router.get("/{server_id}")
async def one_server(server_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """One server, with what was found on it."""
    async with parts.db.reading() as conn:
        server = await servers.get(conn, server_id, actor=actor)
        facts = await servers.found_facts(conn, server_id)
    return json_response(_detail(server, parts.history.latest(server_id), facts, actor))


@router.patch("/{server_id}")
async def edit_server(server_id: str, body: ServerEdit, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Change what is given. Its approved host keys stay."""
    async with parts.db.transaction() as conn:
        server = await changes.edit(conn, parts.vault, server_id, body.edit(), actor=actor)
        facts = await servers.found_facts(conn, server_id)
    return json_response(_detail(server, parts.history.latest(server_id), facts, actor))


@router.delete("/{server_id}", status_code=204)
async def remove_server(server_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Forget a server, and its history with it."""
    async with parts.db.transaction() as conn:
        await changes.remove(conn, server_id, actor=actor)
    await parts.pool.drop(server_id)
    await parts.history.forget(server_id)
    return Response(status_code=204)


@router.post("/{server_id}/test")
async def test_server(server_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Whether a server can be reached, which keys it shows and, where one is approved, whether it lets us in."""
    server, seen = await reach.attempt(parts.db, parts.pool, server_id, actor=actor)
    return json_response(_reached(seen, server.about(with_key=allows(actor, Permission.KEY_READ))))


@router.get("/{server_id}/processes")
async def processes(server_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """The processes that use most, while the server's page is open somewhere; otherwise none are asked for."""
    async with parts.db.reading() as conn:
        await servers.get(conn, server_id, actor=actor)
    items = [
        {"pid": one.pid, "name": one.name, "cpu_percent": one.cpu_percent, "memory_bytes": one.memory_bytes}
        for one in parts.top_processes(server_id)
    ]
    return json_response({"items": items})


@router.get("/{server_id}/host-key")
async def host_key(server_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """The approved host keys, and those that the host has shown and nobody approved yet."""
    return json_response(await _host_keys(parts, server_id, actor))


@router.post("/{server_id}/host-key")
async def trust_host_key(server_id: str, body: FingerprintBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Approve the host key with this fingerprint. A host that shows another one is a conflict."""
    await reach.trust_what_is_shown(parts.db, parts.pool, server_id, body.fingerprint, actor=actor)
    return json_response(await _host_keys(parts, server_id, actor))


def _detail(server: Server, latest: Sample | None, facts: Mapping[str, Any] | None, actor: Actor) -> dict[str, Any]:
    """A server as its own page shows it; what concerns its key only to those who may read keys."""
    may_read_keys = allows(actor, Permission.KEY_READ)
    document = (
        of_row(server)
        | of_sample(latest)
        | {
            "jump_name": server.jump_name,
            "reason": reason(server.status_reason, server.about(with_key=may_read_keys)),
            "facts": facts,
            "created_at": server.created_at,
            "updated_at": server.updated_at,
        }
    )
    if may_read_keys:
        document |= {"credential_id": server.credential_id, "key_fingerprint": server.key_fingerprint}
    return document


def _reached(seen: Reached, about: About) -> dict[str, Any]:
    explained = None if seen.reason is None else explain(seen.reason, about)
    return {
        "reachable": seen.reachable,
        "logged_in": seen.logged_in,
        "reason": seen.reason,
        "sentence": explained.sentence if explained else None,
        "remedy": explained.remedy if explained else None,
        "detail": seen.detail,
        "offered": _keys(seen.offered),
        "latency_ms": seen.latency_ms,
    }


async def _host_keys(parts: Console, server_id: str, actor: Actor) -> dict[str, Any]:
    async with parts.db.reading() as conn:
        known = await trust.host_keys(conn, server_id, actor=actor)
    return {"pinned": _keys(known.pinned), "offered": _keys(known.offered)}


def _keys(keys: Sequence[HostKey]) -> list[dict[str, str]]:
    return [{"type": key.key_type, "fingerprint": key.fingerprint} for key in keys]


def _imported(chosen: Format, plan: Plan, ids: Mapping[str, str]) -> dict[str, Any]:
    return {
        "format": chosen,
        "servers": [imports.previewed(entry) | {"id": ids.get(entry.name)} for entry in plan.create],
        "skipped": [{"line": one.line, "name": one.name, "why": one.why} for one in plan.skipped],
        "created": len(ids),
    }


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()


def _own_account() -> str | None:
    """Whom the console runs as: as with ssh itself, the account that is meant when none is named."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None
