"""Which schema revision a store has, and which one this release needs. Only reads.

The revisions are taken from the installed MLflow's migration scripts as text: importing MLflow to
ask alembic costs more than a second.
"""

import functools
import importlib.util
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_server.errors import InternalError, SchemaError
from mlflow_server.store.engine import connect, refuse_other_files, sqlite_path
from mlflow_server.uris import StoreUri

if TYPE_CHECKING:
    from sqlalchemy import Connection

_ASSIGNMENT = re.compile(r"^(revision|down_revision)(?:\s*:[^=]+)?\s*=\s*(.+?)\s*$", re.MULTILINE)
_TABLE_NAME = re.compile(r"(?:^    __tablename__ = |create_table\(\s*)\"(\w+)\"", re.MULTILINE)
VERSION_TABLE = "alembic_version"
# Of MLflow's basic authentication, which has a database of its own or its tables in the store's.
AUTH_VERSION_TABLE = "alembic_version_auth"
OWN_TABLE_PREFIX = "tracking_server_"
# There while a database that cannot take DDL back is being initialised (schema.py).
UNFINISHED_TABLE = OWN_TABLE_PREFIX + "initialising"
# What upgrades of this very database note, to be undone.
UPGRADES_TABLE = OWN_TABLE_PREFIX + "upgrades"
# There while a database that cannot take DDL back is being upgraded; says what to go back to.
UPGRADING_TABLE = OWN_TABLE_PREFIX + "upgrading"


class SchemaState(StrEnum):
    """How a store's schema stands to this release."""

    EMPTY = "empty"
    CURRENT = "current"
    BEHIND = "behind"
    UNKNOWN = "unknown"
    FOREIGN = "foreign"
    BROKEN = "broken"
    HALF_WAY = "half way"


# Of stores that `upgrade` does something to, but for empty ones.
UPGRADABLE = frozenset({SchemaState.BEHIND, SchemaState.HALF_WAY})


@dataclass(frozen=True)
class SchemaStatus:
    """What was found in `alembic_version` and around it.

    Args:
        state: The verdict.
        current: The revision in the store, None when there is none.
        head: The revision this release needs.
        pending: Revisions between the two, oldest first.
    """

    state: SchemaState
    current: str | None
    head: str
    pending: tuple[str, ...] = ()


def _mlflow_folder() -> Path:
    spec = importlib.util.find_spec("mlflow")
    if spec is None or spec.origin is None:
        raise InternalError("MLflow is not installed", hint="pip install mlflow==3.17.2")
    return Path(spec.origin).parent


@functools.cache
def mlflow_tables() -> frozenset[str]:
    """The names of all tables that MLflow's schema has at any revision that is known here.

    Raises:
        InternalError: MLflow is not installed, or its models look different.
    """
    store = _mlflow_folder() / "store"
    places = ("db/*.py", "db_migrations/versions/*.py", "*/dbmodels/*.py")
    files = [path for place in places for path in store.glob(place)]
    names = {name for path in files for name in _TABLE_NAME.findall(path.read_text("utf-8"))}
    if not {"experiments", "runs", "metrics"} <= names:
        raise InternalError("the models of the installed MLflow cannot be read")
    return frozenset(names)


@functools.cache
def auth_tables() -> frozenset[str]:
    """The names of the tables of MLflow's basic authentication at any revision known here."""
    files = auth_migrations_folder().glob("versions/*.py")
    return frozenset(
        name for path in files for name in _TABLE_NAME.findall(path.read_text("utf-8"))
    )


def auth_tables_in(names: Collection[str]) -> frozenset[str]:
    """Which tables of a database are those of MLflow's basic authentication.

    None, when some only have names like them: others call a table `users`, too. Before 3.6, MLflow
    did not note a revision.
    """
    there = set(names)
    if AUTH_VERSION_TABLE in there or {"users", "experiment_permissions"} <= there:
        return (auth_tables() | {AUTH_VERSION_TABLE}) & there
    return frozenset()


def auth_migrations_folder() -> Path:
    """Where the migrations of MLflow's basic authentication are."""
    return _mlflow_folder() / "server/auth/db/migrations"


@functools.cache
def migration_tree() -> Mapping[str, str | None]:
    """Each revision of the installed MLflow with the revision before it (None for the first).

    Raises:
        InternalError: MLflow is not installed, or its migrations look different.
    """
    return _read_tree(_mlflow_folder() / "store/db_migrations")


@functools.cache
def auth_migration_tree() -> Mapping[str, str | None]:
    """The same of its basic authentication."""
    return _read_tree(auth_migrations_folder())


def _read_tree(folder: Path) -> dict[str, str | None]:
    tree: dict[str, str | None] = {}
    for path in folder.glob("versions/*.py"):
        found = dict(_ASSIGNMENT.findall(path.read_text("utf-8")))
        if "revision" not in found:
            continue
        before = found.get("down_revision", "None")
        tree[found["revision"].strip("\"'")] = None if before == "None" else before.strip("\"'")
    if not tree:
        raise InternalError("the migrations of the installed MLflow cannot be read")
    return tree


@functools.cache
def head_revision() -> str:
    """The revision that the installed MLflow needs.

    Raises:
        InternalError: The migrations do not end in exactly one revision.
    """
    tree = migration_tree()
    heads = set(tree) - {before for before in tree.values() if before}
    if len(heads) != 1:
        raise InternalError(f"MLflow's migrations end in {len(heads)} revisions instead of one")
    return heads.pop()


