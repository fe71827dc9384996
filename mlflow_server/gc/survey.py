"""Walk through what is deleted and judge each: goes, or stays and why.

Rows are streamed and only counted, so that memory does not grow with the store.
"""

# ruff: noqa: S608 - statements are put together from constants and numbers only

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from mlflow_server.artifacts.removal.removers import Removers
from mlflow_server.errors import UsageError
from mlflow_server.gc.journal import IS_TRACE_LOCATION
from mlflow_server.gc.judge import Judge, ReferencesReader, database_now_ms, read_shared
from mlflow_server.gc.plan import NO_EXPERIMENT, Kind, Plan, Reason
from mlflow_server.gc.references import References
from mlflow_server.gc.request import Request
from mlflow_server.gc.stream import stream

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Locations measured at a time.
_PAGE = 500
# So many ids stand in a statement; with more the whole table is grouped.
_FEW = 1_000
# Experiments that hold something which others use.
_HOLDING = {
    Reason.HOLDS_ACTIVE: (
        "SELECT DISTINCT experiment_id FROM runs WHERE lifecycle_stage = 'active' "
        "AND experiment_id IN {experiments}"
    ),
    Reason.HOLDS_SCORER: (
        "SELECT DISTINCT scorers.experiment_id FROM scorers "
        "JOIN guardrails ON guardrails.scorer_id = scorers.scorer_id"
    ),
}
# SUCCEEDED, FAILED, TIMEOUT, CANCELED in MLflow 3.17.2 `entities/_job_status.py`.
_ENDED = "(2, 3, 4, 5)"


@dataclass(frozen=True)
class Located:
    """Something that goes, and where its files are.

    Args:
        kind: A run, a logged model or a trace.
        experiment: That it is in.
        entity_id: Its id.
        location: As MLflow kept it.
    """

    kind: Kind
    experiment: int
    entity_id: str
    location: str


class Survey:
    """Looks through a store for what a request would collect; nothing is changed.

    Args:
        connection: To a store at this release's revision.
        request: What was asked for.
        references: Reads what live model versions need; the registry may be another database.
    """

    def __init__(
        self,
        connection: "Connection",
        request: Request,
        references: ReferencesReader,
    ) -> None:
        self._connection = connection
        self._request = request
        self._references = references

    def plan(self) -> Plan:
        """Count what would go and what stays.

        Raises:
            UsageError: A named id is unknown, or not deleted.
        """
        connection, request = self._connection, self._request
        now_ms = database_now_ms(connection)
        plan = Plan(now_ms, now_ms - int(request.older_than_s * 1000))
        plan.clock_skew_s = now_ms / 1000 - time.time()
        if request.names_ids:
            require_deleted(connection, request)
        if _has_candidates(connection):
            plan.shared = read_shared(connection)
        self._judge_all(plan)
        _count_jobs(connection, request, plan)
        return plan

    def experiments(self, ids: Collection[int], plan: Plan) -> Plan:
        """Judge some deleted experiments anew, with what is in them.

        Args:
            ids: Those that are not deleted any more are left out.
            plan: An earlier one, whose limit of age is in force.
        """
        self._request = replace(
            self._request, run_ids=(), logged_model_ids=(), job_ids=(), experiment_ids=tuple(ids)
        )
        plan = Plan(plan.now_ms, plan.cut_ms, shared=plan.shared)
        self._judge_all(plan)
        return plan

    def going(self, plan: Plan) -> Iterator[Located]:
        """Where the files of all are that go by a plan of this survey."""
        whole, request = set(plan.experiments), self._request
        wanted = {Kind.RUN: set(request.run_ids), Kind.LOGGED_MODEL: set(request.logged_model_ids)}
        judge = Judge(request, plan.cut_ms, self._references(self._connection), plan.shared)
        for kind, query in ((Kind.RUN, _RUNS), (Kind.LOGGED_MODEL, _MODELS)):
            rows = stream(self._connection, query + within(request), scope(request))
            for entity_id, experiment, stage, at, location in rows:
                if experiment not in whole and (
                    stage != "deleted"
                    or (request.names_ids and entity_id not in wanted[kind])
                    or judge.reason_to_keep(entity_id, at, location) is not None
                ):
                    continue
                yield Located(kind, experiment, entity_id, location or "")
        for experiment in plan.experiments:
            for row in stream(self._connection, _TRACE_LOCATIONS, {"experiment": experiment}):
                yield Located(Kind.TRACE, experiment, row[0], row[1] or "")

    def measure(self, plan: Plan, removers: Removers) -> None:
        """Add to a plan of this survey how large the files are of what goes.

        Args:
            plan: To add to.
            removers: Look at the artifacts, wherever they are; what cannot be looked at counts as
                nothing.
        """
        for batch in batched(self.going(plan), _PAGE):
            found = removers.measure([(entity.location, entity.entity_id) for entity in batch])
            for entity, content in zip(batch, found, strict=True):
                if not isinstance(content, str):
                    plan.files[entity.kind, entity.experiment] += content.files
                    plan.size_bytes[entity.kind, entity.experiment] += content.size_bytes

    def _judge_all(self, plan: Plan) -> None:
        connection, request = self._connection, self._request
        deleted_at = _deleted_experiments(connection, request, plan)
        needed = References()
        if _has_candidates(connection):
            needed = self._references(connection)
        judge = Judge(request, plan.cut_ms, needed, plan.shared)
        held = {
            experiment: reason
            for experiment, at in deleted_at.items()
            if (reason := judge.reason_of_age(at)) is not None
        }
        deleted = "(SELECT experiment_id FROM experiments WHERE lifecycle_stage = 'deleted')"
        if request.experiment_ids:
            deleted = _numbers(request.experiment_ids)
        for reason, query in _HOLDING.items():
            for row in stream(connection, query.format(experiments=deleted)):
                if row[0] in deleted_at:
                    held.setdefault(int(row[0]), reason)
        _judge_runs(connection, judge, plan, deleted_at, held)
        _judge_models(connection, judge, plan, deleted_at, held)
        _judge_traces(connection, judge, deleted_at, held)
        if request.names_ids:
            _leave_alone(plan, request, held)
        plan.experiments = tuple(sorted(set(deleted_at) - set(held)))
        for experiment, reason in held.items():
            plan.staying[Kind.EXPERIMENT, experiment, reason] += 1
        for experiment in plan.experiments:
            plan.going[Kind.EXPERIMENT, experiment] += 1
        _count_contents(connection, plan)


