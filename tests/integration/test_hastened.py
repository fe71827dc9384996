"""The statements of revision 75868b020152 that are made quicker do what they did."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

import mlflow_server.store.schema as schema
from tests.support.mariadb import MARIADB
from tests.support.stores import open_store

BEFORE = "b7e2c1a4d9f3"
TRACES, SPANS = 300, 3
pytestmark = [pytest.mark.xdist_group("upgrade"), pytest.mark.timeout(600)]


def rows() -> dict[str, list[dict[str, Any]]]:
    """Of each table: more than one page of 250."""
    ids = [f"tr-{number * 7919 % 100_003:032x}" for number in range(TRACES)]
    spans = [(id_, f"{number:016x}") for id_ in ids for number in range(SPANS)]
    usage = json.dumps({"input_tokens": 3, "output_tokens": 4, "total_tokens": 7})
    cost = json.dumps({"input_cost": 0.1, "output_cost": 0.2, "total_cost": 0.3})
    model = json.dumps({"mlflow.llm.model": "large", "mlflow.llm.provider": "ours"})
    return {
        "experiments": [
            {"experiment_id": 1, "name": "one", "lifecycle_stage": "active", "workspace": "default"}
        ],
        "trace_info": [
            {"request_id": id_, "experiment_id": 1, "timestamp_ms": 1, "status": "OK",
             "db_payload_generation": 0}
            for id_ in ids
        ],
        "trace_tags": [
            {"key": key, "value": f"name-{id_}", "request_id": id_}
            for id_ in ids for key in ("mlflow.traceName", "mine")
        ],
        "trace_request_metadata": [
            {"key": key, "value": value, "request_id": id_}
            for id_ in ids
            for key, value in {
                "mlflow.trace.session": "s", "mlflow.trace.tokenUsage": usage,
                "mlflow.trace.cost": cost, "mine": "kept",
            }.items()
        ],
        "trace_metrics": [
            {"request_id": id_, "key": key, "value": 3.0}
            for id_ in ids for key in ("input_tokens", "mine")
        ],
        "spans": [
            {"trace_id": id_, "span_id": span, "experiment_id": 1, "name": "s", "status": "OK",
             "start_time_unix_nano": 1, "end_time_unix_nano": 2, "content": "{}",
             "dimension_attributes": model}
            for id_, span in spans
        ],
        "span_metrics": [
            {"trace_id": id_, "span_id": span, "key": key, "value": 0.5}
            for id_, span in spans for key in ("input_cost", "mine")
        ],
        "assessments": [
            {"assessment_id": f"a-{id_}", "trace_id": id_, "name": "good",
             "assessment_type": "feedback", "value": "true", "created_timestamp": 1,
             "last_updated_timestamp": 1, "source_type": "HUMAN", "valid": True}
            for id_ in ids
        ],
    }  # fmt: skip


def fill(uri: str) -> None:
    """Make a store at the revision before, with traces."""
    engine = open_store(uri)
    with engine.begin() as connection:
        schema.make_schema(connection, BEFORE)
        tables = sqlalchemy.MetaData()
        tables.reflect(connection)
        for name, found in rows().items():
            connection.execute(tables.tables[name].insert(), found)
    engine.dispose()


def migrate(uri: str) -> list[str]:
    """Bring it to the newest revision; the statements that went through traces and spans."""
    engine = open_store(uri)
    said: list[str] = []

    @sqlalchemy.event.listens_for(engine, "before_cursor_execute")
    def note(_c: Any, _k: Any, statement: str, *_others: Any) -> None:
        said.append(" ".join(statement.split()))

    with engine.begin() as connection:
        schema.migrate(connection)
    engine.dispose()
    return said


def content(uri: str) -> dict[str, list[str]]:
    """All rows."""
    engine = open_store(uri)
    with engine.connect() as connection:
        quote = connection.dialect.identifier_preparer.quote
        found = {
            name: sorted(
                str(tuple(row))
                for row in connection.execute(sqlalchemy.text(f"SELECT * FROM {quote(name)}"))  # noqa: S608
            )
            for name in sqlalchemy.inspect(connection).get_table_names()
        }
    engine.dispose()
    return found


@pytest.fixture(params=["sqlite", "postgresql", MARIADB])
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Two empty databases of a kind."""
    if request.param == "sqlite":
        return [f"sqlite:///{tmp_path}/{name}.db" for name in ("one", "other")]
    fixture = {"postgresql": "postgres"}.get(request.param, request.param)
    server = request.getfixturevalue(fixture)
    return [server.new_database() for _ in range(2)]


@contextlib.contextmanager
def as_it_is(_connection: object, _removed: object) -> Iterator[None]:
    """MLflow's statements unchanged."""
    yield


def test_the_same_rows_with_fewer_statements(
    databases: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hastened, plain = databases
    for uri in databases:
        fill(uri)
    said = migrate(hastened)
    monkeypatch.setattr(schema, "hastened", as_it_is)
    said_plain = migrate(plain)
    found = content(hastened)
    assert found == content(plain)
    assert [row for row in found["trace_tags"] if "mlflow.traceName" in row] == []
    assert len(found["trace_tags"]) == TRACES
    # Pages after the first of two walks through spans begin where the one before has ended.
    pages = [each for each in said if "spans.span_id >" in each]
    assert len(pages) == len([each for each in said_plain if "spans.span_id >" in each]) > 6
    assert all("spans.trace_id >= " in each for each in pages)
    # SQLite finds the first of pairs of keys by its index.
    pairs = [each for each in said if "(span_metrics.trace_id, span_metrics.span_id) IN" in each]
    assert pairs
    if hastened.startswith("sqlite"):
        assert all("span_metrics.trace_id IN (" in each for each in pairs)
    # One statement removes what is in a table, and none looks for more than once.
    for table in ("trace_tags", "trace_request_metadata", "trace_metrics", "span_metrics"):
        removal = f"DELETE FROM {table} "  # noqa: S608 - looked for, not run
        ours, theirs = (sum(removal in each for each in all_) for all_ in (said, said_plain))
        assert ours == 1 < theirs, table