def pending_after(revision: str | None) -> tuple[str, ...] | None:
    """The revisions from `revision` up to head, oldest first; None when it is not known."""
    tree = migration_tree()
    if revision is not None and revision not in tree:
        return None
    pending: list[str] = []
    at: str | None = head_revision()
    while at is not None and at != revision:
        pending.append(at)
        at = tree[at]
    return tuple(reversed(pending))


def read_status(connection: "Connection", *, trusts_mark: bool = True) -> SchemaStatus:
    """Judge the schema behind a connection. Only reads.

    Args:
        connection: To the database.
        trusts_mark: A store that is marked as half way is just that; else what is there counts.
    """
    import sqlalchemy

    inspector = sqlalchemy.inspect(connection)
    names = [*inspector.get_table_names(), *inspector.get_view_names()]
    if trusts_mark and UPGRADING_TABLE in names:
        return SchemaStatus(SchemaState.HALF_WAY, None, head_revision())
    if UNFINISHED_TABLE in names:
        return SchemaStatus(SchemaState.EMPTY, None, head_revision())
    tables = {name for name in names if not name.startswith(OWN_TABLE_PREFIX)}
    revisions = []
    if "alembic_version" in tables:
        columns = {column["name"] for column in inspector.get_columns("alembic_version")}
        revisions = read_revisions(connection) if "version_num" in columns else []
    return judge(tables, revisions)


def read_revisions(connection: "Connection") -> list[str]:
    """What `alembic_version` says: one revision in a sound store."""
    import sqlalchemy

    query = sqlalchemy.text("SELECT version_num FROM alembic_version")
    return [str(row[0]) for row in connection.execute(query)]


def read_auth_revision(connection: "Connection") -> str | None:
    """The revision of the tables of basic authentication; None when there are none.

    Where none is noted, they are those of the first one.
    """
    import sqlalchemy

    names = auth_tables_in(sqlalchemy.inspect(connection).get_table_names())
    if AUTH_VERSION_TABLE in names:
        query = sqlalchemy.text(f"SELECT version_num FROM {AUTH_VERSION_TABLE}")  # noqa: S608
        found = sorted(str(row[0]) for row in connection.execute(query))
        return ", ".join(found) or None
    if not names:
        return None
    return next(new for new, before in auth_migration_tree().items() if before is None)


def judge(tables: Collection[str], revisions: Sequence[str]) -> SchemaStatus:
    """The verdict on a store with these tables and these rows in `alembic_version`. Pure."""
    head = head_revision()
    current = ", ".join(sorted(revisions)) or None
    content = set(tables) - {"alembic_version"}
    if len(revisions) > 1 or (revisions and not content):
        return SchemaStatus(SchemaState.BROKEN, current, head)
    if not content:
        return SchemaStatus(SchemaState.EMPTY, None, head)
    if not revisions or not {"experiments", "runs"} <= content:
        return SchemaStatus(SchemaState.FOREIGN, current, head)
    pending = pending_after(revisions[0])
    if pending is None:
        return SchemaStatus(SchemaState.UNKNOWN, current, head)
    state = SchemaState.BEHIND if pending else SchemaState.CURRENT
    return SchemaStatus(state, current, head, pending)


def read_store_status(uri: StoreUri) -> SchemaStatus:
    """Judge a store's schema; a SQLite file that is missing or has no bytes is empty.

    Raises:
        OpsError: The store cannot be reached or read; see `engine.explain_failure`.
    """
    if uri.is_sqlite:
        path = sqlite_path(uri)
        if not path.exists() or (path.is_file() and path.stat().st_size == 0):
            return SchemaStatus(SchemaState.EMPTY, None, head_revision())
        refuse_other_files(uri)
    with connect(uri) as connection:
        return read_status(connection)


def require_usable(status: SchemaStatus, uri: StoreUri) -> None:
    """Let a store pass that is at head or empty.

    Raises:
        SchemaError: Anything else, with what to do.
    """
    match status.state:
        case SchemaState.CURRENT | SchemaState.EMPTY:
            return
        case SchemaState.BEHIND:
            raise SchemaError(
                f"{uri.shown}: the schema is at revision {status.current}, "
                f"{len(status.pending)} behind {status.head}, which this release needs",
                hint="take a backup, then: mlflow-server upgrade",
            )
        case SchemaState.HALF_WAY:
            raise SchemaError(
                f"{uri.shown}: an upgrade was interrupted half way",
                hint="mlflow-server upgrade goes back to its backup and begins again",
            )
        case SchemaState.UNKNOWN:
            raise SchemaError(
                f"{uri.shown}: the schema revision {status.current} is not known to this release; "
                "a newer MLflow wrote it",
                hint="use the release that wrote it, or a newer one",
            )
        case SchemaState.BROKEN:
            raise SchemaError(
                f"{uri.shown}: alembic_version says {status.current!r}, which fits no MLflow store",
                hint="restore the database from a backup",
            )
        case SchemaState.FOREIGN:
            raise SchemaError(
                f"{uri.shown}: the database holds tables of another application",
                hint="give MLflow an empty database of its own",
            )
