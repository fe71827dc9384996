"""Transactions on the store, one after the other, none of which keeps others waiting for long."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlflow_server.gc.pace import Pace
from mlflow_server.store.engine import connect, create_write_engine, explain_failure
from mlflow_server.uris import Dialect, StoreUri

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Our sessions in `pg_stat_activity`; that of the lock begins with it, too.
APPLICATION = "mlflow-tracking-server gc"
# Who waits for SQLite's write lock asks again every 0.1 s at the latest (sqlite3_busy_timeout).
_BREATH_S = 0.11
# Half of what a waiting request should see at most.
_SQLITE_S = 0.5
# A server's commits wait for the disk behind ours: short ones, and as much time for the others.
_SHARED_S = 0.025
_COMPANY = (
    "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND COALESCE(backend_type, 'client backend') = 'client backend' "
    "AND COALESCE(application_name, '') NOT LIKE :own"
)


class Writer:
    """One connection for all transactions of a collection.

    Args:
        uri: The store.
        offline: Nobody else uses it: no need to be brief.
    """

    def __init__(self, uri: StoreUri, *, offline: bool) -> None:
        self._uri = uri
        self._engine = create_write_engine(uri, application_name=APPLICATION)
        self._connection: Connection | None = None
        self._ended_at = 0.0
        self.is_brief = uri.is_sqlite and not offline
        self.took_s = 0.0
        self._has_company = False
        self._has_company = not offline and self._is_shared()

    def close(self) -> None:
        """Give back the connection; idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._engine.dispose()

    def pace(self) -> Pace:
        """The sizes of transactions that suit the store.

        SQLite locks everybody out while one is open, so it is weighed in rows; elsewhere in
        entities.
        """
        if self.is_brief:
            return Pace(20_000, 2_000, 1_000_000, _SQLITE_S)
        if self._uri.is_sqlite:
            return Pace(5_000, 5_000, 5_000)
        return Pace(500, 10, 5_000, _SHARED_S if self._has_company else _SQLITE_S)

    @contextmanager
    def transaction(self) -> Iterator["Connection"]:
        """A transaction; `took_s` tells afterwards how long it held its locks, seconds.

        Raises:
            OpsError: The database has failed; everything of this transaction is taken back.
        """
        pause_s = self.took_s if self._has_company else _BREATH_S if self.is_brief else 0.0
        time.sleep(max(0.0, pause_s - (time.monotonic() - self._ended_at)))
        try:
            with self._open().begin():
                started = time.monotonic()
                yield self._open()
            self._ended_at = time.monotonic()
            self.took_s = self._ended_at - started
        except Exception as err:
            failure = explain_failure(self._uri, err)
            if failure is None:
                raise
            raise failure from None

    @contextmanager
    def holding_versions(self) -> Iterator["Connection"]:
        """A transaction during which nobody registers a model version; readers are not concerned.

        SQLite's transactions hold the lock of the whole file. A registry in another database cannot
        be held together with this one.
        """
        with self._versions_locked(), self.transaction() as connection:
            if self._uri.dialect is Dialect.POSTGRESQL:
                connection.exec_driver_sql("LOCK TABLE model_versions IN SHARE MODE")
            yield connection

    @contextmanager
    def _versions_locked(self) -> Iterator[None]:
        """On MySQL a connection of its own holds that lock: LOCK TABLES ends any transaction."""
        if self._uri.dialect is not Dialect.MYSQL:
            yield
            return
        with connect(self._uri, application_name=APPLICATION) as connection:
            connection.exec_driver_sql("LOCK TABLES model_versions READ")
            yield

    def _is_shared(self) -> bool:
        """True when others are connected to a PostgreSQL store: a server, most likely."""
        import sqlalchemy

        if self._uri.dialect is not Dialect.POSTGRESQL:
            return False
        with self.transaction() as connection:
            query = sqlalchemy.text(_COMPANY)
            others = connection.execute(query, {"own": f"{APPLICATION}%"}).scalar_one()
        return int(others) > 0

    def _open(self) -> "Connection":
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection
