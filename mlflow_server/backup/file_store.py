"""A folder of MLflow's file store (`./mlruns`) as a store to migrate from."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow_server.errors import BadInputError, UnavailableError
from mlflow_server.uris import ArtifactUri, StoreUri, parse_store_uri

_LINES = 3


@contextmanager
def importing(folder: Path) -> Iterator[tuple[StoreUri, ArtifactUri]]:
    """Have MLflow itself put a file store into a SQLite file, which is gone after the block.

    Args:
        folder: The file store.

    Yields:
        The file, and where its artifacts are.

    Raises:
        BadInputError: MLflow cannot read it.

    Source: MLflow 3.17.2 `mlflow migrate-filestore`; it takes SQLite only.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        raise UnavailableError(f"{folder}: there is no such folder", hint="check --file-store")
    with tempfile.TemporaryDirectory(prefix="mlflow-server-filestore-") as place:
        text = f"sqlite:///{place}/store.db"
        command = [sys.executable, "-W", "ignore", "-m", "mlflow", "migrate-filestore"]
        command += ["--source", str(folder), "--target", text, "--no-progress"]
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=False
        )
        if done.returncode:
            words = " / ".join(done.stderr.strip().splitlines()[-_LINES:])
            raise BadInputError(
                f"{folder}: MLflow cannot read it as a file store: {words[:500]}",
                hint="--file-store wants the folder that holds meta.yaml files: ./mlruns",
            )
        yield parse_store_uri(text, "--file-store"), ArtifactUri.of_folder(folder)
