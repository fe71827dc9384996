"""Delete every row that belongs to entities, in a fixed number of statements however many they are.

MLflow 3.17.2 leaves to the database's cascades or behind what is deleted here by name: inputs and
outputs, datasets that nothing uses any more, entity associations. `tests/integration/test_gc.py`
compares the tables below with the foreign keys of MLflow's schema.
"""

# ruff: noqa: S608 - statements are put together from the constants below only

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlflow_server.gc.ids import bind_ids

if TYPE_CHECKING:
    from sqlalchemy import Connection

# `{runs}`, `{models}`, `{traces}` and `{experiments}` stand for what a statement is about: the ids
# of a batch, or all of some experiments.
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
_QUEUES = "(SELECT queue_id FROM review_queues WHERE experiment_id IN {experiments})"
_SCORERS = "(SELECT scorer_id FROM scorers WHERE experiment_id IN {experiments})"
_EXPERIMENT_ROWS = (
    "DELETE FROM spans WHERE experiment_id IN {experiments}",
    "DELETE FROM trace_info WHERE experiment_id IN {experiments}",
    "DELETE FROM logged_models WHERE experiment_id IN {experiments}",
    "DELETE FROM runs WHERE experiment_id IN {experiments}",
    f"DELETE FROM review_queue_items WHERE queue_id IN {_QUEUES}",
    f"DELETE FROM review_queue_label_schemas WHERE queue_id IN {_QUEUES}",
    f"DELETE FROM review_queue_users WHERE queue_id IN {_QUEUES}",
    f"DELETE FROM online_scoring_configs WHERE scorer_id IN {_SCORERS}",
    f"DELETE FROM scorer_versions WHERE scorer_id IN {_SCORERS}",
    *(
        f"DELETE FROM {table} WHERE experiment_id IN {{experiments}}"
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
    "UPDATE endpoints SET experiment_id = NULL WHERE experiment_id IN {experiments}",
    "DELETE FROM entity_associations WHERE (source_type = 'experiment' AND source_id IN {names}) "
    "OR (destination_type = 'experiment' AND destination_id IN {names})",
    "DELETE FROM experiments WHERE experiment_id IN {experiments}",
)
_WHOLE = {
    "runs": "(SELECT run_uuid FROM runs WHERE experiment_id IN {experiments})",
    "models": "(SELECT model_id FROM logged_models WHERE experiment_id IN {experiments})",
    "traces": "(SELECT request_id FROM trace_info WHERE experiment_id IN {experiments})",
}


def delete_runs(connection: "Connection", ids: Sequence[str]) -> None:
    """Delete runs with all their rows, and datasets that no other run uses.

    Args:
        connection: In a transaction.
        ids: Their ids, at least one.
    """
    datasets = "SELECT DISTINCT source_id FROM inputs WHERE source_type = 'DATASET' AND "
    datasets += "destination_type = 'RUN' AND destination_id IN {runs}"
    runs = bind_ids(connection, "runs", ids)
    used = list(runs.execute(connection, datasets).scalars())
    for statement in (*_RUN_ROWS, "DELETE FROM runs WHERE run_uuid IN {runs}"):
        runs.execute(connection, statement)
    if used:
        bind_ids(connection, "datasets", used).execute(
            connection,
            "DELETE FROM datasets WHERE dataset_uuid IN {datasets} AND NOT EXISTS (SELECT 1 FROM "
            "inputs WHERE source_type = 'DATASET' AND source_id = datasets.dataset_uuid)",
        )


def delete_logged_models(connection: "Connection", ids: Sequence[str]) -> None:
    """Delete logged models with all their rows; arguments as for `delete_runs`."""
    own = "DELETE FROM logged_models WHERE model_id IN {models}"
    _delete(connection, "models", ids, (*_MODEL_ROWS, own))


def delete_traces(connection: "Connection", ids: Sequence[str]) -> None:
    """Delete traces with all their rows; arguments as for `delete_runs`."""
    own = "DELETE FROM trace_info WHERE request_id IN {traces}"
    _delete(connection, "traces", ids, (*_TRACE_ROWS, own))


def delete_jobs(connection: "Connection", ids: Sequence[str]) -> None:
    """Delete jobs of MLflow's own, and the locks they held; arguments as for `delete_runs`."""
    locks = "DELETE FROM job_locks WHERE job_id IN {jobs}"
    _delete(connection, "jobs", ids, (locks, "DELETE FROM jobs WHERE id IN {jobs}"))


def _delete(
    connection: "Connection", name: str, ids: Sequence[str], statements: Sequence[str]
) -> None:
    bound = bind_ids(connection, name, ids)
    for statement in statements:
        bound.execute(connection, statement)


def delete_experiments(connection: "Connection", ids: Sequence[int]) -> None:
    """Delete experiments with everything in them: runs, logged models, traces and the rest.

    Args:
        connection: In a transaction.
        ids: Their ids, at least one.
    """
    experiments = bind_ids(connection, "experiments", ids)
    names = bind_ids(connection, "names", [str(experiment) for experiment in ids])
    statements = [
        *(statement.format(**_WHOLE) for statement in (*_RUN_ROWS, *_MODEL_ROWS, *_TRACE_ROWS)),
        *_EXPERIMENT_ROWS,
    ]
    for statement in statements:
        (names if "{names}" in statement else experiments).execute(connection, statement)
