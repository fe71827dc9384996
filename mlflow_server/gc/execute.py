"""Carry a garbage collection out, under the store's lock."""

import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from mlflow_server.artifacts.removal.removers import Removers
from mlflow_server.gc import condemned, journal, versions
from mlflow_server.gc.batches import Batches, weigh_experiments
from mlflow_server.gc.destination import require_destination
from mlflow_server.gc.files import FileRemoval
from mlflow_server.gc.judge import references_reader
from mlflow_server.gc.outcome import Outcome, Progress
from mlflow_server.gc.plan import Kind, Plan
from mlflow_server.gc.request import Request
from mlflow_server.gc.survey import Survey
from mlflow_server.gc.writer import APPLICATION, Writer
from mlflow_server.store.engine import connect
from mlflow_server.store.lock import exclusive
from mlflow_server.uris import ArtifactUri, StoreUri

if TYPE_CHECKING:
    from sqlalchemy import Connection


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
        self._registry = registry
        self._references = references_reader(request, registry, destination)
        self._started = time.monotonic()

    def plan(self, *, measures: bool = False) -> Plan:
        """What `run` would do; nothing is changed.

        Args:
            measures: Also how large the files are: every location is looked at.

        Raises:
            UsageError: A named id is unknown, or not deleted.
        """
        with connect(self._uri, application_name=APPLICATION) as connection:
            survey = Survey(connection, self._request, self._references)
            plan = self._survey(connection, survey)
            if measures:
                with closing(Removers(self._destination, self._environ)) as removers:
                    survey.measure(plan, removers)
        return plan

    def require_destination(self) -> None:
        """Refuse where files could not be removed: see `gc.destination`."""
        require_destination(self._uri, self._destination, self._request, self._environ)

    def run(self, progress: Progress) -> Outcome:
        """Collect.

        Args:
            progress: Told now and then how far it is.

        Raises:
            UsageError: A named id is unknown, or not deleted.
            BusyError: Another operation holds the store's lock.
            UnavailableError: The destination is not there.
        """
        with connect(self._uri, application_name=APPLICATION) as connection:
            plan = self._survey(connection, Survey(connection, self._request, self._references))
            if plan.is_empty and not _has_leftovers(connection):
                return Outcome(plan)  # the usual case leaves no lock file either
            in_rows = self._uri.is_sqlite and not self._request.offline
            weights = weigh_experiments(connection, plan, in_rows=in_rows)
        outcome = Outcome(plan, seconds={"survey": time.monotonic() - self._started})
        limit = self._request.max_seconds
        with exclusive(self._uri, "gc"), ExitStack() as stack:
            self.require_destination()
            writer = Writer(self._uri, offline=self._request.offline)
            stack.callback(writer.close)
            removal = FileRemoval(Removers(self._destination, self._environ))
            stack.callback(removal.close)
            Batches(
                self._request,
                self._references,
                writer,
                removal,
                outcome,
                progress,
                None if limit is None else self._started + limit,
            ).run(weights)
            if self._request.deleted_versions:
                outcome.purged[Kind.MODEL_VERSION] = versions.purge(
                    self._registry or self._uri, self._request, plan.cut_ms
                )
        return outcome

    def _survey(self, connection: "Connection", survey: Survey) -> Plan:
        plan = survey.plan()
        versions.count(connection, self._registry, self._request, plan)
        return plan


def _has_leftovers(connection: "Connection") -> bool:
    return journal.has_entries(connection) or bool(condemned.pending(connection))
