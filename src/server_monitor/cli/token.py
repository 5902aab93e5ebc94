"""`server-monitor token`: API tokens for programs."""

import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server_monitor.auth.actor import Scope
from server_monitor.cli.output import WRONG_USAGE, emit, run, say, table, workplace

if TYPE_CHECKING:
    from server_monitor.auth.credentials import NewToken, Token

app = typer.Typer(no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DAYS_IN = {"d": 1, "w": 7, "m": 30, "y": 365}


@app.command()
def create(
    user: Annotated[str, typer.Option(help="Whose token it is; it never may do more than they.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may be used for; repeat for several.")],
    name: Annotated[str, typer.Option(help="What it is for, to recognise it by.")] = "command line",
    expires: Annotated[
        str, typer.Option(help="How long it works, such as 30d, 12w, 6m, 1y; 365 days at most.")
    ] = "90d",
    as_json: AsJson = False,
) -> None:
    """Make a token and print it, this once."""
    from server_monitor.auth import credentials, users

    days = days_of(expires)

    async def work() -> "NewToken":
        async with workplace() as place, place.db.transaction() as conn:
            owner = await users.find(conn, user, actor=place.actor)
            new = await credentials.create(conn, owner.id, name, scope, days, actor=place.actor)
            # Before it is made for good: one whose secret nobody has seen would work, and be good for nothing.
            _print(new, as_json)
            return new

    new = run(work, when_invalid=WRONG_USAGE)
    if as_json:
        return
    say(f"Keep it now, it is not shown again. It works until {new.token.expires_at:%Y-%m-%d} as {new.token.user_name}.")


@app.command("list")
def list_tokens(as_json: AsJson = False) -> None:
    """All tokens, without their secrets."""
    from server_monitor.auth import credentials

    async def work() -> "list[Token]":
        async with workplace() as place, place.db.reading() as conn:
            return await credentials.everybodys(conn, actor=place.actor)

    tokens = run(work)
    if as_json:
        emit({"items": [_document(token) for token in tokens]})
        return
    table(
        ("ID", "USER", "NAME", "BEGINS WITH", "SCOPES", "STATE", "LAST USED"),
        [
            (
                token.id,
                token.user_name,
                token.name,
                token.prefix,
                " ".join(token.scopes),
                _state(token),
                f"{token.last_used_at:%Y-%m-%d %H:%M}" if token.last_used_at else "never",
            )
            for token in tokens
        ],
    )


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="The token's id, from `token list`.")],
    as_json: AsJson = False,
) -> None:
    """Make a token useless at once."""
    from server_monitor.auth import credentials

    async def work() -> None:
        async with workplace() as place, place.db.transaction() as conn:
            await credentials.revoke(conn, token_id, actor=place.actor)

    run(work)
    if as_json:
        emit({"id": token_id, "revoked": True})
    else:
        say("The token no longer works.")


def _print(new: "NewToken", as_json: bool) -> None:
    if as_json:
        emit(_document(new.token) | {"token": new.secret})
    else:
        sys.stdout.write(new.secret + "\n")
    sys.stdout.flush()


def days_of(period: str) -> int:
    """The days in `90d`, `12w`, `6m` or `1y`; a bare number is days. Raises BadParameter."""
    match = re.fullmatch(r"([0-9]{1,4})([dwmy]?)", period.strip().lower())
    if match is None:
        raise typer.BadParameter(
            f"{period!r} is not a period; write it like 30d, 12w, 6m or 1y", param_hint="--expires"
        )
    return int(match[1]) * DAYS_IN[match[2] or "d"]


def _state(token: "Token") -> str:
    if token.revoked_at is not None:
        return "revoked"
    return f"until {token.expires_at:%Y-%m-%d}" if token.works(datetime.now(UTC)) else "expired"


def _document(token: "Token") -> dict[str, Any]:
    return {
        "id": token.id,
        "user": token.user_name,
        "name": token.name,
        "prefix": token.prefix,
        "scopes": token.scopes,
        "works": token.works(datetime.now(UTC)),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "last_used_at": token.last_used_at,
        "revoked_at": token.revoked_at,
    }
