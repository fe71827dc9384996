"""See what tables a database has, and how their values are asked for. Only reads."""

import re
import warnings
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from mlflow_server.store.revision import (
    AUTH_VERSION_TABLE,
    OWN_TABLE_PREFIX,
    UNFINISHED_TABLE,
    UPGRADES_TABLE,
    UPGRADING_TABLE,
    VERSION_TABLE,
    auth_tables_in,
    mlflow_tables,
)
from mlflow_server.store.tables import Column, Kind, Row, Table
from mlflow_server.uris import Dialect

if TYPE_CHECKING:
    import sqlalchemy
    from sqlalchemy import Connection

# The files named in the journal were of the store that wrote it, and so were the backups named in
# the notes of upgrades: another one must not remove these, nor go back to those.
NOT_CARRIED = frozenset(
    {
        VERSION_TABLE,
        AUTH_VERSION_TABLE,
        UNFINISHED_TABLE,
        UPGRADES_TABLE,
        UPGRADING_TABLE,
        OWN_TABLE_PREFIX + "gc_journal",
    }
)

# A batch has at most so many rows, and fewer where each may be long: bounds memory.
BATCH_ROWS = 5_000
_BATCH_CHARACTERS = 8 << 20
_UNBOUNDED_CHARACTERS = 128 << 10
_CURSOR = "tracking_server_rows"
_SINGLE_PRECISION_BITS = 24
_JSON_CHECK = re.compile(r"json_valid\(`(\w+)`\)", re.IGNORECASE)


