"""Transactions on the store, one after the other, none of which keeps others waiting for long."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlflow_server.gc.pace import Pace
from mlflow_server.store.engine import create_write_engine, explain_failure
from mlflow_server.uris import Dialect, StoreUri

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Who waits for SQLite's write lock asks again every 0.1 s at the latest (sqlite3_busy_timeout).
_BREATH_S = 0.11


class Writer:
    """One connection for all transactions of a collection.

    Args:
        uri: The store.
        offline: Nobody else uses it: no need to be brief.
    """

    def __init__(self, uri: StoreUri, *, offline: bool) -> None:
        self._uri = uri
        self._engine = create_write_engine(uri, application_name="mlflow-tracking-server gc")
        self._connection: Connection | None = None
        self._ended_at = 0.0
        self.is_brief = uri.is_sqlite and not offline
        self.took_s = 0.0

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
            return Pace(20_000, 2_000, 1_000_000)
        if self._uri.is_sqlite:
            return Pace(5_000, 5_000, 5_000)
        return Pace(500, 50, 5_000)

    @contextmanager
    def transaction(self) -> Iterator["Connection"]:
        """A transaction; `took_s` tells afterwards how long it held its locks, seconds.

        Raises:
            OpsError: The database has failed; everything of this transaction is taken back.
        """
        if self.is_brief:
            time.sleep(max(0.0, _BREATH_S - (time.monotonic() - self._ended_at)))
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
        import sqlalchemy

        with self.transaction() as connection:
            if self._uri.dialect is Dialect.POSTGRESQL:
                connection.execute(sqlalchemy.text("LOCK TABLE model_versions IN SHARE MODE"))
            yield connection

    def _open(self) -> "Connection":
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection
