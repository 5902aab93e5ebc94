"""Which format a text is in, and its servers."""

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType

from server_monitor.errors import FieldError
from server_monitor.fleet.inventory import ansible_ini, ansible_yaml, comma_table, exported, ssh_config
from server_monitor.fleet.inventory.entries import Parsed, lines_of
from server_monitor.fleet.inventory.ssh_lines import Include


class Format(StrEnum):
    SSH_CONFIG = "ssh_config"
    ANSIBLE_INI = "ansible_ini"
    ANSIBLE_YAML = "ansible_yaml"
    CSV = "csv"
    JSON = "json"


_PARSERS: Mapping[Format, Callable[[str], Parsed]] = MappingProxyType(
    {
        Format.ANSIBLE_INI: ansible_ini.parse,
        Format.ANSIBLE_YAML: ansible_yaml.parse,
        Format.CSV: comma_table.parse,
        Format.JSON: exported.parse,
    }
)

_SSH_LINE = re.compile(r"(host|match|include)[ \t=]", re.IGNORECASE)
_INI_SECTION = re.compile(r"\[[^\]]+\]")
_YAML_LINE = re.compile(r"(---|[^\s:#=][^:#=]*:)(\s|$)")


def read(text: str, format: Format, include: Include | None = None) -> Parsed:  # noqa: A002  # The contract's word.
    """The servers of a text. `include` reads the files that an ssh_config includes, where that is possible."""
    text = text.removeprefix("\ufeff")
    if not text.strip():
        return Parsed(errors=(FieldError("text", "The text is empty.", 1),))
    if format is Format.SSH_CONFIG:
        return ssh_config.parse(text, include)
    return _PARSERS[format](text)


def detect(text: str) -> Format:
    """The format that the first lines which say something look like."""
    lines = [line for line in map(str.strip, lines_of(text.removeprefix("\ufeff")[:65536])) if line]
    said = [line for line in lines if line[0] not in "#;"]
    first = said[0] if said else ""
    if first.startswith("{") or (first.startswith("[") and not _INI_SECTION.match(first)):
        return Format.JSON
    if any(_SSH_LINE.match(line) for line in said):
        return Format.SSH_CONFIG
    if first.startswith("[") and first.rstrip(" ,").endswith("]") and '"' not in first:
        return Format.ANSIBLE_INI
    if first.startswith("["):
        return Format.JSON
    columns = [cell.strip().lower() for cell in first.split(comma_table.delimiter_of(first))]
    if set(columns) <= set(comma_table.COLUMNS) and {"name", "host"} & set(columns):
        return Format.CSV
    return Format.ANSIBLE_YAML if _YAML_LINE.match(first) else Format.ANSIBLE_INI
