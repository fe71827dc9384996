"""Stores of old releases on every kind of database, at their own revision."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from itertools import chain
from pathlib import Path

from mlflow_server.artifacts.files import open_files
from mlflow_server.backup.archived import content_of
from mlflow_server.backup.create import Creation, Request
from mlflow_server.backup.shelf import Shelf
from mlflow_server.store.load import filling
from mlflow_server.uris import ArtifactUri, parse_store_uri
from tests.conftest import DATA, Postgres
from tests.support.mariadb import MariaDb


def put_old_store(release: str, folder: Path, server: Postgres | MariaDb | None) -> str:
    """The URI of a store as a release wrote it.

    Args:
        release: Which.
        folder: For files; is there.
        server: Where it goes; None for a SQLite file.
    """
    path = folder / "store.db"
    shutil.copyfile(DATA / "old-stores" / f"mlflow-{release}.db", path)
    if server is None:
        return f"sqlite:///{path}"
    uri = server.new_database()
    _move(f"sqlite:///{path}", uri, folder / "shelf")
    return uri


def _move(source: str, target: str, shelf_folder: Path) -> None:
    """Another database with the same tables at the same revision."""
    place = ArtifactUri.of_folder(shelf_folder)
    request = Request({"backend": parse_store_uri(source)}, wants_artifacts=False)
    with closing(open_files(place, os.environ, subject="shelf")) as files:
        shelf = Shelf(files, place)
        creation = Creation(request, place, os.environ, shelf, lambda *_: None)
        created = creation.run()
        entry = shelf.manifest(created.id).databases["backend"]  # type: ignore[index]
        content = content_of(shelf, created.id, entry)
        uri = parse_store_uri(target)
        with filling(uri, content.tables, content.revision, None, replace=False) as loader:
            for table in content.tables:
                loader.load(table, chain.from_iterable(content.rows(table)))
            loader.finish(upgrade=False)
