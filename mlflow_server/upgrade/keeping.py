"""Backups that an upgrade takes before it begins, and what it notes about itself."""

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_server.artifacts.files.disk_failures import explain
from mlflow_server.errors import BadInputError, OpsError
from mlflow_server.store.revision import UPGRADES_TABLE, UPGRADING_TABLE
from mlflow_server.store.sqlite_file import sync_path
from mlflow_server.upgrade.survey import Surveyed
from mlflow_server.upgrade.watch import Watch
from mlflow_server.uris import Dialect

if TYPE_CHECKING:
    from sqlalchemy import Connection

_IDENTITIES = {
    Dialect.POSTGRESQL: "SELECT d.oid::text || '-' || to_regclass(%s)::oid::text "
    "FROM pg_database d WHERE d.datname = current_database()",
    Dialect.MYSQL: "SELECT concat(table_schema, '-', create_time) FROM information_schema.tables "
    "WHERE table_schema = database() AND table_name = %s",
}
# In the folder of a backup until its upgrade is done, or cannot be taken back.
_UNFINISHED = ".unfinished"
_COLUMNS = "id VARCHAR(40) NOT NULL PRIMARY KEY, document TEXT NOT NULL"


@dataclass(frozen=True)
class Kept:
    """A backup that was taken before an upgrade.

    Args:
        kind: `sqlite`, `pg_dump` or `archive`.
        path: Where it is.
        size_bytes: How large.
        sha256: Of the file, hexadecimal; empty for an archive, which has checksums of its own.
    """

    kind: str
    path: str
    size_bytes: int
    sha256: str = ""


@dataclass(frozen=True)
class Record:
    """What an upgrade notes in the store, so that it can be undone.

    Args:
        id: By its time.
        before: The revision before; None where there is no store, only users.
        after: The revision after; None likewise.
        kept: The backup.
        rows: Of each table, when it ended.
        seconds: That its parts took.
        auth_before: The revision of users before; None without any.
        identity: PostgreSQL: which table of which database it was noted in. A copy is another one.
    """

    id: str
    before: str | None
    after: str | None
    kept: Kept
    rows: dict[str, int]
    seconds: dict[str, float]
    auth_before: str | None = None
    identity: str = ""


class BackupFolder:
    """Where a backup goes.

    Args:
        path: The folder; is there.
        store: Whose backup it is: nobody else takes it for a leftover.

    Attributes:
        is_needed: The store cannot be what it was without the backup.
    """

    def __init__(self, path: Path, store: str) -> None:
        self.path = path
        self.is_needed = False
        self._mark = path / _UNFINISHED
        self._mark.write_text(store)

    def need(self) -> None:
        """From now on the backup stays, however this ends."""
        self.is_needed = True
        self._mark.unlink(missing_ok=True)

    def release(self) -> None:
        """The store is what it was: nobody needs the backup."""
        self.is_needed = False


@contextmanager
def folder_of(root: Path, id_: str, name: str, store: str) -> Iterator[BackupFolder]:
    """A new folder for a backup; after a failure it is removed, unless it is needed.

    What upgrades of the same store left that were killed is removed, too: its lock is held.

    Args:
        root: Where backups of upgrades are; made when missing.
        id_: Of the upgrade.
        name: What the database is.
        store: Its URI without credentials.

    Raises:
        OpsError: It cannot be made.
    """
    folder = root / f"{id_}-{name}"
    try:
        for left in root.glob(f"*/{_UNFINISHED}"):
            if left.read_text() == store:
                shutil.rmtree(left.parent)
        folder.mkdir(parents=True, exist_ok=True)
        made = BackupFolder(folder, store)
    except OSError as err:
        raise explain("the folder for backups", str(folder), err, writes=True) from None
    try:
        yield made
    except BaseException:
        if not made.is_needed:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def keep_sqlite(source: sqlite3.Connection, original: Path, folder: Path) -> Kept:
    """Copy a SQLite database, and find out whether the copy is sound.

    Args:
        source: Has it open, and keeps all others out.
        original: Its file; nobody may read the copy who may not read that.
        folder: Takes the copy.

    Raises:
        BadInputError: The database is damaged.
        OpsError: It cannot be written.
    """
    path = folder / "store.sqlite"
    try:
        path.touch(0o600)
        shutil.copymode(original, path)
        path.chmod(path.stat().st_mode | 0o600)
        with closing(sqlite3.connect(path, isolation_level=None)) as target:
            target.execute("PRAGMA synchronous = OFF")
            # To open the file and close it again would end the lock that `source` has.
            source.backup(target)
            found = target.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise BadInputError(
                "the SQLite file is damaged: the copy of it does not pass quick_check",
                hint="restore it from a backup",
            )
        sync_path(path)
        sync_path(folder)
    except OSError as err:
        raise explain("the folder for backups", str(path), err, writes=True) from None
    except sqlite3.OperationalError as err:
        raise OpsError(f"{path}: cannot be written: {err}", hint="make room there") from None
    return Kept("sqlite", str(path), path.stat().st_size, digest_of(path))


