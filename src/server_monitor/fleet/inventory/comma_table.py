"""Servers out of a table with commas (RFC 4180), semicolons or tabs between its columns.

    name,host,port,username,labels,groups,jump
    web1,10.0.0.1,22,deploy,env=live;team=shop,web;live,bastion

The first line names the columns, in any order; only `name` or `host` has to be there.
"""

import csv
from collections.abc import Mapping
from itertools import islice

from server_monitor.errors import FieldError
from server_monitor.fleet.fields import quoted, tidy, tidy_host
from server_monitor.fleet.inventory.entries import ENTRIES_MAX, Entry, Parsed, lines_of, port_of, too_many, unique

COLUMNS = ("name", "host", "port", "username", "labels", "groups", "jump", "capability")
_DELIMITERS = ",;\t"


def parse(text: str) -> Parsed:
    """The servers that a table lists, one in each row."""
    rows = csv.reader((line + "\n" for line in lines_of(text.rstrip("\n"))), delimiter=delimiter_of(text))
    entries: list[Entry] = []
    errors: list[FieldError] = []
    columns: list[str] = []
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error as refused:
            errors.append(FieldError("text", f"This line is no row of a table: {refused}.", line))
            continue
        if not any(cell.strip() for cell in row):
            continue
        if not columns:
            columns = [cell.strip().lower() for cell in row]
            if mistake := _header_mistake(columns):
                return Parsed(errors=(FieldError("text", mistake, line),))
        elif len(row) != len(columns):
            message = f"This row has {len(row)} cells and the header has {len(columns)}."
            errors.append(FieldError("text", message, line))
        elif len(entries) < ENTRIES_MAX:
            entries.append(_entry(dict(zip(columns, (cell.strip() for cell in row), strict=True)), line, errors))
        else:
            errors.append(too_many(line))
            break
    if not (entries or errors):
        errors.append(FieldError("text", "There is no row below the header, so there is nothing to import.", 1))
    return Parsed(tuple(entries), (), tuple(errors))


def delimiter_of(text: str) -> str:
    """What separates the columns of the first line."""
    header = next((line for line in islice(lines_of(text[:4096]), 50) if line.strip()), "")
    return max(_DELIMITERS, key=header.count)


def _header_mistake(columns: list[str]) -> str | None:
    known = ", ".join(COLUMNS)
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown:
        return f"There is no column {quoted(unknown[0])}. The first line names the columns: {known}."
    if len(set(columns)) < len(columns):
        return "A column is named twice in the first line."
    if not {"name", "host"} & set(columns):
        return f"A column 'name' or 'host' is missing. The first line names the columns: {known}."
    return None


def _entry(cells: Mapping[str, str], line: int, errors: list[FieldError]) -> Entry:
    host = cells.get("host") or cells.get("name", "")
    return Entry(
        line=line,
        name=tidy(cells.get("name") or host),
        host=tidy_host(host),
        port=port_of(cells.get("port") or "22"),
        username=cells.get("username") or None,
        jump=tidy(cells.get("jump", "")) or None,
        labels=_labels(cells.get("labels", ""), line, errors),
        groups=unique(tidy(group) for group in cells.get("groups", "").split(";")),
        capability=cells.get("capability") or "observe",
    )


def _labels(cell: str, line: int, errors: list[FieldError]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for part in unique(part.strip() for part in cell.split(";")):
        name, equals, value = part.partition("=")
        if equals:
            labels[tidy(name)] = tidy(value)
        else:
            errors.append(FieldError("labels", f"{quoted(part)} is no label. Write name=value;name=value.", line))
    return labels
