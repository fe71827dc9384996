"""Decide about single entities: goes, or stays and why; and read what the decision needs."""

# ruff: noqa: S608 - statements are put together from constants only

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_server.artifacts.locations import root_of
from mlflow_server.gc.plan import Reason
from mlflow_server.gc.references import DELETED_STAGE, References, ids_in
from mlflow_server.gc.request import Request
from mlflow_server.gc.stream import stream
from mlflow_server.store.engine import connect
from mlflow_server.uris import ArtifactUri, Dialect, StoreUri

if TYPE_CHECKING:
    from sqlalchemy import Connection

_NOW_MS = {
    Dialect.POSTGRESQL: "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
    Dialect.MYSQL: "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000",
    Dialect.SQLITE: "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    Dialect.MSSQL: "SELECT DATEDIFF_BIG(ms, '1970-01-01', SYSUTCDATETIME())",
}
ReferencesReader = Callable[["Connection"], References]


@dataclass(frozen=True)
class Judge:
    """Decides about single entities.

    Args:
        request: What was asked for.
        cut_ms: What was deleted at this time or before is old enough.
        references: What live model versions need; nothing when that goes as well.
        shared: Ids of entities in whose folders others have their files.
    """

    request: Request
    cut_ms: int
    references: References
    shared: frozenset[str] = frozenset()

    def reason_to_keep(
        self, entity_id: str, deleted_ms: int | None, location: str | None
    ) -> Reason | None:
        """Why a deleted run or logged model stays; None when it goes."""
        return self.reason_of_age(deleted_ms) or self.reason_of_need(entity_id, location)

    def reason_of_age(self, deleted_ms: int | None) -> Reason | None:
        """Why something stays that was deleted at a time, or at an unknown one."""
        if deleted_ms is None:
            return None if self.request.include_unknown_age else Reason.UNKNOWN_AGE
        return Reason.YOUNGER if deleted_ms > self.cut_ms else None

    def reason_of_need(self, entity_id: str, location: str | None) -> Reason | None:
        """Why something stays whatever its age: somebody else needs its files."""
        if self.references.protect(entity_id, location):
            return Reason.REFERENCED
        return Reason.SHARED if entity_id in self.shared else None


def database_now_ms(connection: "Connection") -> int:
    """The database's clock, milliseconds since the epoch: the one that deletion times are of."""
    import sqlalchemy

    query = _NOW_MS[Dialect(connection.dialect.name)]
    return int(connection.execute(sqlalchemy.text(query)).scalar_one())


def read_references(connection: "Connection", root: str) -> References:
    """Gather what live model versions name.

    Args:
        connection: To the model registry.
        root: What `mlflow-artifacts:` stands for.
    """
    rows = stream(
        connection,
        "SELECT run_id, source, storage_location FROM model_versions WHERE current_stage <> :stage "
        "OR current_stage IS NULL",
        {"stage": DELETED_STAGE},
    )
    return References.of(((row[0], row[1], row[2]) for row in rows), root)


def read_shared(connection: "Connection") -> frozenset[str]:
    """Ids of runs and logged models in whose folders other entities have their files.

    MLflow puts each entity into a folder of its own below the experiment's; whoever names another
    place may name somebody else's. Only what is not where MLflow puts it is read.
    """
    join = "CONCAT(e.artifact_location, {})"
    if connection.dialect.name == "sqlite":
        join = "e.artifact_location || {}"
    run, model = "'/' {0} r.run_uuid {0} '/artifacts'", "'/models/' {0} m.model_id {0} '/artifacts'"
    glue = "||" if connection.dialect.name == "sqlite" else ","
    queries = (
        "SELECT r.run_uuid, r.artifact_uri FROM runs r JOIN experiments e "
        "ON e.experiment_id = r.experiment_id "
        f"WHERE r.artifact_uri <> {join.format(run.format(glue))}",
        "SELECT m.model_id, m.artifact_location FROM logged_models m JOIN experiments e "
        "ON e.experiment_id = m.experiment_id "
        f"WHERE m.artifact_location <> {join.format(model.format(glue))}",
        "SELECT '', artifact_location FROM experiments WHERE artifact_location IS NOT NULL",
    )
    return frozenset(
        found
        for query in queries
        for entity_id, location in stream(connection, query)
        for found in ids_in(location)
        if found != entity_id
    )


def references_reader(
    request: Request, registry: StoreUri | None, destination: ArtifactUri
) -> ReferencesReader:
    """How to read what live model versions need.

    Args:
        request: Perhaps what they need is to go as well.
        registry: The model registry's own database, when it is not the store's.
        destination: What `mlflow-artifacts:` stands for.
    """
    root = root_of(destination)
    if request.include_referenced:
        return lambda _connection: References()
    if registry is None:
        return lambda connection: read_references(connection, root)

    def read(_connection: "Connection") -> References:
        with connect(registry) as connection:
            return read_references(connection, root)

    return read
