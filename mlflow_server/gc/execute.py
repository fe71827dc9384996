"""Carry a garbage collection out: rows in short transactions, files after each from the journal."""

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mlflow_server.artifacts.removal.freed import Freed
from mlflow_server.artifacts.removal.removers import Removers
from mlflow_server.errors import UsageError
from mlflow_server.gc import journal, rows
from mlflow_server.gc.destination import require_destination
from mlflow_server.gc.pace import Pace
from mlflow_server.gc.plan import Kind, Plan
from mlflow_server.gc.request import Request
from mlflow_server.gc.survey import Judge, references_reader, survey
from mlflow_server.store.engine import connect, create_write_engine
from mlflow_server.store.lock import exclusive
from mlflow_server.uris import ArtifactUri, Dialect, StoreUri

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

log = logging.getLogger(__name__)

_JOURNAL_PAGE = 1_000


@dataclass
class Outcome:
    """What was done.

    Args:
        plan: What was planned.
        purged: Entities whose rows are gone, by kind.
        freed: Files that are gone.
        failures: Locations that could not be removed, and why.
        seconds: By phase.
    """

    plan: Plan
    purged: Counter[Kind] = field(default_factory=Counter)
    freed: Freed = field(default_factory=Freed)
    failures: list[tuple[journal.Entry, str]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


class Collection:
    """One garbage collection.

    Args:
        uri: The store, at this release's revision.
        destination: What `mlflow-artifacts:/` stands for.
        request: What was asked for.
        environ: Where the object store's credentials and options are.
        registry: The database of registered models, when it is another one.
    """

    def __init__(
        self,
        uri: StoreUri,
        destination: ArtifactUri,
        request: Request,
        environ: Mapping[str, str],
        *,
        registry: StoreUri | None = None,
    ) -> None:
        self._uri = uri
        self._destination = destination
        self._request = request
        self._environ = environ
        self._references = references_reader(registry)

    def run(self) -> Outcome:
        """Collect.

        Raises:
            BusyError: Another operation holds the store's lock.
            UnavailableError: The destination is not there.
        """
        with connect(self._uri, application_name="mlflow-tracking-server gc") as connection:
            plan = survey(connection, self._request, self._references)
            if plan.is_empty and not journal.has_entries(connection):
                return Outcome(plan)  # the usual case leaves no lock file either
        with exclusive(self._uri, "gc"):
            engine = create_write_engine(self._uri)
            try:
                return self._collect(engine)
            finally:
                engine.dispose()

    def _collect(self, engine: "Engine") -> Outcome:
        with connect(self._uri) as connection:
            leftovers = journal.has_entries(connection)
            plan = survey(connection, self._request, self._references)
        outcome = Outcome(plan)
        require_destination(self._destination, self._request, self._environ)
        with engine.begin() as connection:
            journal.create(connection)
        if leftovers:
            self._remove_files(engine, outcome)
        with self._phase(outcome, "rows"):
            for experiment in plan.experiments:
                self._purge_experiment(engine, outcome, experiment)
            self._purge_pages(engine, outcome, _RUNS)
            self._purge_pages(engine, outcome, _MODELS)
        self._remove_files(engine, outcome)
        return outcome

    @contextmanager
    def _phase(self, outcome: Outcome, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - started
            outcome.seconds[name] = outcome.seconds.get(name, 0.0) + spent

    def _purge_experiment(self, engine: "Engine", outcome: Outcome, experiment: int) -> None:
        """One transaction: whole, or not at all."""
        alone = replace(
            self._request, run_ids=(), logged_model_ids=(), experiment_ids=(experiment,)
        )
        with engine.begin() as connection:
            self._hold_references(connection)
            self._lock_experiment(connection, experiment)
            try:
                again = survey(connection, alone, self._references)
            except UsageError:
                return  # restored since it was looked at
            if again.experiments != (experiment,):
                return  # something in it was restored, or is needed now
            journal.write_experiment(connection, experiment, outcome.plan.now_ms)
            rows.delete_experiment(connection, experiment)
        outcome.purged[Kind.EXPERIMENT] += 1
        for kind in (Kind.RUN, Kind.LOGGED_MODEL, Kind.TRACE):
            outcome.purged[kind] += again.going[kind, experiment]

    def _lock_experiment(self, connection: "Connection", experiment: int) -> None:
        """Let a restore of it, or of anything in it, come either before or too late.

        SQLite's transactions hold the lock of the whole file.
        """
        import sqlalchemy

        if self._uri.is_sqlite:
            return
        for table in ("experiments", "runs", "logged_models"):
            query = (
                f"SELECT COUNT(*) FROM (SELECT experiment_id FROM {table} "  # noqa: S608
                "WHERE experiment_id = :id FOR UPDATE) AS locked"
            )
            connection.execute(sqlalchemy.text(query), {"id": experiment})

    def _purge_pages(self, engine: "Engine", outcome: Outcome, what: "_Entities") -> None:
        """Batches of candidates, each in a transaction that judges them anew."""
        after, pace = "", Pace()
        while batch := self._candidates(what, after, pace.size):
            after = batch[-1]
            started = time.monotonic()
            with engine.begin() as connection:
                self._hold_references(connection)
                judge = Judge(self._request, outcome.plan.cut_ms, self._references(connection))
                going = self._still_going(connection, judge, what, batch)
                if going:
                    what.write(connection, going, outcome.plan.now_ms)
                    what.delete(connection, going)
            pace.took(time.monotonic() - started)
            outcome.purged[what.kind] += len(going)

    def _hold_references(self, connection: "Connection") -> None:
        """Let nobody register a version from what is about to go; readers are not concerned.

        SQLite's transactions hold the lock of the whole file. A registry in another database cannot
        be held together with this one.
        """
        import sqlalchemy

        if self._uri.dialect is Dialect.POSTGRESQL:
            connection.execute(sqlalchemy.text("LOCK TABLE model_versions IN SHARE MODE"))

    def _candidates(self, what: "_Entities", after: str, size: int) -> list[str]:
        import sqlalchemy

        wanted = what.named(self._request)
        if self._request.names_ids:
            return sorted(entity_id for entity_id in wanted if entity_id > after)[:size]
        query = sqlalchemy.text(
            f"SELECT {what.column} FROM {what.table} WHERE lifecycle_stage = 'deleted' "  # noqa: S608
            f"AND {what.column} > :after ORDER BY {what.column} LIMIT :size"
        )
        with connect(self._uri) as connection:
            found = connection.execute(query, {"after": after, "size": size})
            return list(found.scalars())

    def _still_going(
        self, connection: "Connection", judge: Judge, what: "_Entities", ids: Sequence[str]
    ) -> list[str]:
        import sqlalchemy

        lock = "" if self._uri.is_sqlite else " FOR UPDATE SKIP LOCKED"
        query = sqlalchemy.text(
            f"SELECT {what.column}, {what.time}, {what.location} FROM {what.table} "  # noqa: S608
            f"WHERE {what.column} IN :ids AND lifecycle_stage = 'deleted'{lock}"
        ).bindparams(sqlalchemy.bindparam("ids", expanding=True))
        found = connection.execute(query, {"ids": list(ids)})
        return [row[0] for row in found if judge.reason_to_keep(row[0], row[1], row[2]) is None]

    def _remove_files(self, engine: "Engine", outcome: Outcome) -> None:
        """Work the journal off, page by page."""
        after = 0
        removers = Removers(self._destination, self._environ)
        with self._phase(outcome, "files"), contextlib.closing(removers):
            while True:
                with connect(self._uri) as connection:
                    entries = journal.page(connection, after, _JOURNAL_PAGE)
                if not entries:
                    return
                after = entries[-1].entry_id
                results = removers.remove([(entry.location, entry.entity_id) for entry in entries])
                with engine.begin() as connection:
                    self._settle(connection, outcome, zip(entries, results, strict=True))

    def _settle(
        self,
        connection: "Connection",
        outcome: Outcome,
        results: Iterable[tuple[journal.Entry, Freed | str]],
    ) -> None:
        done = []
        for entry, result in results:
            if isinstance(result, Freed):
                outcome.freed += result
                done.append(entry)
            else:
                journal.note_failure(connection, entry, result)
                outcome.failures.append((entry, result))
        journal.forget(connection, done)


@dataclass(frozen=True)
class _Entities:
    """Runs or logged models: where they are, and how they go."""

    kind: Kind
    table: str
    column: str
    time: str
    location: str
    named: Callable[[Request], Any]
    write: Callable[["Connection", Sequence[str], int], None]
    delete: Callable[["Connection", Sequence[str]], None]


_RUNS = _Entities(
    Kind.RUN,
    "runs",
    "run_uuid",
    "deleted_time",
    "artifact_uri",
    lambda request: request.run_ids,
    journal.write_runs,
    rows.delete_runs,
)
_MODELS = _Entities(
    Kind.LOGGED_MODEL,
    "logged_models",
    "model_id",
    "last_updated_timestamp_ms",
    "artifact_location",
    lambda request: request.logged_model_ids,
    journal.write_logged_models,
    rows.delete_logged_models,
)
