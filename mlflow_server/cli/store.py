"""Is there a store to work on? Asked before a command begins."""

from mlflow_server.errors import SchemaError, UnavailableError
from mlflow_server.store.engine import sqlite_path
from mlflow_server.store.revision import SchemaState, read_store_status, require_usable
from mlflow_server.uris import StoreUri


def require_store(uri: StoreUri, *, needs_head: bool) -> None:
    """Raise when there is no store of MLflow's that a command can work on.

    Args:
        uri: The store.
        needs_head: Whether it has to be at this release's revision.

    Raises:
        UnavailableError: The file is not there, or the database cannot be reached.
        SchemaError: It is empty, or its schema is none that this release can work on.
    """
    if uri.is_sqlite and not sqlite_path(uri).exists():
        raise UnavailableError(
            f"{uri.shown}: the file does not exist", hint=f"point {uri.setting} at the store"
        )
    status = read_store_status(uri)
    if status.state is SchemaState.EMPTY:
        raise SchemaError(
            f"{uri.shown}: the database is empty", hint="mlflow-server serve initialises it"
        )
    if needs_head or status.state is not SchemaState.BEHIND:
        require_usable(status, uri)
