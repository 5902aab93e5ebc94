"""`server-monitor user`: accounts, from the console's own machine."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server_monitor.auth.actor import Role
from server_monitor.cli.output import (
    NEEDS_DECISION,
    emit,
    fail,
    is_interactive,
    require_consent,
    run,
    say,
    table,
    workplace,
)

if TYPE_CHECKING:
    from server_monitor.auth.users import User

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The user's name.")]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command()
def add(
    name: Name,
    role: Annotated[Role, typer.Option(help="What the user may do everywhere.")],
    password_stdin: PasswordStdin = False,
    as_json: AsJson = False,
) -> None:
    """Make an account that can log in at once."""
    from server_monitor.auth import users

    password = _new_password(name, password_stdin)

    async def work() -> "User":
        async with workplace() as place:
            return await users.create(place.db, name, password, role, actor=place.actor)

    user = run(work)
    _print(user, as_json, f"{user.name} can log in as {role.value}.")


@app.command("list")
def list_users(as_json: AsJson = False) -> None:
    """Everybody who has an account."""
    from server_monitor.auth import users

    async def work() -> "list[User]":
        async with workplace() as place, place.db.reading() as conn:
            return await users.listing(conn, actor=place.actor)

    everybody = run(work)
    if as_json:
        emit({"items": [_document(user) for user in everybody]})
        return
    rows = [
        (
            user.name,
            user.role or "-",
            "disabled" if user.is_disabled else "active",
            f"{user.created_at:%Y-%m-%d}",
            user.id,
        )
        for user in everybody
    ]
    table(
        ("NAME", "ROLE", "STATE", "SINCE", "ID"),
        rows,
        empty="Nobody yet. Make the first admin: user add NAME --role admin",
    )


@app.command("reset-password")
def reset_password(name: Name, password_stdin: PasswordStdin = False, as_json: AsJson = False) -> None:
    """Give a user another password and log them out everywhere."""
    from server_monitor.auth import credentials, users

    password = _new_password(name, password_stdin)

    async def work() -> "tuple[User, int]":
        async with workplace() as place:
            async with place.db.reading() as conn:
                user = await users.find(conn, name, actor=place.actor)
            user = await users.edit(place.db, user.id, users.Edit(password=password), actor=place.actor)
            async with place.db.reading() as conn:
                return user, await credentials.count_working(conn, user.id)

    user, tokens = run(work)
    _print(user, as_json, f"{user.name} has a new password and is logged out everywhere.")
    if tokens:
        say(f"{tokens} of their API tokens still work: see `token list`, and `token revoke` what should not.")


@app.command()
def disable(name: Name, as_json: AsJson = False) -> None:
    """Log a user out everywhere, revoke their tokens, and let them in no more."""
    user = _set_disabled(name, True)
    _print(user, as_json, f"{user.name} is disabled.")


@app.command()
def enable(name: Name, as_json: AsJson = False) -> None:
    """Let a disabled user log in again. Their tokens stay revoked."""
    user = _set_disabled(name, False)
    _print(user, as_json, f"{user.name} can log in again.")


@app.command()
def remove(name: Name, yes: Yes = False, as_json: AsJson = False) -> None:
    """Delete an account. What it did stays in the audit log."""
    from server_monitor.auth import users

    if not yes:
        require_consent(f"Delete {name}?", unasked=f"This deletes {name}; say --yes.", declined="Nothing was deleted.")

    async def work() -> "User":
        async with workplace() as place, place.db.transaction() as conn:
            user = await users.find(conn, name, actor=place.actor)
            await users.remove(conn, user.id, actor=place.actor)
            return user

    user = run(work)
    _print(user, as_json, f"{user.name} is gone.")


def _set_disabled(name: str, disabled: bool) -> "User":
    from server_monitor.auth import users

    async def work() -> "User":
        async with workplace() as place:
            async with place.db.reading() as conn:
                user = await users.find(conn, name, actor=place.actor)
            return await users.edit(place.db, user.id, users.Edit(disabled=disabled), actor=place.actor)

    return run(work)


def _new_password(name: str, from_stdin: bool) -> str:
    """The password from standard input, or typed twice; never from the command line, which others can see."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not is_interactive():
        fail(f"A password for {name} is needed: pipe it in with --password-stdin.", NEEDS_DECISION)
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt="Once more", err=True))


def _print(user: "User", as_json: bool, words: str) -> None:
    if as_json:
        emit(_document(user))
    else:
        say(words)


def _document(user: "User") -> dict[str, Any]:
    return {
        "id": user.id,
        "name": user.name,
        "role": user.role,
        "disabled": user.is_disabled,
        "created_at": user.created_at,
    }
