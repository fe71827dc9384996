"""What an upgrade would do to a store, and what that takes. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlflow_server.store.revision import SchemaState, SchemaStatus
from mlflow_server.upgrade.revisions import Revision
from mlflow_server.uris import Dialect

# For one row of a table that a revision goes through, measured with `benchmarks/upgrade.py`; twice
# what it was, as disks differ.
_SECONDS_PER_ROW = {Dialect.SQLITE: 4e-6, Dialect.POSTGRESQL: 3e-6, Dialect.MYSQL: 6e-6}
# This one reads rows and writes them, each by itself.
_SECONDS_PER_ROW_OF = {"75868b020152": 2e-4}
_SLOW_S = 1.0
# To import MLflow and to run revisions that have nothing to go through.
_START_S = 3.0


@dataclass(frozen=True)
class TableSize:
    """How large a table is, as far as the database knows without counting.

    Args:
        rows: About how many.
        size_bytes: With its indexes; 0 where nobody knows.
    """

    rows: int
    size_bytes: int = 0


@dataclass(frozen=True)
class Pending:
    """A revision that is to come.

    Args:
        revision: Which.
        tables: What it goes through in this store, with about how many rows each.
        seconds: About how long that takes.
    """

    revision: Revision
    tables: Mapping[str, int]
    seconds: float

    @property
    def is_slow(self) -> bool:
        """True when somebody waits for it."""
        return self.seconds >= _SLOW_S


@dataclass(frozen=True)
class Plan:
    """What there is to do.

    Args:
        status: Of the schema.
        pending: Revisions to come, oldest first.
        seconds: About how long the migration takes.
        size_bytes: Of the store.
        disk_bytes: About how much more it takes while it works, backup and all.
    """

    status: SchemaStatus
    pending: tuple[Pending, ...]
    seconds: float
    size_bytes: int
    disk_bytes: int


def make_plan(
    status: SchemaStatus,
    dialect: Dialect,
    known: Mapping[str, Revision],
    sizes: Mapping[str, TableSize],
    size_bytes: int,
) -> Plan:
    """Judge what is pending in a store.

    Args:
        status: Of its schema.
        dialect: What it is.
        known: All revisions.
        sizes: Of its tables.
        size_bytes: Of all of it.
    """
    pending = tuple(
        _judge(known[id_], dialect, sizes)
        for id_ in status.pending
        if status.state is SchemaState.BEHIND
    )
    if not pending:
        return Plan(status, (), 0.0, size_bytes, 0)
    seconds = _START_S + sum(each.seconds for each in pending)
    return Plan(
        status, pending, seconds, size_bytes, _disk_bytes(dialect, pending, sizes, size_bytes)
    )


def _judge(revision: Revision, dialect: Dialect, sizes: Mapping[str, TableSize]) -> Pending:
    tables = {name: sizes[name].rows for name in revision.tables.get(dialect, ()) if name in sizes}
    each_s = _SECONDS_PER_ROW_OF.get(revision.id, _SECONDS_PER_ROW[dialect])
    return Pending(revision, tables, sum(tables.values()) * each_s)


def _disk_bytes(
    dialect: Dialect, pending: Sequence[Pending], sizes: Mapping[str, TableSize], size_bytes: int
) -> int:
    if dialect is Dialect.SQLITE:
        return 3 * size_bytes  # the backup, the copy, and in that a table beside its old self
    rewritten = {name for each in pending for name in each.tables}
    return size_bytes + sum(sizes[name].size_bytes for name in rewritten)
