"""Decide about single entities: goes, or stays and why; and read what the decision needs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_server.gc.plan import Reason
from mlflow_server.gc.references import DELETED_STAGE, References
from mlflow_server.gc.request import Request
from mlflow_server.gc.stream import stream
from mlflow_server.store.engine import connect
from mlflow_server.uris import Dialect, StoreUri

if TYPE_CHECKING:
    from sqlalchemy import Connection

_NOW_MS = {
    Dialect.POSTGRESQL: "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
    Dialect.MYSQL: "SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)",
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
    """

    request: Request
    cut_ms: int
    references: References

    def reason_to_keep(
        self, entity_id: str, deleted_ms: int | None, location: str | None
    ) -> Reason | None:
        """Why a deleted run or logged model stays; None when it goes."""
        if deleted_ms is None:
            if not self.request.include_unknown_age:
                return Reason.UNKNOWN_AGE
        elif deleted_ms > self.cut_ms:
            return Reason.YOUNGER
        if self.references.protect(entity_id, location):
            return Reason.REFERENCED
        return None


def database_now_ms(connection: "Connection") -> int:
    """The database's clock, milliseconds since the epoch: the one that deletion times are of."""
    import sqlalchemy

    query = _NOW_MS[Dialect(connection.dialect.name)]
    return int(connection.execute(sqlalchemy.text(query)).scalar_one())


def read_references(connection: "Connection") -> References:
    """Gather what live model versions name."""
    rows = stream(
        connection,
        "SELECT run_id, source, storage_location FROM model_versions WHERE current_stage <> :stage "
        "OR current_stage IS NULL",
        {"stage": DELETED_STAGE},
    )
    return References.of((row[0], row[1], row[2]) for row in rows)


def references_reader(request: Request, registry: StoreUri | None) -> ReferencesReader:
    """How to read what live model versions need.

    Args:
        request: Perhaps what they need is to go as well.
        registry: The model registry's own database, when it is not the store's.
    """
    if request.include_referenced:
        return lambda _connection: References()
    if registry is None:
        return read_references

    def read(_connection: "Connection") -> References:
        with connect(registry) as connection:
            return read_references(connection)

    return read
