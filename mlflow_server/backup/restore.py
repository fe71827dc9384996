"""`restore`: an archive into an empty store and destination."""

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TypeAlias

from mlflow_server.artifacts.locations import normalised
from mlflow_server.backup.archived import content_of
from mlflow_server.backup.catalogue import Catalogue
from mlflow_server.backup.create import Creation
from mlflow_server.backup.create import Request as BackupRequest
from mlflow_server.backup.fill import Content, Filled, filled
from mlflow_server.backup.format import Manifest
from mlflow_server.backup.index import read_files
from mlflow_server.backup.locations import Moves, as_location
from mlflow_server.backup.names import INDEX, DatabaseName
from mlflow_server.backup.naming import note_all
from mlflow_server.backup.notes import Notes
from mlflow_server.backup.places import Places
from mlflow_server.backup.placing import Placing
from mlflow_server.backup.scratch import scratch_failures
from mlflow_server.backup.selection import EVERYTHING, Selection, keep_only
from mlflow_server.backup.shelf import Shelf
from mlflow_server.backup.targets import (
    Arrival,
    is_empty,
    locked,
    require_empty_stores,
    require_replaceable,
)
from mlflow_server.backup.transfer import Progress
from mlflow_server.backup.verify import Verification
from mlflow_server.errors import BadInputError, SettingsError, UsageError
from mlflow_server.store.load import require_makeable
from mlflow_server.store.snapshot import snapshot
from mlflow_server.uris import ArtifactUri, StoreUri, parse_store_uri

_SETTINGS = {
    DatabaseName.BACKEND: "MLFLOW_BACKEND_STORE_URI",
    DatabaseName.REGISTRY: "MLFLOW_REGISTRY_STORE_URI",
    DatabaseName.AUTH: "MLFLOW_AUTH_CONFIG_PATH",
}
# Says of a location and a path whether the file is restored.
Wants: TypeAlias = Callable[[str, str], bool]


@dataclass(frozen=True)
class Request:
    """What to restore.

    Args:
        backup_id: Which backup.
        databases: The targets, by what they are.
        artifact_map: What becomes of prefixes of locations, beside what the destination says.
        selection: Which part of it.
        wants_artifacts: Whether artifacts are restored.
        replaces: Whether what is in the target goes; a backup of it is made before.
    """

    backup_id: str
    databases: Mapping[str, StoreUri]
    artifact_map: tuple[tuple[str, str], ...] = ()
    selection: Selection = EVERYTHING
    wants_artifacts: bool = True
    replaces: bool = False


@dataclass
class Restored:
    """What was restored, or would be.

    Args:
        manifest: Of the backup.
        moves: From where to where locations were rewritten.
        planned: The rows of each by table: for a plan.
        databases: What was put into each.
        files: Artifacts that were written.
        size_bytes: How much they are.
        kept_back: Locations outside the destination, with how many files of theirs were left.
        failed: Files that could not be written, with the reason.
        saved_as: The backup that was made of what was in the target.
        is_resumed: A restore of the same backup had been interrupted.
    """

    manifest: Manifest
    moves: list[tuple[str, str]] = field(default_factory=list)
    planned: dict[DatabaseName, dict[str, int]] = field(default_factory=dict)
    databases: dict[str, Filled] = field(default_factory=dict)
    files: int = 0
    size_bytes: int = 0
    kept_back: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, str]] = field(default_factory=list)
    saved_as: str | None = None
    is_resumed: bool = False


