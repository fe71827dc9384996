"""Run MLflow's migrations on an open connection, and find out whether all is there afterwards."""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from mlflow_server.errors import OpsError
from mlflow_server.store.revision import (
    AUTH_VERSION_TABLE,
    OWN_TABLE_PREFIX,
    VERSION_TABLE,
    SchemaState,
    auth_migration_tree,
    read_auth_revision,
    read_status,
)
from mlflow_server.store.schema import (
    make_auth_schema,
    migrate,
    read_each_model,
    rows_that_become_columns,
)
from mlflow_server.upgrade.survey import Surveyed, auth_pending
from mlflow_server.uris import Dialect

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.exc import DBAPIError

_NOT_COUNTED = {VERSION_TABLE, AUTH_VERSION_TABLE}
_PG_LOCKED = "55P03"
_MOVES_TO_COLUMNS = "75868b020152"

# Told of a revision that is done: which, how many are, and how many there are.
Stepping = Callable[[str, int, int], None]


def migrate_all(connection: "Connection", found: Surveyed, step: Stepping) -> None:
    """Bring a database to the newest revisions, one after the other.

    Args:
        connection: In a transaction.
        found: What is to be done.
        step: Told after each revision.

    Raises:
        OpsError: A revision failed; says which.
        DBAPIError: The connection is lost, or a table is locked.
    """
    from sqlalchemy.exc import DBAPIError

    status = found.plan.status
    wanted = (*status.pending, *found.auth_pending)
    done = 0

    def tell(revision: str) -> None:
        nonlocal done
        done += 1
        step(revision, done, len(wanted))

    try:
        if status.state is SchemaState.BEHIND:
            migrate(connection, on_step=tell)
        if found.auth_pending:
            make_auth_schema(connection, found.auth_pending[-1])
            done = len(wanted) - 1
            tell(wanted[-1])
    except OpsError:
        raise
    except DBAPIError as err:
        if err.connection_invalidated or is_lock_timeout(err):
            raise
        # The words of the database may have values of rows in them.
        raise OpsError(f"revision {wanted[done]} failed: {type(err.orig).__name__}") from None
    except Exception as err:
        raise OpsError(f"revision {wanted[done]} failed: {err or type(err).__name__}") from None


def is_lock_timeout(err: "DBAPIError") -> bool:
    """True when a database has waited for a table for as long as it was told to."""
    # psycopg 3 has the first, psycopg2 the second; the words depend on the server's language.
    code = getattr(err.orig, "sqlstate", None) or getattr(err.orig, "pgcode", None)
    return code == _PG_LOCKED or "lock wait timeout" in str(err.orig).lower()


def count_rows(connection: "Connection", pending: Collection[str] = ()) -> dict[str, int]:
    """The rows of each table but those that say which revision there is.

    Args:
        connection: To the database.
        pending: Rows that these revisions move into columns of other tables do not count.
    """
    import sqlalchemy

    quote = connection.dialect.identifier_preparer.quote
    moved = rows_that_become_columns() if _MOVES_TO_COLUMNS in pending else {}
    found = {}
    for name in sqlalchemy.inspect(connection).get_table_names():
        if name in _NOT_COUNTED or name.startswith((OWN_TABLE_PREFIX, "_alembic_tmp_")):
            continue
        query = sqlalchemy.select(sqlalchemy.func.count()).select_from(sqlalchemy.text(quote(name)))
        if name in moved:
            query = query.where(sqlalchemy.column("key").not_in(moved[name]))
        found[name] = int(connection.execute(query).scalar_one())
    return found


def require_all_there(
    connection: "Connection", found: Surveyed, before: Mapping[str, int], broken_before: int
) -> dict[str, int]:
    """Raise unless a migration has done what it should, and lost nothing.

    Args:
        connection: To what it was done to.
        found: What was to be done.
        before: What `count_rows` gave before it.
        broken_before: What `count_broken_references` gave before it.

    Returns:
        What `count_rows` gives now.

    Raises:
        OpsError: Something is missing.
    """
    is_store = found.plan.status.current is not None
    status = read_status(connection, trusts_mark=False)
    if is_store and status.state is not SchemaState.CURRENT:
        raise OpsError(f"the migration has ended at revision {status.current}, not {status.head}")
    auth = read_auth_revision(connection)
    if auth is not None and (auth not in auth_migration_tree() or auth_pending(auth)):
        raise OpsError(f"the migration of users has ended at revision {auth}")
    after = count_rows(connection)
    for name, rows in before.items():
        if after.get(name) != rows:
            now = after.get(name, "none")
            raise OpsError(f"table {name} had {rows} rows, and {now} after the migration")
    if (broken := count_broken_references(connection)) > broken_before:
        raise OpsError(f"{broken - broken_before} rows refer to rows that are not there any more")
    if is_store:
        read_each_model(connection)
    return after


def count_broken_references(connection: "Connection") -> int:
    """Rows whose foreign keys lead nowhere. Only SQLite has such; the others refuse them."""
    if connection.dialect.name != Dialect.SQLITE:
        return 0
    query = "SELECT count(*) FROM pragma_foreign_key_check"
    return int(connection.exec_driver_sql(query).scalar_one())
