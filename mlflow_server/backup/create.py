"""`backup create`: every table in one snapshot, then the artifacts that rows name."""

import gzip
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from mlflow_server import __version__
from mlflow_server.backup.collect import Collected, Collector, read_index
from mlflow_server.backup.format import (
    FORMAT,
    INDEX,
    MANIFEST,
    PACKS,
    ArtifactsEntry,
    ColumnEntry,
    DatabaseEntry,
    DatabaseName,
    Manifest,
    PackEntry,
    Scope,
    TableEntry,
    make_id,
)
from mlflow_server.backup.notes import Notes
from mlflow_server.backup.packs import PackWriter
from mlflow_server.backup.places import Places
from mlflow_server.backup.reading import LONGEST_LINE
from mlflow_server.backup.scratch import scratch_failures
from mlflow_server.backup.shelf import Backup, Shelf
from mlflow_server.backup.stage import Stage
from mlflow_server.backup.transfer import Progress
from mlflow_server.backup.wanted import note_all, noting
from mlflow_server.errors import BadInputError, UnavailableError
from mlflow_server.store.lock import exclusive
from mlflow_server.store.snapshot import Snapshot, snapshot
from mlflow_server.store.tables import Checksum, Row, Table
from mlflow_server.uris import ArtifactScheme, ArtifactUri, StoreUri

_COMPRESSION = 6
# Half of it are digests; more takes three times as long for a tenth.
_COMPRESSION_OF_INDEX = 3
# Tables with values that MLflow encrypts, and where a server has the key.
_KEYS = {
    "secrets": "MLFLOW_CRYPTO_KEK_PASSPHRASE",
    "webhooks": "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY",
}


@dataclass(frozen=True)
class Request:
    """What to back up.

    Args:
        databases: By what they are: `backend`, and where there are any `registry` and `auth`.
        label: What the backup is called beside its time.
        wants_artifacts: Whether artifacts are in it.
        scope: Whether what the backup before has is read again.
        looks_ahead: List artifacts once before, so that somebody who watches sees when it ends.
    """

    databases: Mapping[str, StoreUri]
    label: str | None = None
    wants_artifacts: bool = True
    scope: Scope = Scope.INCREMENTAL
    looks_ahead: bool = False


@dataclass
class Created:
    """What was done, or would be.

    Args:
        id: Of the backup.
        scope: What was stored anew: everything, when there was no backup before.
        rows: By database and table.
        table_bytes: What the compressed tables take.
        artifacts: None when they were not asked for.
        warnings: Sentences.
        base: The backup that unchanged artifacts are taken from.
    """

    id: str
    scope: Scope
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    table_bytes: int = 0
    artifacts: Collected | None = None
    warnings: list[str] = field(default_factory=list)
    base: str | None = None


