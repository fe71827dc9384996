"""Make the schema of a store at a revision and fill it in bulk, all or nothing."""

import errno
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import mlflow_server.store.schema as schema
from mlflow_server.errors import (
    InternalError,
    PermissionDeniedError,
    SchemaError,
    SettingsError,
    UnavailableError,
)
from mlflow_server.store.bulk import BulkWriter, not_kept
from mlflow_server.store.empty import empty_schema
from mlflow_server.store.engine import explained
from mlflow_server.store.reflection import read_rows, reflect
from mlflow_server.store.revision import auth_migration_tree, migration_tree, read_revisions
from mlflow_server.store.tables import Checksum, Kind, Row, Table, require_columns
from mlflow_server.uris import Dialect, StoreUri

if TYPE_CHECKING:
    import sqlalchemy
    from sqlalchemy import Connection

# The only revision that `mlflow db prepopulate-trace-analytics` works at (upgrade/prepare.py).
_PREPARED = "b7e2c1a4d9f3"


class Loader:
    """Fills the tables of one store.

    Args:
        uri: The store, for messages.
        connection: To a database with the schema and no rows.
        brought: The tables that will be loaded.

    Attributes:
        tables: What the database has, parents before children.
        brought: The tables to load, in the order in which to load them: parents first.
        adapted: For each table, how many rows the database cannot keep exactly; see
            `bulk.not_kept`.
    """

    def __init__(self, uri: StoreUri, connection: "Connection", brought: Sequence[Table]) -> None:
        self._uri = uri
        self._connection = connection
        self._is_one_transaction = uri.dialect is Dialect.POSTGRESQL
        self._is_finished = False
        self._stored = reflect(connection)
        self._add_prepared_columns(brought)
        self._make_unknown(brought)
        self.tables: tuple[Table, ...] = tuple(s.table for s in self._stored.values())
        order = {table.name: place for place, table in enumerate(self.tables)}
        self.brought: tuple[Table, ...] = tuple(
            sorted(brought, key=lambda table: order[table.name])
        )
        for table in brought:
            require_columns(table, self._stored[table.name].kinds, uri.shown)
        self._corrections: dict[str, Checksum] = {}
        self.adapted: Counter[str] = Counter()

    def load(self, table: Table, rows: Iterable[Row]) -> int:
        """Write all rows of a table; `brought` is the order.

        Args:
            table: One of those brought; what its columns are is what the rows have.
            rows: Any number; a bounded part of them is in memory at a time.

        Returns:
            How many there were.

        Raises:
            BadInputError: The database does not take a row.
            OpsError: The database failed.
        """
        stored = self._stored[table.name]
        altered = not_kept(self._connection, stored, table)
        writer = BulkWriter(self._uri, self._connection, stored, table)
        iterator = iter(rows)
        count = 0
        while batch := list(islice(iterator, stored.batch_rows)):
            if not self._connection.in_transaction():
                self._connection.begin()
            writer.write(batch)
            count += len(batch)
            if altered is not None:
                pairs = [(row, new) for row in batch if (new := altered(row)) is not None]
                if pairs:
                    correction = self._corrections.setdefault(table.name, Checksum(table))
                    correction.replace([old for old, _ in pairs], [new for _, new in pairs])
                    self.adapted[table.name] += len(pairs)
        self._commit_step()
        return count

    def checksum(self, table: Table) -> Checksum:
        """Read a table again, as far as `table` has columns; before `finish`."""
        found = Checksum(table)
        with explained(self._uri):
            for batch in read_rows(self._connection, self._stored[table.name], table):
                found.add(batch)
        return found

    def verify(self, table: Table, given: Checksum) -> None:
        """Read a table again and compare it with what was given; before `finish`.

        Args:
            table: One that was loaded.
            given: Of the rows that `load` was given.

        Raises:
            InternalError: It differs; leaving the block with it leaves the target as it was.
        """
        expected = Checksum(table)
        expected.merge(given)
        if table.name in self._corrections:
            expected.merge(self._corrections[table.name])
        found = self.checksum(table)
        if found != expected:
            raise InternalError(
                f"{self._uri.shown}: table {table.name} reads back different from what was "
                f"written: {found.rows} rows instead of {expected.rows}"
                if found.rows != expected.rows
                else f"{self._uri.shown}: table {table.name} reads back different from what was "
                f"written: its {found.rows} rows have another checksum"
            )

    def finish(self, *, upgrade: bool = False) -> None:
        """Make the store ready for servers: number generators, statistics.

        Args:
            upgrade: Run MLflow's migrations up to the newest revision.
        """
        if self._is_finished:
            return
        with explained(self._uri):
            self._set_sequences()
            if upgrade:
                if not self._connection.in_transaction():
                    self._connection.begin()
                schema.migrate(self._connection)
                self._commit_step()
                self._stored = reflect(self._connection)
                self._set_sequences()
            if self._is_one_transaction:
                # Else the first queries are planned for empty tables. Others count by themselves.
                self._connection.exec_driver_sql("ANALYZE")
        self._is_finished = True

    def _commit_step(self) -> None:
        if not self._is_one_transaction:
            with explained(self._uri):
                self._connection.commit()

    def _add_prepared_columns(self, brought: Sequence[Table]) -> None:
        """Have the columns that `mlflow db prepopulate-trace-analytics` adds before a revision."""
        for table in brought:
            if table.name != "trace_info" or "trace_info" not in self._stored:
                continue
            kinds = self._stored["trace_info"].kinds
            is_added = "trace_name" in {column.name for column in table.columns} - kinds.keys()
            if is_added and read_revisions(self._connection) == [_PREPARED]:
                schema.add_prepared_columns(self._connection)
                self._commit_step()
                self._stored = reflect(self._connection)

    def _make_unknown(self, brought: Sequence[Table]) -> None:
        """Make the tables that MLflow does not have."""
        import sqlalchemy

        metadata = sqlalchemy.MetaData()
        for table in brought:
            if table.name in self._stored:
                continue
            if table.known:
                raise SchemaError(
                    f"{self._uri.shown}: MLflow's schema has no table {table.name} "
                    "at the revision of this data",
                    hint="the data are of a store whose upgrade was interrupted",
                )
            columns = [
                sqlalchemy.Column(
                    column.name,
                    _portable_type(column.kind, is_key=column.name in table.key),
                    primary_key=column.name in table.key,
                )
                for column in table.columns
            ]
            sqlalchemy.Table(table.name, metadata, *columns)
        if metadata.tables:
            metadata.create_all(self._connection)
            self._commit_step()
            self._stored = reflect(self._connection)

    def _set_sequences(self) -> None:
        """Have PostgreSQL's sequences go on after the largest number; others look themselves."""
        import sqlalchemy

        if self._uri.dialect is not Dialect.POSTGRESQL:
            return
        quote = self._connection.dialect.identifier_preparer.quote
        for stored in self._stored.values():
            for column in stored.reflected.columns:
                default = getattr(column.server_default, "arg", None)
                if column.identity is None and "nextval(" not in str(default):
                    continue
                name, table = quote(column.name), quote(stored.table.name)
                query = (
                    f"SELECT setval(pg_get_serial_sequence(:table, :column), "  # noqa: S608
                    f"GREATEST(max({name}), 1), max({name}) >= 1) FROM {table} "
                    f"HAVING max({name}) IS NOT NULL"
                )
                self._connection.execute(
                    sqlalchemy.text(query), {"table": table, "column": column.name}
                )


