"""The portable archive of `backup` as what an upgrade goes back to."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from mlflow_server.artifacts.files import open_files
from mlflow_server.backup.archived import content_of
from mlflow_server.backup.create import Creation
from mlflow_server.backup.create import Request as BackupRequest
from mlflow_server.backup.fill import Content, filled
from mlflow_server.backup.locations import Moves
from mlflow_server.backup.names import DatabaseName
from mlflow_server.backup.shelf import Shelf
from mlflow_server.backup.verify import Verification
from mlflow_server.errors import OpsError
from mlflow_server.store.snapshot import snapshot
from mlflow_server.upgrade.differing import count_different
from mlflow_server.upgrade.keeping import Kept, Record
from mlflow_server.uris import ArtifactUri, StoreUri, parse_store_uri


def keep_archive(uri: StoreUri, folder: Path) -> Kept:
    """Make a backup of a database whose lock is held, and verify it.

    Args:
        uri: Which.
        folder: Takes it.

    Raises:
        OpsError: It cannot be made, or is not as it should be.
    """
    request = BackupRequest({DatabaseName.BACKEND: uri}, label="upgrade", wants_artifacts=False)
    with _shelf_in(folder) as shelf:
        created = Creation(request, shelf.uri, os.environ, shelf, _tell_nobody).run_locked()
        kept = Kept("archive", str(folder / created.id), created.table_bytes)
        _require_sound(shelf, kept)
    return kept


def require_archive(kept: Kept) -> None:
    """Raise unless an archive is there and whole.

    Raises:
        OpsError: It is not.
    """
    with _shelf_in(Path(kept.path).parent) as shelf:
        _require_sound(shelf, kept)


def restore_archive(uri: StoreUri, kept: Kept) -> None:
    """Put an archive in the place of a store whose lock is held.

    In one step on PostgreSQL. MySQL cannot: the store has been marked as half way, and the mark is
    gone with the last step.

    Raises:
        OpsError: It failed.
    """
    with _content_of(kept) as content, _filled(uri, content, replace=True):
        pass


def count_written_archive(uri: StoreUri, record: Record) -> dict[str, int]:
    """Rows of each table that were written or removed since an upgrade.

    The archive is upgraded once more, elsewhere, and compared with what the store has now.

    Args:
        uri: The store.
        record: Of the upgrade.
    """
    with tempfile.TemporaryDirectory(prefix="mlflow-server-undo-") as folder:
        expected, now = Path(folder) / "expected.sqlite", Path(folder) / "now.sqlite"
        with _content_of(record.kept) as content, _filled(_at(expected), content, upgrade=True):
            pass
        with snapshot(uri) as shot:
            content = Content(shot.revision, shot.tables, shot.rows)
            with _filled(_at(now), content):
                pass
        with closing(sqlite3.connect(now)) as connection:
            return count_different(connection, expected, record.rows)


@contextmanager
def _shelf_in(folder: Path) -> Iterator[Shelf]:
    place = ArtifactUri.of_folder(folder)
    with closing(open_files(place, os.environ, subject="the folder for backups")) as files:
        yield Shelf(files, place)


@contextmanager
def _content_of(kept: Kept) -> Iterator[Content]:
    path = Path(kept.path)
    with _shelf_in(path.parent) as shelf:
        entry = shelf.manifest(path.name).databases[DatabaseName.BACKEND]
        yield content_of(shelf, path.name, entry)


@contextmanager
def _filled(
    uri: StoreUri, content: Content, *, replace: bool = False, upgrade: bool = False
) -> Iterator[None]:
    with filled(uri, content, Moves(()), lambda _: None, replace=replace, upgrade=upgrade):
        yield


def _at(path: Path) -> StoreUri:
    return parse_store_uri(f"sqlite:///{path}")


def _require_sound(shelf: Shelf, kept: Kept) -> None:
    verified = Verification(shelf, Path(kept.path).name, _tell_nobody).run()
    if verified.problems:
        file, problem = verified.problems[0]
        raise OpsError(f"{kept.path}: the backup is not as it should be: {file}: {problem}")


def _tell_nobody(phase: str, done: int, total: int | None) -> None:
    """Nobody watches."""