_RUNS = (
    "SELECT run_uuid, experiment_id, lifecycle_stage, deleted_time, artifact_uri FROM runs "
    "WHERE lifecycle_stage = 'deleted'"
)
_MODELS = (
    "SELECT model_id, experiment_id, lifecycle_stage, last_updated_timestamp_ms, "
    "artifact_location FROM logged_models WHERE (lifecycle_stage = 'deleted' "
    "OR experiment_id IN "
    "(SELECT experiment_id FROM experiments WHERE lifecycle_stage = 'deleted'))"
)
_TRACE_LOCATIONS = (
    "SELECT trace_tags.request_id, trace_tags.value FROM trace_tags "
    "JOIN trace_info ON trace_info.request_id = trace_tags.request_id "
    f"WHERE trace_info.experiment_id = :experiment AND {IS_TRACE_LOCATION}"
)


def scope(request: Request) -> dict[str, Any]:
    """The parameters of `within`."""
    return {} if request.workspace is None else {"workspace": request.workspace}


def within(request: Request) -> str:
    """A condition that keeps to the workspace, and to the named experiments if only those were."""
    condition = ""
    if request.workspace is not None:
        condition += (
            " AND experiment_id IN "
            "(SELECT experiment_id FROM experiments WHERE workspace = :workspace)"
        )
    if request.experiment_ids and not (request.run_ids or request.logged_model_ids):
        condition += f" AND experiment_id IN {_numbers(request.experiment_ids)}"
    return condition


def batched(items: Iterator[Located], size: int) -> Iterator[list[Located]]:
    """So many items at a time."""
    while batch := list(islice(items, size)):
        yield batch


def _numbers(ids: Collection[int]) -> str:
    return "(" + ", ".join(str(int(number)) for number in ids) + ")"


def require_deleted(connection: "Connection", request: Request) -> None:
    """Refuse ids that are unknown or not deleted, all at once.

    Raises:
        UsageError: Names them.
    """
    inside = within(replace(request, experiment_ids=()))
    problems = [
        *_not_deleted(connection, request, "run", "runs", "run_uuid", request.run_ids, inside),
        *_not_deleted(
            connection,
            request,
            "experiment",
            "experiments",
            "experiment_id",
            request.experiment_ids,
            inside,
        ),
        *_not_deleted(
            connection,
            request,
            "logged model",
            "logged_models",
            "model_id",
            request.logged_model_ids,
            inside,
        ),
        *_not_ended(connection, request),
    ]
    if problems:
        raise UsageError("; ".join(problems), hint="nothing was touched; correct the ids")


def _not_deleted(
    connection: "Connection",
    request: Request,
    kind: str,
    table: str,
    column: str,
    ids: Collection[Any],
    inside: str,
) -> Iterator[str]:
    import sqlalchemy

    query = sqlalchemy.text(
        f"SELECT lifecycle_stage, {column} FROM {table} WHERE {column} = :id{inside}"
    )
    where = f" in the workspace {request.workspace}" if request.workspace is not None else ""
    for entity_id in ids:
        row = connection.execute(query, {"id": entity_id, **scope(request)}).first()
        # MySQL compares without regard to case: only what is meant exactly may go.
        if row is None or row[1] != entity_id:
            yield f"there is no {kind} {entity_id}{where}"
        elif row[0] != "deleted":
            yield f"{kind} {entity_id} is not deleted"


