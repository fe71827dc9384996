"""Part of a store: some experiments, some registered models, and what belongs to them.

Works on a store in a SQLite file that nobody else uses: everything else is deleted from it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_server.errors import UsageError
from mlflow_server.store.engine import create_write_engine
from mlflow_server.uris import StoreUri

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, ForeignKeyConstraint


@dataclass(frozen=True)
class Selection:
    """What is wanted; everything when nothing is named.

    Args:
        experiments: Names or ids, with everything in them.
        registered_models: Names, with the runs and logged models that their versions are from.
    """

    experiments: tuple[str, ...] = ()
    registered_models: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.experiments or self.registered_models)


EVERYTHING = Selection()

# Tables that stay as they are: they say what else can be there at all.
_KEPT = ("workspaces", "alembic_version")
# Temporary tables of what is wanted, each after those that it refers to. A version names a run, and
# a logged model by its source.
_WANTED = (
    "CREATE TEMP TABLE wanted_runs AS SELECT run_uuid AS id FROM runs "
    "WHERE experiment_id IN (SELECT id FROM wanted_experiments) "
    "UNION SELECT run_id FROM model_versions WHERE name IN (SELECT id FROM wanted_names)",
    "CREATE TEMP TABLE wanted_models AS SELECT model_id AS id FROM logged_models "
    "WHERE experiment_id IN (SELECT id FROM wanted_experiments) "
    "UNION SELECT substr(source, 9) FROM model_versions "
    "WHERE name IN (SELECT id FROM wanted_names) AND source LIKE 'models:/m-%'",
    "INSERT INTO wanted_runs SELECT source_run_id FROM logged_models "
    "WHERE model_id IN (SELECT id FROM wanted_models) AND source_run_id IS NOT NULL",
    "INSERT INTO wanted_experiments "
    "SELECT experiment_id FROM runs WHERE run_uuid IN (SELECT id FROM wanted_runs) "
    "UNION SELECT experiment_id FROM logged_models "
    "WHERE model_id IN (SELECT id FROM wanted_models)",
    # Every store has the Default experiment.
    "INSERT INTO wanted_experiments VALUES (0)",
    "CREATE TEMP TABLE wanted_datasets AS SELECT source_id AS id FROM entity_associations "
    "WHERE destination_type = 'experiment' "
    "AND destination_id IN (SELECT CAST(id AS TEXT) FROM named_experiments)",
)
# Of traces, by experiment.
_STATISTICS = (
    "sql_assessment_daily_rollups",
    "sql_span_cost_daily_rollups",
    "sql_trace_metric_daily_rollups",
    "sql_trace_rollup_rebuild_queue",
)
# What is deleted first, in this order; what refers to it by a foreign key follows.
_DELETED = {
    "registered_models": "name NOT IN (SELECT id FROM wanted_names)",
    "experiments": "experiment_id NOT IN (SELECT id FROM wanted_experiments)",
    "runs": "run_uuid NOT IN (SELECT id FROM wanted_runs)",
    "logged_models": "model_id NOT IN (SELECT id FROM wanted_models)",
    "trace_info": "experiment_id NOT IN (SELECT id FROM named_experiments)",
    "evaluation_datasets": "dataset_id NOT IN (SELECT id FROM wanted_datasets)",
    "datasets": "dataset_uuid NOT IN (SELECT source_id FROM inputs WHERE source_type = 'DATASET' "
    "AND destination_id IN (SELECT id FROM wanted_runs))",
    # From a data set to a run, or from a run to a logged model.
    "inputs": "CASE source_type WHEN 'DATASET' "
    "THEN destination_id NOT IN (SELECT id FROM wanted_runs) "
    "ELSE source_id NOT IN (SELECT id FROM wanted_runs) "
    "OR destination_id NOT IN (SELECT id FROM wanted_models) END",
    "input_tags": "input_uuid NOT IN (SELECT input_uuid FROM inputs)",
    "entity_associations": "(source_id NOT IN (SELECT id FROM wanted_datasets) "
    "AND source_id NOT IN (SELECT request_id FROM trace_info)) OR CASE destination_type "
    "WHEN 'experiment' THEN destination_id NOT IN "
    "(SELECT CAST(id AS TEXT) FROM wanted_experiments) "
    "WHEN 'run' THEN destination_id NOT IN (SELECT id FROM wanted_runs) ELSE 0 END",
    **dict.fromkeys(_STATISTICS, "experiment_id NOT IN (SELECT id FROM named_experiments)"),
}


def keep_only(uri: StoreUri, selection: Selection) -> None:
    """Delete what is not wanted.

    Args:
        uri: A SQLite file at this release's revision.
        selection: What is.

    Raises:
        UsageError: Something is wanted that is not there.
    """
    engine = create_write_engine(uri)
    try:
        with engine.begin() as connection:
            # Each statement deletes what the next one takes the references of.
            connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
            _note_wanted(connection, selection)
            _delete(connection)
    finally:
        engine.dispose()


def _note_wanted(connection: "Connection", selection: Selection) -> None:
    import sqlalchemy

    connection.exec_driver_sql("CREATE TEMP TABLE wanted_experiments (id)")
    for wanted in selection.experiments:
        query = "INSERT INTO wanted_experiments SELECT experiment_id FROM experiments WHERE "
        found = connection.execute(
            sqlalchemy.text(query + "name = :name OR CAST(experiment_id AS TEXT) = :name"),
            {"name": wanted},
        )
        if not found.rowcount:
            raise _not_there("experiment", wanted)
    connection.exec_driver_sql(
        "CREATE TEMP TABLE named_experiments AS SELECT id FROM wanted_experiments"
    )
    connection.exec_driver_sql("CREATE TEMP TABLE wanted_names (id)")
    for wanted in selection.registered_models:
        query = "INSERT INTO wanted_names SELECT name FROM registered_models WHERE name = :name"
        if not connection.execute(sqlalchemy.text(query), {"name": wanted}).rowcount:
            raise _not_there("registered model", wanted)
    for statement in _WANTED:
        connection.exec_driver_sql(statement)


def _not_there(kind: str, name: str) -> UsageError:
    return UsageError(
        f"the backup has no {kind} {name!r}", hint="nothing was changed; check the name"
    )


def _delete(connection: "Connection") -> None:
    import sqlalchemy

    metadata = sqlalchemy.MetaData()
    metadata.reflect(connection)
    for name, condition in _DELETED.items():
        connection.exec_driver_sql(f"DELETE FROM {name} WHERE {condition}")  # noqa: S608
    for table in metadata.sorted_tables:
        if not table.foreign_keys and table.name not in (*_DELETED, *_KEPT):
            connection.execute(table.delete())
        for key in table.foreign_key_constraints:
            connection.execute(table.delete().where(*_orphaned(key)))


def _orphaned(key: "ForeignKeyConstraint") -> "list[ColumnElement[bool]]":
    """The conditions under which a row refers to one that is not there."""
    import sqlalchemy

    columns = [element.parent for element in key.elements]
    referred = [element.column for element in key.elements]
    above = sqlalchemy.select(sqlalchemy.literal(1)).select_from(key.referred_table)
    above = above.where(*(there == here for there, here in zip(referred, columns, strict=True)))
    return [*(column.is_not(None) for column in columns), ~above.exists()]
