"""A store with awkward rows in every table, whatever tables the schema has."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy

AWKWARD = "ä→🚀 \"double\" 'single' tab\t new\nline\r\\back\\n\\N \\. %s :x ; -- \x01\x7f\u2028"
LONG = "6000 " * 1200
_CHOICE = re.compile(r"(\w+) IN \(('[^)]*')\)")
# MySQL keeps these in single precision.
_SINGLE = {"weight", "budget_amount"}
_FLOATS = (0.1, -1.797e308, 1.797e308, -0.0)
_DOCUMENTS = ('{"b": [1, 2.50, null],  "a": "ü\\n\\u00e4"}', "[]", "null", '"text"')
ROWS = len(_FLOATS)


def fill(path: Path) -> None:
    """Put four rows into every table of a SQLite store without rows; foreign keys hold.

    The first is plain, the second has NULL wherever that can be, the others are awkward.
    """
    engine = sqlalchemy.create_engine(f"sqlite:///{path}", poolclass=sqlalchemy.NullPool)
    metadata = sqlalchemy.MetaData()
    metadata.reflect(engine)
    made: dict[str, list[dict[str, Any]]] = {}
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        for table in metadata.sorted_tables:
            if table.name == "alembic_version":
                continue
            connection.execute(f"DELETE FROM {table.name}")  # noqa: S608
            choices = _choices(engine, table.name)
            made[table.name] = rows = list(_rows(table, choices, made))
            names = ", ".join(f'"{name}"' for name in rows[0])
            marks = ", ".join(f":{name}" for name in rows[0])
            connection.executemany(
                f"INSERT INTO {table.name} ({names}) VALUES ({marks})",  # noqa: S608
                rows,
            )
        connection.commit()
    engine.dispose()


def _choices(engine: sqlalchemy.Engine, table: str) -> dict[str, list[str]]:
    """What the table's checks allow."""
    checks = sqlalchemy.inspect(engine).get_check_constraints(table)
    found = (_CHOICE.search(check["sqltext"]) for check in checks)
    return {match[1]: re.findall(r"'([^']*)'", match[2]) for match in found if match}


def _rows(
    table: sqlalchemy.Table, choices: dict[str, list[str]], made: dict[str, list[dict[str, Any]]]
) -> Iterator[dict[str, Any]]:
    for number in range(ROWS):
        row = {
            column.name: _value(column, number, choices)
            for column in table.columns
            if column.computed is None
        }
        for constraint in table.foreign_key_constraints:
            parent = made[constraint.referred_table.name][number]
            for key in constraint.elements:
                row[key.parent.name] = parent[key.column.name]
        yield row


def _value(column: sqlalchemy.Column[Any], number: int, choices: dict[str, list[str]]) -> Any:
    if column.name in choices:
        return choices[column.name][number % len(choices[column.name])]
    if number == 1 and column.nullable and not column.primary_key:
        return None
    match column.type:
        case sqlalchemy.Boolean():
            return number % 2
        case sqlalchemy.BigInteger() if column.name.endswith("_unix_nano"):
            return 1_700_000_000_000_000_000 + number  # their difference is a column
        case sqlalchemy.BigInteger():
            return (1, 2, 2**63 - 1, -(2**63))[number]
        case sqlalchemy.Integer():
            return (
                (0, 1, 2**31 - 2, 7)[number] if column.primary_key else (3, 4, 5, -(2**31))[number]
            )
        case sqlalchemy.Float():
            return 0.1 + number if column.name in _SINGLE else _FLOATS[number]
        case sqlalchemy.JSON():
            return _DOCUMENTS[number]
        case sqlalchemy.LargeBinary():
            return (b"bytes", b"", bytes(range(256)), b"\\x00\n")[number]
        case sqlalchemy.Date():
            return ("2026-02-28", "1970-01-01", "9999-12-31", "2024-02-29")[number]
        case _:
            return _text(column, number)


def _text(column: sqlalchemy.Column[Any], number: int) -> str:
    length = getattr(column.type, "length", None)
    if column.name.endswith("_json"):
        return json.dumps({"number": number})
    # Many a text is part of a key.
    start = f"{number}{column.name}"
    text = (start, "", f"{number}{AWKWARD}", f"{number} {LONG}")[number]
    if number == 1 and not column.nullable:
        text = str(number)
    return text[: length or len(text)]
