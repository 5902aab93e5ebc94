"""Routes for API tokens."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from server_monitor.api.deps import ActorDep, Body, ConsoleDep, PasswordText, json_response, source
from server_monitor.auth import credentials
from server_monitor.auth.credentials import USUAL_DAYS, Token

router = APIRouter(prefix="/api/tokens", tags=["tokens"])


class NewToken(Body):
    name: str
    scopes: list[str] = Field(max_length=16)
    expires_in_days: int = USUAL_DAYS
    password: PasswordText | None = None


@router.get("")
async def own_tokens(parts: ConsoleDep, actor: ActorDep) -> Response:
    """The actor's own tokens, without their secrets."""
    async with parts.db.reading() as conn:
        tokens = await credentials.own(conn, actor=actor)
    return json_response({"items": [_document(token) for token in tokens], "next": None})


@router.post("", status_code=201)
async def create_token(body: NewToken, request: Request, parts: ConsoleDep, actor: ActorDep) -> Response:
    """A new token, shown this once. More than 15 minutes after the login it takes the actor's password again."""
    password = body.password.get_secret_value() if body.password else None
    await parts.logins.confirm(actor, password, source(request))
    async with parts.db.transaction() as conn:
        new = await credentials.create(conn, str(actor.id), body.name, body.scopes, body.expires_in_days, actor=actor)
    return json_response(_document(new.token) | {"token": new.secret}, 201)


@router.delete("/{token_id}", status_code=204)
async def revoke_token(token_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Make a token useless at once."""
    async with parts.db.transaction() as conn:
        await credentials.revoke(conn, token_id, actor=actor)
    return Response(status_code=204)


def _document(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "prefix": token.prefix,
        "scopes": token.scopes,
        "works": token.works(datetime.now(UTC)),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "last_used_at": token.last_used_at,
        "revoked_at": token.revoked_at,
    }
