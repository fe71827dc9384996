"""Stores whose rows say where artifacts are without the server: the same store, written anew."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.support.everything_place import Copy, Everything
from tests.support.places import Place
from tests.support.s3 import S3Server

# MLflow's client cannot upload them by these names; a program that writes files can.
AWKWARD: Mapping[str, bytes] = {
    "percent/%41.txt": b"not A",
    "a+b #1?.txt": b"signs",
    "per cent%20/x&y=z.txt": b"more signs",
    "-dash/.hidden/~tilde": b"",
    "größe/nfd-u\u0308.txt": b"decomposed",
}
# Lies at the destination, but no row names it.
STRAY = "1/of nobody.txt"
PROXIED = "mlflow-artifacts:/"
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)


@dataclass(frozen=True)
class Direct:
    """Such a store.

    Args:
        place: Where it is, and where commands run.
        artifacts: The destination.
    """

    place: Place
    artifacts: Path

    @property
    def copy(self) -> Copy:
        """As the source of a move."""
        return Copy(f"sqlite:///{self.place.store}", str(self.artifacts))


def make_direct(everything: Everything, folder: Path) -> Direct:
    """A copy that has its own folder in its rows, and awkward names in it."""
    made = Direct(Place.make(folder / "direct"), folder / "direct artifacts")
    shutil.copy(everything.place.store, made.place.store)
    shutil.copytree(everything.artifacts, made.artifacts)
    with closing(sqlite3.connect(made.place.store)) as connection:
        for table, column in COLUMNS:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608
                f"WHERE {column} LIKE '{PROXIED}%'",
                (f"{made.artifacts}/", len(PROXIED) + 1),
            )
        run = connection.execute("SELECT artifact_uri FROM runs WHERE name = 'parent'").fetchone()
        traces = connection.execute("SELECT request_id FROM trace_info").fetchall()
        connection.commit()
    for folder_of_trace in made.artifacts.glob("*/traces/*"):
        if (folder_of_trace.name,) not in traces:  # MLflow leaves those of deleted ones
            shutil.rmtree(folder_of_trace)
    (made.artifacts / STRAY).write_text("no row names it")
    for name, content in AWKWARD.items():
        path = Path(run[0]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return made


def locations(path: Path) -> list[str]:
    """Every location in a SQLite file's rows."""
    with closing(sqlite3.connect(path)) as connection:
        return sorted(
            value
            for table, column in COLUMNS
            for (value,) in connection.execute(f"SELECT {column} FROM {table}")  # noqa: S608
            if value and "/" in value and not value.startswith(("runs:", "models:"))
        )


def files_of(folder: Path) -> dict[str, str]:
    """The digest of each file below a folder that is somebody's."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path != folder / STRAY
    }


def objects_of(server: S3Server, bucket: str, prefix: str) -> dict[str, str]:
    """The digest of each object below a prefix."""
    found = {}
    with server.administer() as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            for entry in page.get("Contents", ()):
                body = client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
                digest = hashlib.sha256(body).hexdigest()
                found[entry["Key"].removeprefix(prefix)] = digest
    return found
