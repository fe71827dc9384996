"""What a table is when no dialect is meant: kinds of values, one form for each, checksums. Pure."""

import base64
import json
import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any

from mlflow_server.errors import BadInputError

# One value: as `Kind` says, None for NULL.
Value = bool | int | float | str | bytes | None
Row = Sequence[Value]

_MODULUS = 1 << 128
_encode_json = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode
_NEGATIVE_ZERO = re.compile(rb"-0\.0[],]")
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Kind(StrEnum):
    """Kinds of values, each with the Python value that a row holds and what JSON makes of it."""

    INTEGER = "integer"  # int; number
    FLOAT = "float"  # float; number, or "NaN", "Infinity", "-Infinity"
    TEXT = "text"  # str; string
    BOOLEAN = "boolean"  # bool; true, false
    BYTES = "bytes"  # bytes; base64
    JSON = "json"  # str, the document's text; string
    DATE = "date"  # str, ISO 8601; string
    TIME = "time"  # str, ISO 8601, without a zone where it means UTC; string


@dataclass(frozen=True)
class Column:
    """A column that is not computed.

    Args:
        name: As the database has it.
        kind: What its values are.
    """

    name: str
    kind: Kind


@dataclass(frozen=True)
class Table:
    """A table, without what only one dialect has.

    Args:
        name: As the database has it.
        columns: In the database's order; a row has a value for each.
        key: Names of the primary key's columns; empty when it has none.
        known: Some revision of MLflow's schema has a table of that name.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    known: bool = True

    def places(self, *kinds: Kind) -> tuple[int, ...]:
        """Where in a row the values of some kinds are."""
        return tuple(i for i, column in enumerate(self.columns) if column.kind in kinds)


class Lines:
    """Rows of one table as lines of JSON, and back.

    Most rows are what JSON has already, and nothing of ours is done to their values.

    Args:
        table: Its columns say what becomes of which value.
    """

    def __init__(self, table: Table) -> None:
        self._name = table.name
        self._width = len(table.columns)
        self._bytes = table.places(Kind.BYTES)
        self._floats = table.places(Kind.FLOAT)

    def encode(self, row: Row) -> bytes:
        """One line, with its end.

        Raises:
            BadInputError: A value is none that JSON can have, such as bytes in a text column.
        """
        if not self._bytes:
            try:
                return f"{_encode_json(row)}\n".encode()
            except (ValueError, TypeError):
                pass  # not finite, or a wrong value
        values = list(row)
        for place in self._bytes:
            content = values[place]
            if isinstance(content, bytes):
                values[place] = base64.b64encode(content).decode("ascii")
        for place in self._floats:
            number = values[place]
            if isinstance(number, float) and not math.isfinite(number):
                values[place] = next(
                    name for name, other in _NOT_FINITE.items() if repr(other) == repr(number)
                )
        try:
            return f"{_encode_json(values)}\n".encode()
        except (ValueError, TypeError) as err:
            # The error's text may hold the value.
            raise BadInputError(
                f"table {self._name}: a value is not of its column's kind ({type(err).__name__})"
            ) from None

    def encode_all(self, rows: Sequence[Row]) -> list[bytes]:
        """The lines of rows: what `encode` makes of each, in half of the time.

        Raises:
            BadInputError: See `encode`.
        """
        if not self._bytes:
            try:
                text = _encode_json(rows)[1:-1].replace("],[", "]\n[")
                lines = f"{text}\n".encode().splitlines(keepends=True)
            except (ValueError, TypeError):
                lines = []
            # More, when a text has what stands between rows; JSON has no line ends in a text.
            if len(lines) == len(rows):
                return lines
        return [self.encode(row) for row in rows]

    def decode(self, line: bytes) -> Row:
        """The row of a line.

        Raises:
            BadInputError: It is no line of this table.
        """
        try:
            return self._understand(json.loads(line))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadInputError(f"table {self._name}: a line is damaged") from None

    def decode_all(self, lines: Sequence[bytes]) -> list[Row]:
        """The rows of lines: what `decode` makes of each, in a fifth of the time.

        Raises:
            BadInputError: One is no line of this table.
        """
        try:
            rows = json.loads(b"[%s]" % b",".join(lines))
            if len(rows) == len(lines):
                return [self._understand(row) for row in rows]
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        return [self.decode(line) for line in lines]

    def _understand(self, row: Any) -> Row:
        """A row as JSON has it, with its values as they are here."""
        if type(row) is not list or len(row) != self._width:
            raise ValueError
        for place in self._floats:
            if type(row[place]) is str:
                row[place] = _NOT_FINITE[row[place]]
        for place in self._bytes:
            if row[place] is not None:
                row[place] = base64.b64decode(row[place], validate=True)
        return row


class Checksum:
    """How many rows, and a checksum that depends neither on their order nor on the dialect.

    The sum of the first 16 bytes of each line's SHA-256, modulo 2^128. A JSON document counts
    without its white space and with sorted keys, as databases write it anew; -0.0 counts as 0.0,
    because SQLite does not keep its sign.

    Args:
        table: The table that the rows are of.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._lines = Lines(table)
        self._json = table.places(Kind.JSON)
        self._floats = table.places(Kind.FLOAT)
        self._sum = 0
        self.rows = 0

    @classmethod
    def of(cls, table: Table, rows: int, text: str) -> "Checksum":
        """One that is known: how many rows, and its `text`."""
        known = cls(table)
        known.rows, known._sum = rows, int(text, 16)
        return known

    @property
    def text(self) -> str:
        """The checksum in 32 hexadecimal digits."""
        return f"{self._sum:032x}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Checksum):
            return NotImplemented
        return (self.rows, self._sum) == (other.rows, other._sum)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Checksum({self.rows} rows, {self.text})"

    def add(self, rows: Iterable[Row]) -> list[bytes]:
        """Count rows in.

        Returns:
            Their lines, for who writes them.
        """
        rows = rows if isinstance(rows, list) else list(rows)
        lines = self._lines.encode_all(rows)
        self._count(self._canonical_lines(rows, lines))
        return lines

    def add_lines(self, lines: Iterable[bytes]) -> list[Row]:
        """Count lines in, as they stand: another byte is another checksum.

        Returns:
            Their rows.

        Raises:
            BadInputError: One is no line of this table.
        """
        lines = lines if isinstance(lines, list) else list(lines)
        rows = self._lines.decode_all(lines)
        self._count(self._canonical_lines(rows, lines))
        return rows

    def replace(self, old: Iterable[Row], new: Iterable[Row]) -> None:
        """Count rows out, and others in their place."""
        removed, added = Checksum(self._table), Checksum(self._table)
        removed.add(old)
        added.add(new)
        self.rows += added.rows - removed.rows
        self._sum = (self._sum + added._sum - removed._sum) % _MODULUS

    def merge(self, other: "Checksum") -> None:
        """Count in what another one has counted."""
        self.rows += other.rows
        self._sum = (self._sum + other._sum) % _MODULUS

    def _count(self, lines: Iterable[bytes]) -> None:
        digests = b"".join([sha256(line).digest() for line in lines])
        # Each is four numbers of 64 bits, of which the first two count.
        numbers = struct.unpack(f">{len(digests) // 8}Q", digests)
        total = (sum(numbers[0::4]) << 64) + sum(numbers[1::4])
        self._sum = (self._sum + total) % _MODULUS
        self.rows += len(digests) // 32

    def _canonical_lines(self, rows: Sequence[Row], lines: list[bytes]) -> list[bytes]:
        """What counts of rows, whose lines are known."""
        if self._json:
            return self._lines.encode_all([self._canonical(row) for row in rows])
        if self._floats and _NEGATIVE_ZERO.search(b"".join(lines)):
            return [
                self._lines.encode(self._canonical(row)) if _NEGATIVE_ZERO.search(line) else line
                for row, line in zip(rows, lines, strict=True)
            ]
        return lines

    def _canonical(self, row: Row) -> Row:
        values = list(row)
        for place in self._json:
            document = values[place]
            if isinstance(document, str):
                values[place] = canonical_json(document)
        for place in self._floats:
            if values[place] == 0:
                values[place] = 0.0
        return values