@contextmanager
def filling(
    uri: StoreUri,
    tables: Sequence[Table],
    revision: str | None = None,
    auth_revision: str | None = None,
    *,
    replace: bool = False,
) -> Iterator[Loader]:
    """Fill an empty database; at the end of the block the store is there, in one step.

    After an exception or a kill the target is as it was, and the same call starts over: PostgreSQL
    does all in one transaction, a SQLite file is made beside its final name. MySQL cannot take DDL
    back: what is left is marked as unfinished and counts as empty, and with `replace` the old store
    is gone once it began. The caller holds the store's exclusive lock.

    Args:
        uri: The target. A missing SQLite file is made, its folder too.
        tables: What will be loaded: columns are compared before anything is written, and tables
            that MLflow does not have are made.
        revision: Of MLflow's schema; None for the newest.
        auth_revision: Of the tables of its basic authentication; None without them. With this one
            and no `revision` there is no other schema.
        replace: Drop the store that is there: its tables, ours, and those that are brought.

    Raises:
        OpsError: The target is not empty; or it cannot be reached or written.
        SchemaError: It holds tables of another application, or the revision is not known.
        BadInputError: A column of `tables` is not there at this revision.
        SettingsError: The dialect is SQL Server's.
    """
    require_makeable(uri, revision, auth_revision)
    with ExitStack() as stack:
        with _failures(uri):
            names = [table.name for table in tables]
            empty = empty_schema(uri, names, revision, auth_revision, replace=replace)
            loader = Loader(uri, stack.enter_context(empty), tables)
        yield loader
        with _failures(uri):
            loader.finish()
            stack.pop_all().close()


