"""Delete every row that belongs to runs, logged models or an experiment, in set-based statements.

MLflow 3.17.2 leaves to the database's cascades or behind what is deleted here by name: inputs and
outputs, datasets that nothing uses any more, entity associations. `tests/integration/test_gc.py`
compares the tables below with the foreign keys of MLflow's schema.
"""

# ruff: noqa: S608 - statements are put together from the constants below only

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection

# `{runs}`, `{models}`, `{traces}` are replaced by what a statement is about: the ids of a batch, or
# all of an experiment.
_OF_RUNS = (
    "(destination_type = 'RUN' AND destination_id IN {runs}) "
    "OR (source_type IN ('RUN_INPUT', 'RUN_OUTPUT') AND source_id IN {runs})"
)
_OF_MODELS = "destination_type IN ('MODEL_INPUT', 'MODEL_OUTPUT') AND destination_id IN {models}"
_RUN_ROWS = (
    "DELETE FROM metrics WHERE run_uuid IN {runs}",
    "DELETE FROM latest_metrics WHERE run_uuid IN {runs}",
    "DELETE FROM params WHERE run_uuid IN {runs}",
    "DELETE FROM tags WHERE run_uuid IN {runs}",
    "DELETE FROM logged_model_metrics WHERE run_id IN {runs}",
    f"DELETE FROM input_tags WHERE input_uuid IN (SELECT input_uuid FROM inputs WHERE {_OF_RUNS})",
    f"DELETE FROM inputs WHERE {_OF_RUNS}",
    "DELETE FROM entity_associations WHERE (source_type = 'run' AND source_id IN {runs}) "
    "OR (destination_type = 'run' AND destination_id IN {runs})",
    "UPDATE issues SET source_run_id = NULL WHERE source_run_id IN {runs}",
)
_MODEL_ROWS = (
    "DELETE FROM logged_model_metrics WHERE model_id IN {models}",
    "DELETE FROM logged_model_params WHERE model_id IN {models}",
    "DELETE FROM logged_model_tags WHERE model_id IN {models}",
    "DELETE FROM input_tags WHERE input_uuid IN "
    f"(SELECT input_uuid FROM inputs WHERE {_OF_MODELS})",
    f"DELETE FROM inputs WHERE {_OF_MODELS}",
    "DELETE FROM entity_associations WHERE (source_type = 'model' AND source_id IN {models}) "
    "OR (destination_type = 'model' AND destination_id IN {models})",
)
_TRACE_ROWS = (
    "DELETE FROM span_metrics WHERE trace_id IN {traces}",
    "DELETE FROM spans WHERE trace_id IN {traces}",
    "DELETE FROM assessments WHERE trace_id IN {traces}",
    "DELETE FROM trace_tags WHERE request_id IN {traces}",
    "DELETE FROM trace_request_metadata WHERE request_id IN {traces}",
    "DELETE FROM trace_metrics WHERE request_id IN {traces}",
    "DELETE FROM entity_associations WHERE (source_type = 'trace' AND source_id IN {traces}) "
    "OR (destination_type = 'trace' AND destination_id IN {traces})",
)
_QUEUES = "(SELECT queue_id FROM review_queues WHERE experiment_id = :experiment)"
_SCORERS = "(SELECT scorer_id FROM scorers WHERE experiment_id = :experiment)"
_EXPERIMENT_ROWS = (
    f"DELETE FROM review_queue_items WHERE queue_id IN {_QUEUES}",
    f"DELETE FROM review_queue_label_schemas WHERE queue_id IN {_QUEUES}",
    f"DELETE FROM review_queue_users WHERE queue_id IN {_QUEUES}",
    f"DELETE FROM online_scoring_configs WHERE scorer_id IN {_SCORERS}",
    f"DELETE FROM scorer_versions WHERE scorer_id IN {_SCORERS}",
    *(
        f"DELETE FROM {table} WHERE experiment_id = :experiment"
        for table in (
            "review_queues",
            "label_schemas",
            "issues",
            "online_scoring_configs",
            "scorers",
            "sql_assessment_daily_rollups",
            "sql_span_cost_daily_rollups",
            "sql_trace_metric_daily_rollups",
            "sql_trace_rollup_rebuild_queue",
            "datasets",
            "experiment_tags",
        )
    ),
    "UPDATE endpoints SET experiment_id = NULL WHERE experiment_id = :experiment",
    "DELETE FROM entity_associations WHERE (source_type = 'experiment' AND source_id = :name) "
    "OR (destination_type = 'experiment' AND destination_id = :name)",
    "DELETE FROM experiments WHERE experiment_id = :experiment",
)
_WHOLE = {
    "runs": "(SELECT run_uuid FROM runs WHERE experiment_id = :experiment)",
    "models": "(SELECT model_id FROM logged_models WHERE experiment_id = :experiment)",
    "traces": "(SELECT request_id FROM trace_info WHERE experiment_id = :experiment)",
}