def canonical_json(text: str) -> str:
    """A JSON document without white space, keys sorted, whole numbers without a fraction.

    MySQL sorts keys and rewrites numbers, SQLite takes a document that is a number for one. What
    is no JSON stays as it is.
    """
    try:
        document = json.loads(text, parse_float=_parse_number)
    except (ValueError, RecursionError):
        return text
    # ASCII, because a document may hold half of a surrogate pair, which UTF-8 cannot.
    return json.dumps(document, separators=(",", ":"), sort_keys=True)


def _parse_number(text: str) -> float | int:
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def require_columns(table: Table, target: Mapping[str, Kind], where: str) -> None:
    """Raise when a table cannot be put into one that has other columns.

    Args:
        table: What is to be put.
        target: Name and kind of each column there.
        where: The target, for the message.

    Raises:
        BadInputError: A column is missing there, or of a kind that its values do not fit.
    """
    for column in table.columns:
        kind = target.get(column.name)
        if kind is None:
            raise BadInputError(
                f"{where}: table {table.name} has no column {column.name!r} at this revision"
            )
        if kind is not column.kind and (column.kind, kind) not in _CONVERSIONS:
            raise BadInputError(
                f"{where}: column {table.name}.{column.name} is {kind}, the source's {column.kind}"
            )


# Kinds that differ between dialects or revisions for one column: text that MariaDB checks to be
# JSON, numbers that SQLite kept as such.
_CONVERSIONS = {
    (Kind.TEXT, Kind.JSON): None,
    (Kind.JSON, Kind.TEXT): None,
    (Kind.INTEGER, Kind.FLOAT): float,
    (Kind.INTEGER, Kind.BOOLEAN): bool,
    (Kind.BOOLEAN, Kind.INTEGER): int,
}


def conversion(source: Kind, target: Kind) -> type | None:
    """What makes a value of one kind one of another; None when nothing has to be done."""
    return None if source is target else _CONVERSIONS[source, target]