def require_makeable(uri: StoreUri, revision: str | None, auth_revision: str | None) -> None:
    """Raise for a schema that cannot be made in a database.

    Args:
        uri: The target.
        revision: Of MLflow's schema.
        auth_revision: Of the tables of its basic authentication.

    Raises:
        SchemaError: A revision is not known.
        SettingsError: This kind of database cannot have it.
    """
    if uri.dialect is Dialect.MSSQL:
        raise SettingsError(
            [f"{uri.setting}: {uri.shown}: stores on SQL Server cannot be filled by this program"],
            hint="use the database's own restore",
        )
    if uri.dialect is Dialect.MYSQL and auth_revision is not None:
        # MLflow 3.17.2 has two foreign keys of one name, error 121 of InnoDB.
        raise SettingsError(
            [f"{uri.setting}: {uri.shown}: MLflow cannot keep users on MySQL or MariaDB"],
            hint="name a SQLite or PostgreSQL database for them",
        )
    for wanted, known in ((revision, migration_tree), (auth_revision, auth_migration_tree)):
        if wanted is not None and wanted not in known():
            raise SchemaError(
                f"the schema revision {wanted} is not known to this release; "
                "a newer MLflow wrote it",
                hint="use the release that wrote it, or a newer one",
            )


@contextmanager
def _failures(uri: StoreUri) -> Iterator[None]:
    """What the database or the file system raises within, as an `OpsError`."""
    try:
        with explained(uri):
            yield
    except OSError as err:
        kind = (
            PermissionDeniedError
            if err.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
            else UnavailableError
        )
        raise kind(f"{uri.shown}: the SQLite file cannot be made: {err.strerror}") from None


def _portable_type(kind: Kind, *, is_key: bool) -> "sqlalchemy.types.TypeEngine[Any]":
    """The type of a column of a table that MLflow does not have."""
    from sqlalchemy import types
    from sqlalchemy.dialects import mysql

    text = types.String(255) if is_key else mysql.LONGTEXT()
    content = types.VARBINARY(255) if is_key else mysql.LONGBLOB()
    portable: dict[Kind, types.TypeEngine[Any]] = {
        Kind.INTEGER: types.BigInteger().with_variant(types.Integer(), "sqlite"),
        Kind.FLOAT: types.Double(),
        Kind.TEXT: types.Text().with_variant(text, "mysql", "mariadb"),
        Kind.BOOLEAN: types.Boolean(),
        Kind.BYTES: types.LargeBinary().with_variant(content, "mysql", "mariadb"),
        Kind.JSON: types.JSON(),
        Kind.DATE: types.Date(),
        Kind.TIME: types.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb"),
    }
    return portable[kind]