def digest_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_record(
    id_: str, found: Surveyed, kept: Kept, rows: dict[str, int], watch: Watch
) -> Record:
    """What an upgrade that is done notes."""
    status = found.plan.status
    seconds = {name: round(value, 3) for name, value in watch.seconds.items()}
    after = status.head if status.current is not None else None
    return Record(id_, status.current, after, kept, rows, seconds, found.auth_revision)


def identity_of(connection: "Connection") -> str:
    """Which table of which database upgrades are noted in; empty where nobody can tell."""
    query = _IDENTITIES.get(Dialect(connection.dialect.name))
    if query is None:
        return ""
    return str(connection.exec_driver_sql(query, (UPGRADES_TABLE,)).scalar_one())


def note(connection: "Connection", record: Record) -> None:
    """Note an upgrade in the store, in the transaction that it is."""
    import sqlalchemy

    connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS {UPGRADES_TABLE} ({_COLUMNS})")
    record = replace(record, identity=identity_of(connection))
    # On PostgreSQL a transaction in the transaction has a number of its own: the row's is the last.
    with connection.begin_nested():
        connection.execute(
            sqlalchemy.text(f"INSERT INTO {UPGRADES_TABLE} VALUES (:id, :document)"),  # noqa: S608
            {"id": record.id, "document": json.dumps(asdict(record))},
        )


def mark_half_way(connection: "Connection", record: Record) -> None:
    """Mark a store that is about to be changed in a way that cannot be taken back.

    Args:
        connection: To the store; what it has done is committed.
        record: Has the backup to go back to.
    """
    import sqlalchemy

    # A mark without a backup cannot be: it gets its name with its row.
    making = f"{UPGRADING_TABLE}_"
    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {making}")
    connection.exec_driver_sql(f"CREATE TABLE {making} (document TEXT NOT NULL)")
    connection.execute(
        sqlalchemy.text(f"INSERT INTO {making} VALUES (:document)"),  # noqa: S608
        {"document": json.dumps(asdict(record))},
    )
    connection.commit()
    connection.exec_driver_sql(f"RENAME TABLE {making} TO {UPGRADING_TABLE}")


def read_mark(connection: "Connection") -> Record:
    """What a store that is half way has to go back to."""
    query = f"SELECT document FROM {UPGRADING_TABLE}"  # noqa: S608
    return _read(connection.exec_driver_sql(query).scalar_one())


def remove_mark(connection: "Connection") -> None:
    """The store is half way no more."""
    connection.exec_driver_sql(f"DROP TABLE {UPGRADING_TABLE}")


def last_record(connection: "Connection") -> Record | None:
    """The last upgrade of a store; None when there was none."""
    import sqlalchemy

    if not sqlalchemy.inspect(connection).has_table(UPGRADES_TABLE):
        return None
    query = f"SELECT document FROM {UPGRADES_TABLE} ORDER BY id DESC LIMIT 1"  # noqa: S608
    text = connection.exec_driver_sql(query).scalar()
    if text is None:
        return None
    record = _read(text)
    # A copy of the database has the note, and rows of its own.
    return record if record.identity == identity_of(connection) else None


def _read(text: str) -> Record:
    document = json.loads(text)
    return Record(**{**document, "kept": Kept(**document["kept"])})
