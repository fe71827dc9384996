"""The transactions of a collection: judge again, note the files, delete the rows."""

# ruff: noqa: S608 - statements are put together from constants only

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlflow_server.artifacts.removal.freed import Freed
from mlflow_server.gc import condemned, journal, rows
from mlflow_server.gc.entities import JOBS, LOGGED_MODELS, RUNS, TRACES, Entities
from mlflow_server.gc.files import FileRemoval, Settled, settle
from mlflow_server.gc.ids import bind_ids
from mlflow_server.gc.judge import Judge, ReferencesReader
from mlflow_server.gc.outcome import Outcome, Progress
from mlflow_server.gc.plan import Kind, Plan
from mlflow_server.gc.request import Request
from mlflow_server.gc.stream import stream
from mlflow_server.gc.survey import Survey
from mlflow_server.gc.writer import Writer

if TYPE_CHECKING:
    from sqlalchemy import Connection

# More rows in one entity than SQLite deletes in a good half of a second: it goes in steps.
_LARGE_ROWS = 100_000
# So many are read at a time to fill a transaction of SQLite.
_PAGE = 2_000
# Experiments judged in one statement.
_GROUP = 500


class Batches:
    """Works a plan off.

    Args:
        request: What was asked for.
        references: Reads what live model versions need.
        writer: Makes the transactions.
        removal: Removes files meanwhile.
        outcome: Gets what was done.
        progress: Told after each transaction.
        ends_at: When to begin nothing further, on the monotonic clock; None for never.
    """

    def __init__(
        self,
        request: Request,
        references: ReferencesReader,
        writer: Writer,
        removal: FileRemoval,
        outcome: Outcome,
        progress: Progress,
        ends_at: float | None,
    ) -> None:
        self._request = request
        self._references = references
        self._writer = writer
        self._removal = removal
        self._outcome = outcome
        self._plan = outcome.plan
        self._progress = progress
        self._ends_at = ends_at

    def run(self, weights: Mapping[int, int]) -> None:
        """Finish what an earlier run has left, then do everything that is planned.

        Args:
            weights: Of the plan's experiments, in rows on SQLite, else in entities.
        """
        started = time.monotonic()
        with self._writer.transaction() as connection:
            journal.create(connection)
        with self._step() as connection:
            begun = condemned.pending(connection)
        for kind, entity_id in begun:
            self._purge_in_steps(kind, entity_id)
        self._purge_experiments(weights)
        for what in (RUNS, LOGGED_MODELS, JOBS):
            self._purge(what)
        self._outcome.seconds["rows"] = time.monotonic() - started
        self._finish_files()
        self._outcome.seconds["files"] = self._removal.seconds

    @contextmanager
    def _step(self, *, holding_versions: bool = False) -> Iterator["Connection"]:
        """A transaction, in which files that are gone leave the journal and further ones begin."""
        results = self._removal.finished(wait=False)
        make = self._writer.holding_versions if holding_versions else self._writer.transaction
        with make() as connection:
            settle(connection, results)
            self._removal.begin(connection)
            yield connection
        self._note(results)

    def _note(self, results: Sequence[Settled]) -> None:
        for entry, result in results:
            if isinstance(result, Freed):
                self._outcome.freed += result
                self._outcome.locations += 1
            else:
                self._outcome.failures.append((entry, result))
        outcome = self._outcome
        self._progress(self._plan.going.total(), outcome.purged.total(), outcome.locations)

    def _finish_files(self) -> None:
        """Wait for the files of all rows that are gone; when time is up, for those under way."""
        is_more = True
        while is_more or self._removal.is_busy:
            results = self._removal.finished(wait=True)
            with self._writer.transaction() as connection:
                settle(connection, results)
                is_more = not self._is_late() and self._removal.begin(connection)
                self._outcome.waiting = journal.count(connection)
            self._note(results)

    def _is_late(self) -> bool:
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            self._outcome.stopped_by = "--max-seconds"
            return True
        return False

    def _must_stop(self) -> bool:
        most = self._request.max_runs
        if most is not None and self._outcome.purged[Kind.RUN] >= most:
            self._outcome.stopped_by = "--max-runs"
            return True
        return self._is_late()

    def _purge_experiments(self, weights: Mapping[int, int]) -> None:
        waiting = list(self._plan.experiments)
        pace = self._writer.pace()
        while waiting and not self._must_stop():
            group = pace.take([(each, weights[each]) for each in waiting[:_GROUP]])
            del waiting[: len(group)]
            if self._writer.is_brief and weights[group[0]] > _LARGE_ROWS:
                if self._condemn_experiment(group[0]):
                    self._purge_in_steps(Kind.EXPERIMENT, str(group[0]))
                continue
            self._purge_group(group)
            pace.took(self._writer.took_s)

    def _purge_group(self, group: Sequence[int]) -> None:
        """One transaction: each experiment whole, or not at all."""
        with self._step(holding_versions=True) as connection:
            going = self._judge_experiments(connection, group)
            if going.experiments:
                journal.write_experiments(connection, going.experiments, self._plan.now_ms)
                rows.delete_experiments(connection, going.experiments)
        for (kind, experiment), count in going.going.items():
            if experiment in going.experiments:
                self._outcome.purged[kind] += count

    def _condemn_experiment(self, experiment: int) -> bool:
        with self._step(holding_versions=True) as connection:
            is_going = bool(self._judge_experiments(connection, [experiment]).experiments)
            if is_going:
                condemned.condemn(connection, Kind.EXPERIMENT, str(experiment))
        return is_going

    def _judge_experiments(self, connection: "Connection", ids: Sequence[int]) -> Plan:
        """Those that still go, locked with what is in them."""
        _lock_experiments(connection, ids)
        survey = Survey(connection, self._request, self._references)
        return survey.experiments(ids, self._plan)

    def _purge(self, what: Entities) -> None:
        """Batches of candidates, each in a transaction that judges them anew."""
        named = _named(what, self._request)
        if named == ():
            return
        after: str | int | None = None
        pace = self._writer.pace()
        while not self._must_stop():
            large = None
            with self._step(holding_versions=True) as connection:
                page = what.candidates(
                    connection,
                    self._request,
                    self._plan.cut_ms,
                    named,
                    after,
                    self._page_size(what, pace.size),
                )
                if not page:
                    return
                judge = Judge(
                    self._request,
                    self._plan.cut_ms,
                    self._references(connection),
                    self._plan.shared,
                )
                going = [
                    each.entity_id
                    for each in page
                    if judge.reason_to_keep(each.entity_id, each.deleted_ms, each.location) is None
                ]
                taken = going
                if self._writer.is_brief and going:
                    weighed = what.weigh(connection, going)
                    taken = pace.take(weighed)
                    if weighed[0][1] > _LARGE_ROWS and what is RUNS:
                        large = taken[0]
                        condemned.condemn(connection, what.kind, large)
                if taken and large is None:
                    what.write(connection, taken, self._plan.now_ms)
                    what.delete(connection, taken)
            last = page[-1].entity_id if len(taken) == len(going) else taken[-1]
            after = next(each.order for each in page if each.entity_id == last)
            if large is None:
                self._outcome.purged[what.kind] += len(taken)
                pace.took(self._writer.took_s)
            else:
                self._purge_in_steps(what.kind, large)

    def _page_size(self, what: Entities, size: int) -> int:
        if self._writer.is_brief:
            size = min(_PAGE, size)
        if what is RUNS and self._request.max_runs is not None:
            size = min(size, self._request.max_runs - self._outcome.purged[Kind.RUN])
        return size

    def _purge_in_steps(self, kind: Kind, entity_id: str) -> None:
        """Delete what is condemned, in transactions that are short however large it is."""
        if kind is Kind.RUN:
            self._drain(RUNS, entity_id)
        else:
            for what in (TRACES, RUNS, LOGGED_MODELS):
                self._empty(what, int(entity_id))
        if self._is_late():
            return  # it stays condemned; the next run goes on
        with self._step() as connection:
            if kind is Kind.RUN:
                journal.write_runs(connection, [entity_id], self._plan.now_ms)
                rows.delete_runs(connection, [entity_id])
            else:
                journal.write_experiments(connection, [int(entity_id)], self._plan.now_ms)
                rows.delete_experiments(connection, [int(entity_id)])
            condemned.release(connection, kind, entity_id)
        self._outcome.purged[kind] += 1

    def _empty(self, what: Entities, experiment: int) -> None:
        pace, drained = self._writer.pace(), ""
        while not self._is_late():
            with self._step() as connection:
                ids = what.of_experiment(connection, experiment, _PAGE)
                if not ids:
                    return
                weighed = what.weigh(connection, ids)
                taken = pace.take(weighed)
                is_large = weighed[0][1] > _LARGE_ROWS and taken[0] != drained
                if not is_large:
                    what.write(connection, taken, self._plan.now_ms)
                    what.delete(connection, taken)
            if is_large:
                drained = taken[0]
                self._drain(what, drained)
                continue
            self._outcome.purged[what.kind] += len(taken)
            pace.took(self._writer.took_s)

    def _drain(self, what: Entities, entity_id: str) -> None:
        pace = self._writer.pace()
        while not self._is_late():
            with self._step() as connection:
                if what.drain(connection, entity_id, pace.size) < pace.size:
                    return
            pace.took(self._writer.took_s)


