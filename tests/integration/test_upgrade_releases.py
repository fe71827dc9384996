"""`upgrade`: stores that old releases of MLflow make here and now, each by its own client.

They are others than those of tests/data/old-stores. The first run installs them (half a minute
each), and they are kept: see `old_release.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import sqlalchemy

from mlflow_server.store.revision import head_revision
from tests.integration.test_upgrade import FOLDER, Old, closing_engine
from tests.support.api_dump import Dumper
from tests.support.everything_place import Copy, assert_goes_on, serving
from tests.support.old_release import (
    MADE_ON_THE_SPOT,
    IndexUnreachableError,
    OldRelease,
    install,
)
from tests.support.old_stores import check
from tests.support.places import Place
from tests.support.programs import STORE, Server, http
from tests.support.refusals import refusal

# Of tables that have rows, how many; what traces say of their machine is longer where git is.
COUNTS: dict[str, dict[str, Any]] = {
    "2.15.1": {
        "experiments": 4, "experiment_tags": 1,
        "runs": 6, "metrics": 56, "latest_metrics": 20, "params": 12, "tags": 18,
        "datasets": 1, "inputs": 3, "input_tags": 3,
        "registered_models": 1, "registered_model_tags": 1, "registered_model_aliases": 1,
        "model_versions": 2, "model_version_tags": 2,
        "trace_info": 3, "trace_request_metadata": ANY, "trace_tags": ANY,
    },
}  # fmt: skip
COUNTS["3.5.1"] = COUNTS["2.15.1"] | {
    "logged_models": 2, "logged_model_params": 1, "logged_model_tags": 1,
    "spans": 6, "assessments": 1,
    "evaluation_datasets": 1, "evaluation_dataset_records": 1, "evaluation_dataset_tags": 2,
    "entity_associations": 1, "scorers": 1, "scorer_versions": 1,
}  # fmt: skip
# Keys of traces whose rows become columns; the API says them as before.
MOVED = ["mlflow.traceName", "mlflow.trace.session", "mlflow.trace.tokenUsage"]
SAID = {
    "2.15.1": ("predict", None, None),
    "3.5.1": ("predict", "s", '{"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}'),
}
pytestmark = [pytest.mark.xdist_group("upgrade"), pytest.mark.timeout(900)]


def installed(release: str) -> OldRelease:
    """A release; that it cannot be fetched is a failure in CI only."""
    try:
        return install(release)
    except IndexUnreachableError as err:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must be able to install MLflow {release}: {err}")
        pytest.skip(f"MLflow {release} cannot be installed: {err}")


@pytest.fixture(
    params=[("2.15.1", "sqlite"), ("3.5.1", "sqlite"), ("3.5.1", "postgresql")], ids="-".join
)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Old:
    """A store that a release has made on a kind of database."""
    release, kind = request.param
    by = installed(release)
    place = Place.make(tmp_path / "place")
    uri = f"sqlite:///{place.store}"
    if kind == "postgresql":
        uri = request.getfixturevalue("postgres").new_database()
    by.make_store(uri, tmp_path / "artifacts")
    return Old(place, uri, release, {STORE: uri, FOLDER: str(tmp_path / "backups")})


def test_has_everything_afterwards(made: Old, tmp_path: Path) -> None:
    had = MADE_ON_THE_SPOT[made.release]
    assert made.revision() == had.revision
    before = made.rows()
    counts = {table: len(found) for table, found in before.items() if found}
    assert counts == COUNTS[made.release] | {"alembic_version": 1}
    columns = columns_of(made.uri, COUNTS[made.release])
    values = values_of(made.uri, columns)
    refused = refusal(made.place, environment=made.environment, plain=False)
    assert (refused.code, had.revision in refused.text) == (4, True)
    facts = made.report("--check", code=3)["items"][0]["facts"]
    assert facts["current"] == had.revision
    assert len(facts["pending"]) == had.pending

    done = made.report()["items"][0]["facts"]
    assert (done["before"], done["after"]) == (had.revision, head_revision())
    assert made.revision() == head_revision()
    assert values_of(made.uri, columns) == values
    with serving(Copy(made.uri, str(tmp_path / "artifacts")), tmp_path / "server") as server:
        found = Dumper(server.url, wants_files=False).dump()
        spans = spans_of(server, found)
        assert_goes_on(server)
    assert spans == [
        [("look up", number * 2), ("predict", {"answer": number * 2})] for number in range(3)
    ]
    assert moved_of(found) == [SAID[made.release]] * 3
    with closing_engine(made.uri) as engine:
        check(had, found, engine)
    assert made.report("--check")["items"][0]["facts"]["pending"] == []
    made.run("--undo", "--discard-changes", "--yes")
    assert made.rows() == before


def columns_of(uri: str, tables: Iterable[str]) -> dict[str, list[str]]:
    """The columns that tables of a store have."""
    with closing_engine(uri) as engine:
        look = sqlalchemy.inspect(engine)
        return {table: [column["name"] for column in look.get_columns(table)] for table in tables}


def values_of(uri: str, columns: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """All rows but those that are moved, in a form that can be compared.

    Args:
        uri: Of the store.
        columns: Of each table, those that are looked at.
    """
    found = {}
    with closing_engine(uri) as engine, engine.connect() as connection:
        for name, wanted in columns.items():
            query = sqlalchemy.select(*map(sqlalchemy.column, wanted))
            query = query.select_from(sqlalchemy.table(name))
            if name in ("trace_tags", "trace_request_metadata"):
                query = query.where(sqlalchemy.column("key").not_in(MOVED))
            found[name] = sorted(str(tuple(row)) for row in connection.execute(query))
    return found


def moved_of(found: dict[str, Any]) -> list[tuple[str | None, ...]]:
    """What each trace has of `MOVED`."""
    infos = [trace["info"] for traces in found["traces"].values() for trace in traces.values()]
    return [
        tuple((info["tags"] | info["trace_metadata"]).get(key) for key in MOVED) for info in infos
    ]


def spans_of(server: Server, found: dict[str, Any]) -> list[list[tuple[str, Any]]]:
    """Names and outputs of the spans of each trace, as MLflow's pages ask for them."""
    ids = [id_ for traces in found["traces"].values() for id_ in traces]
    answers = [
        http(f"{server.url}/ajax-api/2.0/mlflow/get-trace-artifact?request_id={id_}") for id_ in ids
    ]
    assert {answer.status for answer in answers} == {200}, [answer.body for answer in answers]
    return sorted(
        sorted(
            (span["name"], json.loads(span["attributes"]["mlflow.spanOutputs"]))
            for span in answer.json()["spans"]  # type: ignore[attr-defined]
        )
        for answer in answers
    )
