"""Look at a store: what is pending, and what that would take. Only reads."""

from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_server.errors import SchemaError, UnavailableError
from mlflow_server.store.engine import connect, refuse_other_files, sqlite_path
from mlflow_server.store.revision import (
    UPGRADABLE,
    SchemaState,
    SchemaStatus,
    auth_migration_tree,
    head_revision,
    read_auth_revision,
    read_status,
    require_usable,
)
from mlflow_server.upgrade.plan import Plan, TableSize, make_plan
from mlflow_server.upgrade.revisions import known_revisions
from mlflow_server.upgrade.sessions import session_name
from mlflow_server.upgrade.sizes import read_sizes
from mlflow_server.uris import StoreUri

_PENDING = {*UPGRADABLE, SchemaState.EMPTY}


@dataclass(frozen=True)
class Surveyed:
    """A database, and what is to be done to it.

    Args:
        uri: Which.
        plan: For the schema of MLflow's stores.
        auth_revision: Of the tables of basic authentication; None without any.
        auth_pending: Revisions of these that are to come, oldest first.
    """

    uri: StoreUri
    plan: Plan
    auth_revision: str | None = None
    auth_pending: tuple[str, ...] = ()

    @property
    def is_pending(self) -> bool:
        """True when there is something to do."""
        return self.plan.status.state in _PENDING or bool(self.auth_pending)


def survey(uri: StoreUri, *, is_auth: bool = False) -> Surveyed:
    """Look at a database.

    Args:
        uri: Which; a SQLite file that has no bytes is empty, and users' may be missing.
        is_auth: It is that of the users of basic authentication.

    Raises:
        SchemaError: It is none that this release can upgrade.
        OpsError: It is not there, or cannot be reached or read.
    """
    if uri.is_sqlite:
        path = sqlite_path(uri)
        if not path.exists() and not is_auth:
            raise UnavailableError(
                f"{uri.shown}: the file does not exist", hint=f"point {uri.setting} at the store"
            )
        if not path.exists() or (path.is_file() and path.stat().st_size == 0):
            nothing = SchemaStatus(SchemaState.EMPTY, None, head_revision())
            return Surveyed(uri, Plan(nothing, (), 0.0, 0, 0))
        refuse_other_files(uri)
    with connect(uri, application_name=session_name()) as connection:
        status = read_status(connection)
        auth_revision = read_auth_revision(connection)
        if is_auth and status.state is SchemaState.FOREIGN and auth_revision is not None:
            # It has users and no store: nothing of that is pending.
            status = SchemaStatus(SchemaState.CURRENT, None, head_revision())
        require_upgradable(status, uri)
        sizes = read_sizes(connection)
        plan = make_plan(status, uri.dialect, known_revisions(), sizes, _size_bytes(uri, sizes))
        return Surveyed(uri, plan, auth_revision, auth_pending(auth_revision))


def require_upgradable(status: SchemaStatus, uri: StoreUri) -> None:
    """Let a store pass that is at any revision of this release, or half way to it.

    Raises:
        SchemaError: Anything else, with what to do.
    """
    if status.state is SchemaState.FOREIGN and status.current is None:
        raise SchemaError(
            f"{uri.shown}: has tables, and no revision of MLflow: another application's, or of an "
            "MLflow before 1.0",
            hint="give MLflow a database of its own; upgrade an old store with MLflow 1.30 first",
        )
    if status.state not in _PENDING:
        require_usable(status, uri)


def auth_pending(revision: str | None) -> tuple[str, ...]:
    """What comes after a revision of basic authentication, oldest first; None has no users."""
    tree = auth_migration_tree()
    if revision is None or revision not in tree:
        return ()
    after = {before: new for new, before in tree.items()}
    pending: list[str] = []
    at: str | None = revision
    while (at := after.get(at)) is not None:
        pending.append(at)
    return tuple(pending)


def _size_bytes(uri: StoreUri, sizes: Mapping[str, TableSize]) -> int:
    if uri.is_sqlite:
        path = sqlite_path(uri)
        beside = path.with_name(path.name + "-wal")
        return sum(file.stat().st_size for file in (path, beside) if file.exists())
    return sum(size.size_bytes for size in sizes.values())