class Restoration:
    """One restore.

    Args:
        request: Of what, and where to.
        destination: Where artifacts are to be.
        environ: Where credentials of object stores are.
        shelf: Where the backup is.
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

    def survey(self) -> Restored:
        """What would be restored, when nothing is in the way.

        Raises:
            OpsError: Something is.
        """
        manifest = self._manifest()
        with scratch_failures(), ExitStack() as stack:
            places = stack.enter_context(closing(Places(self._destination, self._environ)))
            result = self._begin(manifest, places)
            self._require_targets(manifest, places)
            content, wants = self._choose(manifest, places, stack)
            self._count(manifest, content, wants, result)
        return result

    def _count(
        self, manifest: Manifest, content: Mapping[str, Content], wants: Wants, result: Restored
    ) -> None:
        """What there is to be restored."""
        artifacts = manifest.artifacts if self._request.wants_artifacts else None
        if not self._request.selection:
            for name, entry in manifest.databases.items():
                result.planned[name] = {t.name: t.rows for t in entry.tables}
            if artifacts is not None:
                result.files, result.size_bytes = artifacts.files, artifacts.size_bytes
            return
        for key, part in content.items():
            result.planned[DatabaseName(key)] = {
                table.name: sum(map(len, part.rows(table))) for table in part.tables
            }
        if artifacts is not None:
            for lines in self._shelf.lines(manifest.id, INDEX):
                for file in read_files(lines, INDEX):
                    if wants(file.location, file.path):
                        result.files += 1
                        result.size_bytes += file.size_bytes

    def run(self) -> Restored:
        """Restore it.

        Raises:
            BadInputError: The archive is damaged.
            OpsError: The target is not empty, cannot be reached or cannot be written.
        """
        request = self._request
        manifest = self._manifest()
        with scratch_failures(), ExitStack() as stack:
            places = stack.enter_context(closing(Places(self._destination, self._environ)))
            # Here already: a refusal leaves nothing behind, not even a lock.
            self._require_targets(manifest, places)
            self._require_sound(manifest)
            content, wants = self._choose(manifest, places, stack)
            for uri in self._wanted(manifest).values():
                stack.enter_context(locked(uri, "restore"))
            # Once more: somebody may have come before.
            arrival, filled_before = self._require_targets(manifest, places)
            result = self._begin(manifest, places)
            if request.replaces:
                result.saved_as = self._save(manifest)
            if arrival is not None:
                result.is_resumed = arrival.is_resumed() and not request.replaces
                arrival.begin()
                self._place(manifest, places, result, wants)
                arrival.settle()
            for name, rows in filled_before.items():
                result.databases[name] = Filled(rows, {})
                del content[name]
            self._fill(content, result, arrival)
            if arrival is not None:
                arrival.end()
        return result

    def _manifest(self) -> Manifest:
        manifest = self._shelf.manifest(self._request.backup_id)
        for name, database in manifest.databases.items():
            if name != DatabaseName.BACKEND and self._request.selection:
                continue
            if (uri := self._request.databases.get(name)) is None:
                raise SettingsError(
                    [
                        f"{_SETTINGS[name]}: is not set, and the backup has a database of its own "
                        "for it"
                    ],
                    hint="set it to an empty database",
                )
            require_makeable(uri, database.revision, database.auth_revision)
        return manifest

    def _wanted(self, manifest: Manifest) -> dict[str, StoreUri]:
        """The databases that are filled; a selection is of the tracking store."""
        return {
            name: uri
            for name, uri in self._request.databases.items()
            if name in manifest.databases
            and (name == DatabaseName.BACKEND or not self._request.selection)
        }

    def _begin(self, manifest: Manifest, places: Places) -> Restored:
        """What becomes of locations: what was at the one destination is at the other one."""
        moves = list(self._request.artifact_map)
        old = manifest.artifacts.root if manifest.artifacts is not None else places.root
        if old != places.root and self._request.wants_artifacts:
            moves.append((as_location(old), as_location(places.root)))
        return Restored(manifest, moves)

    def _require_targets(
        self, manifest: Manifest, places: Places
    ) -> tuple[Arrival | None, dict[str, dict[str, int]]]:
        """Raise unless it can be restored there; else where to, and what is there already."""
        request = self._request
        arrival, filled_before = None, dict[str, dict[str, int]]()
        wanted = self._wanted(manifest)
        if manifest.artifacts is not None and request.wants_artifacts:
            files, _ = places.find(places.root)
            arrival = Arrival(files, self._destination.shown, manifest.id)
            if not request.replaces:
                filled_before = arrival.filled(wanted)
        if request.replaces:
            # Users are looked at when they are replaced.
            require_replaceable({n: u for n, u in wanted.items() if n != DatabaseName.AUTH})
        else:
            require_empty_stores({n: u for n, u in wanted.items() if n not in filled_before})
        if arrival is not None and manifest.artifacts is not None and not arrival.is_resumed():
            if not request.replaces:
                arrival.require_empty()
            arrival.require_space(manifest.artifacts.size_bytes)
        return arrival, filled_before

    def _require_sound(self, manifest: Manifest) -> None:
        found = Verification(self._shelf, manifest.id, self._progress).run(
            has_artifacts=self._request.wants_artifacts
        )
        if found.problems:
            file, problem = found.problems[0]
            more = len(found.problems) - 1
            raise BadInputError(
                f"{manifest.id}: {problem or file}" + (f" (and {more} more)" if more else ""),
                hint="nothing was changed; mlflow-server backup list shows other backups",
            )

    def _save(self, manifest: Manifest) -> str | None:
        """Make a backup of what is about to be replaced."""
        databases = {name: uri for name, uri in self._wanted(manifest).items() if not is_empty(uri)}
        if not databases:
            return None
        request = BackupRequest(
            databases, label="before-restore", wants_artifacts=self._request.wants_artifacts
        )
        creation = Creation(request, self._destination, self._environ, self._shelf, self._progress)
        return creation.run_locked().id

    def _choose(
        self, manifest: Manifest, places: Places, stack: ExitStack
    ) -> tuple[dict[str, Content], Wants]:
        """What the databases are to hold, and which artifacts are restored."""
        content: dict[str, Content] = {
            name: content_of(self._shelf, manifest.id, entry)
            for name, entry in manifest.databases.items()
        }
        if not self._request.selection:
            return content, lambda location, path: True
        if DatabaseName.BACKEND not in manifest.databases:
            raise UsageError(f"{manifest.id}: there is no tracking store in it to take a part of")
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mlflow-server-restore-"))
        scratch = parse_store_uri(f"sqlite:///{folder}/scratch.db")
        tell = self._telling(
            "selection", sum(t.rows for t in manifest.databases[DatabaseName.BACKEND].tables)
        )
        with filled(scratch, content["backend"], Moves(()), tell, replace=False):
            pass
        keep_only(scratch, self._request.selection)
        shot = stack.enter_context(snapshot(scratch))
        root = manifest.artifacts.root if manifest.artifacts is not None else places.root
        notes = stack.enter_context(closing(Notes(root)))
        note_all(notes, shot)

        def wants(location: str, path: str) -> bool:
            whole = f"{normalised(location, root)}/{path}"
            return notes.is_wanted(whole.rpartition("/")[0])

        return {
            "backend": Content(shot.revision, shot.tables, shot.rows, shot.auth_revision)
        }, wants

    def _place(self, manifest: Manifest, places: Places, result: Restored, wants: Wants) -> None:
        total = manifest.artifacts.size_bytes if manifest.artifacts is not None else None
        placing = Placing(
            self._shelf,
            places,
            Moves(result.moves),
            lambda done: self._progress("artifacts", done, total),
            is_resumed=result.is_resumed,
            wants=wants,
        )
        with closing(Catalogue()) as catalogue:
            catalogue.add(self._shelf.lines(manifest.id, INDEX), manifest, INDEX)
            placing.run(catalogue)
        result.files, result.size_bytes = placing.files, placing.size_bytes
        result.kept_back, result.failed = placing.kept_back, placing.failed

    def _fill(
        self, content: Mapping[str, Content], result: Restored, arrival: Arrival | None
    ) -> None:
        """All databases appear at the end, one right after the other."""
        total = sum(
            table.rows for entry in result.manifest.databases.values() for table in entry.tables
        )
        tell = self._telling("tables", total)
        with ExitStack() as stack:
            for name, part in content.items():
                result.databases[name] = stack.enter_context(
                    filled(
                        self._request.databases[name],
                        part,
                        Moves(result.moves),
                        tell,
                        replace=self._request.replaces,
                    )
                )
            if arrival is not None:
                arrival.note_rows({name: of.rows for name, of in result.databases.items()})

    def _telling(self, phase: str, total: int) -> Callable[[int], None]:
        done = 0

        def tell(rows: int) -> None:
            nonlocal done
            done += rows
            self._progress(phase, done, total)

        return tell
