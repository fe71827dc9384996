"""`upgrade` of stores with many traces: columns filled beforehand, in small commits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy

from mlflow_server.errors import BusyError, OpsError, SchemaError
from mlflow_server.store.revision import head_revision, migration_tree
from mlflow_server.store.schema import make_schema
from mlflow_server.upgrade import execute
from mlflow_server.upgrade import prepare as room
from mlflow_server.upgrade.execute import PREPARING, Upgrade
from mlflow_server.upgrade.prepare import PREPARED_REVISION, helps, prepare
from mlflow_server.upgrade.request import Request
from mlflow_server.upgrade.survey import survey
from mlflow_server.uris import parse_store_uri
from tests.conftest import Postgres
from tests.integration.test_upgrade import FOLDER, Old, closing_engine
from tests.integration.test_upgrade import programs as programs
from tests.support import forks
from tests.support.places import Place
from tests.support.programs import STORE, clean_environment

pytestmark = [pytest.mark.xdist_group("upgrade"), pytest.mark.timeout(300)]

TRACES = 1_500
ROWS = 4 * TRACES  # each has two spans and an assessment
NUMBERS = "CREATE TEMPORARY VIEW n AS SELECT i, 'tr-' || i AS id FROM"
# Besides what a client writes: text that is no JSON or another one, numbers that are none, text
# that is too long. Two spans each, so that it does not matter in which order costs are added up.
FILLING = """
INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage)
VALUES (1, 'one', '/srv/artifacts/1', 'active');
INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, execution_time_ms, status)
SELECT id, 1, 1750000000000 + i, i, 'OK' FROM n;
INSERT INTO trace_tags (key, value, request_id)
SELECT 'mlflow.traceName', CASE i % 50 WHEN 0 THEN repeat('ü', 5000) ELSE 'step ' || i % 7 END, id
FROM n WHERE i % 9 > 0 UNION ALL SELECT 'team', 'a', id FROM n;
INSERT INTO trace_request_metadata (key, value, request_id)
SELECT 'mlflow.trace.session', CASE i % 40 WHEN 0 THEN repeat('s', 300) ELSE 's-' || i / 5 END, id
FROM n WHERE i % 3 > 0 UNION ALL
SELECT 'mlflow.trace.tokenUsage', CASE i % 10 WHEN 0 THEN 'no JSON' WHEN 1 THEN '[1]'
  WHEN 2 THEN '{"input_tokens": 1e400, "total_tokens": 1.5}'
  WHEN 3 THEN '{"input_tokens": true}'
  ELSE '{"input_tokens": ' || i || ', "output_tokens": 2}' END, id
FROM n WHERE i % 4 > 0 UNION ALL
SELECT 'mlflow.trace.cost', CASE i % 10 WHEN 0 THEN '{"total_cost": "NaN"}' WHEN 1 THEN 'null'
  WHEN 2 THEN '{"total_cost": 1e999}' ELSE '{"input_cost": 0.1, "total_cost": 0.3}' END, id
FROM n WHERE i % 5 > 0 UNION ALL
SELECT 'mlflow.gateway.endpointId', 'e-1', id FROM n WHERE i % 6 = 0;
INSERT INTO trace_metrics (request_id, key, value)
SELECT id, 'output_tokens', CASE i % 10 WHEN 4 THEN 'NaN' WHEN 5 THEN 0.5 ELSE i END
FROM n WHERE i % 2 = 0;
INSERT INTO spans (trace_id, experiment_id, span_id, status, start_time_unix_nano,
  end_time_unix_nano, content, dimension_attributes)
SELECT id, 1, 'sp-' || k, 'OK', i, i + k, '{}', CASE (i + k) % 5 WHEN 0 THEN NULL
  WHEN 1 THEN 'null' WHEN 2 THEN '{"mlflow.llm.model": null}'
  WHEN 3 THEN json_build_object('mlflow.llm.model', repeat('m', 600))
  ELSE '{"mlflow.llm.model": "large", "mlflow.llm.provider": "ours"}' END
FROM n, generate_series(1, 2) AS k;
INSERT INTO span_metrics (trace_id, span_id, key, value)
SELECT trace_id, span_id, 'total_cost', CASE start_time_unix_nano % 11 WHEN 0 THEN 'NaN'
  WHEN 1 THEN 'Infinity' ELSE 0.1 * start_time_unix_nano END
FROM spans WHERE start_time_unix_nano % 2 = 0;
INSERT INTO assessments (assessment_id, trace_id, name, assessment_type, value, created_timestamp,
  last_updated_timestamp, source_type, valid)
