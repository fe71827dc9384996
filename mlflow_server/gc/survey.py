"""Walk through what is deleted and judge each: goes, or stays and why.

Rows are streamed and only counted, so that memory does not grow with the store.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlflow_server.errors import UsageError
from mlflow_server.gc.plan import Kind, Plan, Reason
from mlflow_server.gc.references import DELETED_STAGE, References
from mlflow_server.gc.request import Request
from mlflow_server.store.engine import connect
from mlflow_server.uris import Dialect, StoreUri

if TYPE_CHECKING:
    from sqlalchemy import Connection

_PAGE_ROWS = 2_000
_NOW_MS = {
    Dialect.POSTGRESQL: "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
    Dialect.MYSQL: "SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)",
    Dialect.SQLITE: "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    Dialect.MSSQL: "SELECT DATEDIFF_BIG(ms, '1970-01-01', SYSUTCDATETIME())",
}
# Experiments, deleted or not, that hold something which others use.
_HOLDING = {
    Reason.HOLDS_ACTIVE: (
        "SELECT DISTINCT experiment_id FROM runs WHERE lifecycle_stage = 'active' "
        "AND experiment_id IN "
        "(SELECT experiment_id FROM experiments WHERE lifecycle_stage = 'deleted')"
    ),
    Reason.HOLDS_SCORER: (
        "SELECT DISTINCT scorers.experiment_id FROM scorers "
        "JOIN guardrails ON guardrails.scorer_id = scorers.scorer_id"
    ),
}


@dataclass(frozen=True)
class Judge:
    """Decides about single entities.

    Args:
        request: What was asked for.
        cut_ms: What was deleted at this time or before is old enough.
        references: What live model versions need.
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
        if not self.request.include_referenced and self.references.protect(entity_id, location):
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


def references_reader(registry: StoreUri | None) -> Callable[["Connection"], References]:
    """How to read the references of a store whose model registry is the same database or another.

    Args:
        registry: The registry's own database, when it has one.
    """
    if registry is None:
        return read_references

    def read(_connection: "Connection") -> References:
        with connect(registry) as connection:
            return read_references(connection)

    return read


def stream(
    connection: "Connection", query: str, parameters: Mapping[str, Any] | None = None
) -> Iterator[Any]:
    """The rows of a query, fetched in pages."""
    import sqlalchemy

    options = {"stream_results": True, "yield_per": _PAGE_ROWS}
    result = connection.execute(
        sqlalchemy.text(query), dict(parameters or {}), execution_options=options
    )
    yield from result


def survey(
    connection: "Connection", request: Request, references: Callable[["Connection"], References]
) -> Plan:
    """Count what a request would collect.

    Args:
        connection: To a store at this release's revision; nothing is changed.
        request: What was asked for.
        references: Reads what live model versions need; the registry may be another database.

    Raises:
        UsageError: A named id is unknown, or not deleted.
    """
    now_ms = database_now_ms(connection)
    plan = Plan(now_ms, now_ms - int(request.older_than_s * 1000))
    if request.names_ids:
        require_deleted(connection, request)
    deleted_at = _deleted_experiments(connection, request, plan)
    needed = references(connection) if _has_candidates(connection) else References()
    judge = Judge(request, plan.cut_ms, needed)
    held: dict[int, Reason] = {
        experiment: Reason.YOUNGER for experiment, at in deleted_at.items() if at > plan.cut_ms
    }
    for reason, query in _HOLDING.items():
        for row in stream(connection, query):
            if row[0] in deleted_at:
                held.setdefault(int(row[0]), reason)
    _judge_runs(connection, judge, plan, deleted_at, held)
    _judge_models(connection, judge, plan, deleted_at, held)
    if request.names_ids:
        _leave_alone(plan, request, held)
    plan.experiments = tuple(sorted(set(deleted_at) - set(held)))
    for experiment, reason in held.items():
        plan.staying[Kind.EXPERIMENT, experiment, reason] += 1
    for experiment in plan.experiments:
        plan.going[Kind.EXPERIMENT, experiment] += 1
    _count_contents(connection, plan)
    return plan


def require_deleted(connection: "Connection", request: Request) -> None:
    """Refuse ids that are unknown or not deleted, all at once.

    Raises:
        UsageError: Names them.
    """
    problems = [
        *_not_deleted(connection, "run", "runs", "run_uuid", request.run_ids),
        *_not_deleted(
            connection, "experiment", "experiments", "experiment_id", request.experiment_ids
        ),
        *_not_deleted(
            connection, "logged model", "logged_models", "model_id", request.logged_model_ids
        ),
    ]
    if problems:
        raise UsageError("; ".join(problems), hint="nothing was touched; correct the ids")


