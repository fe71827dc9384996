"""Which workspace a collection is about, by the rules of `mlflow gc` 3.17.2."""

from collections.abc import Mapping

from mlflow_server.errors import UsageError
from mlflow_server.store.engine import connect
from mlflow_server.uris import StoreUri

_DEFAULT = "default"
_TABLES = ("workspaces", "experiments", "registered_models", "jobs")


def choose_workspace(
    uri: StoreUri, environ: Mapping[str, str], name: str | None, *, all_workspaces: bool
) -> str | None:
    """The workspace to collect in; None for the whole store.

    Args:
        uri: The store.
        environ: Says whether the server has workspaces (`MLFLOW_ENABLE_WORKSPACES`).
        name: The one that was asked for.
        all_workspaces: All of them were asked for.

    Raises:
        UsageError: There are no workspaces, or not this one.
    """
    if environ.get("MLFLOW_ENABLE_WORKSPACES", "").lower() not in ("true", "1"):
        if all_workspaces or (name and "MLFLOW_WORKSPACE" not in environ):
            raise UsageError(
                "--workspace and --all-workspaces need a server with workspaces",
                hint="set MLFLOW_ENABLE_WORKSPACES=true as the server has it",
            )
        return None
    if all_workspaces:
        return None
    name = name or _DEFAULT
    if name != _DEFAULT and not _is_known(uri, name):
        raise UsageError(
            f"there is no workspace {name!r}", hint="nothing was touched; correct --workspace"
        )
    return name


def _is_known(uri: StoreUri, name: str) -> bool:
    import sqlalchemy

    with connect(uri) as connection:
        for table in _TABLES:
            column = "name" if table == "workspaces" else "workspace"
            query = sqlalchemy.text(f"SELECT 1 FROM {table} WHERE {column} = :name")  # noqa: S608
            if connection.execute(query, {"name": name}).first():
                return True
    return False
