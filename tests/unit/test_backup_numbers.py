"""Experiments whose numbers are too large get new ones, everywhere."""

from __future__ import annotations

import pytest

from mlflow_server.backup.numbers import find_new_numbers, renumbering
from mlflow_server.store.tables import Column, Kind, Row, Table

LARGE, LARGER = 957_483_729_384_756_123, 957_483_729_384_756_124
NEW = {LARGE: 7, LARGER: 8}


def table(called: str, /, **columns: Kind) -> Table:
    return Table(called, tuple(Column(column, kind) for column, kind in columns.items()))


def test_the_free_numbers_are_given_in_the_order_of_making() -> None:
    experiments = table(
        "experiments", name=Kind.TEXT, experiment_id=Kind.INTEGER, creation_time=Kind.INTEGER
    )
    rows: list[Row] = [
        ("b", LARGE, 2_000), ("a", LARGER, 1_000), ("c", 5, 3_000), ("Default", 0, None),
        ("largest", 2**31 - 2, 1),
    ]  # fmt: skip
    assert find_new_numbers(experiments, rows[:4]) == {LARGER: 6, LARGE: 7}
    assert find_new_numbers(experiments, rows[2:]) == {}


def test_stores_without_times_have_an_order_too() -> None:
    old = table("experiments", experiment_id=Kind.INTEGER)
    assert find_new_numbers(old, [(LARGER,), (LARGE,)]) == {LARGE: 1, LARGER: 2}


@pytest.mark.parametrize(
    ("of", "row", "expected"),
    [
        (table("runs", run=Kind.TEXT, experiment_id=Kind.INTEGER), ("r", LARGE), ["r", 7]),
        (table("runs", run=Kind.TEXT, experiment_id=Kind.INTEGER), ("r", 3), ["r", 3]),
        (table("texts", experiment_id=Kind.TEXT), (str(LARGER),), ["8"]),
        (
            table("entity_associations", destination_type=Kind.TEXT, destination_id=Kind.TEXT),
            ("experiment", str(LARGE)),
            ["experiment", "7"],
        ),
        (
            table("entity_associations", destination_type=Kind.TEXT, destination_id=Kind.TEXT),
            ("run", str(LARGE)),
            ["run", str(LARGE)],
        ),
        (
            table("registered_model_tags", key=Kind.TEXT, value=Kind.TEXT),
            ("_mlflow_experiment_ids", f",{LARGE},0,"),
            ["_mlflow_experiment_ids", ",7,0,"],
        ),
        (
            table("registered_model_tags", key=Kind.TEXT, value=Kind.TEXT),
            ("other", f",{LARGE},"),
            ["other", f",{LARGE},"],
        ),
    ],
)
def test_every_reference_follows(of: Table, row: Row, expected: list[object]) -> None:
    change = renumbering(of, NEW)
    assert change is not None
    assert list(change(row)) == expected


def test_other_tables_are_left_alone() -> None:
    assert renumbering(table("metrics", key=Kind.TEXT), NEW) is None