def delete_runs(connection: "Connection", ids: Sequence[str]) -> None:
    """Delete runs with all their rows, and datasets that no other run uses.

    Args:
        connection: In a transaction.
        ids: Their ids, at least one.
    """
    datasets = _scalars(
        connection,
        "SELECT DISTINCT source_id FROM inputs WHERE source_type = 'DATASET' "
        "AND destination_type = 'RUN' AND destination_id IN :ids",
        ids,
    )
    for statement in _RUN_ROWS:
        _execute(connection, statement.format(runs=":ids"), ids)
    _execute(connection, "DELETE FROM runs WHERE run_uuid IN :ids", ids)
    if datasets:
        _execute(
            connection,
            "DELETE FROM datasets WHERE dataset_uuid IN :ids AND NOT EXISTS (SELECT 1 FROM inputs "
            "WHERE source_type = 'DATASET' AND source_id = datasets.dataset_uuid)",
            datasets,
        )


def delete_logged_models(connection: "Connection", ids: Sequence[str]) -> None:
    """Delete logged models with all their rows.

    Args:
        connection: In a transaction.
        ids: Their ids, at least one.
    """
    for statement in _MODEL_ROWS:
        _execute(connection, statement.format(models=":ids"), ids)
    _execute(connection, "DELETE FROM logged_models WHERE model_id IN :ids", ids)


def delete_experiment(connection: "Connection", experiment: int) -> None:
    """Delete an experiment with everything in it: runs, logged models, traces and the rest.

    Args:
        connection: In a transaction.
        experiment: Its id.
    """
    import sqlalchemy

    statements = [
        *(statement.format(**_WHOLE) for statement in (*_RUN_ROWS, *_MODEL_ROWS, *_TRACE_ROWS)),
        "DELETE FROM spans WHERE experiment_id = :experiment",
        "DELETE FROM trace_info WHERE experiment_id = :experiment",
        "DELETE FROM logged_models WHERE experiment_id = :experiment",
        "DELETE FROM runs WHERE experiment_id = :experiment",
        *_EXPERIMENT_ROWS,
    ]
    for statement in statements:
        parameters = {"experiment": experiment, "name": str(experiment)}
        used = {name: value for name, value in parameters.items() if f":{name}" in statement}
        connection.execute(sqlalchemy.text(statement), used)


def _bound(statement: str) -> Any:
    import sqlalchemy

    return sqlalchemy.text(statement).bindparams(sqlalchemy.bindparam("ids", expanding=True))


def _execute(connection: "Connection", statement: str, ids: Sequence[str]) -> None:
    connection.execute(_bound(statement), {"ids": list(ids)})


def _scalars(connection: "Connection", statement: str, ids: Sequence[str]) -> list[str]:
    return list(connection.execute(_bound(statement), {"ids": list(ids)}).scalars())
