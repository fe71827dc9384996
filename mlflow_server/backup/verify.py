"""`backup verify`: is every byte of a backup as it was written, and can it be restored?"""

import contextlib
import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

from mlflow_server.artifacts.files import Reader
from mlflow_server.artifacts.shown import shown as shown_path
from mlflow_server.backup.archived import content_of, iter_rows
from mlflow_server.backup.catalogue import Catalogue, Content
from mlflow_server.backup.fill import filled
from mlflow_server.backup.format import Manifest, PackEntry, TableEntry
from mlflow_server.backup.locations import Moves
from mlflow_server.backup.names import INDEX, MANIFEST, PACKS, SUMS
from mlflow_server.backup.scratch import scratch_failures
from mlflow_server.backup.shelf import Shelf
from mlflow_server.backup.transfer import CHUNK_BYTES, Progress
from mlflow_server.errors import BadInputError
from mlflow_server.uris import mask_uri, parse_store_uri


@dataclass
class Verified:
    """What was looked at, and what is wrong with it.

    Args:
        manifest: Of the backup; None when it is damaged.
        rows: How many rows were read.
        files: How many artifacts are in it.
        read_bytes: How much of packs was read.
        drilled: How many rows were restored and compared, in a drill.
        problems: What is damaged: file and how.
    """

    manifest: Manifest | None = None
    rows: int = 0
    files: int = 0
    read_bytes: int = 0
    drilled: int | None = None
    problems: list[tuple[str, str]] = field(default_factory=list)


