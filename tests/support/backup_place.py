"""A store to back up, a place for its backups, and places to restore it to."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy

from mlflow_server.artifacts.files import open_files
from mlflow_server.backup.shelf import Shelf
from mlflow_server.backup.verify import Verification, Verified
from mlflow_server.uris import parse_artifacts_destination
from tests.support.gc_place import Made
from tests.support.places import Place
from tests.support.programs import DESTINATION, STORE
from tests.support.stepped import Ended, run_stepped
from tests.support.stores import open_store

BACKUPS = "TRACKING_SERVER_BACKUPS"


@dataclass(frozen=True)
class Depot:
    """Where a test works.

    Args:
        place: Folders of it alone.
        backups: Where backups are: a folder or a URI.
        extra: Further settings.
        ids: Of what is in the store, by name.
    """

    place: Place
    backups: str
    extra: Mapping[str, str] = field(default_factory=dict)
    ids: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, root: Path, made: Made) -> Depot:
        """With a copy of a store, and no backup yet."""
        place = Place.make(root)
        shutil.copy(made.uri.removeprefix("sqlite:///"), place.store)
        shutil.copytree(made.artifacts, place.project / "artifacts")
        depot = cls(place, str(root / "backups"), ids=made.ids)
        # Nothing that is somewhere else: everything of it can be read.
        depot.query("DELETE FROM model_versions WHERE storage_location LIKE 's3:%'")
        return depot

    @property
    def artifacts(self) -> Path:
        """The store's destination."""
        return self.place.project / "artifacts"

    @property
    def folder(self) -> Path:
        """The place of the backups, on a disk."""
        return Path(self.backups)

    @property
    def uri(self) -> str:
        """The store."""
        return f"sqlite:///{self.place.store}"

    @property
    def environment(self) -> dict[str, str]:
        """Settings of a command that works on the store."""
        return {
            "HOME": str(self.place.root / "home"),
            "TMPDIR": str(self.place.root / "tmp"),
            STORE: self.uri,
            DESTINATION: str(self.artifacts),
            BACKUPS: self.backups,
            "TRACKING_SERVER_SECRETS_DIR": str(self.place.root / "no-secrets"),
            **self.extra,
        }

    def run(
        self, *arguments: str, environment: Mapping[str, str] | None = None, **how: Any
    ) -> Ended:
        """Run one command; see `run_stepped`."""
        ended = run_stepped(
            *arguments,
            cwd=self.place.project,
            environment={**self.environment, **(environment or {})},
            **how,
        )
        assert "Traceback" not in ended.stderr, ended.stderr
        assert "unexpected" not in ended.stderr, ended.stderr
        return ended

    def done(self, *arguments: str, code: int = 0, **environment: str) -> Ended:
        """Run one command that has to end so."""
        ended = self.run(*arguments, environment=environment)
        assert ended.returncode == code, (ended.returncode, ended.stdout, ended.stderr)
        return ended

    def create(self, *options: str, **environment: str) -> str:
        """Make a backup; its name."""
        ended = self.done("backup", "create", "--json", *options, **environment)
        return str(ended.report["backup"])

    def target(self, name: str = "restored", uri: str = "") -> dict[str, str]:
        """Settings of an empty store and destination."""
        folder = self.place.root / name
        return {STORE: uri or f"sqlite:///{folder}/store.db", DESTINATION: str(folder / "files")}

    # --- What is there ---------------------------------------------------------------------------

    def shelf(self) -> Shelf:
        """The place of the backups, in this process."""
        uri = parse_artifacts_destination(self.backups, plugin_schemes=frozenset())
        return Shelf(open_files(uri, self.environment, subject=BACKUPS), uri)

    def names(self) -> list[str]:
        """The backups that are there and can be read."""
        return [backup.id for backup in self.shelf().backups() if backup.manifest]

    def verified(self, name: str, **how: Any) -> Verified:
        """Verify a backup in this process."""
        return Verification(self.shelf(), name, lambda *_: None).run(**how)

    def check_sound(self) -> None:
        """Every backup that is there is as it was written."""
        for name in self.names():
            assert self.verified(name).problems == []

    def leftovers(self) -> set[str]:
        """What is at a local place and belongs to no backup."""
        there = {
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if path.is_file() or path.is_symlink() or not any(path.iterdir())
        }
        wanted = {".packs/lock"}
        for name in self.names():
            wanted |= {f"{name}/{file}" for file in (*self.shelf().sums(name), "SHA256SUMS")}
            wanted |= {f".packs/{pack.file}" for pack in self.shelf().manifest(name).packs}
        return there - wanted

    def query(self, statement: str, **parameters: Any) -> list[Any]:
        """Ask the store, or change it."""
        with open_store(self.uri).begin() as connection:
            result = connection.execute(sqlalchemy.text(statement), parameters)
            return list(result.scalars()) if result.returns_rows else []


def rows_of(uri: str) -> dict[str, list[str]]:
    """All rows of all tables, sorted."""
    engine = open_store(uri)
    with engine.connect() as connection:
        tables = sqlalchemy.inspect(connection).get_table_names()
        return {
            table: sorted(
                repr(tuple(row))
                for row in connection.execute(sqlalchemy.text(f'SELECT * FROM "{table}"'))  # noqa: S608
            )
            for table in tables
        }


def files_of(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too, with a digest."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def is_sqlite_sound(path: Path) -> bool:
    """True for a database that is whole."""
    connection = sqlite3.connect(path)
    try:
        return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    finally:
        connection.close()


def as_json(document: Any) -> bytes:
    """As our own documents are written."""
    return json.dumps(document, indent=2).encode() + b"\n"
