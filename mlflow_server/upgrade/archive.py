"""The portable archive of `backup` as what an upgrade goes back to."""

import os
from contextlib import closing
from pathlib import Path

from mlflow_server.artifacts.files import open_files
from mlflow_server.backup.create import Creation
from mlflow_server.backup.create import Request as BackupRequest
from mlflow_server.backup.shelf import Shelf
from mlflow_server.backup.verify import Verification
from mlflow_server.errors import OpsError
from mlflow_server.upgrade.keeping import Kept
from mlflow_server.uris import ArtifactUri, StoreUri


def keep_archive(uri: StoreUri, folder: Path) -> Kept:
    """Make a backup of a database whose lock is held, and verify it.

    Args:
        uri: Which.
        folder: Takes it.

    Raises:
        OpsError: It cannot be made, or is not as it should be.
    """
    place = ArtifactUri.of_folder(folder)
    request = BackupRequest({"backend": uri}, label="upgrade", wants_artifacts=False)
    with closing(open_files(place, os.environ, subject="the folder for backups")) as files:
        shelf = Shelf(files, place)
        created = Creation(request, place, os.environ, shelf, _tell_nobody).run_locked()
        verified = Verification(shelf, created.id, _tell_nobody).run()
        if verified.problems:
            file, problem = verified.problems[0]
            raise OpsError(f"the backup is not as it should be: {file}: {problem}")
    return Kept("archive", str(folder / created.id), created.table_bytes)


def _tell_nobody(phase: str, done: int, total: int | None) -> None:
    """Nobody watches."""
