"""Routes for saved commands."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response
from pydantic import Field

from server_monitor.api.deps import ActorDep, Body, ConsoleDep, json_response
from server_monitor.tasks import snippets
from server_monitor.tasks.snippets import Edit, NewSnippet, Parameter, Snippet

router = APIRouter(prefix="/api/snippets", tags=["snippets"])


class ParameterBody(Body):
    """What goes in place of `{{name}}`. A value has to match the pattern as a whole."""

    name: str
    label: str = ""
    default: str | None = None
    pattern: str | None = None

    def parameter(self) -> Parameter:
        return Parameter(self.name, self.label, self.default, self.pattern)


class SnippetBody(Body):
    """A command with `{{name}}` for each parameter. Values are put in place of it in single quotes."""

    name: str
    command: str
    description: str = ""
    parameters: list[ParameterBody] = Field(default_factory=list, max_length=1_000)


class SnippetEdit(Body):
    """What to change; what is left out stays."""

    name: str = ""
    command: str = ""
    description: str = ""
    parameters: list[ParameterBody] = Field(default_factory=list, max_length=1_000)


@router.get("")
async def list_snippets(parts: ConsoleDep, actor: ActorDep) -> Response:
    """All saved commands, by name."""
    async with parts.db.reading() as conn:
        found = await snippets.listing(conn, actor=actor)
    return json_response({"items": [_document(one) for one in found], "next": None})


@router.post("", status_code=201)
async def create_snippet(body: SnippetBody, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Save a command."""
    new = NewSnippet(body.name, body.command, body.description, [one.parameter() for one in body.parameters])
    async with parts.db.transaction() as conn:
        return json_response(_document(await snippets.create(conn, new, actor=actor)), 201)


@router.get("/{snippet_id}")
async def one_snippet(snippet_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """One saved command."""
    async with parts.db.reading() as conn:
        return json_response(_document(await snippets.get(conn, snippet_id, actor=actor)))


@router.patch("/{snippet_id}")
async def edit_snippet(snippet_id: str, body: SnippetEdit, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Change what is given."""
    given: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
    if "parameters" in given:
        given["parameters"] = [one.parameter() for one in body.parameters]
    async with parts.db.transaction() as conn:
        return json_response(_document(await snippets.edit(conn, snippet_id, Edit(**given), actor=actor)))


@router.delete("/{snippet_id}", status_code=204)
async def remove_snippet(snippet_id: str, parts: ConsoleDep, actor: ActorDep) -> Response:
    """Forget a saved command; what was run with it stays."""
    async with parts.db.transaction() as conn:
        await snippets.remove(conn, snippet_id, actor=actor)
    return Response(status_code=204)


def _document(snippet: Snippet) -> dict[str, Any]:
    return asdict(snippet)