class Verification:
    """Looks at a backup.

    Args:
        shelf: Where it is.
        backup_id: Its name.
        progress: Told how far it is.
    """

    def __init__(self, shelf: Shelf, backup_id: str, progress: Progress) -> None:
        self._shelf = shelf
        self._id = backup_id
        self._progress = progress
        self._total_rows = self._total_bytes = 0
        self.result = Verified()

    def run(
        self, *, is_quick: bool = False, has_artifacts: bool = True, drills: bool = False
    ) -> Verified:
        """Read all of it.

        Args:
            is_quick: Of packs only whether they are there and as long as they were.
            has_artifacts: Whether artifacts matter.
            drills: Restore the database part into a throw-away database, too.

        Raises:
            OpsError: It cannot be reached.
        """
        with scratch_failures():
            self._verify(is_quick=is_quick, has_artifacts=has_artifacts, drills=drills)
        return self.result

    def _verify(self, *, is_quick: bool, has_artifacts: bool, drills: bool) -> None:
        try:
            self._shelf.sums(self._id)
        except BadInputError as err:
            self.result.problems.append((SUMS, err.message))
            return
        try:
            manifest = self._shelf.manifest(self._id)
        except BadInputError as err:
            self.result.problems.append((MANIFEST, err.message))
            return
        self.result.manifest = manifest
        databases = manifest.databases.values()
        self._total_rows = sum(table.rows for entry in databases for table in entry.tables)
        self._total_bytes = sum(pack.size_bytes for pack in manifest.packs)
        self._verify_names(manifest)
        for database in databases:
            for table in database.tables:
                with self._noting(table.file):
                    self._verify_table(table)
        if has_artifacts and manifest.artifacts is not None:
            self._verify_artifacts(manifest, is_quick=is_quick)
        if drills and not self.result.problems:
            self._drill(manifest)

    @contextlib.contextmanager
    def _noting(self, file: str) -> Iterator[None]:
        try:
            yield
        except BadInputError as err:
            self.result.problems.append((file, err.message))

    def _verify_names(self, manifest: Manifest) -> None:
        """The files of the backup are those that it should have."""
        listed = set(self._shelf.sums(self._id))
        there = set[str]()

        def note(path: str, _reason: object = None) -> None:
            there.add(path.removeprefix(f"{self._id}/"))

        for file in self._shelf.files.walk(self._id, on_skip=note):
            note(file.path)
        wanted = {MANIFEST, *(INDEX for _ in (manifest.artifacts,) if manifest.artifacts)}
        wanted |= {
            table.file for database in manifest.databases.values() for table in database.tables
        }
        for name in sorted(wanted ^ listed):
            self.result.problems.append((SUMS, f"{SUMS} and the manifest disagree about {name}"))
        for name in sorted(there - listed - {SUMS}):
            self.result.problems.append((name, "does not belong to the backup"))

    def _verify_table(self, entry: TableEntry) -> None:
        for rows in iter_rows(self._shelf, self._id, entry):
            self.result.rows += len(rows)
            self._progress("tables", self.result.rows, self._total_rows)

    def _verify_artifacts(self, manifest: Manifest, *, is_quick: bool) -> None:
        with closing(Catalogue()) as catalogue:
            with self._noting(INDEX):
                shown = f"{self._shelf.shown}/{self._id}/{INDEX}"
                catalogue.add(self._shelf.lines(self._id, INDEX), manifest, shown)
            self.result.files = catalogue.files
            sound = []
            for pack in manifest.packs:
                with self._noting(f"{PACKS}/{pack.file}"):
                    self._verify_size(pack)
                    sound.append(pack.file)
            if is_quick:
                return
            entries = {pack.file: pack for pack in manifest.packs}
            for name, contents in catalogue.iter_packs():
                if name in sound:
                    with self._noting(f"{PACKS}/{name}"):
                        self._verify_pack(entries.pop(name), contents)
            for pack in entries.values():
                if pack.file in sound:
                    with self._noting(f"{PACKS}/{pack.file}"):
                        self._verify_pack(pack, ())

    def _verify_size(self, pack: PackEntry) -> None:
        found = self._shelf.files.find(f"{PACKS}/{pack.file}")
        shown = f"{self._shelf.shown}/{PACKS}/{pack.file}"
        if found is None:
            raise BadInputError(f"{shown}: is missing")
        if found.size_bytes != pack.size_bytes:
            raise BadInputError(
                f"{shown}: is damaged: {found.size_bytes} bytes long instead of {pack.size_bytes}"
            )

    def _verify_pack(self, pack: PackEntry, contents: Iterable[Content]) -> None:
        shown = f"{self._shelf.shown}/{PACKS}/{pack.file}"
        whole = hashlib.sha256()

        def read(reader: Reader, size: int) -> Iterator[bytes]:
            while size:
                chunk = reader.read(min(size, CHUNK_BYTES))
                if not chunk:
                    raise BadInputError(f"{shown}: is damaged: it ends too early")
                whole.update(chunk)
                size -= len(chunk)
                self.result.read_bytes += len(chunk)
                self._progress("packs", self.result.read_bytes, self._total_bytes)
                yield chunk

        at, wrong = 0, None
        with self._shelf.files.open(f"{PACKS}/{pack.file}") as reader:
            for content in contents:
                if content.offset < at:
                    raise BadInputError(f"{shown}: two contents overlap")
                for _ in read(reader, content.offset - at):
                    pass
                digest = hashlib.sha256()
                for chunk in read(reader, content.size_bytes):
                    digest.update(chunk)
                at = content.offset + content.size_bytes
                if digest.hexdigest() != content.sha256 and wrong is None:
                    wrong = shown_path(mask_uri("/".join(content.files[0])))
            for _ in read(reader, pack.size_bytes - at):
                pass
        if wrong is not None:
            raise BadInputError(f"{shown}: is damaged: the content of {wrong} is another one")
        if whole.hexdigest() != pack.sha256:
            raise BadInputError(f"{shown}: is damaged: its checksum is another one")

    def _drill(self, manifest: Manifest) -> None:
        """Restore the databases, compare, and throw them away."""
        self.result.drilled = 0
        for name, entry in manifest.databases.items():
            with tempfile.TemporaryDirectory(prefix="mlflow-server-drill-") as folder:
                uri = parse_store_uri(f"sqlite:///{folder}/{name}.db")
                content = content_of(self._shelf, self._id, entry)
                filling = filled(uri, content, Moves(()), self._tell_drilled, replace=False)
                with self._noting(f"tables/{name}"), filling:
                    pass

    def _tell_drilled(self, rows: int) -> None:
        self.result.drilled = (self.result.drilled or 0) + rows
        self._progress("drill", self.result.drilled, self._total_rows)
