"""Routes for the private keys that servers share. A key goes in and never comes out."""

from typing import Any

from fastapi import APIRouter, Response
from pydantic import Field, SecretStr

from server_monitor.api.deps import ActorDep, Body, ConsoleDep, json_response
from server_monitor.fleet import keys
from server_monitor.fleet.changes import SECRET_MAX
from server_monitor.ssh.vault import Credential

router = APIRouter(prefix="/api/ssh-keys", tags=["ssh keys"])


class KeyBody(Body):
    name: str
    private_key: SecretStr = Field(max_length=SECRET_MAX)
    passphrase: SecretStr | None = Field(None, max_length=SECRET_MAX)


@router.get("")
async def list_keys(parts: ConsoleDep, actor: ActorDep) -> Response:
    """The stored keys, each with its public half."""
    async with parts.db.reading() as conn:
        found = await keys.listing(conn, actor=actor)
    return json_response({"items": [_document(key) for key in found], "next": None})


@router.post("", status_code=201)
async def add_key(body: KeyBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Store a private key, encrypted."""
    passphrase = body.passphrase.get_secret_value() if body.passphrase else None
    async with parts.db.transaction() as conn:
        made = await keys.add(
            conn, parts.vault, body.name, body.private_key.get_secret_value(), passphrase, actor=actor
        )
    return json_response(_document(made), 201)


@router.delete("/{key_id}", status_code=204)
async def remove_key(key_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Forget a key that no server logs in with."""
    async with parts.db.transaction() as conn:
        await keys.remove(conn, key_id, actor=actor)
    return Response(status_code=204)


def _document(key: Credential) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "type": key.key_type,
        "fingerprint": key.fingerprint,
        "public_key": key.public_key,
        "created_at": key.created_at,
    }
