"""Runs, logged models, traces and jobs: in which tables they are, and how they go."""

# ruff: noqa: S608 - statements are put together from constants and numbers only

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_server.gc import journal, rows
from mlflow_server.gc.ids import bind_ids
from mlflow_server.gc.plan import Kind
from mlflow_server.gc.request import Request
from mlflow_server.gc.survey import jobs_query, scope, within

if TYPE_CHECKING:
    from sqlalchemy import Connection

# What an entity counts beside its rows in the table that can be large.
_OWN_WEIGHT = 30


class Candidate(NamedTuple):
    """One that may go.

    Args:
        order: Its place among the others.
        entity_id: Its id.
        deleted_ms: When it was deleted, milliseconds since the epoch.
        location: Where its files are.
    """

    order: str | int
    entity_id: str
    deleted_ms: int | None
    location: str | None


@dataclass(frozen=True)
class Entities:
    """One kind of entity that goes in batches.

    Args:
        kind: Which.
        table: With one row each.
        column: Its primary key.
        time: When it was deleted, milliseconds since the epoch.
        location: Where its files are; empty without any.
        heavy: The table that most of its rows are in, and the column that leads there.
        write: Notes the locations in the journal.
        delete: Deletes all rows.
    """

    kind: Kind
    table: str
    column: str
    time: str
    location: str
    heavy: tuple[str, str]
    write: Callable[["Connection", Sequence[str], int], None]
    delete: Callable[["Connection", Sequence[str]], None]

    def candidates(
        self,
        connection: "Connection",
        request: Request,
        cut_ms: int,
        named: Sequence[str] | None,
        after: str | int | None,
        size: int,
    ) -> list["Candidate"]:
        """The next deleted entities that are old enough, locked.

        What another transaction holds, a restore for instance, is left out. On SQLite they come in
        the order in which they were made: then their metrics are neighbours, too, in the index that
        begins with key and time, which takes a tenth off the time.

        Args:
            connection: In a transaction.
            request: Whose workspace counts.
            cut_ms: What was deleted at this time or before is old enough.
            named: Only these ids; None for all.
            after: The order of the last one of the page before.
            size: How many at most.
        """
        is_sqlite = connection.dialect.name == "sqlite"
        order = "rowid" if is_sqlite else self.column
        query = (
            f"SELECT {order}, {self.column}, {self.time}, {self.location or 'NULL'} "
            f"FROM {self.table} WHERE "
        )
        if self.kind is Kind.JOB:
            query += jobs_query(request)
        else:
            query += f"lifecycle_stage = 'deleted'{within(_anywhere(request))}"
        if after is not None:
            query += f" AND {order} > :after"
        query += f" AND ({self.time} <= :cut OR {self.time} IS NULL)"
        ids = None
        if named is not None:
            ids = bind_ids(connection, "named", named)
            query += f" AND {self.column} IN {{named}}"
        query += f" ORDER BY {order} LIMIT {int(size)}"
        if not is_sqlite:
            query += " FOR UPDATE SKIP LOCKED"
        parameters = {"cut": cut_ms, **scope(request)}
        if after is not None:
            parameters["after"] = after
        result: Any = (
            _execute(connection, query, parameters)
            if ids is None
            else ids.execute(connection, query, **parameters)
        )
        return [Candidate(*row) for row in result]

    def of_experiment(self, connection: "Connection", experiment: int, size: int) -> list[str]:
        """Any entities of an experiment, whatever their stage.

        Args:
            connection: To the store.
            experiment: Its id.
            size: How many at most.
        """
        query = f"SELECT {self.column} FROM {self.table} WHERE experiment_id = :experiment LIMIT "
        found = _execute(connection, query + str(int(size)), {"experiment": experiment})
        return list(found.scalars())

    def weigh(self, connection: "Connection", ids: Sequence[str]) -> list[tuple[str, int]]:
        """About how many rows each entity has.

        Args:
            connection: In a transaction.
            ids: At least one.
        """
        table, column = self.heavy
        found: Any = bind_ids(connection, "weighed", ids).execute(
            connection,
            f"SELECT {column}, COUNT(*) FROM {table} WHERE {column} IN {{weighed}} "
            f"GROUP BY {column}",
        )
        counts = {row[0]: row[1] for row in found}
        return [(entity, _OWN_WEIGHT + counts.get(entity, 0)) for entity in ids]

    def drain(self, connection: "Connection", entity_id: str, size: int) -> int:
        """Delete some of an entity's rows in its heavy table.

        Args:
            connection: To a SQLite store, in a transaction; the entity is condemned.
            entity_id: Its id.
            size: How many at most.

        Returns:
            How many there were.
        """
        table, column = self.heavy
        query = (
            f"DELETE FROM {table} WHERE rowid IN "
            f"(SELECT rowid FROM {table} WHERE {column} = :id LIMIT {int(size)})"
        )
        return int(_execute(connection, query, {"id": entity_id}).rowcount)


def _anywhere(request: Request) -> Request:
    """The request without its experiments: named ids are bound by themselves."""
    return Request(request.older_than_s, workspace=request.workspace)


def _execute(connection: "Connection", query: str, parameters: dict[str, Any]) -> Any:
    import sqlalchemy

    return connection.execute(sqlalchemy.text(query), parameters)


RUNS = Entities(
    Kind.RUN,
    "runs",
    "run_uuid",
    "deleted_time",
    "artifact_uri",
    ("metrics", "run_uuid"),
    journal.write_runs,
    rows.delete_runs,
)
LOGGED_MODELS = Entities(
    Kind.LOGGED_MODEL,
    "logged_models",
    "model_id",
    "last_updated_timestamp_ms",
    "artifact_location",
    ("logged_model_metrics", "model_id"),
    journal.write_logged_models,
    rows.delete_logged_models,
)
TRACES = Entities(
    Kind.TRACE,
    "trace_info",
    "request_id",
    "timestamp_ms",
    "",
    ("spans", "trace_id"),
    journal.write_traces,
    rows.delete_traces,
)
JOBS = Entities(
    Kind.JOB,
    "jobs",
    "id",
    "last_update_time",
    "",
    ("job_locks", "job_id"),
    lambda _connection, _ids, _now_ms: None,
    rows.delete_jobs,
)
