"""The half of `backup create` that is about artifacts: what rows name goes into packs.

Needs neither pydantic nor SQLAlchemy, so that a process of its own begins at once; see `beside`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from mlflow_server.backup.collect import Collected, Collector
from mlflow_server.backup.compressed import compressed
from mlflow_server.backup.index import FolderEntry, read_folders
from mlflow_server.backup.names import INDEX, PACKS
from mlflow_server.backup.notes import Notes
from mlflow_server.backup.packs import Pack, PackWriter
from mlflow_server.backup.places import Places
from mlflow_server.backup.scratch import scratch_failures
from mlflow_server.backup.shelf import Shelf
from mlflow_server.backup.stage import Stage
from mlflow_server.errors import BadInputError, UnavailableError
from mlflow_server.uris import ArtifactScheme, ArtifactUri

# Half of it are digests; more takes three times as long for a tenth.
_COMPRESSION = 1

# Bytes so far, and how many it will be about, if that is known.
Counting: TypeAlias = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Base:
    """An earlier backup that artifacts may be taken from.

    Args:
        id: Which.
        root: What `mlflow-artifacts:` stood for.
        files: How many it has.
        size_bytes: Of all of them.
        packs: That they are in, with the size of each.
    """

    id: str
    root: str
    files: int
    size_bytes: int
    packs: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Task:
    """What to collect.

    Args:
        destination: Where artifacts are.
        backup_id: What they are collected for.
        folder: Where files of the backup are written; None to count only.
        bases: The first sound one is the base; none to read everything.
        looks_ahead: List artifacts once before, so that somebody who watches sees when it ends.
    """

    destination: ArtifactUri
    backup_id: str
    folder: Path | None
    bases: tuple[Base, ...]
    looks_ahead: bool


@dataclass
class Outcome:
    """What has become of it.

    Args:
        found: What there was.
        root: What `mlflow-artifacts:` stands for.
        base: What unchanged ones were taken from.
        packs: That were written.
        index_sha256: Digest of the index.
        warnings: What whoever restores has to know.
    """

    found: Collected
    root: str
    base: str | None = None
    packs: list[Pack] = field(default_factory=list)
    index_sha256: str = ""
    warnings: list[str] = field(default_factory=list)


class Artifacts:
    """Collects the artifacts of one backup.

    Args:
        task: What to do.
        shelf: Where backups are.
        environ: Where credentials of object stores are.

    Raises:
        OpsError: The place with the backups cannot be read.
    """

    def __init__(self, task: Task, shelf: Shelf, environ: Mapping[str, str]) -> None:
        self._task = task
        self._shelf = shelf
        with ExitStack() as stack:
            self._places = stack.enter_context(closing(Places(task.destination, environ)))
            self._notes = stack.enter_context(closing(Notes(self._places.root)))
            self._resources = stack.pop_all()
        self._outcome = Outcome(Collected(), self._places.root)
        self._base: Base | None = None
        with scratch_failures():
            self._remember_base()

    def close(self) -> None:
        """Forget everything."""
        self._resources.close()

    def note_location(self, location: str, *, is_container: bool) -> None:
        """Remember that a row names a location; see `Notes`."""
        self._notes.note_location(location, is_container=is_container)

    def collect(self, progress: Counting) -> Outcome:
        """Collect what lies in the locations, or count it.

        Args:
            progress: Told how far it is, often.

        Raises:
            OpsError: A destination cannot be reached, or a disk is full.
            OSError: The folder of the backup cannot be written to.
        """
        with scratch_failures():
            self._require_destination()
            total = self._base.size_bytes if self._base else None
            if self._task.folder is None or self._task.looks_ahead:
                listing = Collector(self._notes, self._places, lambda done: progress(done, total))
                found = listing.survey()
                if self._task.folder is None:
                    self._outcome.found = found
                    return self._outcome
                total = found.size_bytes
            self._store(self._task.folder, lambda done: progress(done, total))
        self._require_some()
        return self._outcome

    def _store(self, folder: Path, progress: Callable[[int], None]) -> None:
        shelf = self._shelf
        stage = Stage(shelf.files, shelf.shown, shelf.folder, self._task.backup_id, folder)
        packs = PackWriter(self._task.backup_id, folder, stage.keep_pack)
        with compressed(folder / INDEX, _COMPRESSION) as index:
            self._outcome.found = Collector(self._notes, self._places, progress).collect(
                packs, index
            )
            self._outcome.packs = packs.close()
        self._outcome.index_sha256 = index.sha256

    def _remember_base(self) -> None:
        """Take the first base that can be read for the base, as far as it is sound."""
        if not self._task.bases:
            return
        there = {file.path: file.size_bytes for file in self._shelf.packs()}
        for base in self._task.bases:
            sound = {name for name, size in base.packs if there.get(f"{PACKS}/{name}") == size}
            self._outcome.warnings += (
                f"{self._shelf.shown}/{PACKS}/{name}: is missing or damaged; the artifacts in it "
                "are read anew"
                for name, _ in base.packs
                if name not in sound
            )
            try:
                for lines in self._shelf.lines(base.id, INDEX):
                    self._notes.note_known(_sound_parts(lines, sound))
            except BadInputError as err:
                self._notes.forget_known()
                self._outcome.warnings.append(f"{err.message}; artifacts are not taken from it")
                continue
            self._base, self._outcome.base = base, base.id
            return

    def _require_destination(self) -> None:
        """An unmounted volume looks like a destination whose files are all gone."""
        root = self._places.root
        if self._task.destination.scheme is not ArtifactScheme.LOCAL or Path(root).is_dir():
            return
        if self._notes.names_any(root):
            raise UnavailableError(
                f"MLFLOW_ARTIFACTS_DESTINATION: {root} is not there, although rows name "
                "artifacts in it: perhaps a volume is not mounted",
                hint="mount it; for the database alone: --no-artifacts",
            )

    def _require_some(self) -> None:
        base = self._base
        if not self._outcome.found.files and base and base.files and base.root == self._places.root:
            raise UnavailableError(
                f"{self._task.destination.shown}: no artifact is there, although the backup "
                f"{base.id} has {base.files}: perhaps a volume is not mounted",
                hint="mount it; if they are gone for good: --full",
            )


def _sound_parts(lines: Sequence[bytes], sound: set[str]) -> Iterator[tuple[FolderEntry, bytes]]:
    """Lines of an index without the files whose pack is not sound."""
    for entry, line in zip(read_folders(lines, INDEX), lines, strict=True):
        if sound.issuperset(entry.packs):
            yield entry, line
        elif files := [file for file in entry.files if entry.packs[file[4]] in sound]:
            rest = entry._replace(files=files)
            yield rest, rest.as_line()
