"""Routes for groups of servers: who belongs to them, and who holds which role in them."""

from typing import Any

from fastapi import APIRouter, Response
from pydantic import Field

from server_monitor.api.deps import ActorDep, Body, ConsoleDep, json_response
from server_monitor.auth.actor import Role
from server_monitor.fleet import groups
from server_monitor.fleet.groups import Edit, Grant, Group, NewGroup

router = APIRouter(prefix="/api/groups", tags=["groups"])


class GroupBody(Body):
    name: str
    description: str = ""
    labels: dict[str, str] = Field(default_factory=dict)


class GroupEdit(Body):
    """What to change; what is left out stays."""

    name: str = ""
    description: str = ""
    labels: dict[str, str] = Field(default_factory=dict)


class MembersBody(Body):
    servers: list[str] = Field(max_length=groups.MEMBERS_MAX)


class GrantBody(Body):
    user_id: str
    role: Role


class GrantsBody(Body):
    grants: list[GrantBody] = Field(max_length=groups.GRANTS_MAX)


@router.get("")
async def list_groups(parts: ConsoleDep, actor: ActorDep) -> Response:
    """The groups that the actor may see, by name."""
    async with parts.db.reading() as conn:
        found = await groups.listing(conn, actor=actor)
    return json_response({"items": [_document(group) for group in found], "next": None})


@router.post("", status_code=201)
async def create_group(body: GroupBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """A new group, with nobody in it."""
    async with parts.db.transaction() as conn:
        made = await groups.create(conn, NewGroup(body.name, body.description, body.labels), actor=actor)
    return json_response(_document(made), 201)


@router.get("/{group_id}")
async def one_group(group_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """One group."""
    async with parts.db.reading() as conn:
        return json_response(_document(await groups.get(conn, group_id, actor=actor)))


@router.patch("/{group_id}")
async def edit_group(group_id: str, body: GroupEdit, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Change what is given."""
    change = Edit(**{name: getattr(body, name) for name in body.model_fields_set})
    async with parts.db.transaction() as conn:
        return json_response(_document(await groups.edit(conn, group_id, change, actor=actor)))


@router.delete("/{group_id}", status_code=204)
async def remove_group(group_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Forget a group and its grants; its servers stay."""
    async with parts.db.transaction() as conn:
        await groups.remove(conn, group_id, actor=actor)
    return Response(status_code=204)


@router.get("/{group_id}/members")
async def group_members(group_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """The ids of the servers in a group."""
    async with parts.db.reading() as conn:
        return json_response({"servers": await groups.members(conn, group_id, actor=actor)})


@router.put("/{group_id}/members")
async def set_group_members(group_id: str, body: MembersBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Make exactly these servers the members of a group."""
    async with parts.db.transaction() as conn:
        found = await groups.set_members(conn, group_id, body.servers, actor=actor)
    return json_response({"servers": found})


@router.get("/{group_id}/grants")
async def group_grants(group_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Who holds which role in a group."""
    async with parts.db.reading() as conn:
        return json_response(_grants(await groups.granted(conn, group_id, actor=actor)))


@router.put("/{group_id}/grants")
async def set_group_grants(group_id: str, body: GrantsBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Make exactly these the grants of a group."""
    wanted = [Grant(one.user_id, one.role) for one in body.grants]
    async with parts.db.transaction() as conn:
        return json_response(_grants(await groups.set_grants(conn, group_id, wanted, actor=actor)))


def _document(group: Group) -> dict[str, Any]:
    return {
        "id": group.id,
        "name": group.name,
        "description": group.description,
        "labels": group.labels,
        "created_at": group.created_at,
        "server_count": group.server_count,
    }


def _grants(found: list[Grant]) -> dict[str, Any]:
    return {"grants": [{"user_id": grant.user_id, "role": grant.role} for grant in found]}
