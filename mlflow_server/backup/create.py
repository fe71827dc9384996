"""`backup create`: every table in one snapshot, then the artifacts that rows name."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

from mlflow_server import __version__
from mlflow_server.artifacts.locations import root_of
from mlflow_server.backup.artifacts import Artifacts, Base, Outcome, Task
from mlflow_server.backup.beside import Beside
from mlflow_server.backup.collect import Collected
from mlflow_server.backup.compressed import compressed
from mlflow_server.backup.format import (
    ArtifactsEntry,
    ColumnEntry,
    DatabaseEntry,
    Manifest,
    PackEntry,
    TableEntry,
)
from mlflow_server.backup.names import (
    FORMAT,
    INDEX,
    MANIFEST,
    DatabaseName,
    Scope,
    make_id,
)
from mlflow_server.backup.naming import note_all, noting
from mlflow_server.backup.reading import LONGEST_LINE
from mlflow_server.backup.shelf import Backup, Shelf
from mlflow_server.backup.stage import Stage
from mlflow_server.backup.transfer import Progress
from mlflow_server.errors import BadInputError
from mlflow_server.store.lock import exclusive
from mlflow_server.store.snapshot import Snapshot, snapshot
from mlflow_server.store.tables import Checksum, Row, Table
from mlflow_server.uris import ArtifactUri, StoreUri

# One more makes half a percent less of it in half as much time again.
_COMPRESSION = 5
# So many backups are tried when what the newest one says of its artifacts is damaged.
_BASES = 5
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
        self._backups: list[Backup] = []

    def survey(self) -> Created:
        """What a backup would hold, without making one."""
        self._backups = self._shelf.backups()
        created = self._begin()
        with ExitStack() as stack:
            artifacts = None
            if self._request.wants_artifacts:
                task = self._task(created, None)
                artifacts = Artifacts(task, self._shelf, self._environ)
                stack.enter_context(closing(artifacts))
            for name, uri in self._request.databases.items():
                with snapshot(uri) as shot:
                    created.rows[name] = {table.name: shot.count(table) for table in shot.tables}
                    if artifacts is not None:
                        note_all(artifacts, shot)
            if artifacts is not None:
                self._take_over(created, artifacts.collect(self._tell_bytes))
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
        with self._collecting() as beside, self._shelf.exclusive("backup create") as turn:
            self._backups = self._shelf.backups()
            self._shelf.sweep(self._backups)
            created = self._begin()
            # Ended before the stage is: nobody adds to what is being removed.
            ended = closing(beside) if beside is not None else nullcontext()
            with self._shelf.stage(created.id) as stage, ended:
                self._write(created, stage, beside)
                turn.check()
                stage.publish()
        return created

    def _begin(self) -> Created:
        moment = datetime.now(UTC)
        taken = self._shelf.taken_names()
        while (backup_id := make_id(moment, self._request.label)) in taken:
            moment = datetime.fromtimestamp(moment.timestamp() + 1, UTC)
        return Created(backup_id, Scope.FULL)

    @contextmanager
    def _collecting(self) -> Iterator[Beside | None]:
        """The second process, which takes as long to begin as the first one to prepare its work."""
        if not self._request.wants_artifacts:
            yield None
            return
        with closing(Beside(self._environ)) as beside:
            yield beside

    def _write(self, created: Created, stage: Stage, beside: Beside | None) -> None:
        started = datetime.now(UTC)
        databases = dict[DatabaseName, DatabaseEntry]()
        packs, artifacts = list[PackEntry](), None
        if beside is not None:
            beside.start(self._task(created, stage.folder), self._shelf.uri)
        *_, last = self._request.databases
        for name, uri in self._request.databases.items():
            with snapshot(uri) as shot:
                writing = _Writing(created, name, uri, shot, stage, self._progress)
                databases[DatabaseName(name)] = writing.write(beside, is_last=name == last)
        if beside is not None:
            outcome = beside.finish(self._tell_bytes)
            packs, artifacts = self._take_over(created, outcome)
            stage.keep(INDEX, outcome.index_sha256)
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
        stage.require_packs((pack.file, pack.size_bytes) for pack in packs)
        stage.write(MANIFEST, manifest.as_json())

    # --- Artifacts -------------------------------------------------------------------------------

    def _task(self, created: Created, folder: Path | None) -> Task:
        bases = tuple(self._bases(created))
        looks_ahead = self._request.looks_ahead
        return Task(self._destination, created.id, folder, bases, looks_ahead)

    def _bases(self, created: Created) -> Iterator[Base]:
        """The newest backups with artifacts.

        First those of this destination: several stores may have their backups here.
        """
        if self._request.scope is Scope.FULL:
            return
        for backup in self._backups:
            if backup.manifest is None:
                created.warnings.append(f"{backup.problem}; artifacts are not taken from it")
        root = root_of(self._destination)
        found = sorted(self._backups, key=lambda b: (b.is_of(root), b.id), reverse=True)
        manifests = [b.manifest for b in found if b.manifest and b.manifest.artifacts]
        for manifest in manifests[:_BASES]:
            if (told := manifest.artifacts) is not None:
                packs = tuple((pack.file, pack.size_bytes) for pack in manifest.packs)
                yield Base(manifest.id, told.root, told.files, told.size_bytes, packs)

    def _take_over(
        self, created: Created, outcome: Outcome
    ) -> tuple[list[PackEntry], ArtifactsEntry]:
        """Say what has become of the artifacts."""
        created.artifacts = found = outcome.found
        created.warnings += outcome.warnings
        packs = [PackEntry.model_validate(pack._asdict()) for pack in outcome.packs]
        if outcome.base is not None:
            created.scope, created.base = Scope.INCREMENTAL, outcome.base
            before = [b.manifest for b in self._backups if b.manifest and b.id == outcome.base]
            packs += [pack for pack in before[0].packs if pack.file in found.packs]
        return packs, ArtifactsEntry(
            destination=self._destination.shown,
            root=outcome.root,
            files=found.files,
            size_bytes=found.size_bytes,
            stored_files=found.stored_files,
            stored_bytes=found.stored_bytes,
        )

    def _tell_bytes(self, done: int, total: int | None) -> None:
        self._progress("artifacts", done, total)


class _Writing:
    """The tables of one database.

    Args:
        created: Takes what was done.
        name: What the database is: `backend`, `registry` or `auth`.
        uri: Where it is.
        shot: What is in it.
        stage: Takes the files.
        progress: Told how far it is.
    """

    def __init__(
        self,
        created: Created,
        name: str,
        uri: StoreUri,
        shot: Snapshot,
        stage: Stage,
        progress: Progress,
    ) -> None:
        self._created = created
        self._name = name
        self._uri = uri
        self._shot = shot
        self._stage = stage
        self._progress = progress
        self._total = sum(map(shot.count, shot.tables))
        self._done = 0

    def write(self, beside: Beside | None, *, is_last: bool) -> DatabaseEntry:
        """Write them all.

        Args:
            beside: Takes the locations in them.
            is_last: No other database follows.
        """
        notes = {t.name: noting(beside, t) if beside else None for t in self._shot.tables}
        entries = {}
        # Those that have locations first, so that the artifacts can be begun with.
        for table in self._shot.tables:
            if (note := notes[table.name]) is not None:
                entries[table.name] = self._write_table(table, note)
        if beside is not None and is_last:
            beside.begin()
        for table in self._shot.tables:
            if table.name not in entries:
                entries[table.name] = self._write_table(table, None)
        return DatabaseEntry(
            dialect=self._uri.dialect.value,
            revision=self._shot.revision,
            auth_revision=self._shot.auth_revision,
            tables=tuple(entries[table.name] for table in self._shot.tables),
        )

    def _write_table(
        self, table: Table, note: Callable[[Iterable[Row]], None] | None
    ) -> TableEntry:
        file = f"tables/{self._name}/{quote(table.name, safe='')}.jsonl.gz"
        checksum = Checksum(table)
        with compressed(self._stage.folder / file, _COMPRESSION) as lines:
            for rows in self._shot.rows(table):
                content = b"".join(checksum.add(rows))
                if len(content) > LONGEST_LINE:  # what could not be read again is no backup
                    raise BadInputError(f"table {table.name}: its rows are too long")
                lines.write(content)
                if note is not None:
                    note(rows)
                self._done += len(rows)
                total = max(self._total, self._done)
                self._progress(f"tables of {self._name}", self._done, total)
        entry = TableEntry(
            name=table.name,
            file=file,
            sha256=lines.sha256,
            rows=checksum.rows,
            checksum=checksum.text,
            columns=tuple(
                ColumnEntry(name=column.name, kind=column.kind) for column in table.columns
            ),
            key=table.key,
            known=table.known,
        )
        self._note(entry)
        self._stage.keep(entry.file, entry.sha256)
        return entry

    def _note(self, entry: TableEntry) -> None:
        created = self._created
        created.table_bytes += (self._stage.folder / entry.file).stat().st_size
        created.rows.setdefault(self._name, {})[entry.name] = entry.rows
        if not entry.known:
            created.warnings.append(
                f"{self._uri.shown}: MLflow has no table {entry.name!r}; it is kept all the same"
            )
        if entry.rows and (key := _KEYS.get(entry.name)):
            created.warnings.append(
                f"the {entry.name} are as MLflow encrypted them: whoever restores this needs "
                f"the key of the server ({key}), which is not in it"
            )
