"""Which columns say where artifacts are, and what they become somewhere else."""

from __future__ import annotations

import pytest

from mlflow_server.backup.locations import Moves, Place, as_location, moving, places_of
from mlflow_server.store.tables import Column, Kind, Row, Table


def table(called: str, *columns: str) -> Table:
    return Table(called, tuple(Column(column, Kind.TEXT) for column in columns))


VERSIONS = table("model_versions", "name", "source", "storage_location")


@pytest.mark.parametrize(
    "source",
    ["dummy-source", "prompt-template", "REDACTED-SOURCE-PATH", "runs:/r/model", "models:/m-1", ""],
)
def test_what_says_of_no_place_is_none(source: str) -> None:
    find = places_of(VERSIONS)
    assert find is not None
    assert list(find(("m", source, None))) == []
    assert list(find(("m", source, "s3://b/x"))) == [Place("s3://b/x", is_container=False)]


def test_roots_of_workspaces_contain_and_move() -> None:
    spaces = table("workspaces", "name", "default_artifact_root", "trace_archival_location")
    row: Row = ("team", "/srv/team", None)
    find = places_of(spaces)
    assert find is not None
    assert list(find(row)) == [Place("/srv/team", is_container=True)]
    move = moving(spaces, Moves([("/srv", "s3://b/p")]))
    assert move is not None
    assert move(row) == ["team", "s3://b/p/team", None]


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/old/1/r", "s3://b/p/1/r"),
        ("file:///old/1/r", "s3://b/p/1/r"),
        ("/old", "s3://b/p"),
        ("/older/1", "/older/1"),
        ("/old/own/x", "/new/x"),
        ("s3://c/x%41", "/n/x%2541"),
        ("mlflow-artifacts:/1/r", "mlflow-artifacts:/1/r"),
    ],
)
def test_the_longest_prefix_decides(location: str, expected: str) -> None:
    moves = Moves([("/old", "s3://b/p/"), ("/old/own", "/new"), ("s3://c", "/n")])
    assert moves(location) == expected


def test_a_path_with_a_percent_sign_stays_the_same_place() -> None:
    """MLflow decodes a path in a row, and so do we."""
    old, new = "/srv/100%41", "/srv/new%2F"
    moves = Moves([(as_location(old), as_location(new))])
    assert moves.place(f"{old}/a%20b") == f"{new}/a%20b"
    assert moves(as_location(f"{old}/a%20b")) == as_location(f"{new}/a%20b")
    assert moves("/srv/100A/x") == "/srv/100A/x"