SELECT 'a-' || i, id, 'judge', 'feedback', (ARRAY['true', '"yes"', '" No "', '0.75', '1e999',
  '"text"', 'no JSON', '{}', 'null', repeat('9', 400)])[1 + i % 10], i, i, 'HUMAN', i % 7 > 0
FROM n;
"""
PROGRAM = f"""
import os, sys
from mlflow_server.store.schema import importing_lightly
from mlflow_server.upgrade.prepare import prepare
from mlflow_server.upgrade.survey import survey
from mlflow_server.uris import parse_store_uri

def tell(*rows):
    print(*rows, flush=True)
    sys.stdin.readline()

uri = parse_store_uri(os.environ["{STORE}"])
with importing_lightly():
    prepare(uri, survey(uri), tell)
"""


def database_of(uri: str) -> str:
    """The name of the database that a URI leads to."""
    return str(sqlalchemy.make_url(uri).database)


@pytest.fixture(scope="session")
def traces(postgres: Postgres) -> str:
    """The name of a database with traces, at the revision in question."""
    uri = postgres.new_database()
    with closing_engine(uri) as engine:
        with engine.begin() as connection:
            make_schema(connection, PREPARED_REVISION)
            connection.exec_driver_sql(f"{NUMBERS} generate_series(1, {TRACES}) AS i")
            connection.execution_options(no_parameters=True).exec_driver_sql(FILLING)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE")
    return database_of(uri)


@pytest.fixture(scope="session")
def make_traces(
    traces: str, postgres: Postgres, programs: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Old]:
    """Makes a copy of it."""

    def make() -> Old:
        folder = tmp_path_factory.mktemp("traces")
        uri = postgres.new_database(traces)
        environment = {STORE: uri, FOLDER: str(folder / "backups"), "PATH": programs}
        return Old(Place.make(folder / "place"), uri, "3.16.0", environment)

    return make


@pytest.fixture
def old(make_traces: Callable[[], Old]) -> Old:
    """One of them."""
    return make_traces()


@pytest.fixture(scope="session")
def prepared(make_traces: Callable[[], Old]) -> dict[str, list[str]]:
    """The rows when it was prepared in one go."""
    old = make_traces()
    prepare_all(old)
    return old.rows()


@pytest.fixture(scope="session")
def upgraded(make_traces: Callable[[], Old]) -> dict[str, list[str]]:
    """The rows after an upgrade of what was not prepared."""
    old = make_traces()
    old.report()
    return old.rows()


def prepare_all(old: Old) -> list[tuple[int, int]]:
    """Prepare a store; what was told on the way."""
    told: list[tuple[int, int]] = []
    uri = parse_store_uri(old.uri)
    prepare(uri, survey(uri), lambda *rows: told.append(rows))
    return told


def values(old: Old, query: str) -> list[tuple[object, ...]]:
    """What a store answers."""
    with closing_engine(old.uri) as engine, engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sqlalchemy.text(query))]


def test_the_revision_is_the_one_before_what_mlflow_fills() -> None:
    from mlflow.store.db import trace_analytics_prepopulation as mlflow

    assert mlflow.PREPOPULATION_SCHEMA_REVISION == PREPARED_REVISION
    assert migration_tree()["75868b020152"] == PREPARED_REVISION


def test_columns_are_filled_and_nothing_else_is_changed(
    old: Old, prepared: dict[str, list[str]]
) -> None:
    before = old.rows()
    told = prepare_all(old)
    assert told == sorted(told)
    assert {total for _, total in told} == {ROWS}
    assert told[-1] == (ROWS, ROWS)
    assert old.revision() == PREPARED_REVISION
    after = old.rows()
    assert after == prepared
    filled = {"trace_info", "spans", "assessments"}
    assert {name for name in before if before[name] != after[name]} == filled
    assert before.keys() == after.keys()
    query = "SELECT trace_name, session_id, input_tokens, output_tokens, total_cost FROM trace_info"
    assert values(old, f"{query} WHERE request_id = 'tr-1457'") == [
        ("step 1", "s-291", 1457, 2, 0.3)
    ]
    query = "SELECT total_cost, model_name, model_provider FROM spans WHERE span_id = 'sp-1'"
    assert values(old, f"{query} AND trace_id = 'tr-28'") == [(2.8, "large", "ours")]
    query = "SELECT experiment_id, trace_timestamp_ms, aggregate_value, is_numeric_value"
    assert values(old, f"{query} FROM assessments WHERE trace_id = 'tr-3'") == [
        (1, 1750000000003, 0.75, True)
    ]
    prepare_all(old)
    assert old.rows() == after


@pytest.mark.parametrize("moment", [1, 3])
def test_killed_half_way_and_done_again(
    old: Old, prepared: dict[str, list[str]], upgraded: dict[str, list[str]], moment: int
) -> None:
    with forks.Popen(
        [sys.executable, "-c", PROGRAM],
        env=clean_environment(**old.environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(1, moment + 1):
            assert process.stdout.readline()
            if number < moment:
                process.stdin.write("\n")
                process.stdin.flush()
        process.kill()
    assert old.revision() == PREPARED_REVISION
    filled = "SELECT count(*) FROM trace_info WHERE trace_name IS NOT NULL"
    assert values(old, filled) > [(0,)]
    assert old.rows() != prepared
    prepare_all(old)
    assert old.rows() == prepared
    old.report()
    assert old.revision() == head_revision()
    assert old.rows() == upgraded


def test_what_is_written_after_it_is_put_right(make_traces: Callable[[], Old]) -> None:
    prepared, plain = make_traces(), make_traces()
    prepare_all(prepared)
    for each in (prepared, plain):
        each.execute("DELETE FROM trace_info WHERE request_id LIKE 'tr-11%'")
        each.execute("UPDATE trace_tags SET value = 'renamed' WHERE key = 'mlflow.traceName'")
        each.execute("DELETE FROM trace_metrics WHERE request_id LIKE 'tr-2%'")
        each.execute("UPDATE span_metrics SET value = 7 WHERE trace_id LIKE 'tr-3%'")
        each.execute("UPDATE assessments SET value = '4' WHERE trace_id LIKE 'tr-4%'")
        each.execute(
            "INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, status) "
            "VALUES ('tr-new', 1, 1, 'OK')"
        )
        each.execute(
            "INSERT INTO trace_tags (key, value, request_id) "
            "VALUES ('mlflow.traceName', 'new', 'tr-new')"
        )
        each.execute(
            "INSERT INTO assessments (assessment_id, trace_id, name, assessment_type, value, "
            "created_timestamp, last_updated_timestamp, source_type, valid) "
            "VALUES ('a-new', 'tr-new', 'judge', 'feedback', '5', 1, 1, 'HUMAN', TRUE)"
        )
        each.report()
    assert prepared.rows() == plain.rows()


def test_an_undone_upgrade_leaves_what_was_prepared(old: Old) -> None:
    prepare_all(old)
    before = old.rows()
    old.report()
    old.run("--undo")
    assert old.rows() == before
    prepare_all(old)
    assert old.rows() == before
    old.report()


def test_it_helps_where_there_are_many_traces_only(
    old: Old, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri = parse_store_uri(old.uri)
    assert not helps(survey(uri))
    monkeypatch.setattr(room, "MIN_ROWS", ROWS)
    assert helps(survey(uri))
    monkeypatch.setattr(room, "MIN_ROWS", ROWS + 1)
    assert not helps(survey(uri))
    monkeypatch.setattr(room, "MIN_ROWS", 0)
    old.report()
    assert not helps(survey(uri))
    file = f"sqlite:///{tmp_path}/store.db"
    with closing_engine(file) as engine, engine.begin() as connection:
        make_schema(connection, PREPARED_REVISION)
    assert not helps(survey(parse_store_uri(file)))
    with pytest.raises(SchemaError, match="only on PostgreSQL"):
        prepare(parse_store_uri(file), survey(parse_store_uri(file)), lambda *_: None)


def test_the_command_prepares_and_leaves_the_rest(old: Old, prepared: dict[str, list[str]]) -> None:
    assert old.report("--check", code=3)["items"][0]["facts"]["can_be_prepared"] is False
    assert old.report("--prepare")["items"][0]["detail"].startswith("prepared;")
    assert old.rows() == prepared
    assert old.backups == []
    for other in ("--check", "--undo", "--online"):
        old.run("--prepare", other, code=2)
    old.report()
    assert old.report("--prepare")["items"][0]["detail"] == "up to date"


def test_an_upgrade_beside_others_prepares_where_it_helps(
    old: Old, upgraded: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MIN_ROWS", ROWS)
    monkeypatch.setenv("PATH", old.environment["PATH"])
    told: list[str] = []
    request = Request(
        {"backend": parse_store_uri(old.uri)}, Path(old.environment[FOLDER]), is_online=True
    )
    with closing_engine(old.uri) as engine, engine.connect() as server:
        server.execute(sqlalchemy.text("SELECT 1"))
        server.commit()
        result = Upgrade(request, lambda _name, what, *_: told.append(what)).run()
    assert result.databases["backend"].is_prepared
    assert told.index(PREPARING) < told.index("75868b020152")
    assert old.rows() == upgraded


def test_an_upgrade_goes_on_when_traces_cannot_be_prepared(
    old: Old, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise BusyError("somebody keeps them locked")

    monkeypatch.setattr(room, "MIN_ROWS", ROWS)
    monkeypatch.setattr(execute, "prepare", refuse)
    request = Request(
        {"backend": parse_store_uri(old.uri)}, Path(old.environment[FOLDER]), is_online=True
    )
    result = Upgrade(request, lambda *_: None).run()
    assert not result.databases["backend"].is_prepared
    assert "traces were not prepared: somebody keeps them locked" in caplog.text
    assert old.revision() == head_revision()


def test_another_revision_is_refused(database_uri: str) -> None:
    before = migration_tree()[PREPARED_REVISION]
    with closing_engine(database_uri) as engine, engine.begin() as connection:
        make_schema(connection, before)
    uri = parse_store_uri(database_uri)
    assert not helps(survey(uri))
    with pytest.raises(SchemaError, match=f"at revision {before}; only on PostgreSQL, and only at"):
        prepare(uri, survey(uri), lambda *_: None)


def test_a_store_that_was_upgraded_meanwhile(old: Old) -> None:
    uri = parse_store_uri(old.uri)
    found = survey(uri)
    old.report()
    now = old.rows()
    with pytest.raises(OpsError) as raised:
        prepare(uri, found, lambda *_: None)
    assert raised.value.message == (
        f"{uri.shown}: traces cannot be prepared: Trace analytics prepopulation requires database "
        f"revision '{PREPARED_REVISION}'; found {head_revision()}"
    )
    assert old.rows() == now


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (
            "ALTER TABLE spans DROP CONSTRAINT fk_spans_trace_id; "
            "DELETE FROM trace_info WHERE request_id = 'tr-7'",
            "spans row references missing trace_info row 'tr-7'",
        ),
        ("DROP TABLE span_metrics", "required table 'span_metrics' is missing"),
        (
            "ALTER TABLE trace_info ADD COLUMN session_id integer",
            "existing column trace_info.session_id has incompatible schema (type INTEGER; "
            "expected VARCHAR(250))",
        ),
    ],
)
def test_what_the_upgrade_would_stop_at(old: Old, statement: str, told: str) -> None:
    old.execute(statement)
    before = old.rows()
    with pytest.raises(OpsError) as raised:
        prepare_all(old)
    shown = parse_store_uri(old.uri).shown
    assert raised.value.message == f"{shown}: traces cannot be prepared: {told}"
    assert old.rows() == before


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
@pytest.mark.parametrize("is_begun", [False, True])
def test_traces_that_somebody_keeps_locked(
    old: Old, monkeypatch: pytest.MonkeyPatch, driver: str, *, is_begun: bool
) -> None:
    monkeypatch.setattr(room, "_ATTEMPTS", 1)
    monkeypatch.setattr(room, "_LOCK_TIMEOUT_S", 1)
    if is_begun:
        prepare_all(old)
        old.execute("UPDATE trace_info SET trace_name = 'wrong'")
    before = old.rows()
    uri = parse_store_uri(old.uri.replace("postgresql:", f"postgresql+{driver}:"))
    with closing_engine(old.uri) as engine, engine.connect() as holder:
        holder.execute(
            sqlalchemy.text("UPDATE trace_info SET status = status WHERE request_id = 'tr-999'")
        )
        with pytest.raises(BusyError, match="another session keeps traces of the store locked"):
            prepare(uri, survey(uri), lambda *_: None)
    if not is_begun:
        assert old.rows() == before
    prepare(uri, survey(uri), lambda *_: None)
    assert values(old, "SELECT count(*) FROM trace_info WHERE trace_name = 'wrong'") == [(0,)]


def test_a_lock_that_goes_away_is_waited_for(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing_engine(old.uri) as engine, engine.connect() as holder:
        holder.execute(sqlalchemy.text("LOCK TABLE trace_info IN SHARE MODE"))
        monkeypatch.setattr(room.time, "sleep", lambda _: holder.rollback())
        prepare_all(old)
    assert values(old, "SELECT count(*) FROM trace_info WHERE trace_name IS NOT NULL") > [(0,)]


def test_a_database_that_is_read_only(old: Old) -> None:
    old.execute(f"ALTER DATABASE {database_of(old.uri)} SET default_transaction_read_only = on")
    with pytest.raises(OpsError, match="ReadOnly"):
        prepare_all(old)
