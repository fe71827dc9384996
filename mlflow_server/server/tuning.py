"""What can be had from MLflow without changing it: fewer round trips, fewer pools, shorter answers.

Each function names what it relies on; `tests/integration/test_app.py` fails when that moves.
Measurements: `docs/design/serve.md`.
"""

import functools
import select
import time
from typing import TYPE_CHECKING, Any

from mlflow_server.store.engine import APPLICATION_NAME, connect_defaults

if TYPE_CHECKING:
    from sqlalchemy import Engine

# A connection at rest for longer is asked by a real round trip before it is used again.
_TRUSTED_IDLE_S = 30.0


def share_engines() -> dict[str, Any]:
    """Let all of MLflow's stores in this process use one pool for the very same database.

    Tracking, registry and job stores keep a map of engines each, the workspace store none.

    Returns:
        The engines by URI; MLflow adds to it as it opens stores.
    """
    import mlflow.store.db.utils as mlflow_db
    from mlflow.store.jobs.sqlalchemy_store import SqlAlchemyJobStore
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as TrackingStore

    engines: dict[str, Any] = TrackingStore._engine_map
    RegistryStore._engine_map = engines
    SqlAlchemyJobStore._engine_map = engines
    make_engine = mlflow_db.create_sqlalchemy_engine_with_retry

    def make_once(uri: str) -> Any:
        if uri not in engines:
            engines[uri] = make_engine(uri)
        return engines[uri]

    mlflow_db.create_sqlalchemy_engine_with_retry = make_once
    return engines


def limit_retries() -> None:
    """MLflow tries ten times to reach a database, for 100 s; platforms and `/readyz` do that."""
    import mlflow.store.db.utils as mlflow_db

    mlflow_db.MAX_RETRY_COUNT = 2


def compact_answers() -> None:
    """JSON answers without indentation: smaller, and written by json's C encoder."""
    from mlflow.server import handlers

    handlers.message_to_json = functools.partial(handlers.message_to_json, pretty=False)


def remember_missing_auth() -> None:
    """Let MLflow find out once, not at every search, that basic authentication is not installed.

    `search_runs` of MLflow 3.17.2 imports `mlflow.server.auth`, which fails without Flask-WTF. A
    failed import is tried again each time: 1.5 ms, and now and then a 500, when another thread is
    half way through the same import.
    """
    import importlib.util
    import sys

    if importlib.util.find_spec("flask_wtf") is None:
        sys.modules["mlflow.server.auth"] = None  # type: ignore[assignment]


def give_connections_defaults() -> None:
    """Deadlines and a name for every connection that this process will open."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    @event.listens_for(Engine, "do_connect")
    def _add_defaults(dialect: Any, record: Any, args: Any, parameters: dict[str, Any]) -> None:
        for name, value in connect_defaults(dialect.name, dialect.driver, APPLICATION_NAME).items():
            parameters.setdefault(name, value)


def tune_engine(engine: "Engine") -> None:
    """Save PostgreSQL round trips: batched UPDATEs, and no ping of a connection just used.

    MLflow updates the latest metrics of a batch one by one, and each of its sessions begins with a
    ping; on a machine of its own every round trip of either is a network latency.
    """
    if engine.dialect.name != "postgresql":
        return
    if engine.dialect.driver == "psycopg2":
        from sqlalchemy.dialects.postgresql.psycopg2 import EXECUTEMANY_VALUES_PLUS_BATCH

        dialect: Any = engine.dialect
        dialect.executemany_mode = EXECUTEMANY_VALUES_PLUS_BATCH
        dialect.supports_sane_multi_rowcount = False
    if engine.dialect.driver in ("psycopg2", "psycopg"):
        _ping_only_strangers(engine)


def _ping_only_strangers(engine: "Engine") -> None:
    """Skip the ping of a connection that was in use a moment ago and has nothing to read.

    A server that closed the connection has sent something, so the socket is readable; then, and
    after half a minute at rest, SQLAlchemy's own ping decides.
    """
    from sqlalchemy import event

    used_at: dict[int, float] = {}
    ping = engine.dialect.do_ping

    def do_ping(connection: Any) -> bool:
        at = used_at.get(id(connection))
        recently = at is not None and time.monotonic() - at < _TRUSTED_IDLE_S
        if recently and not connection.closed and not _has_something_to_read(connection):
            return True
        return bool(ping(connection))

    @event.listens_for(engine, "checkin")
    def _note(connection: Any, record: Any) -> None:
        if connection is not None:
            used_at[id(connection)] = time.monotonic()

    @event.listens_for(engine, "close")
    def _forget(connection: Any, record: Any) -> None:
        used_at.pop(id(connection), None)

    dialect: Any = engine.dialect
    dialect.do_ping = do_ping


def _has_something_to_read(connection: Any) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))