def _not_deleted(
    connection: "Connection", kind: str, table: str, column: str, ids: Collection[Any]
) -> Iterator[str]:
    import sqlalchemy

    query = sqlalchemy.text(f"SELECT lifecycle_stage FROM {table} WHERE {column} = :id")  # noqa: S608
    for entity_id in ids:
        stage = connection.execute(query, {"id": entity_id}).scalar()
        if stage is None:
            yield f"there is no {kind} {entity_id}"
        elif stage != "deleted":
            yield f"{kind} {entity_id} is not deleted"


def _deleted_experiments(connection: "Connection", request: Request, plan: Plan) -> dict[int, int]:
    """Ids of the deleted experiments in question, and when each was deleted (or changed last)."""
    if request.names_ids and not request.experiment_ids:
        return {}
    wanted = set(request.experiment_ids)
    found = {}
    query = (
        "SELECT experiment_id, last_update_time, name FROM experiments "
        "WHERE lifecycle_stage = 'deleted'"
    )
    for experiment, at, name in stream(connection, query):
        if not wanted or experiment in wanted:
            found[int(experiment)] = int(at or 0)
            plan.names[int(experiment)] = name
    return found


def _has_candidates(connection: "Connection") -> bool:
    import sqlalchemy

    queries = (
        f"SELECT 1 FROM {table} WHERE lifecycle_stage = 'deleted'"  # noqa: S608
        for table in ("runs", "experiments", "logged_models")
    )
    return any(connection.execute(sqlalchemy.text(query)).first() for query in queries)


def _within(request: Request) -> str:
    """A condition that keeps to the named experiments, when nothing else was named."""
    if not request.experiment_ids or request.run_ids or request.logged_model_ids:
        return ""
    ids = ", ".join(str(int(experiment)) for experiment in request.experiment_ids)
    return f" AND experiment_id IN ({ids})"


def _leave_alone(plan: Plan, request: Request, held: Collection[int]) -> None:
    """Nothing goes from a named experiment that has to stay, but for what was named itself."""
    for experiment in set(held) & set(request.experiment_ids):
        for kind in (Kind.RUN, Kind.LOGGED_MODEL):
            plan.going[kind, experiment] = plan.named[kind, experiment]
    plan.going = +plan.going  # without zeros


def _judge_runs(
    connection: "Connection",
    judge: Judge,
    plan: Plan,
    deleted_at: Mapping[int, int],
    held: dict[int, Reason],
) -> None:
    request = judge.request
    wanted = set(request.run_ids)
    query = (
        "SELECT run_uuid, experiment_id, deleted_time, artifact_uri FROM runs "
        "WHERE lifecycle_stage = 'deleted'"
    )
    for run, experiment, at, location in stream(connection, query + _within(request)):
        if request.names_ids and run not in wanted and experiment not in deleted_at:
            continue
        reason = judge.reason_to_keep(run, at, location)
        plan.count(Kind.RUN, experiment, reason, is_named=run in wanted)
        if reason is not None and experiment in deleted_at:
            held.setdefault(experiment, Reason.HOLDS_KEPT)


def _judge_models(
    connection: "Connection",
    judge: Judge,
    plan: Plan,
    deleted_at: Mapping[int, int],
    held: dict[int, Reason],
) -> None:
    """Deleted logged models go by their own age; a referenced one holds its experiment."""
    request = judge.request
    wanted = set(request.logged_model_ids)
    query = (
        "SELECT model_id, experiment_id, lifecycle_stage, last_updated_timestamp_ms, "
        "artifact_location FROM logged_models WHERE (lifecycle_stage = 'deleted' "
        "OR experiment_id IN "
        "(SELECT experiment_id FROM experiments WHERE lifecycle_stage = 'deleted'))"
    )
    rows = stream(connection, query + _within(request))
    for model, experiment, stage, at, location in rows:
        in_question = experiment in deleted_at
        is_needed = not request.include_referenced and judge.references.protect(model, location)
        if in_question and is_needed:
            held.setdefault(experiment, Reason.HOLDS_KEPT)
        if stage != "deleted" or (request.names_ids and model not in wanted and not in_question):
            continue
        reason = judge.reason_to_keep(model, at, location)
        plan.count(Kind.LOGGED_MODEL, experiment, reason, is_named=model in wanted)


def _count_contents(connection: "Connection", plan: Plan) -> None:
    """Add what goes along with experiments: models that are marked active or young, and traces."""
    import sqlalchemy

    for experiment in plan.experiments:
        for kind, table in ((Kind.LOGGED_MODEL, "logged_models"), (Kind.TRACE, "trace_info")):
            query = sqlalchemy.text(f"SELECT COUNT(*) FROM {table} WHERE experiment_id = :id")  # noqa: S608
            count = connection.execute(query, {"id": experiment}).scalar_one()
            if count:
                plan.going[kind, experiment] = int(count)
        for key in [key for key in plan.staying if key[:2] == (Kind.LOGGED_MODEL, experiment)]:
            del plan.staying[key]
