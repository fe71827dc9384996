"""Rows of deleted model versions: MLflow keeps them for ever. They have no files of their own."""

from typing import TYPE_CHECKING

from mlflow_server.gc.plan import NO_EXPERIMENT, Kind, Plan, Reason
from mlflow_server.gc.references import DELETED_STAGE
from mlflow_server.gc.request import Request
from mlflow_server.gc.stream import stream
from mlflow_server.gc.survey import scope
from mlflow_server.gc.writer import Writer
from mlflow_server.store.engine import connect
from mlflow_server.uris import StoreUri

if TYPE_CHECKING:
    from sqlalchemy import Connection

_KEY = ("workspace", "name", "version")


def count(
    connection: "Connection", registry: StoreUri | None, request: Request, plan: Plan
) -> None:
    """Add deleted model versions to a plan, when they were asked for.

    Args:
        connection: To the store.
        registry: The model registry's own database, when it is not the store's.
        request: Whether and how old.
        plan: To add to.
    """
    if not request.deleted_versions:
        return
    if registry is not None:
        with connect(registry) as own:
            _count(own, request, plan)
    else:
        _count(connection, request, plan)


def purge(uri: StoreUri, request: Request, cut_ms: int) -> int:
    """Delete the rows of deleted versions that are old enough, with their tags.

    The last version of a model stays: MLflow gives its number to the next one otherwise
    (3.17.2 `model_registry/sqlalchemy_store.py`, `next_version`).

    Args:
        uri: The registry's database.
        request: Whether it is used meanwhile.
        cut_ms: What was deleted at this time or before is old enough.

    Returns:
        How many are gone.
    """
    import sqlalchemy

    parameters = {"stage": DELETED_STAGE, **scope(request)}
    same = " AND ".join(f"{{table}}.{column} = :{column}" for column in _KEY)
    writer = Writer(uri, offline=request.offline)
    try:
        with writer.transaction() as connection:
            going = [
                dict(zip(_KEY, row[:3], strict=True))
                for row in stream(connection, _query(request), parameters)
                if _reason(row[3], row[4], cut_ms) is None
            ]
            for table in ("model_version_tags", "model_versions"):
                if going:
                    query = f"DELETE FROM {table} WHERE {same.format(table=table)}"  # noqa: S608
                    connection.execute(sqlalchemy.text(query), going)
    finally:
        writer.close()
    return len(going)


def _count(connection: "Connection", request: Request, plan: Plan) -> None:
    parameters = {"stage": DELETED_STAGE, **scope(request)}
    for row in stream(connection, _query(request), parameters):
        plan.count(Kind.MODEL_VERSION, NO_EXPERIMENT, _reason(row[3], row[4], plan.cut_ms))


def _reason(deleted_ms: int | None, is_last: bool, cut_ms: int) -> Reason | None:
    if deleted_ms is None:
        return Reason.UNKNOWN_AGE
    if deleted_ms > cut_ms:
        return Reason.YOUNGER
    return Reason.LAST_VERSION if is_last else None


def _query(request: Request) -> str:
    inside = "" if request.workspace is None else " AND v.workspace = :workspace"
    return (
        "SELECT v.workspace, v.name, v.version, v.last_updated_time, "  # noqa: S608
        "v.version = (SELECT MAX(o.version) FROM model_versions o "
        "WHERE o.workspace = v.workspace AND o.name = v.name) "
        f"FROM model_versions v WHERE v.current_stage = :stage{inside}"
    )