@dataclass(frozen=True)
class Stored:
    """A table together with how its database keeps it.

    Args:
        table: Without dialect.
        reflected: As SQLAlchemy sees it.
        single: Columns of single precision, which round what they are given (MySQL's FLOAT).
    """

    table: Table
    reflected: "sqlalchemy.Table"
    single: frozenset[str] = frozenset()

    @property
    def kinds(self) -> dict[str, Kind]:
        """The kind of each column."""
        return {column.name: column.kind for column in self.table.columns}

    @property
    def batch_rows(self) -> int:
        """How many rows may be in memory at a time."""
        width = sum(
            getattr(column.type, "length", None) or _UNBOUNDED_CHARACTERS
            for column in self.reflected.columns
            if self.kinds.get(column.name) in (Kind.TEXT, Kind.JSON, Kind.BYTES)
        )
        return max(1, min(BATCH_ROWS, _BATCH_CHARACTERS // max(width, 1)))


def reflect(connection: "Connection") -> dict[str, Stored]:
    """All tables by name, parents before children, but for `alembic_version`."""
    import sqlalchemy

    metadata = sqlalchemy.MetaData()
    with warnings.catch_warnings():
        # Types of other applications' tables, circles among them: read as text, in any order.
        warnings.simplefilter("ignore")
        metadata.reflect(connection)
        ordered = [table for table in metadata.sorted_tables if table.name != VERSION_TABLE]
    documents = _json_of_mariadb(connection)
    known = (mlflow_tables() | auth_tables_in(metadata.tables)) - {AUTH_VERSION_TABLE}
    return {table.name: _understand(table, documents, known, connection) for table in ordered}


def _understand(
    reflected: "sqlalchemy.Table",
    documents: set[tuple[str, str]],
    known: Collection[str],
    connection: "Connection",
) -> Stored:
    import sqlalchemy

    columns = []
    single = set()
    for column in reflected.columns:
        if column.computed is not None:
            continue
        is_document = (reflected.name, column.name) in documents
        kind = Kind.JSON if is_document else _kind(column.type)
        columns.append(Column(column.name, kind))
        if connection.dialect.name == Dialect.MYSQL and isinstance(column.type, sqlalchemy.Float):
            precision = column.type.precision
            is_double = isinstance(column.type, sqlalchemy.Double)
            if not is_double and (precision is None or precision <= _SINGLE_PRECISION_BITS):
                single.add(column.name)
    key = tuple(column.name for column in reflected.primary_key.columns)
    table = Table(reflected.name, tuple(columns), key, reflected.name in known)
    return Stored(table, reflected, frozenset(single))


def _kind(type_: "sqlalchemy.types.TypeEngine[Any]") -> Kind:
    """The kind of a column's values; text for what MLflow has nothing of."""
    from sqlalchemy import types
    from sqlalchemy.dialects import mysql

    match type_:
        case types.Boolean() | mysql.TINYINT(display_width=1):
            return Kind.BOOLEAN
        case types.Integer():
            return Kind.INTEGER
        case types.Float():
            return Kind.FLOAT
        case types.JSON():
            return Kind.JSON
        case types.LargeBinary() | types.BINARY() | types.VARBINARY():
            return Kind.BYTES
        case types.DateTime():
            return Kind.TIME
        case types.Date():
            return Kind.DATE
        case _ if type_.__visit_name__ in ("BYTEA", "TINYBLOB", "MEDIUMBLOB", "LONGBLOB"):
            return Kind.BYTES
        case _:
            return Kind.TEXT


def _json_of_mariadb(connection: "Connection") -> set[tuple[str, str]]:
    """Tables and columns that MariaDB keeps as text and checks to be JSON."""
    if not getattr(connection.dialect, "is_mariadb", False):
        return set()
    checks = connection.exec_driver_sql(
        "SELECT table_name, check_clause FROM information_schema.check_constraints "
        "WHERE constraint_schema = DATABASE()"
    )
    return {(table, found[1]) for table, text in checks if (found := _JSON_CHECK.search(text))}


def read_rows(
    connection: "Connection", stored: Stored, wanted: Table
) -> Generator[list[Row], None, None]:
    """All rows of a table in batches, as a server-side cursor brings them.

    Args:
        connection: In a transaction; one table at a time.
        stored: The table there.
        wanted: The columns wanted, in their order, with the kinds wanted.

    Yields:
        At most `BATCH_ROWS` rows, fewer where they may be long.
    """
    kinds = stored.kinds
    quote = connection.dialect.identifier_preparer.quote
    names = [column.name for column in wanted.columns]
    values = [_expression(connection, stored, name, quote(name)) for name in names]
    query = f"SELECT {', '.join(values)} FROM {quote(wanted.name)}"  # noqa: S608
    converters = {
        place: converter
        for place, column in enumerate(wanted.columns)
        if (converter := _converter(connection, kinds[column.name], column.kind))
    }
    with closing(_batches(connection, query, stored.batch_rows)) as batches:
        for batch in batches:
            yield convert(batch, converters)


def _batches(connection: "Connection", query: str, size: int) -> Generator[list[Row], None, None]:
    """What a query gives, as tuples of the driver's values, without the whole of it in memory."""
    if connection.dialect.name == Dialect.POSTGRESQL:
        # The same for every driver. SQLAlchemy's own way makes an object of each row.
        connection.exec_driver_sql(f"DECLARE {_CURSOR} NO SCROLL CURSOR FOR {query}")
        while True:
            result: Any = connection.exec_driver_sql(f"FETCH {size} FROM {_CURSOR}")
            rows = result.cursor.fetchall()
            result.close()
            if not rows:
                break
            try:
                yield rows
            except GeneratorExit:
                break  # nobody wants the rest
        connection.exec_driver_sql(f"CLOSE {_CURSOR}")
        return
    result = connection.execution_options(stream_results=True).exec_driver_sql(query)
    try:
        if connection.dialect.name == Dialect.SQLITE:
            while rows := result.cursor.fetchmany(size):
                yield rows
        else:
            while found := result.fetchmany(size):
                yield [tuple(row) for row in found]
    finally:
        result.close()


def convert(rows: Sequence[Row], converters: Mapping[int, Callable[[Any], Any]]) -> list[Row]:
    """Apply functions to some columns of rows; NULL stays. By columns, which is fast."""
    if not converters or not rows:
        return list(rows)
    columns: list[Any] = list(zip(*rows, strict=True))
    for place, function in converters.items():
        columns[place] = [None if value is None else function(value) for value in columns[place]]
    return list(zip(*columns, strict=True))


def _expression(connection: "Connection", stored: Stored, name: str, quoted: str) -> str:
    """What to select so that the driver brings a column as it is."""
    kind = stored.kinds[name]
    match connection.dialect.name:
        case Dialect.POSTGRESQL if kind in (Kind.JSON, Kind.TEXT):
            return f"{quoted}::text"
        case Dialect.SQLITE if kind is Kind.JSON:
            # SQLite keeps a document that is a number as one.
            return f"CAST({quoted} AS TEXT)"
        case Dialect.MYSQL if name in stored.single:
            # As it is, MySQL would show six digits of it.
            return f"({quoted} + 0e0)"
        case _:
            return quoted


def _converter(connection: "Connection", kind: Kind, wanted: Kind) -> Callable[[Any], Any] | None:
    is_sqlite = connection.dialect.name == Dialect.SQLITE
    match wanted:
        case Kind.BOOLEAN if is_sqlite or connection.dialect.name == Dialect.MYSQL:
            return _read_boolean
        case Kind.BOOLEAN if kind is not wanted:
            return bool
        case Kind.INTEGER if kind is Kind.BOOLEAN:
            return int
        case Kind.INTEGER if kind is Kind.FLOAT:
            return _read_whole
        case Kind.FLOAT if kind is not wanted:
            return float
        case Kind.BYTES:
            return None if is_sqlite else bytes
        case Kind.DATE:
            return None if is_sqlite else _read_date
        case Kind.TIME:
            return _read_time
        case Kind.TEXT | Kind.JSON if connection.dialect.name == Dialect.MYSQL:
            return _read_text
        case _:
            return None


def _read_boolean(value: Any) -> Any:
    return bool(value) if value in (0, 1) else value


def _read_whole(value: Any) -> Any:
    return int(value) if float(value).is_integer() else value


def _read_text(value: Any) -> Any:
    """MySQL's drivers have their own types for numbers of any size and for binary collations."""
    if isinstance(value, str):
        return value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _read_date(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def _read_time(value: Any) -> Any:
    """ISO 8601; SQLite has it as text with a space in the middle."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return value
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            value = value.astimezone(UTC).replace(tzinfo=None)
        return value.isoformat()
    return value
