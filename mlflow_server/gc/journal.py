"""Our table of files that are to go: written with the rows' deletion, emptied after it.

Idempotent: whatever a crash leaves in it is done by the next run.
"""

# ruff: noqa: S608 - statements are put together from constants only

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlflow_server.gc.ids import bind_ids
from mlflow_server.gc.plan import Kind

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

TABLE = "tracking_server_gc_journal"
_MAX_ERROR_LENGTH = 500
_SOURCE = "SELECT :kind, {id}, {location}, :now FROM {table} WHERE {location} <> '' AND"
_OF_RUNS = _SOURCE.format(id="run_uuid", location="artifact_uri", table="runs")
_OF_MODELS = _SOURCE.format(id="model_id", location="artifact_location", table="logged_models")
_OF_EXPERIMENTS = _SOURCE.format(
    id="experiment_id", location="artifact_location", table="experiments"
)
# The tags of MLflow 3.17.2 `tracing/constant.py`, `utils/mlflow_tags.py`: a trace's own folder, and
# the one that it was archived to.
IS_TRACE_LOCATION = "trace_tags.key IN ('mlflow.artifactLocation', 'mlflow.trace.archiveLocation')"
_OF_TRACES = (
    _SOURCE.format(id="request_id", location="value", table="trace_tags") + f" {IS_TRACE_LOCATION}"
)


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
        # Numbers are never used again: pages are read in their order.
        sqlite_autoincrement=True,
    )


def exists(connection: "Connection") -> bool:
    """True when the table is there: it is made when first needed."""
    import sqlalchemy

    return bool(sqlalchemy.inspect(connection).has_table(TABLE))


def has_entries(connection: "Connection") -> bool:
    """True when a run before has left files that are to go."""
    return exists(connection) and bool(page(connection, 0, 1))


def create(connection: "Connection") -> None:
    """Make the table where it is missing."""
    table().create(connection, checkfirst=True)


def write_runs(connection: "Connection", ids: Sequence[str], now_ms: int) -> None:
    """Note the artifact locations of runs that are about to be deleted."""
    _copy(connection, Kind.RUN, f"{_OF_RUNS} run_uuid IN {{ids}}", ids, now_ms)


def write_logged_models(connection: "Connection", ids: Sequence[str], now_ms: int) -> None:
    """Note the locations of logged models that are about to be deleted."""
    _copy(connection, Kind.LOGGED_MODEL, f"{_OF_MODELS} model_id IN {{ids}}", ids, now_ms)


def write_traces(connection: "Connection", ids: Sequence[str], now_ms: int) -> None:
    """Note the locations of traces that are about to be deleted."""
    _copy(connection, Kind.TRACE, f"{_OF_TRACES} AND request_id IN {{ids}}", ids, now_ms)


def write_experiments(connection: "Connection", ids: Sequence[int], now_ms: int) -> None:
    """Note all locations of experiments that are about to be deleted, traces' included.

    Their own comes last: a folder that is empty by then goes as well.
    """
    inside = "experiment_id IN {ids}"
    _copy(connection, Kind.RUN, f"{_OF_RUNS} {inside}", ids, now_ms)
    _copy(connection, Kind.LOGGED_MODEL, f"{_OF_MODELS} {inside}", ids, now_ms)
    traces = f"request_id IN (SELECT request_id FROM trace_info WHERE {inside})"
    _copy(connection, Kind.TRACE, f"{_OF_TRACES} AND {traces}", ids, now_ms)
    _copy(connection, Kind.EXPERIMENT, f"{_OF_EXPERIMENTS} {inside}", ids, now_ms)


def _copy(
    connection: "Connection", kind: Kind, source: str, ids: Sequence[Any], now_ms: int
) -> None:
    query = f"INSERT INTO {TABLE} (kind, entity_id, location, created_ms) {source}"
    bind_ids(connection, "ids", ids).execute(connection, query, now=now_ms, kind=kind.value)


def page(connection: "Connection", after: int, size: int) -> list[Entry]:
    """The next entries in order.

    Args:
        connection: To the store.
        after: The last entry of the page before, 0 at first.
        size: How many at most.
    """
    import sqlalchemy

    query = sqlalchemy.text(
        f"SELECT entry_id, kind, entity_id, location, attempts FROM {TABLE} "
        "WHERE entry_id > :after ORDER BY entry_id LIMIT :size"
    )
    rows = connection.execute(query, {"after": after, "size": size})
    return [Entry(row[0], Kind(row[1]), row[2].strip(), row[3], row[4]) for row in rows]


def forget(connection: "Connection", entries: Sequence[Entry]) -> None:
    """Take entries off whose files are gone."""
    if entries:
        ids = bind_ids(connection, "entries", [entry.entry_id for entry in entries])
        ids.execute(connection, f"DELETE FROM {TABLE} WHERE entry_id IN {{entries}}")


def count(connection: "Connection") -> int:
    """How many locations are waiting for their files to be removed."""
    return int(connection.exec_driver_sql(f"SELECT COUNT(*) FROM {TABLE}").scalar_one())


def note_failure(connection: "Connection", entry: Entry, error: str) -> None:
    """Keep an entry for the next run, with what went wrong."""
    import sqlalchemy

    query = sqlalchemy.text(
        f"UPDATE {TABLE} SET attempts = attempts + 1, error = :error WHERE entry_id = :id"
    )
    connection.execute(query, {"error": error[:_MAX_ERROR_LENGTH], "id": entry.entry_id})
