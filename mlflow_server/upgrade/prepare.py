"""Fill the columns that the revision 75868b020152 brings before it comes, in small commits.

Servers of the old release may go on meanwhile: they neither see nor need these columns. What they
write in between is put right by the revision itself, which then has less to write while all others
wait.

Source: MLflow 3.17.2 `store/db/trace_analytics_prepopulation.py`, which is what
`mlflow db prepopulate-trace-analytics` runs.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlflow_server.errors import BusyError, OpsError, SchemaError
from mlflow_server.store.engine import connect_defaults, driver_url, explain_failure
from mlflow_server.store.schema import prepopulate_traces
from mlflow_server.upgrade.sessions import session_name
from mlflow_server.upgrade.survey import Surveyed
from mlflow_server.uris import Dialect, StoreUri

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.exc import DBAPIError

log = logging.getLogger(__name__)

# Right before 75868b020152: `PREPOPULATION_SCHEMA_REVISION` there, which refuses any other.
PREPARED_REVISION = "b7e2c1a4d9f3"
# With 600,000 rows others wait for 45 to 51 s instead of 78 to 87 (docs/design/upgrade.md), with
# this many for seconds.
MIN_ROWS = 100_000
# As long as MLflow waits for the columns themselves (`DEFAULT_DDL_LOCK_TIMEOUT_SECONDS`).
_LOCK_TIMEOUT_S = 5
_ATTEMPTS = 3
_PAUSE_S = 2.0
# PostgreSQL's codes for who waited too long for a lock, and who has to give way in a deadlock.
_LOCKED = {"55P03", "40P01"}

# Told how many rows are done, and about how many there are.
Telling = Callable[[int, int], None]


def helps(found: Surveyed) -> bool:
    """True when a store can be prepared, and has so many traces that it is worth it. Pure."""
    return can_be_prepared(found) and _rows(found) >= MIN_ROWS


def prepare(uri: StoreUri, found: Surveyed, tell: Telling) -> None:
    """Fill the columns of a store whose lock is held; killed, it is done again without harm.

    Args:
        uri: The store.
        found: What is to be done to it.
        tell: Told now and then.

    Raises:
        SchemaError: Nothing can be prepared in this store.
        BusyError: Another session keeps rows or tables locked.
        OpsError: It failed; what was filled stays.
    """
    if not can_be_prepared(found):
        raise SchemaError(
            f"{uri.shown}: the schema is at revision {found.plan.status.current}; only on "
            f"PostgreSQL, and only at {PREPARED_REVISION}, can traces be prepared",
            hint="mlflow-server upgrade does without",
        )
    expected = _rows(found)

    def told(done: int) -> None:
        tell(done, max(done, expected))

    engine = _engine(uri)
    try:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with _explained(uri):
                    done = prepopulate_traces(engine, told)
            except BusyError:
                if attempt == _ATTEMPTS:
                    raise
                log.warning("traces of the store are locked; trying again")
                time.sleep(_PAUSE_S)
            else:
                tell(done, done)
                return
    finally:
        engine.dispose()


def can_be_prepared(found: Surveyed) -> bool:
    """True for a store on PostgreSQL at the one revision that MLflow can do it at. Pure."""
    return (
        found.uri.dialect is Dialect.POSTGRESQL and found.plan.status.current == PREPARED_REVISION
    )


def _rows(found: Surveyed) -> int:
    """About how many rows the first revision to come goes through: traces, spans, assessments."""
    return sum(found.plan.pending[0].tables.values())


def _engine(uri: StoreUri) -> "Engine":
    """An engine that keeps its connection: there are thousands of commits."""
    import sqlalchemy

    url = sqlalchemy.make_url(driver_url(uri))
    defaults = connect_defaults(uri.dialect, url.get_driver_name(), session_name())
    engine = sqlalchemy.create_engine(
        url,
        pool_size=1,
        connect_args={name: each for name, each in defaults.items() if name not in url.query},
    )

    @sqlalchemy.event.listens_for(engine, "begin")
    def _bound_waiting(connection: "Connection") -> None:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_S}s'")
        # It looks for spans without a trace first, in one go.
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")

    return engine


@contextmanager
def _explained(uri: StoreUri) -> Iterator[None]:
    """What MLflow and the database raise within comes out as an `OpsError`."""
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except (DBAPIError, RuntimeError) as err:
        # MLflow wraps what stops it from adding the columns; the cause says more.
        failure = err.__cause__ if isinstance(err, RuntimeError) else err
        if isinstance(failure, DBAPIError) and _code(failure) in _LOCKED:
            raise BusyError(
                f"{uri.shown}: another session keeps traces of the store locked",
                hint="look for 'idle in transaction' in pg_stat_activity, and end that session",
            ) from None
        explained = explain_failure(uri, failure) if failure is not None else None
        raise explained or OpsError(
            f"{uri.shown}: traces cannot be prepared: {_reason(err)}",
            hint="the upgrade itself would stop there, too: put it right, then try again",
        ) from None


def _code(err: "DBAPIError") -> str | None:
    """PostgreSQL's code for an error; the text depends on the server's language."""
    # psycopg 3 has the first, psycopg2 the second.
    return getattr(err.orig, "sqlstate", None) or getattr(err.orig, "pgcode", None)


def _reason(err: BaseException) -> str:
    """MLflow's own words, without what it was about to do. They name no value of a row but ids."""
    told = str(err).partition(". ")[0]
    return told.partition(": ")[2] or told