def _not_ended(connection: "Connection", request: Request) -> Iterator[str]:
    import sqlalchemy

    inside = "" if request.workspace is None else " AND workspace = :workspace"
    query = sqlalchemy.text(f"SELECT status IN {_ENDED}, id FROM jobs WHERE id = :id{inside}")
    for job in request.job_ids:
        row = connection.execute(query, {"id": job, **scope(request)}).first()
        if row is None or row[1] != job:
            yield f"there is no job {job}"
        elif not row[0]:
            yield f"job {job} has not ended"


def jobs_query(request: Request) -> str:
    """A condition for the jobs that are in question, all of them ended; parameters as `scope`."""
    return f"status IN {_ENDED}" + (
        "" if request.workspace is None else " AND workspace = :workspace"
    )


def _count_jobs(connection: "Connection", request: Request, plan: Plan) -> None:
    if not request.wants_jobs:
        return
    wanted = set(request.job_ids)
    query = f"SELECT id, last_update_time FROM jobs WHERE {jobs_query(request)}"
    for job, at in stream(connection, query, scope(request)):
        if not wanted or job in wanted:
            reason = Reason.YOUNGER if at > plan.cut_ms else None
            plan.count(Kind.JOB, NO_EXPERIMENT, reason)


def _deleted_experiments(
    connection: "Connection", request: Request, plan: Plan
) -> dict[int, int | None]:
    """Ids of the deleted experiments in question, and when each was deleted (or changed last)."""
    if request.names_ids and not request.experiment_ids:
        return {}
    found = {}
    query = (
        "SELECT experiment_id, last_update_time, name FROM experiments "
        "WHERE lifecycle_stage = 'deleted'"
    )
    if request.workspace is not None:
        query += " AND workspace = :workspace"
    if request.experiment_ids:
        query += f" AND experiment_id IN {_numbers(request.experiment_ids)}"
    for experiment, at, name in stream(connection, query, scope(request)):
        found[int(experiment)] = at
        plan.names[int(experiment)] = name
    return found


def _has_candidates(connection: "Connection") -> bool:
    import sqlalchemy

    queries = (
        f"SELECT 1 FROM {table} WHERE lifecycle_stage = 'deleted'"
        for table in ("runs", "experiments", "logged_models")
    )
    return any(connection.execute(sqlalchemy.text(query)).first() for query in queries)


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
    deleted_at: Mapping[int, int | None],
    held: dict[int, Reason],
) -> None:
    request = judge.request
    wanted = set(request.run_ids)
    rows = stream(connection, _RUNS + within(request), scope(request))
    for run, experiment, _, at, location in rows:
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
    deleted_at: Mapping[int, int | None],
    held: dict[int, Reason],
) -> None:
    """Deleted logged models go by their own age; a referenced one holds its experiment."""
    request = judge.request
    wanted = set(request.logged_model_ids)
    rows = stream(connection, _MODELS + within(request), scope(request))
    for model, experiment, stage, at, location in rows:
        in_question = experiment in deleted_at
        if in_question and judge.reason_of_need(model, location) is not None:
            held.setdefault(experiment, Reason.HOLDS_KEPT)
        if stage != "deleted" or (request.names_ids and model not in wanted and not in_question):
            continue
        reason = judge.reason_to_keep(model, at, location)
        plan.count(Kind.LOGGED_MODEL, experiment, reason, is_named=model in wanted)


def _judge_traces(
    connection: "Connection",
    judge: Judge,
    deleted_at: Mapping[int, int | None],
    held: dict[int, Reason],
) -> None:
    """A trace whose files a live model version needs holds its experiment: very rare."""
    if not judge.references.locations:
        return
    for experiment in sorted(set(deleted_at) - set(held)):
        for trace, location in stream(connection, _TRACE_LOCATIONS, {"experiment": experiment}):
            if judge.references.protect(trace, location):
                held[experiment] = Reason.HOLDS_KEPT
                break


def _count_contents(connection: "Connection", plan: Plan) -> None:
    """Add what goes along with experiments: models that are marked active or young, and traces."""
    whole = set(plan.experiments)
    if not whole:
        return
    for kind, table in ((Kind.LOGGED_MODEL, "logged_models"), (Kind.TRACE, "trace_info")):
        query = f"SELECT experiment_id, COUNT(*) FROM {table} GROUP BY experiment_id"
        if len(whole) <= _FEW:
            query = (
                f"SELECT experiment_id, COUNT(*) FROM {table} "
                f"WHERE experiment_id IN {_numbers(whole)} GROUP BY experiment_id"
            )
        for experiment, count in stream(connection, query):
            if experiment in whole:
                plan.going[kind, int(experiment)] = int(count)
    for key in [key for key in plan.staying if key[0] is Kind.LOGGED_MODEL and key[1] in whole]:
        del plan.staying[key]
