"""Write many rows of one table: COPY on PostgreSQL, prepared statements elsewhere."""

import io
import math
import re
import sqlite3
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mlflow_server.errors import BadInputError, OpsError
from mlflow_server.store.engine import explain_failure
from mlflow_server.store.reflection import Stored, convert
from mlflow_server.store.tables import Kind, Row, Table, Value, conversion
from mlflow_server.uris import Dialect, StoreUri

if TYPE_CHECKING:
    from sqlalchemy import Connection

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_NEEDS_ESCAPE = re.compile(r"[\\\t\n\r]")
_SEPARATES = re.compile(r"[\t\n\r]")
_OF_ROWS = ("IntegrityError", "DataError", "OverflowError", "ProgrammingError")
_COLUMN_OF_COPY = re.compile(r"COPY [^\n]*, column (\w+)")


class BulkWriter:
    """Writes rows of one table.

    Args:
        uri: The database, for messages.
        connection: In a transaction.
        stored: The table there.
        given: Which columns the rows have, in their order, and of which kinds.
    """

    def __init__(
        self, uri: StoreUri, connection: "Connection", stored: Stored, given: Table
    ) -> None:
        self._uri = uri
        self._connection = connection
        self._table = given
        quote = connection.dialect.identifier_preparer.quote
        self._name = quote(given.name)
        self._columns = [quote(column.name) for column in given.columns]
        kinds = [stored.kinds[column.name] for column in given.columns]
        self._conversions: dict[int, Callable[[Any], Any]] = {
            place: function
            for place, column in enumerate(given.columns)
            if (function := conversion(column.kind, kinds[place]))
        }
        self._copies = connection.dialect.name == Dialect.POSTGRESQL and (
            connection.dialect.driver in ("psycopg", "psycopg2")
        )
        self._writers = [_text_writer(kind) for kind in kinds]
        if connection.dialect.name == Dialect.SQLITE:
            for place, kind in enumerate(kinds):
                if kind is Kind.TIME:
                    self._conversions[place] = _sqlite_time

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows; all must fit into memory.

        Raises:
            BadInputError: A row does not fit the table.
            OpsError: The database failed.
        """
        if not rows:
            return
        try:
            rows = convert(rows, self._conversions)
            if self._copies:
                self._copy(rows)
            else:
                self._insert(rows)
        except OpsError:
            raise
        except Exception as err:
            raise self._explain(err) from None

    def _copy(self, rows: Sequence[Row]) -> None:
        columns = [
            [("\\N" if value is None else writer(value)) for value in column]
            for writer, column in zip(self._writers, zip(*rows, strict=True), strict=True)
        ]
        for writer, values in zip(self._writers, columns, strict=True):
            # SQLite keeps text in columns of numbers, too: it must not become another row.
            if writer is str and _SEPARATES.search("".join(values)):
                raise ValueError
        text = "\n".join(map("\t".join, zip(*columns, strict=True)))
        if "\0" in text:
            raise BadInputError(
                f"{self._uri.shown}: table {self._table.name}: PostgreSQL keeps no text "
                "with a NUL character"
            )
        statement = f"COPY {self._name} ({', '.join(self._columns)}) FROM STDIN"
        cursor: Any = self._connection.connection.cursor()
        try:
            if self._connection.dialect.driver == "psycopg2":
                cursor.copy_expert(statement, io.BytesIO(text.encode()), size=1 << 20)
            else:
                with cursor.copy(statement) as copy:
                    copy.write(text)
        finally:
            cursor.close()

    def _insert(self, rows: Sequence[Row]) -> None:
        mark = "?" if self._connection.dialect.paramstyle == "qmark" else "%s"
        marks = ", ".join(mark for _ in self._columns)
        names = ", ".join(self._columns)
        # The drivers of MySQL make one statement of many rows of a text that looks like this.
        statement = f"INSERT INTO {self._name} ({names}) VALUES ({marks})"  # noqa: S608 - quoted
        cursor: Any = self._connection.connection.cursor()
        try:
            cursor.executemany(statement, rows)
        finally:
            cursor.close()

    def _explain(self, err: Exception) -> BaseException:
        """What a driver's error means; its own words may hold a row, so only its kind is told."""
        name = type(err).__name__
        if isinstance(err, UnicodeEncodeError):
            name = "half of a surrogate pair"
        state = getattr(err, "sqlstate", None) or getattr(err, "pgcode", None) or ""
        diagnosis = getattr(err, "diag", None)
        # Of SQLSTATE: 22 are data that do not fit, 23 are constraints. Others only name a kind.
        is_row = state[:2] in ("22", "23") if state else name in _OF_ROWS
        is_row |= isinstance(
            err,
            UnicodeEncodeError | sqlite3.InterfaceError | ValueError | TypeError | AttributeError,
        )
        if not is_row:
            return explain_failure(self._uri, err) or err
        where = f"table {self._table.name}"
        if diagnosis is not None:
            context = _COLUMN_OF_COPY.search(diagnosis.context or "")
            column = diagnosis.column_name or (context[1] if context else None)
            if column:
                where = f"column {self._table.name}.{column}"
            if diagnosis.constraint_name:
                name = f"{name}, constraint {diagnosis.constraint_name}"
        return BadInputError(
            f"{self._uri.shown}: {where}: the database does not take a row ({name})",
            hint="what one kind of database keeps, another may refuse: too long a text, keys that "
            "differ in case only, rows whose parent is missing",
        )


def _text_writer(kind: Kind) -> Callable[[Any], str]:
    """How COPY's text format has a value (postgresql.org/docs/current/sql-copy.html)."""
    match kind:
        case Kind.BOOLEAN:
            return _copied_boolean
        case Kind.BYTES:
            return _copied_bytes
        case Kind.FLOAT:
            return repr
        case Kind.TEXT | Kind.JSON:
            return _copied_text
        case _:
            return str


def _copied_boolean(value: Value) -> str:
    return "t" if value else "f"


def _copied_bytes(value: bytes) -> str:
    return "\\\\x" + value.hex()


def _copied_text(value: Value) -> str:
    text = value if isinstance(value, str) else str(value)
    return text.translate(_ESCAPES) if _NEEDS_ESCAPE.search(text) else text


def _sqlite_time(value: str) -> str:
    """As SQLAlchemy writes it there, with all six digits."""
    day, _, rest = value.partition("T")
    return f"{day} {rest}" + ("" if "." in rest else ".000000")


def not_kept(
    connection: "Connection", stored: Stored, given: Table
) -> Callable[[Row], Row | None] | None:
    """What tells rows that a database does not keep exactly.

    Returns:
        A function of a row: what the database makes of it, None when that is the row itself; None
        when the table keeps everything. MySQL rounds what comes into a column of single precision,
        SQLite has NULL for what is no number.
    """
    floats = given.places(Kind.FLOAT)
    kept: Callable[[Any], Value]
    if connection.dialect.name == Dialect.SQLITE:
        kept = _null_for_nan
    else:
        floats = tuple(p for p in floats if given.columns[p].name in stored.single)
        kept = _single
    if not floats:
        return None

    def altered(row: Row) -> Row | None:
        values: list[Value] | None = None
        for place in floats:
            number = row[place]
            if isinstance(number, float) and (new := kept(number)) != number:
                values = values or list(row)
                values[place] = new
        return values

    return altered


def _null_for_nan(number: float) -> float | None:
    return None if math.isnan(number) else number


def _single(number: float) -> float:
    try:
        return float(struct.unpack("f", struct.pack("f", number))[0])
    except OverflowError:
        return number
