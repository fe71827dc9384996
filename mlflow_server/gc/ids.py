"""Hand the ids of a batch to SQL statements, in the way that each database takes best."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlflow_server.uris import Dialect

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult

_DELETE_BY_SUBQUERY = re.compile(r"^DELETE FROM (\w+)(?=.*\(SELECT )")


@dataclass(frozen=True)
class Ids:
    """Ids that statements can use as `IN {name}`.

    Args:
        name: What stands in the braces.
        clause: What takes the place of `IN {name}`.
        parameters: What the clause needs.
    """

    name: str
    clause: str
    parameters: Mapping[str, Any]

    def execute(
        self, connection: "Connection", statement: str, **parameters: Any
    ) -> "CursorResult[Any]":
        """Execute a statement about them.

        Args:
            connection: The one they were bound to.
            statement: With `IN {name}` wherever the ids belong.
            parameters: Further ones.
        """
        import sqlalchemy

        if connection.dialect.name == Dialect.MYSQL:
            # MariaDB before 11.1 would look through the whole table; written for several tables, it
            # begins with the subquery's rows and finds the others by index.
            statement = _DELETE_BY_SUBQUERY.sub(r"DELETE \1 FROM \1", statement)
        text = sqlalchemy.text(statement.replace(f"IN {{{self.name}}}", self.clause))
        if self.clause.startswith("IN :"):
            text = text.bindparams(sqlalchemy.bindparam("ids", expanding=True))
        return connection.execute(text, {**self.parameters, **parameters})


def bind_ids(connection: "Connection", name: str, ids: Sequence[str] | Sequence[int]) -> Ids:
    """Make ids usable in statements on a connection, until the next ones of that name.

    SQLite gets a temporary table: it takes 32,766 parameters at most. PostgreSQL gets an array.

    Args:
        connection: In a transaction.
        name: What the statements call them.
        ids: At least one.
    """
    match Dialect(connection.dialect.name):
        case Dialect.SQLITE:
            table = f"temp.tracking_server_gc_{name}"
            kind = "INTEGER" if isinstance(ids[0], int) else "TEXT"
            connection.exec_driver_sql(
                f"CREATE TABLE IF NOT EXISTS {table} (id {kind} PRIMARY KEY) WITHOUT ROWID"
            )
            connection.exec_driver_sql(f"DELETE FROM {table}")  # noqa: S608
            connection.exec_driver_sql(
                f"INSERT INTO {table} VALUES (?)",  # noqa: S608
                [(value,) for value in ids],
            )
            return Ids(name, f"IN (SELECT id FROM {table})", {})  # noqa: S608
        case Dialect.POSTGRESQL:
            return Ids(name, "= ANY(:ids)", {"ids": list(ids)})
        case _:
            return Ids(name, "IN :ids", {"ids": list(ids)})
