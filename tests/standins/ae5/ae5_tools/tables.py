"""What is printed: text tables cut to the terminal's width, CSV, JSON.

Not the same as the real program's: the order of columns that it does not know by name (there it is
another one in each call).
"""

from __future__ import annotations

import csv
import datetime
import itertools
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from .errors import AEException
from .records import Record, Records

# Rows and column names.
Table: TypeAlias = tuple[list[Sequence[Any]], list[str]]

_COMMON = ["resource_profile", "id", "created", "updated", "state", "project_id", "project_name"]
COLUMNS: Mapping[str, list[str]] = {
    "project": [
        *("name", "owner", "?collaborators", "editor", "resource_profile", "id", "created"),
        *("updated", "project_create_status", "s3_bucket", "s3_path", "git_server", "repository"),
        *("repo_owned", "git_repos", "repo_url", "url"),
    ],
    "revision": ["name", "latest", "owner", "commands", "created", "updated", "id", "url"],
    "command": ["id", "supports_http_options", "unix", "windows", "env_spec"],
    "collaborator": ["id", "permission", "type", "first_name", "last_name", "email"],
    "resource_profile": ["name", "description", "cpu", "memory", "gpu", "id"],
    "deployment": [
        *("endpoint", "name", "owner", "public", "?collaborators", "command", "revision"),
        *(*_COMMON, "project_owner"),
    ],
    "job": ["name", "owner", "command", "revision", *_COMMON],
    "run": ["name", "owner", "command", "revision", *_COMMON],
    "activity": [
        *("type", "status", "message", "done", "owner", "id", "description", "created", "updated"),
    ],
    "endpoint": [
        *("id", "owner", "name", "project_name", "deployment_id", "project_id", "project_url"),
    ],
}
_TIMES = ("created", "updated")


def make_table(found: list[Record] | Record) -> Table:
    """Rows and columns: those that are known by name first, then the rest, `_` ones last."""
    records = [found] if isinstance(found, dict) else found
    if records:
        there = list(dict.fromkeys(name for record in records for name in record))
        kind = records[0].get("_record_type", "")
    else:
        kind = found.kind if isinstance(found, Records) else ""
        own = found.columns if isinstance(found, Records) else None
        known = [name for name in COLUMNS.get(kind, ()) if not name.startswith("?")]
        there = known if own is None else own
    known = [name.lstrip("?") for name in COLUMNS.get(kind, ())]
    columns = [name for name in known if name in there]
    others = [name for name in there if name not in known and name != "_record_type"]
    columns += sorted(others, key=lambda name: name.startswith("_"))
    columns += ["_record_type"] if "_record_type" in there else []
    rows = [[_moment(name, record.get(name)) for name in columns] for record in records]
    if isinstance(found, dict):
        return list(zip(columns, rows[0], strict=True)), ["field", "value"]
    return list(rows), columns


def _moment(name: str, value: Any) -> Any:
    if name not in _TIMES or not value:
        return value
    try:
        return datetime.datetime.fromisoformat(value)
    except ValueError:
        return value


def shape(found: Any, form: str | None) -> Any:
    """What a command returns, ready to be printed.

    Args:
        found: Records, a text or nothing.
        form: `table` for what has to be one, `tableif` for what may be one, None: as it is.

    Raises:
        AEException: It has to be a table, and is none.
    """
    if not isinstance(found, list | dict):
        if found is not None and form == "table":
            raise AEException("Response is not a tabular format")
        return found
    return make_table(found) if form in ("table", "tableif") else found


def print_json(table: Table) -> None:
    """Objects without what is null."""
    rows, columns = table
    told: Any
    if columns == ["field", "value"]:
        told = {name: value for name, value in rows if value is not None}
    else:
        pairs = (zip(columns, row, strict=False) for row in rows)
        told = [{name: value for name, value in row if value is not None} for row in pairs]
    print(json.dumps(told, indent=2, default=_isoformat))


def _isoformat(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime.datetime) else None


def print_csv(table: Table, *, header: bool) -> None:
    """With the line ends of the format."""
    rows, columns = table
    writer = csv.writer(sys.stdout)
    writer.writerows([columns] if header else [])
    writer.writerows(rows)


def cell(value: object) -> str:
    """As people read it."""
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return "" if value is None else str(value)


def _terminal_width() -> int:
    for number in range(3):
        try:
            return os.get_terminal_size(number).columns
        except OSError:
            continue
    return 80


def _heading(column: str, width: int) -> list[str]:
    """A column's name on several lines, broken before or after its underscores."""
    lines = [""]
    for part in re.split("(_)", column):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append(part)
        else:
            lines[-1] += part
    return lines


def _least_width(column: str) -> int:
    """The width that needs no more lines than one character more would."""
    longest = max(len(part) for part in column.split("_"))
    more = _heading(column, longest + 1)
    is_enough = len(_heading(column, longest)) <= len(more)
    return longest if is_enough else longest + 1


def print_text(table: Table, *, header: bool, width: int) -> None:
    """A table cut to so many characters; 0 is the width of the terminal."""
    rows, columns = table
    width = width if width > 0 else _terminal_width()
    if not rows and not columns:
        print("-" * width if header else "", end="\n" if header else "")
        return
    texts = [[cell(value) for value in row] for row in rows]
    widths = [
        max(1, _least_width(name) if header else 1, *(len(row[number]) for row in texts))
        for number, name in enumerate(columns)
    ]
    # Columns that begin beyond the edge are not even thought of.
    ends = list(itertools.accumulate(size + 2 for size in widths))
    shown = 1 + sum(end - 2 < width for end in ends[:-1])
    columns, widths = columns[:shown], widths[:shown]
    start = sum(size + 2 for size in widths[:-1])
    dots = min(3, max(0, width - start))
    texts = [row[:shown] for row in texts]
    lines = [[text.ljust(size) for text, size in zip(row, widths, strict=True)] for row in texts]
    if header:
        headings = [_heading(name, size) for name, size in zip(columns, widths, strict=True)]
        height = max(map(len, headings))
        last = min(widths[-1], width + 2 - start)
        lines.insert(0, ["-" * size for size in widths])
        for level in range(height, 0, -1):
            row = [heading[-level] if level <= len(heading) else "" for heading in headings]
            visible = zip(row, [*widths[:-1], last], strict=True)
            centred = [_centre(text, size) for text, size in visible]
            lines.insert(height - level, centred)
    for line in lines:
        whole = "  ".join(line)
        if len(whole) > width and whole[width - dots : width] not in ("-" * dots, " " * dots):
            whole = whole[: width - dots] + "." * dots
        print(whole[:width].rstrip())


def _centre(text: str, width: int) -> str:
    return f"{' ' * ((width - len(text)) // 2)}{text}".ljust(width)
