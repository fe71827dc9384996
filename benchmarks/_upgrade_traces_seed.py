"""Fill an empty database with traces, as MLflow 3.16 keeps them: URI TRACES."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import sqlalchemy
from _upgrade_seed import NUMBERS, make_empty

# The last one before traces get columns for what is looked for in them.
REVISION = "b7e2c1a4d9f3"
SPANS = 4
_USAGE = json.dumps({"input_tokens": 100, "output_tokens": 20, "total_tokens": 120})
_COST = json.dumps({"input_cost": 0.00025, "output_cost": 0.0002, "total_cost": 0.00045})
_MODEL = json.dumps({"mlflow.llm.model": "large", "mlflow.llm.provider": "ours"})
# Not in the order of their numbers, as ids are not in that of time.
_TRACE = {
    "sqlite": "printf('tr-%032x', (t.i * 7919) % 1000003)",
    "postgresql": "'tr-' || lpad(to_hex(mod(t.i * 7919, 1000003)), 32, '0')",
}


def statements(dialect: str, traces: int) -> Iterator[str]:
    """What fills it."""
    trace, true = _TRACE[dialect], {"sqlite": "1", "postgresql": "TRUE"}[dialect]
    each = f"FROM {NUMBERS[dialect].format(traces)} AS t"
    of_each = f"{each}, {NUMBERS[dialect].format(SPANS)} AS s"
    span = {"sqlite": "printf('%016x', s.i)", "postgresql": "lpad(to_hex(s.i), 16, '0')"}[dialect]
    yield (
        "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, "
        "creation_time, last_update_time, workspace) "
        "VALUES (1, 'one', '/srv/artifacts/1', 'active', 1, 1, 'default')"
    )
    yield (
        "INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, execution_time_ms, "
        "status, request_preview, db_payload_generation) "
        f"SELECT {trace}, 1, 1750000000000 + t.i, 900, 'OK', 'a question of some length', 0 {each}"
    )
    for table, values in {
        "trace_tags": {"mlflow.traceName": "agent", "mlflow.artifactLocation": "mlflow-artifacts:"},
        "trace_request_metadata": {
            "mlflow.trace.session": "session", "mlflow.trace.tokenUsage": _USAGE,
            "mlflow.trace.cost": _COST, "mlflow.user": "ada",
        },
    }.items():  # fmt: skip
        for key, value in values.items():
            yield (
                f"INSERT INTO {table} (key, value, request_id) "
                f"SELECT '{key}', '{value}', {trace} {each}"
            )
    for key in ("input_tokens", "output_tokens", "total_tokens"):
        yield (
            f"INSERT INTO trace_metrics (request_id, key, value) SELECT {trace}, '{key}', 9 {each}"
        )
    yield (
        "INSERT INTO spans (trace_id, span_id, experiment_id, name, type, status, "
        "start_time_unix_nano, end_time_unix_nano, content, dimension_attributes) "
        f"SELECT {trace}, {span}, 1, 'step', 'LLM', 'OK', 1, 2, "
        f"'{{\"attributes\": \"{'some text ' * 40}\"}}', '{_MODEL}' {of_each}"
    )
    for key in ("input_cost", "output_cost", "total_cost"):
        yield (
            "INSERT INTO span_metrics (trace_id, span_id, key, value) "
            f"SELECT {trace}, {span}, '{key}', 0.5 {of_each}"
        )
    yield (
        "INSERT INTO assessments (assessment_id, trace_id, name, assessment_type, value, "
        "created_timestamp, last_updated_timestamp, source_type, valid) "
        f"SELECT 'a-' || {trace}, {trace}, 'good', 'feedback', 'true', 1, 1, 'HUMAN', {true} {each}"
    )


def main() -> None:
    """Fill it."""
    uri, traces = sys.argv[1], int(sys.argv[2])
    make_empty(uri, REVISION)
    engine = sqlalchemy.create_engine(uri)
    with engine.begin() as connection:
        for statement in statements(engine.dialect.name, traces):
            connection.exec_driver_sql(statement)
    # As a database does by itself after a while.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
    engine.dispose()
    print("{}")  # what the benchmark reads


if __name__ == "__main__":
    main()
