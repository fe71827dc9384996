"""`upgrade`: each database of a server under its lock, after a backup, all or nothing."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mlflow_server.backup.names import make_id
from mlflow_server.errors import BusyError, ExitCode, OpsError, SettingsError, UsageError
from mlflow_server.store.engine import explained, sqlite_path
from mlflow_server.store.lock import exclusive
from mlflow_server.store.revision import SchemaState
from mlflow_server.store.schema import initialise
from mlflow_server.upgrade.keeping import Record, folder_of
from mlflow_server.upgrade.mysql import finish_interrupted, upgrade_mysql
from mlflow_server.upgrade.postgresql import upgrade_postgresql
from mlflow_server.upgrade.prepare import can_be_prepared, helps, prepare
from mlflow_server.upgrade.request import Request
from mlflow_server.upgrade.sqlite import upgrade_sqlite
from mlflow_server.upgrade.survey import Surveyed, survey
from mlflow_server.uris import Dialect, StoreUri

log = logging.getLogger(__name__)

PREPARING = "traces"
"""Told in place of a revision: rows of traces are prepared."""

# Told which database is at which revision, how many are done, and how many there are.
Progress = Callable[[str, str, int, int], None]


@dataclass
class Upgraded:
    """What was done to a database.

    Args:
        found: How it was.
        record: What was noted; None when nothing was to be done, or it was made anew.
        is_made: Its schema was made.
        is_prepared: Columns of traces were filled beforehand.
    """

    found: Surveyed
    record: Record | None = None
    is_made: bool = False
    is_prepared: bool = False


@dataclass
class Result:
    """What was done.

    Args:
        databases: By what they are.
    """

    databases: dict[str, Upgraded] = field(default_factory=dict)


class Upgrade:
    """Upgrades all databases of a server.

    Args:
        request: What to upgrade.
        progress: Told after each revision.
    """

    def __init__(self, request: Request, progress: Progress) -> None:
        self._request = request
        self._progress = progress
        self.result = Result()

    def run(self) -> Result:
        """Do it.

        Raises:
            BusyError: Another operation works on a store, or somebody is connected.
            OpsError: It failed; the database that it failed at is as it was.
        """
        # All of them first: nothing is begun that cannot be finished.
        found = {name: self._look(name) for name in self._request.databases}
        for name, each in found.items():
            self.result.databases[name] = self._upgrade(name, each)
        return self.result

    def prepare(self) -> Result:
        """Only fill columns of traces beforehand, where that can be done; servers may go on.

        Raises:
            BusyError: Another operation works on a store, or somebody keeps traces locked.
            OpsError: It failed; what was filled stays.
        """
        for name, uri in self._request.databases.items():
            found = survey(uri, is_auth=name == "auth")
            if can_be_prepared(found):
                with exclusive(uri, "upgrade", wait_s=self._request.wait_s):
                    self._prepare(name, found)
            self.result.databases[name] = Upgraded(found, is_prepared=can_be_prepared(found))
        return self.result

    def _prepare(self, name: str, found: Surveyed) -> None:
        def tell(done: int, total: int) -> None:
            self._progress(name, PREPARING, done, total)

        prepare(found.uri, found, tell)

    def _is_prepared(self, name: str, found: Surveyed) -> bool:
        """Prepare, if that can be done: the upgrade goes on without, too."""
        try:
            self._prepare(name, found)
        except OpsError as err:
            log.warning("traces were not prepared: %s", err.message)
            return False
        return True

    def _look(self, name: str) -> Surveyed | None:
        """What there is to do; None when another one is doing it."""
        try:
            return survey(self._request.databases[name], is_auth=name == "auth")
        except BusyError:
            return None  # the lock says who

    def _upgrade(self, name: str, found: Surveyed | None) -> Upgraded:
        uri = self._request.databases[name]
        if found is not None and not found.is_pending:
            return Upgraded(found)
        if found is not None and found.plan.status.state is SchemaState.EMPTY:
            if name == "auth":
                return Upgraded(found)  # MLflow's application makes it
            return Upgraded(found, is_made=initialise(uri))
        with exclusive(uri, "upgrade", wait_s=self._request.wait_s):
            found = survey(uri, is_auth=name == "auth")
            if found.plan.status.state is SchemaState.HALF_WAY:
                finish_interrupted(uri)
                found = survey(uri, is_auth=name == "auth")
            if not found.is_pending:
                return Upgraded(found)  # while we waited
            # Others wait for the upgrade itself only, and less for one that is prepared.
            is_prepared = (
                self._request.is_online and helps(found) and self._is_prepared(name, found)
            )
            record = self._upgrade_locked(name, uri, found)
            return Upgraded(found, record, is_prepared=is_prepared)

    def _upgrade_locked(self, name: str, uri: StoreUri, found: Surveyed) -> Record:
        id_ = make_id(datetime.now(UTC), None)

        def step(revision: str, done: int, total: int) -> None:
            self._progress(name, revision, done, total)

        with (
            _as_it_was(),
            folder_of(self.backups_of(uri), id_, name, uri.shown) as folder,
            explained(uri),
        ):
            if uri.dialect is Dialect.POSTGRESQL:
                return upgrade_postgresql(
                    uri, found, folder, id_, step, is_online=self._request.is_online
                )
            if self._request.is_online:
                raise UsageError(
                    f"{uri.shown}: only a store on PostgreSQL can be upgraded beside others",
                    hint="stop the servers, and leave --online away",
                )
            if uri.dialect is Dialect.SQLITE:
                return upgrade_sqlite(uri, found, folder, id_, step)
            if uri.dialect is Dialect.MYSQL:
                return upgrade_mysql(uri, found, folder, id_, step)
            raise SettingsError(
                [f"{uri.shown}: stores on SQL Server cannot be upgraded by this program"],
                hint="make a backup of the database, then: mlflow db upgrade",
            )

    def backups_of(self, uri: StoreUri) -> Path:
        """Where the backup of a database goes."""
        if self._request.backups is not None:
            return self._request.backups
        if uri.is_sqlite:
            return sqlite_path(uri).parent / "upgrade-backups"
        return Path("data/mlflow/standalone/upgrade-backups").absolute()


@contextmanager
def _as_it_was() -> Iterator[None]:
    """What fails says that it changed nothing."""
    try:
        yield
    except OpsError as err:
        if err.exit_code is ExitCode.FAILED:
            raise OpsError(f"{err.message}; the store is as it was", hint=err.hint) from None
        raise