class Creation:
    """One backup.

    Args:
        request: What of.
        destination: Where artifacts are.
        environ: Where credentials of object stores are.
        shelf: Where backups are.
        progress: Told how far it is.
    """

    def __init__(
        self,
        request: Request,
        destination: ArtifactUri,
        environ: Mapping[str, str],
        shelf: Shelf,
        progress: Progress,
    ) -> None:
        self._request = request
        self._destination = destination
        self._environ = environ
        self._shelf = shelf
        self._progress = progress
        self._base: Manifest | None = None
        self._total_bytes: int | None = None
        self._backups: list[Backup] = []

    def survey(self) -> Created:
        """What a backup would hold, without making one."""
        self._backups = self._shelf.backups()
        created = self._begin()
        with scratch_failures(), self._notes(created) as (notes, places):
            for name, uri in self._request.databases.items():
                with snapshot(uri) as shot:
                    created.rows[name] = {table.name: shot.count(table) for table in shot.tables}
                    note_all(notes, shot)
            if places is not None:
                self._require_destination(notes, places)
                created.artifacts = Collector(notes, places, self._tell_bytes).survey()
        return created

    def run(self) -> Created:
        """Make it.

        Raises:
            BusyError: Another operation works on the store or on the backups.
            OpsError: It could not be made; there are the same backups as before.
        """
        with ExitStack() as stack:
            for uri in self._request.databases.values():
                stack.enter_context(exclusive(uri, "backup"))
            return self.run_locked()

    def run_locked(self) -> Created:
        """Make it for who holds the locks of the stores already.

        Raises:
            OpsError: See `run`.
        """
        with self._shelf.exclusive("backup create") as turn:
            self._backups = self._shelf.backups()
            self._shelf.sweep(self._backups)
            created = self._begin()
            with self._shelf.stage(created.id) as stage, scratch_failures():
                self._write(created, stage)
                turn.check()
                stage.publish()
        return created

    def _begin(self) -> Created:
        moment = datetime.now(UTC)
        taken = self._shelf.taken_names()
        while (backup_id := make_id(moment, self._request.label)) in taken:
            moment = datetime.fromtimestamp(moment.timestamp() + 1, UTC)
        return Created(backup_id, Scope.FULL)

    def _write(self, created: Created, stage: Stage) -> None:
        started = datetime.now(UTC)
        databases, packs, artifacts = dict[DatabaseName, DatabaseEntry](), list[PackEntry](), None
        with self._notes(created) as (notes, places):
            for name, uri in self._request.databases.items():
                with snapshot(uri) as shot:
                    entry = self._write_database(created, name, uri, shot, stage, notes)
                    databases[DatabaseName(name)] = entry
            if places is not None:
                self._require_destination(notes, places)
                packs, artifacts = self._write_artifacts(created, stage, notes, places)
        manifest = Manifest(
            format=FORMAT,
            id=created.id,
            label=self._request.label,
            created_at=started,
            finished_at=datetime.now(UTC),
            release=__version__,
            mlflow_version=version("mlflow"),
            scope=created.scope,
            databases=databases,
            artifacts=artifacts,
            packs=tuple(packs),
            warnings=tuple(created.warnings),
        )
        stage.require_packs(packs)
        stage.write(MANIFEST, manifest.as_json())

    # --- Tables ----------------------------------------------------------------------------------

    def _write_database(
        self, created: Created, name: str, uri: StoreUri, shot: Snapshot, stage: Stage, notes: Notes
    ) -> DatabaseEntry:
        entries = []
        total, done = sum(map(shot.count, shot.tables)), 0

        def tell(rows: int) -> None:
            nonlocal done
            done += rows
            self._progress(f"tables of {name}", done, max(total, done))

        for table in shot.tables:
            entry = self._write_table(name, table, shot.rows(table), stage, notes, tell)
            entries.append(entry)
            created.table_bytes += (stage.folder / entry.file).stat().st_size
            stage.keep(entry.file, entry.sha256)
            created.rows.setdefault(name, {})[table.name] = entry.rows
            if not table.known:
                created.warnings.append(
                    f"{uri.shown}: MLflow has no table {table.name!r}; it is kept all the same"
                )
            if entry.rows and (key := _KEYS.get(table.name)):
                created.warnings.append(
                    f"the {table.name} are as MLflow encrypted them: whoever restores this needs "
                    f"the key of the server ({key}), which is not in it"
                )
        return DatabaseEntry(
            dialect=uri.dialect.value,
            revision=shot.revision,
            auth_revision=shot.auth_revision,
            tables=tuple(entries),
        )

    def _write_table(
        self,
        database: str,
        table: Table,
        batches: Iterable[list[Row]],
        stage: Stage,
        notes: Notes,
        tell: Callable[[int], None],
    ) -> TableEntry:
        file = f"tables/{database}/{quote(table.name, safe='')}.jsonl.gz"
        checksum = Checksum(table)
        note = noting(notes, table) if self._request.wants_artifacts else None
        with _compressed(stage.folder / file) as (lines, digest):
            for rows in batches:
                content = b"".join(checksum.add(rows))
                if len(content) > LONGEST_LINE:  # what could not be read again is no backup
                    raise BadInputError(f"table {table.name}: its rows are too long")
                lines.write(content)
                if note is not None:
                    note(rows)
                tell(len(rows))
        return TableEntry(
            name=table.name,
            file=file,
            sha256=digest(),
            rows=checksum.rows,
            checksum=checksum.text,
            columns=tuple(
                ColumnEntry(name=column.name, kind=column.kind) for column in table.columns
            ),
            key=table.key,
            known=table.known,
        )

    # --- Artifacts -------------------------------------------------------------------------------

    @contextmanager
    def _notes(self, created: Created) -> Iterator[tuple[Notes, Places | None]]:
        places = Places(self._destination, self._environ)
        notes = Notes(places.root)
        try:
            if self._request.wants_artifacts and self._request.scope is Scope.INCREMENTAL:
                self._remember_base(created, notes, places.root)
            yield notes, places if self._request.wants_artifacts else None
        finally:
            notes.close()
            places.close()

    def _remember_base(self, created: Created, notes: Notes, root: str) -> None:
        """Take the newest backup with artifacts for the base, as far as it is sound.

        One of this destination if there is any: several stores may have their backups here.
        """
        there = {file.path: file.size_bytes for file in self._shelf.packs()}
        for backup in self._backups:
            if backup.manifest is None:
                created.warnings.append(f"{backup.problem}; artifacts are not taken from it")
        for backup in sorted(self._backups, key=lambda b: (b.is_of(root), b.id), reverse=True):
            if backup.manifest is None or backup.manifest.artifacts is None:
                continue
            packs = backup.manifest.packs
            sound = {p.file for p in packs if there.get(f"{PACKS}/{p.file}") == p.size_bytes}
            for pack in packs:
                if pack.file not in sound:
                    created.warnings.append(
                        f"{self._shelf.shown}/{PACKS}/{pack.file}: is missing or damaged; the "
                        "artifacts in it are read anew"
                    )
            try:
                lines = self._shelf.lines(backup.id, INDEX)
                notes.note_known(entry for entry in read_index(lines) if entry[5] in sound)
            except BadInputError as err:
                notes.forget_known()
                created.warnings.append(f"{err.message}; artifacts are not taken from it")
                continue
            created.scope, created.base = Scope.INCREMENTAL, backup.id
            self._base = backup.manifest
            return

    def _require_destination(self, notes: Notes, places: Places) -> None:
        """An unmounted volume looks like a destination whose files are all gone."""
        if self._destination.scheme is not ArtifactScheme.LOCAL or Path(places.root).is_dir():
            return
        if notes.names_any(places.root):
            raise UnavailableError(
                f"MLFLOW_ARTIFACTS_DESTINATION: {places.root} is not there, although rows name "
                "artifacts in it: perhaps a volume is not mounted",
                hint="mount it; for the database alone: --no-artifacts",
            )

    def _write_artifacts(
        self, created: Created, stage: Stage, notes: Notes, places: Places
    ) -> tuple[list[PackEntry], ArtifactsEntry]:
        if self._request.looks_ahead:
            self._total_bytes = Collector(notes, places, lambda done: None).survey().size_bytes
        elif self._base is not None and self._base.artifacts is not None:
            self._total_bytes = self._base.artifacts.size_bytes
        writer = PackWriter(created.id, stage.folder, stage.keep_pack)
        with _compressed(stage.folder / INDEX, _COMPRESSION_OF_INDEX) as (index, digest):
            found = Collector(notes, places, self._tell_bytes).collect(writer, index)
            packs = writer.close()
        stage.keep(INDEX, digest())
        created.artifacts = found
        if self._base is not None:
            told = self._base.artifacts
            if not found.files and told and told.files and told.root == places.root:
                raise UnavailableError(
                    f"{self._destination.shown}: no artifact is there, although the backup "
                    f"{self._base.id} has {told.files}: perhaps a volume is not "
                    "mounted",
                    hint="mount it; if they are gone for good: --full",
                )
            packs += [pack for pack in self._base.packs if pack.file in found.packs]
        return packs, ArtifactsEntry(
            destination=self._destination.shown,
            root=places.root,
            files=found.files,
            size_bytes=found.size_bytes,
            stored_files=found.stored_files,
            stored_bytes=found.stored_bytes,
        )

    def _tell_bytes(self, done: int) -> None:
        self._progress("artifacts", done, self._total_bytes)


@contextmanager
def _compressed(
    path: Path, level: int = _COMPRESSION
) -> Iterator[tuple[gzip.GzipFile, Callable[[], str]]]:
    """A file to write lines to, compressed, and what tells the digest of it once it is closed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        hashing = _Hashing(file)
        with gzip.GzipFile("", "wb", level, hashing, mtime=0) as lines:
            yield lines, lambda: hashing.digest.hexdigest()


class _Hashing:
    """A file that knows the digest of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()
