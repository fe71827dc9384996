"""Make the schema of an empty store, through MLflow's own migrations, all or nothing."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_server.errors import OpsError
from mlflow_server.store.engine import create_engine, sqlite_path
from mlflow_server.store.hastened import hastened
from mlflow_server.store.lock import exclusive
from mlflow_server.store.revision import (
    AUTH_VERSION_TABLE,
    UNFINISHED_TABLE,
    UPGRADING_TABLE,
    SchemaState,
    auth_migrations_folder,
    read_store_status,
    require_usable,
)
from mlflow_server.store.sqlite_file import appearing, create_unsynced_engine
from mlflow_server.uris import Dialect, StoreUri

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

log = logging.getLogger(__name__)

INITIALISE_TIMEOUT_S = 60.0
# Of 250 rows each: MLflow's most (`DEFAULT_BATCH_SIZE`), and its default.
_TOLD_EVERY_BATCHES = 10
# What `mlflow-skinny` does without: none of it is needed to make a schema.
_NOT_NEEDED = ("numpy", "pandas", "pyarrow", "scipy", "sklearn")


@contextmanager
def importing_lightly() -> Iterator[None]:
    """Have MLflow imported without the libraries for data, where that happens in the block.

    They are most of the memory that the import takes, and half of the time. For commands that need
    its schema and nothing else: in a server, MLflow would lack what these libraries are for.
    """
    blocked = [name for name in _NOT_NEEDED if name not in sys.modules]
    for name in blocked:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in blocked:
            sys.modules.pop(name, None)


def initialise(uri: StoreUri, finish: Callable[[], None] = lambda: None) -> bool:
    """Fill an empty store with this release's schema.

    Any number of servers may call this at once: one does it, the others wait for it. A kill at any
    moment leaves the store empty or complete, or marked as unfinished where the database cannot
    take DDL back (MySQL, SQL Server); the next call then starts over.

    Args:
        uri: The store.
        finish: Called under the lock once the schema is there, by the one that made it.

    Returns:
        True when this call did it.

    Raises:
        SchemaError: Meanwhile the store holds something that does not fit.
        BusyError: Another process holds the lock for longer than a minute.
    """
    if uri.is_sqlite:
        sqlite_path(uri).parent.mkdir(parents=True, exist_ok=True)
    with exclusive(uri, "serve", wait_s=INITIALISE_TIMEOUT_S):
        status = read_store_status(uri)
        require_usable(status, uri)
        if status.state is not SchemaState.EMPTY:
            return False
        if uri.is_sqlite:
            _create_sqlite_file(sqlite_path(uri))
        else:
            _create_in_database(uri)
        finish()
        return True


def _create_in_database(uri: StoreUri) -> None:
    import sqlalchemy

    engine = create_engine(uri)
    try:
        if uri.dialect is Dialect.POSTGRESQL:
            with engine.begin() as connection:
                make_schema(connection)
            return
        with engine.begin() as connection:
            create = f"CREATE TABLE {UNFINISHED_TABLE} (started int)"
            if sqlalchemy.inspect(connection).has_table(UNFINISHED_TABLE):
                log.warning("an initialisation was interrupted; starting over")
                drop_unfinished(connection)
            else:
                connection.execute(sqlalchemy.text(create))
        with engine.begin() as connection:
            make_schema(connection)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text(f"DROP TABLE {UNFINISHED_TABLE}"))
    finally:
        engine.dispose()


def drop_unfinished(connection: "Connection") -> None:
    """Drop all tables but the marks that they are unfinished, which have to outlive them."""
    import sqlalchemy

    marks = (UNFINISHED_TABLE, UPGRADING_TABLE)
    tables = sqlalchemy.MetaData()
    tables.reflect(connection)
    tables.drop_all(
        connection,
        tables=[table for table in tables.sorted_tables if table.name not in marks],
    )


def make_schema(connection: "Connection", revision: str | None = None) -> None:
    """Make MLflow's schema in an empty database, in the transaction of `connection`.

    MLflow's own `_initialize_tables` commits the first tables before it migrates; killed in
    between, it leaves a store that nobody can open. Here both are one transaction.

    Args:
        connection: To an empty database.
        revision: One of `revision.migration_tree`; None for the newest.

    Source: MLflow 3.17.2 `store/db/utils.py` `_initialize_tables`.
    """
    import mlflow.store.db.utils as mlflow_db

    mlflow_db.InitialBase.metadata.create_all(connection)
    migrate(connection, revision)


@cache
def load_migrations() -> Any:
    """MLflow's migrations, as alembic's `ScriptDirectory`.

    Importing what they need takes more than a second: asked for before, nobody waits for that who
    waits for the locks of `migrate`.

    Source: MLflow 3.17.2 `store/db/utils.py` `_upgrade_db`.
    """
    import mlflow.store.db.trace_analytics_backfill_75868b020152  # noqa: F401
    import mlflow.store.db.utils as mlflow_db
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(mlflow_db._get_alembic_config(""))
    # Read when they are first gone through.
    scripts.get_heads()
    return scripts


def migrate(
    connection: "Connection",
    revision: str | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> None:
    """Run MLflow's migrations up to a revision, in the transaction of `connection`.

    Args:
        connection: To a database with MLflow's schema at an older revision.
        revision: One of `revision.migration_tree`; None for the newest.
        on_step: Called after each revision, with that.

    Source: MLflow 3.17.2 `store/db_migrations/env.py`.
    """
    import mlflow.store.db.utils as mlflow_db
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext

    scripts = load_migrations()
    environment = EnvironmentContext(
        Config(), scripts, fn=lambda at, _: scripts._upgrade_revs(revision or "heads", at)
    )
    with environment:
        environment.configure(
            connection=connection,
            target_metadata=mlflow_db.Base.metadata,
            render_as_batch=True,
            on_version_apply=lambda step, **_: on_step(str(step.up_revision_id)),
        )
        with (
            hastened(connection, rows_that_become_columns()),
            environment.begin_transaction(),
        ):
            environment.run_migrations()


def rows_that_become_columns() -> dict[str, list[str]]:
    """Keys whose rows the revision 75868b020152 moves into columns of other tables, by table.

    Source: MLflow 3.17.2 `75868b020152_add_sql_trace_analytics_schema.py`,
    `_cleanup_legacy_analytics`.
    """
    from mlflow.store.db import trace_analytics_backfill_75868b020152 as backfill

    return {
        "trace_tags": ["mlflow.traceName"],
        "trace_request_metadata": [
            "mlflow.trace.session",
            "mlflow.trace.tokenUsage",
            "mlflow.trace.cost",
        ],
        "trace_metrics": list(backfill.TOKEN_COLUMNS),
        "span_metrics": list(backfill.COST_COLUMNS),
    }


def prepopulate_traces(engine: "Engine", tell: Callable[[int], None]) -> int:
    """Fill the columns that the revision 75868b020152 brings, before it, in small commits.

    What is filled already is left alone. The columns are added first, in one transaction.

    Args:
        engine: To a database that is at the revision right before; each commit is one of its.
        tell: Told every few seconds how many traces, spans and assessments were gone through.

    Returns:
        How many there were.

    Raises:
        RuntimeError: MLflow's: another revision, a row of a trace that is not there, columns that
            cannot be added or are there already and different.

    Source: MLflow 3.17.2 `store/db/trace_analytics_prepopulation.py`; `mlflow.db` calls it so.
    """
    from mlflow.store.db.trace_analytics_prepopulation import prepopulate_trace_analytics

    done: dict[str, int] = {}

    def told(kind: str, stats: Any) -> None:
        done[kind] = stats.scanned
        tell(sum(done.values()))

    with hastened(engine, {}):
        stats = prepopulate_trace_analytics(
            engine, progress_callback=told, progress_every_batches=_TOLD_EVERY_BATCHES
        )
    return int(stats.traces.scanned + stats.spans.scanned + stats.assessments.scanned)


def add_prepared_columns(connection: "Connection") -> None:
    """Add the columns that `prepopulate_traces` fills, where they are not there yet.

    Source: MLflow 3.17.2 `store/db/trace_analytics.py`.
    """
    from mlflow.store.db.trace_analytics import ensure_analytics_columns

    ensure_analytics_columns(connection)


def read_each_model(connection: "Connection") -> None:
    """Read one row of each table as the installed MLflow reads it.

    Raises:
        OpsError: A table or a column is not as MLflow's models have it.
    """
    import mlflow.store.db.utils as mlflow_db
    import sqlalchemy
    from sqlalchemy.orm import Session

    with Session(bind=connection) as session:
        for mapper in mlflow_db.Base.registry.mappers:
            try:
                session.execute(sqlalchemy.select(mapper.class_).limit(1)).first()
            except sqlalchemy.exc.DBAPIError:
                raise OpsError(
                    f"table {mapper.local_table.name} cannot be read by this release"
                ) from None
        session.expunge_all()


def make_auth_schema(connection: "Connection", revision: str) -> None:
    """Make the tables of MLflow's basic authentication, in the transaction of `connection`.

    Without importing the application, which needs more packages than the server.

    Args:
        connection: To a database without them.
        revision: One of `revision.auth_migration_tree`.

    Source: MLflow 3.17.2 `server/auth/db/utils.py`, `server/auth/db/migrations/env.py`.
    """
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(auth_migrations_folder()))
    environment = EnvironmentContext(
        Config(), scripts, fn=lambda at, _: scripts._upgrade_revs(revision, at)
    )
    with environment:
        environment.configure(connection=connection, version_table=AUTH_VERSION_TABLE)
        with environment.begin_transaction():
            environment.run_migrations()


def _create_sqlite_file(path: Path) -> None:
    """Make the schema in a folder beside the file and move it into place in one step.

    The migrations commit step by step on SQLite, so the file under its final name is never one of
    them half way. An existing file is known to be empty; its owner and mode are kept.
    """
    with appearing(path) as new:
        engine = create_unsynced_engine(new)
        try:
            with engine.begin() as connection:
                make_schema(connection)
        finally:
            engine.dispose()
