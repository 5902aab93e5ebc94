"""Writes the pages that repeat what the code already says: `.env.example` and most of `docs/reference/`.

`python3 tools/dev.py docs` writes them; tests/contracts/test_reference.py fails when one of them is out of date.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

import typer.main
from prometheus_client.metrics_core import Metric as Family
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from typer.core import TyperArgument, TyperGroup, TyperOption

from server_monitor.audit import chain
from server_monitor.auth.actor import ROLE_PERMISSIONS, SCOPE_PERMISSIONS, Permission
from server_monitor.cli.main import app
from server_monitor.lifecycle.wiring import described
from server_monitor.series import sample
from server_monitor.settings import SECRETS, Settings
from server_monitor.telemetry import metrics

ROOT = Path(__file__).resolve().parents[1]
WRITTEN = "<!-- Written by `python3 tools/dev.py docs` from the code. Change it there. -->\n"
WITH_FILE = {*SECRETS, "ENCRYPTION_PREVIOUS_KEY", "KEY_VAULT_PREVIOUS_KEY", "DATABASE_URL"}


def main() -> None:
    for path, render in PAGES.items():
        target = ROOT / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(render())


def env_example() -> str:
    """Every setting as a commented line with its default, so that copying the file changes nothing."""
    lines = [
        "# Settings of server-monitor. Copy this file to .env and take away the # of what you change.",
        "# Each is an environment variable too, which wins. For the secrets and DATABASE_URL there is also",
        "# NAME_FILE: the path of a file that holds the value.",
    ]
    for name, field in settings():
        lines += ["", f"# {field.description}", f"#{name}={shown_default(field)}"]
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    rows = [
        (f"`{name}`", code(shown_default(field)), allowed(field), str(field.description)) for name, field in settings()
    ]
    return page(
        "Settings",
        "Environment variables, or lines of `.env` in the directory where the console starts. The environment wins, "
        "and options of the command line win over both. A value that is not allowed stops the start with exit code 1 "
        f"and names the setting. {', '.join(f'`{name}`' for name in sorted(WITH_FILE))} may also be given as "
        "`NAME_FILE`, the path of a file with the value, as systemd credentials and container secrets are.",
        table(("name", "default", "values", "meaning"), rows),
    )


def settings() -> Iterable[tuple[str, FieldInfo]]:
    return ((name.upper(), field) for name, field in Settings.model_fields.items())


def shown_default(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, SecretStr) or value in ("", ()):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def allowed(field: FieldInfo) -> str:
    """What may stand there, in a word or as a range."""
    kind: Any = field.annotation
    limits = {
        name: getattr(rule, name) for rule in field.metadata for name in ("ge", "gt", "le") if hasattr(rule, name)
    }
    if kind in (int, float):
        least = f"over {limits['gt']}" if "gt" in limits else f"{limits['ge']}"
        return f"{'number' if kind is float else 'whole number'}, {least} to {limits['le']}"
    if get_origin(kind) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(kind) if word)
    if isinstance(kind, UnionType) or kind in (str, Path, SecretStr):
        return {Path: "path", SecretStr: "secret"}.get(kind, "text")
    if kind is bool:
        return "`true`, `false`"
    return "comma-separated" if get_origin(kind) is tuple else ", ".join(f"`{word.value}`" for word in kind)


def metrics_page() -> str:
    collected = [
        (f"`{metric.name}`", metric.per or "", metric.unit, metric.meaning) for metric in sample.METRICS.values()
    ]
    own = [(f"`{own_name(family)}`", family.type, family.documentation) for family in metrics.registry.collect()]
    return page(
        "Metrics",
        "What is measured on each server. A metric that exists once for each device has the device in its series' "
        "name, after a colon: `filesystem_percent:/var`.",
        table(("metric", "for each", "unit", "meaning"), collected),
        "## Of the console itself\n",
        "Served at `/api/metrics` as Prometheus text or OpenMetrics.\n",
        table(("metric", "kind", "meaning"), own),
    )


def own_name(family: Family) -> str:
    return family.name + ("_total" if family.type == "counter" else "")


def permissions_page() -> str:
    roles = [
        (f"`{permission}`", *("yes" if permission in ROLE_PERMISSIONS[role] else "" for role in ROLE_PERMISSIONS))
        for permission in Permission
    ]
    scopes = [
        (f"`{permission}`", *("yes" if permission in SCOPE_PERMISSIONS[scope] else "" for scope in SCOPE_PERMISSIONS))
        for permission in Permission
    ]
    return page(
        "Roles, scopes and permissions",
        "A role is granted globally or for one group of servers. What is not in the table is refused.",
        table(("permission", *ROLE_PERMISSIONS), roles),
        "## Scopes of API tokens\n",
        "A token may do what its scopes hold *and* the role of its user holds; it never widens.\n",
        table(("permission", *SCOPE_PERMISSIONS), scopes),
    )


def audit_page() -> str:
    return page(
        "Audit actions",
        "Every change of state appends one record with one of these actions, in the transaction of the change. "
        "The list is closed: a record with another action cannot be written.",
        "\n".join(f"- `{action}`" for action in sorted(chain.ACTIONS)) + "\n",
    )


def commands_page() -> str:
    sections = [command_section(words, command) for words, command in commands()]
    return page(
        "Commands",
        "Data goes to standard output, words to standard error. Exit codes: 0 done, 1 failed, 2 asked for a decision, "
        "3 wrong usage.",
        "\n".join(sections),
    )


def commands() -> Iterable[tuple[tuple[str, ...], Any]]:
    """Every command of the program with the words that call it."""
    return walk(("server-monitor",), typer.main.get_command(app))


def walk(words: tuple[str, ...], command: Any) -> Iterable[tuple[tuple[str, ...], Any]]:
    if isinstance(command, TyperGroup):
        for name, child in sorted(command.commands.items()):
            yield from walk((*words, name), child)
    else:
        yield words, command


def command_section(words: Sequence[str], command: Any) -> str:
    arguments = [parameter for parameter in command.params if isinstance(parameter, TyperArgument)]
    options = [parameter for parameter in command.params if isinstance(parameter, TyperOption)]
    rows = [(f"`{placeholder(p)}`", p.help or "") for p in arguments if p.help]
    rows += [(f"`{', '.join([*p.opts, *p.secondary_opts])}`", p.help or "") for p in options]
    usage = " ".join([*words, *(placeholder(parameter) for parameter in arguments)])
    parts = [f"## {' '.join(words[1:])}\n", f"`{usage}`\n", f"{command.help}\n"]
    return "\n".join([*parts, table(("option", "meaning"), rows)] if rows else parts)


def placeholder(argument: TyperArgument) -> str:
    many = "..." if argument.nargs == -1 else ""
    name = f"{argument.name}{many}".upper()
    return name if argument.required else f"[{name}]"


def page(title: str, introduction: str, *parts: str) -> str:
    return "\n".join([WRITTEN, f"# {title}\n", f"{introduction}\n", *parts])


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell(text) for text in line) + " |" for line in lines) + "\n"


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    return f"`{text}`" if text else "none"


def openapi() -> str:
    return json.dumps(described().openapi(), indent=2, ensure_ascii=False) + "\n"


PAGES: Mapping[str, Callable[[], str]] = {
    ".env.example": env_example,
    "docs/reference/settings.md": settings_page,
    "docs/reference/metrics.md": metrics_page,
    "docs/reference/permissions.md": permissions_page,
    "docs/reference/audit-actions.md": audit_page,
    "docs/reference/commands.md": commands_page,
    "docs/reference/openapi.json": openapi,
}

if __name__ == "__main__":
    main()
