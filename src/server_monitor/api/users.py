"""Routes for people, what roles allow, and one's own account."""

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import SecretStr

from server_monitor.api.deps import ActorDep, Body, ConsoleDep, PasswordText, json_response, source
from server_monitor.auth import users
from server_monitor.auth.actor import PER_GROUP, ROLE_MEANINGS, ROLE_PERMISSIONS, Permission, Role, allows
from server_monitor.auth.users import UNCHANGED, Edit, User

router = APIRouter(prefix="/api", tags=["users"])


class NewUser(Body):
    name: str
    password: PasswordText
    role: Role | None


class UserEdit(Body):
    role: Role | None = None
    disabled: bool = False
    password: PasswordText = SecretStr("")


class PasswordChange(Body):
    current: PasswordText
    new: PasswordText


@router.get("/users")
async def list_users(parts: ConsoleDep, actor: ActorDep) -> Response:
    """Everybody who has an account."""
    async with parts.db.reading() as conn:
        everybody = await users.listing(conn, actor=actor)
    return json_response({"items": [_document(user) for user in everybody], "next": None})


@router.post("/users", status_code=201)
async def create_user(body: NewUser, parts: ConsoleDep, actor: ActorDep) -> Response:
    """A new account."""
    user = await users.create(parts.db, body.name, body.password.get_secret_value(), body.role, actor=actor)
    return json_response(_document(user), 201)


@router.get("/users/me")
async def me(actor: ActorDep) -> Response:
    """The actor's own account, with the roles they hold for groups of servers."""
    return json_response(
        {
            "id": actor.id,
            "name": actor.name,
            "role": actor.role,
            "groups": [{"id": group, "role": role} for group, role in sorted(actor.group_roles.items())],
            "permissions": sorted(p for p in Permission if allows(actor, p, actor.group_roles)),
        }
    )


@router.post("/users/me/password", status_code=204)
async def change_own_password(body: PasswordChange, request: Request, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Another password for the actor; their other sessions end."""
    await parts.logins.change_password(
        actor, body.current.get_secret_value(), body.new.get_secret_value(), source(request)
    )
    return Response(status_code=204)


@router.patch("/users/{user_id}")
async def edit_user(user_id: str, body: UserEdit, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Change what is given: role, password, or whether the user may log in."""
    given = body.model_fields_set
    change = Edit(
        role=body.role if "role" in given else UNCHANGED,
        disabled=body.disabled if "disabled" in given else UNCHANGED,
        password=body.password.get_secret_value() if "password" in given else UNCHANGED,
    )
    return json_response(_document(await users.edit(parts.db, user_id, change, actor=actor)))


@router.delete("/users/{user_id}", status_code=204)
async def remove_user(user_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Delete an account; what it did stays in the audit log."""
    async with parts.db.transaction() as conn:
        await users.remove(conn, user_id, actor=actor)
    return Response(status_code=204)


@router.get("/roles")
async def list_roles(_actor: ActorDep) -> Response:
    """What each role may do, and which of it can be granted for a group of servers."""
    items = [
        {
            "role": role,
            "meaning": ROLE_MEANINGS[role],
            "permissions": sorted(ROLE_PERMISSIONS[role]),
            "permissions_in_a_group": sorted(ROLE_PERMISSIONS[role] & PER_GROUP),
        }
        for role in Role
    ]
    return json_response({"items": items, "next": None})


def _document(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "name": user.name,
        "role": user.role,
        "disabled": user.is_disabled,
        "created_at": user.created_at,
        "password_changed_at": user.password_changed_at,
    }
