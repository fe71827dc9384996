"""What is too large for one short transaction of SQLite: it goes in steps, and cannot be restored.

From the transaction that condemns it, triggers refuse to restore an entity, or to register a model
version from it, until its last row is gone: so it is never seen half. Whatever a crash leaves
condemned is finished by the next run.
"""

from typing import TYPE_CHECKING

from mlflow_server.gc.plan import Kind

if TYPE_CHECKING:
    from sqlalchemy import Connection

TABLE = "tracking_server_gc_condemned"
# ruff: noqa: S608 - statements are put together from constants only
_IS_CONDEMNED = (
    f"EXISTS (SELECT 1 FROM {TABLE} WHERE (kind = 'run' AND entity_id = OLD.run_uuid) "
    "OR (kind = 'experiment' AND entity_id = CAST(OLD.experiment_id AS TEXT)))"
)
_NAMES_CONDEMNED = (
    f"EXISTS (SELECT 1 FROM {TABLE} JOIN runs ON (kind = 'run' AND entity_id = run_uuid) "
    "OR (kind = 'experiment' AND entity_id = CAST(experiment_id AS TEXT)) "
    "WHERE NEW.run_id = run_uuid OR instr(NEW.source, run_uuid)) "
    f"OR EXISTS (SELECT 1 FROM {TABLE} JOIN logged_models ON kind = 'experiment' "
    "AND entity_id = CAST(experiment_id AS TEXT) WHERE instr(NEW.source, model_id))"
)
_REFUSE = "BEGIN SELECT RAISE(ABORT, 'gc is purging it'); END"
_TRIGGERS = {
    "tracking_server_gc_run": (
        "BEFORE UPDATE OF lifecycle_stage ON runs "
        f"WHEN NEW.lifecycle_stage = 'active' AND {_IS_CONDEMNED}"
    ),
    "tracking_server_gc_experiment": (
        "BEFORE UPDATE OF lifecycle_stage ON experiments "
        f"WHEN NEW.lifecycle_stage = 'active' AND EXISTS (SELECT 1 FROM {TABLE} "
        "WHERE kind = 'experiment' AND entity_id = CAST(OLD.experiment_id AS TEXT))"
    ),
    "tracking_server_gc_version": f"BEFORE INSERT ON model_versions WHEN {_NAMES_CONDEMNED}",
}


def condemn(connection: "Connection", kind: Kind, entity_id: str) -> None:
    """Let nobody restore an entity any more.

    Args:
        connection: To a SQLite store, in the transaction that has judged it.
        kind: A run or an experiment.
        entity_id: Its id.
    """
    connection.exec_driver_sql(
        f"CREATE TABLE IF NOT EXISTS {TABLE} "
        "(kind TEXT NOT NULL, entity_id TEXT NOT NULL, PRIMARY KEY (kind, entity_id))"
    )
    for name, condition in _TRIGGERS.items():
        connection.exec_driver_sql(f"CREATE TRIGGER IF NOT EXISTS {name} {condition} {_REFUSE}")
    connection.exec_driver_sql(
        f"INSERT OR IGNORE INTO {TABLE} VALUES (?, ?)", (kind.value, entity_id)
    )


def release(connection: "Connection", kind: Kind, entity_id: str) -> None:
    """Forget an entity whose last row goes in the same transaction; the triggers with the last."""
    connection.exec_driver_sql(
        f"DELETE FROM {TABLE} WHERE kind = ? AND entity_id = ?", (kind.value, entity_id)
    )
    if not pending(connection):
        for name in _TRIGGERS:
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}")
        connection.exec_driver_sql(f"DROP TABLE {TABLE}")


def pending(connection: "Connection") -> list[tuple[Kind, str]]:
    """What is condemned: kind and id."""
    import sqlalchemy

    if not sqlalchemy.inspect(connection).has_table(TABLE):
        return []
    rows = connection.exec_driver_sql(f"SELECT kind, entity_id FROM {TABLE}")
    return [(Kind(kind), entity_id) for kind, entity_id in rows]