def _named(what: Entities, request: Request) -> Sequence[str] | None:
    """The ids of a kind that were named; none of a kind that is not in question, None for all."""
    if what is JOBS:
        return tuple(request.job_ids) or (None if request.wants_jobs else ())
    if not request.names_ids:
        return None
    return tuple(request.run_ids if what is RUNS else request.logged_model_ids)


def _lock_experiments(connection: "Connection", ids: Sequence[int]) -> None:
    """Let a restore of them, or of anything in them, come either before or too late.

    SQLite's transactions hold the lock of the whole file.
    """
    if connection.dialect.name == "sqlite":
        return
    bound = bind_ids(connection, "ids", ids)
    for table in ("experiments", "runs", "logged_models"):
        bound.execute(
            connection,
            f"SELECT COUNT(*) FROM (SELECT experiment_id FROM {table} "
            "WHERE experiment_id IN {ids} FOR UPDATE) AS locked",
        )


def weigh_experiments(connection: "Connection", plan: Plan, *, in_rows: bool) -> dict[int, int]:
    """How much each experiment of a plan takes of a transaction.

    Args:
        connection: To the store.
        plan: Whose experiments are weighed.
        in_rows: In rows, by reading large tables once; else in entities.
    """
    weights: Counter[int] = Counter(dict.fromkeys(plan.experiments, 1))
    for (_, experiment), count in plan.going.items():
        if experiment in weights:
            weights[experiment] += count
    if in_rows and plan.experiments:
        for query in _HEAVY:
            for experiment, count in stream(connection, query):
                if experiment in weights:
                    weights[experiment] += count
    return weights


_DELETED = "(SELECT experiment_id FROM experiments WHERE lifecycle_stage = 'deleted')"
_HEAVY = (
    "SELECT runs.experiment_id, COUNT(*) FROM runs JOIN metrics "
    f"ON metrics.run_uuid = runs.run_uuid WHERE runs.experiment_id IN {_DELETED} "
    "GROUP BY runs.experiment_id",
    f"SELECT experiment_id, COUNT(*) FROM spans WHERE experiment_id IN {_DELETED} "
    "GROUP BY experiment_id",
    "SELECT experiment_id, 20 * COUNT(*) FROM runs "
    f"WHERE experiment_id IN {_DELETED} GROUP BY experiment_id",
)
