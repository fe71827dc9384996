"""Rows without a dialect: lines that read back the same, checksums that tell a change."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_server.errors import BadInputError
from mlflow_server.store.revision import mlflow_tables
from mlflow_server.store.tables import (
    Checksum,
    Column,
    Kind,
    Lines,
    Row,
    Table,
    canonical_json,
    conversion,
    require_columns,
)

VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.INTEGER: st.integers(-(2**63), 2**63 - 1),
    Kind.FLOAT: st.floats(),
    Kind.TEXT: st.text(),
    Kind.BOOLEAN: st.booleans(),
    Kind.BYTES: st.binary(),
    Kind.JSON: st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    ).map(json.dumps),
    Kind.DATE: st.dates().map(lambda day: day.isoformat()),
    Kind.TIME: st.datetimes().map(lambda time: time.isoformat()),
}


def table_of(*kinds: Kind) -> Table:
    columns = tuple(Column(f"c{i}", kind) for i, kind in enumerate(kinds))
    return Table("things", columns, ("c0",))


@st.composite
def tables_with_rows(draw: st.DrawFn) -> tuple[Table, list[tuple[Any, ...]]]:
    kinds = draw(st.lists(st.sampled_from(list(Kind)), min_size=1, max_size=6))
    row = st.tuples(*(st.none() | VALUES[kind] for kind in kinds))
    return table_of(*kinds), draw(st.lists(row, max_size=8))


def same(one: Row, other: Row) -> bool:
    """Equal, NaN and the sign of zero too."""
    return [(type(v), repr(v)) for v in one] == [(type(v), repr(v)) for v in other]


@given(tables_with_rows())
def test_a_line_reads_back_as_the_row(case: tuple[Table, list[Row]]) -> None:
    table, rows = case
    lines = Lines(table)
    for row in rows:
        line = lines.encode(row)
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")
        assert same(lines.decode(line), row)


@given(tables_with_rows(), st.randoms())
def test_a_checksum_depends_neither_on_order_nor_on_batches(
    case: tuple[Table, list[Row]], chance: random.Random
) -> None:
    table, rows = case
    whole, parts, of_lines = Checksum(table), Checksum(table), Checksum(table)
    lines = whole.add(rows)
    shuffled = list(rows)
    chance.shuffle(shuffled)
    for row in shuffled:
        parts.add([row])
    assert whole == parts
    assert whole.rows == len(rows)
    assert len(whole.text) == 32
    read = of_lines.add_lines(lines)
    assert of_lines == whole
    assert all(same(one, other) for one, other in zip(read, rows, strict=True))


@given(tables_with_rows())
def test_rows_can_be_counted_out_again(case: tuple[Table, list[Row]]) -> None:
    table, rows = case
    null = [None] * len(table.columns)
    expected, found, correction = Checksum(table), Checksum(table), Checksum(table)
    expected.add([null] * len(rows))
    found.add(rows)
    correction.replace(rows, [null] * len(rows))
    found.merge(correction)
    assert found == expected


def test_every_changed_value_changes_the_checksum() -> None:
    table = table_of(*Kind)
    row = [1, 1.5, "a", True, b"x", '{"a": 1}', "2026-01-01", "2026-01-01T00:00:00"]
    sums = set()
    other = [2, 1.25, "b", False, b"y", '{"a": 2}', "2026-01-02", "2026-01-01T00:00:01"]
    for place in range(len(row) + 1):
        changed = [*row[:place], *other[place : place + 1], *row[place + 1 :]]
        checksum = Checksum(table)
        checksum.add([changed])
        sums.add(checksum.text)
    assert len(sums) == len(row) + 1


def test_two_equal_rows_are_not_none() -> None:
    twice, never = Checksum(table_of(Kind.TEXT)), Checksum(table_of(Kind.TEXT))
    twice.add([["a"], ["a"]])
    assert twice.text != never.text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"b": 1, "a": [1, 2]}', '{"a":[1,2],"b":1}'),
        ('{"a": 1.0, "b": 2.50}', '{"a": 1, "b": 2.5}'),
        ('"ü"', '"\\u00fc"'),
        ('{"a": 1, "a": 2}', '{"a": 2}'),
        ('"\\ud83d"', '"\\uD83D"'),
        ("NaN", " NaN "),
    ],
)
def test_documents_that_databases_write_anew_count_the_same(one: str, other: str) -> None:
    assert canonical_json(one) == canonical_json(other)
    table = table_of(Kind.JSON)
    first, second = Checksum(table), Checksum(table)
    assert first.add([[one]]) != second.add([[other]])
    assert first == second


def test_what_is_no_document_stays_as_it_is() -> None:
    assert canonical_json("{broken") == "{broken"


@pytest.mark.parametrize("kinds", [(Kind.FLOAT,), (Kind.FLOAT, Kind.JSON), (Kind.FLOAT, Kind.TEXT)])
def test_the_sign_of_zero_does_not_count(kinds: tuple[Kind, ...]) -> None:
    rest = ['"-0.0"'] * (len(kinds) - 1)
    table = table_of(*kinds)
    minus, plus = Checksum(table), Checksum(table)
    minus.add_lines(minus.add([[-0.0, *rest]]))
    plus.add_lines(plus.add([[0.0, *rest]]))
    assert minus == plus


def test_numbers_are_in_their_shortest_form() -> None:
    lines = Lines(table_of(Kind.FLOAT))
    written = [lines.encode([v]) for v in (0.1, 1e22, -1.797e308, math.nan, math.inf, -math.inf)]
    assert b"".join(written) == (
        b'[0.1]\n[1e+22]\n[-1.797e+308]\n["NaN"]\n["Infinity"]\n["-Infinity"]\n'
    )


@pytest.mark.parametrize("value", [b"x", object(), "\ud83d"])
def test_a_value_of_another_kind_is_refused_without_being_shown(value: Any) -> None:
    with pytest.raises(BadInputError, match="table things") as caught:
        Lines(table_of(Kind.TEXT)).encode([value])
    assert repr(value) not in caught.value.message


@pytest.mark.parametrize(
    "line", [b"", b"\xff", b"{}\n", b"[1]\n", b"[1,2,3]\n", b'["one",2]\n', b'[1,"!"]\n']
)
def test_a_damaged_line_is_refused(line: bytes) -> None:
    with pytest.raises(BadInputError, match="table things: a line is damaged"):
        Lines(table_of(Kind.FLOAT, Kind.BYTES)).decode(line)


def test_a_missing_column_and_another_kind_are_refused() -> None:
    table = table_of(Kind.TEXT, Kind.INTEGER)
    require_columns(table, {"c0": Kind.JSON, "c1": Kind.FLOAT, "more": Kind.TEXT}, "there")
    assert conversion(Kind.INTEGER, Kind.FLOAT) is float
    with pytest.raises(BadInputError, match=r"there: table things has no column 'c1'"):
        require_columns(table, {"c0": Kind.TEXT}, "there")
    with pytest.raises(BadInputError, match=r"column things.c1 is bytes, the source's integer"):
        require_columns(table, {"c0": Kind.TEXT, "c1": Kind.BYTES}, "there")


def test_the_tables_of_every_release_are_known() -> None:
    assert {"experiments", "runs", "metrics", "spans", "job_locks", "workspaces"} <= mlflow_tables()
    assert "alembic_version" not in mlflow_tables()
