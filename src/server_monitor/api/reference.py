"""`/api/docs`: the OpenAPI document as a page that needs no script and loads nothing from elsewhere."""

from html import escape
from typing import Any

from fastapi import APIRouter, Request, Response

router = APIRouter(prefix="/api", tags=["reference"])

_METHODS = ("get", "post", "put", "patch", "delete")
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { max-width: 56rem; margin: 2rem auto; padding: 0 1rem }
code, pre { font: 13px/1.5 ui-monospace, monospace }
h3 { margin: 2rem 0 .25rem } h3 b { display: inline-block; min-width: 4rem; font-weight: 600; opacity: .65 }
table { border-collapse: collapse } td, th { padding: .15rem 1rem .15rem 0; text-align: left; vertical-align: top }
"""


@router.get("/docs", include_in_schema=False)
async def page(request: Request) -> Response:
    """Every path, its parameters and its body, on one page."""
    document = request.app.openapi()
    sections = [
        _operation(path, method, operation, document)
        for path, operations in sorted(document["paths"].items())
        for method, operation in operations.items()
        if method in _METHODS
    ]
    html = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>server-monitor API</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="stylesheet" href="/api/docs.css"></head>
<body><h1>server-monitor API</h1><p>Machine-readable: <a href="/api/openapi.json">openapi.json</a>. Programs send
<code>Authorization: Bearer …</code>; errors are RFC 9457 problems with a stable <code>code</code>.</p>
{"".join(sections)}</body></html>"""
    return Response(html, media_type="text/html; charset=utf-8")


@router.get("/docs.css", include_in_schema=False)
async def style() -> Response:
    return Response(_STYLE, media_type="text/css")


def _operation(path: str, method: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    description = escape(operation.get("description") or operation.get("summary", ""))
    rows = [
        (p["name"], p["in"], _type(p.get("schema", {})), p.get("required", False))
        for p in operation.get("parameters", [])
    ]
    rows += _body_rows(operation, document)
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(where)}</td><td>{escape(kind)}</td>"
        f"<td>{'required' if required else ''}</td></tr>"
        for name, where, kind, required in rows
    )
    table = f"<table>{cells}</table>" if rows else ""
    return f"<h3><b>{method.upper()}</b> <code>{escape(path)}</code></h3><p>{description}</p>{table}"


def _body_rows(operation: dict[str, Any], document: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    schema = content.get("schema", {})
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    required = schema.get("required", [])
    return [(name, "body", _type(field), name in required) for name, field in schema.get("properties", {}).items()]


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " | ".join(_type(option) for option in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    return str(schema.get("type", "any"))
