"""Our table of files that are to go: written with the rows' deletion, emptied after it.

Idempotent: whatever a crash leaves in it is done by the next run.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_server.gc.plan import Kind

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

TABLE = "tracking_server_gc_journal"
_MAX_ERROR_LENGTH = 500


@dataclass(frozen=True)
class Entry:
    """One location whose files are to go.

    Args:
        entry_id: Ascending.
        kind: Of the entity that it belonged to.
        entity_id: Its id.
        location: As MLflow kept it.
        attempts: How often removing failed before.
    """

    entry_id: int
    kind: Kind
    entity_id: str
    location: str
    attempts: int


def table() -> "Table":
    """The journal as SQLAlchemy sees it."""
    import sqlalchemy as sa

    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Table(
        TABLE,
        sa.MetaData(),
        sa.Column("entry_id", big, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("entity_id", sa.String(64), nullable=False),
        sa.Column("location", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("error", sa.Text),
    )


def has_entries(connection: "Connection") -> bool:
    """True when a run before has left files that are to go."""
    import sqlalchemy

    return sqlalchemy.inspect(connection).has_table(TABLE) and bool(page(connection, 0, 1))


def create(connection: "Connection") -> None:
    """Make the table where it is missing."""
    table().create(connection, checkfirst=True)


def write_runs(connection: "Connection", ids: Sequence[str], now_ms: int) -> None:
    """Note the artifact locations of runs that are about to be deleted."""
    _copy(connection, Kind.RUN, "runs", "run_uuid", "artifact_uri", ids, now_ms)


def write_logged_models(connection: "Connection", ids: Sequence[str], now_ms: int) -> None:
    """Note the locations of logged models that are about to be deleted."""
    _copy(
        connection, Kind.LOGGED_MODEL, "logged_models", "model_id", "artifact_location", ids, now_ms
    )


def write_experiment(connection: "Connection", experiment: int, now_ms: int) -> None:
    """Note all locations of an experiment that is about to be deleted, traces' included.

    Source of the tag: MLflow 3.17.2 `utils/mlflow_tags.py`, MLFLOW_ARTIFACT_LOCATION.
    """
    import sqlalchemy

    sources = (
        (Kind.RUN, "run_uuid", "artifact_uri", "runs WHERE experiment_id = :experiment"),
        (
            Kind.LOGGED_MODEL,
            "model_id",
            "artifact_location",
            "logged_models WHERE experiment_id = :experiment",
        ),
        (
            Kind.TRACE,
            "request_id",
            "value",
            "trace_tags WHERE trace_tags.key = 'mlflow.artifactLocation' AND request_id IN "
            "(SELECT request_id FROM trace_info WHERE experiment_id = :experiment)",
        ),
    )
    for kind, column, location, source in sources:
        query = (
            f"INSERT INTO {TABLE} (kind, entity_id, location, created_ms) "  # noqa: S608
            f"SELECT '{kind}', {column}, {location}, :now FROM {source} "
            f"AND {location} IS NOT NULL AND {location} <> ''"
        )
        connection.execute(sqlalchemy.text(query), {"now": now_ms, "experiment": experiment})


def _copy(
    connection: "Connection",
    kind: Kind,
    source: str,
    column: str,
    location: str,
    ids: Sequence[str],
    now_ms: int,
) -> None:
    import sqlalchemy

    query = sqlalchemy.text(
        f"INSERT INTO {TABLE} (kind, entity_id, location, created_ms) "  # noqa: S608
        f"SELECT '{kind}', {column}, {location}, :now FROM {source} "
        f"WHERE {column} IN :ids AND {location} IS NOT NULL AND {location} <> ''"
    ).bindparams(sqlalchemy.bindparam("ids", expanding=True))
    connection.execute(query, {"ids": list(ids), "now": now_ms})


def page(connection: "Connection", after: int, size: int) -> list[Entry]:
    """The next entries in order.

    Args:
        connection: To the store.
        after: The last entry of the page before, 0 at first.
        size: How many at most.
    """
    import sqlalchemy

    query = sqlalchemy.text(
        f"SELECT entry_id, kind, entity_id, location, attempts FROM {TABLE} "  # noqa: S608
        "WHERE entry_id > :after ORDER BY entry_id LIMIT :size"
    )
    rows = connection.execute(query, {"after": after, "size": size})
    return [Entry(row[0], Kind(row[1]), row[2].strip(), row[3], row[4]) for row in rows]


def forget(connection: "Connection", entries: Iterable[Entry]) -> None:
    """Take entries off whose files are gone."""
    import sqlalchemy

    ids = [entry.entry_id for entry in entries]
    if ids:
        query = sqlalchemy.text(f"DELETE FROM {TABLE} WHERE entry_id IN :ids").bindparams(  # noqa: S608
            sqlalchemy.bindparam("ids", expanding=True)
        )
        connection.execute(query, {"ids": ids})


def note_failure(connection: "Connection", entry: Entry, error: str) -> None:
    """Keep an entry for the next run, with what went wrong."""
    import sqlalchemy

    query = sqlalchemy.text(
        f"UPDATE {TABLE} SET attempts = attempts + 1, error = :error WHERE entry_id = :id"  # noqa: S608
    )
    connection.execute(query, {"error": error[:_MAX_ERROR_LENGTH], "id": entry.entry_id})
