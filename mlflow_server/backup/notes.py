"""What a backup has to remember while it works, in a temporary file: it may be much."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mlflow_server.artifacts.locations import normalised
from mlflow_server.backup.index import FileEntry, FolderEntry, read_folders
from mlflow_server.backup.names import INDEX
from mlflow_server.backup.scratch import open_scratch
from mlflow_server.uris import mask_uri

_TABLES = """
CREATE TABLE location (
    plain TEXT PRIMARY KEY, location TEXT NOT NULL, is_container INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE known (location TEXT, folder TEXT, first TEXT, line BLOB);
CREATE INDEX known_folder ON known (location, folder, first);
CREATE TABLE copied (
    location TEXT, path TEXT, stamp TEXT, PRIMARY KEY (location, path)
) WITHOUT ROWID;
CREATE TABLE content (
    size_bytes INTEGER NOT NULL, sha256 TEXT PRIMARY KEY, pack TEXT NOT NULL, start INTEGER NOT NULL
) WITHOUT ROWID;
"""


# About 20 MiB.
_CONTENTS_IN_MEMORY = 60_000


@dataclass(frozen=True)
class Root:
    """A location that lies in no other one.

    Args:
        plain: In the form that locations are compared in.
        location: As a row has it.
    """

    plain: str
    location: str

    @property
    def shown(self) -> str:
        """For messages: whoever wrote it may have put a password into it."""
        return mask_uri(self.location)


class Stored(NamedTuple):
    """A content that is in a pack.

    Args:
        size_bytes: How long it is.
        sha256: Of it.
        pack: Which pack.
        offset: From where on, bytes.
    """

    size_bytes: int
    sha256: str
    pack: str
    offset: int


class KnownFolder:
    """What the backup before has of a folder, or a part of it.

    Args:
        line: Of its index.
        entry: The same, understood.
        until: The name with which the next part begins; None for the last one.

    Attributes:
        files: How many.
        size_bytes: Of all of them.
    """

    def __init__(self, line: bytes, entry: FolderEntry, until: str | None) -> None:
        self.line = line
        self.packs = entry.packs
        self.until = until
        self._names = [file[0] for file in entry.files]
        self._stamps = [file[3] for file in entry.files]
        self._by_name: Mapping[str, FileEntry] = dict(zip(self._names, entry.files, strict=True))
        self.files = len(entry.files)
        self.size_bytes = sum(file[1] for file in entry.files)

    def is_same(self, names: Sequence[str], stamps: Sequence[str]) -> bool:
        """True when exactly these files are in it, and none was changed."""
        return self._stamps == list(stamps) and self._names == list(names)

    def find(self, name: str, stamp: str) -> Stored | None:
        """The content of a file that was not changed."""
        found = self._by_name.get(name)
        if found is None or found[3] != stamp:
            return None
        return Stored(found[1], found[2], self.packs[found[4]], found[5])


class Notes:
    """Locations that rows name, files that the backup before has, contents that are stored.

    Args:
        root: What `mlflow-artifacts:` stands for: see `artifacts.locations.root_of`.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._database = open_scratch(_TABLES)
        self._database.execute("BEGIN")
        self._covered: tuple[str, bool] = ("", False)
        # What a first backup would ask the database for in vain.
        self._knows_any = self._has_contents = False
        # Contents of the backup before are taken in when the first file is new.
        self._lacks_contents = False
        self._contents: dict[str, Stored] = {}

    def close(self) -> None:
        """Forget everything."""
        self._database.close()

    # --- Locations -------------------------------------------------------------------------------

    def note_location(self, location: str, *, is_container: bool) -> None:
        """Remember that a row names a location."""
        self._database.execute(
            "INSERT INTO location VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET is_container = is_container AND excluded.is_container",
            (normalised(location, self._root), location, is_container),
        )

    def iter_roots(self) -> Iterator[Root]:
        """Locations that lie in no other one."""
        above = None
        query = "SELECT plain, location FROM location ORDER BY plain || '/'"
        for plain, location in self._database.execute(query):
            if above is None or not plain.startswith(above):
                above = f"{plain}/"
                yield Root(plain, location)

    def names_any(self, folder: str) -> bool:
        """True when something that has files has its location in a folder.

        Args:
            folder: In the form that locations are compared in.
        """
        start = folder.rstrip("/") + "/"
        query = (
            "SELECT 1 FROM location WHERE NOT is_container "
            "AND (plain = ? OR substr(plain, 1, ?) = ?)"
        )
        found = self._database.execute(query, (folder, len(start), start)).fetchone()
        return found is not None

    def is_wanted(self, folder: str) -> bool:
        """True when a folder lies in the location of something that has files.

        Args:
            folder: In the form that locations are compared in.
        """
        if self._covered[0] != folder:
            parts = folder.split("/")
            above = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
            marks = ", ".join("?" * len(above))
            query = f"SELECT 1 FROM location WHERE plain IN ({marks}) AND NOT is_container"  # noqa: S608
            found = self._database.execute(query, above).fetchone()
            self._covered = (folder, found is not None)
        return self._covered[1]

    # --- Files -----------------------------------------------------------------------------------

    def note_known(self, entries: Iterable[tuple[FolderEntry, bytes]]) -> None:
        """Remember what the backup before has.

        Args:
            entries: Of its index, each with its line.
        """
        self._knows_any = self._lacks_contents = True
        self._database.executemany(
            "INSERT INTO known VALUES (?, ?, ?, ?)",
            (
                (entry.location, entry.folder, min(file[0] for file in entry.files), line)
                for entry, line in entries
            ),
        )

    def forget_known(self) -> None:
        """Take nothing from the backup before."""
        self._knows_any = self._lacks_contents = False
        self._database.execute("DELETE FROM known")

    def find_folder(self, location: str, folder: str, name: str) -> KnownFolder | None:
        """What the backup before has of a folder: the part that a file of this name is in."""
        if not self._knows_any:
            return None
        rows = self._database.execute(
            "SELECT line, first FROM known WHERE location = ?1 AND folder = ?2 AND first >= "
            "coalesce((SELECT max(first) FROM known WHERE location = ?1 AND folder = ?2 "
            "AND first <= ?3), '') ORDER BY first LIMIT 2",
            (location, folder, name),
        ).fetchall()
        if not rows:
            return None
        (entry,) = read_folders([rows[0][0]], INDEX)
        return KnownFolder(rows[0][0], entry, rows[1][1] if len(rows) > 1 else None)

    def note_copied(self, location: str, path: str, stamp: str) -> None:
        """Remember a file as it was when it was copied."""
        self._database.execute(
            "INSERT OR REPLACE INTO copied VALUES (?, ?, ?)", (location, path, stamp)
        )

    def is_copied(self, location: str, path: str, stamp: str) -> bool:
        """True for a file that was copied as it is now."""
        row = self._database.execute(
            "SELECT 1 FROM copied WHERE location = ? AND path = ? AND stamp = ?",
            (location, path, stamp),
        ).fetchone()
        return row is not None

    def find_content(self, sha256: str) -> Stored | None:
        """A content that is stored already."""
        if self._lacks_contents:
            self._take_in_contents()
        if (found := self._contents.get(sha256)) is not None or not self._has_contents:
            return found
        row = self._database.execute(
            "SELECT size_bytes, sha256, pack, start FROM content WHERE sha256 = ?", (sha256,)
        ).fetchone()
        return None if row is None else Stored(*row)

    def _take_in_contents(self) -> None:
        self._lacks_contents, self._has_contents = False, True
        lines = self._database.execute("SELECT line FROM known")
        for (line,) in lines:
            self._note_contents(
                Stored(file[1], file[2], entry.packs[file[4]], file[5])
                for entry in read_folders([line], INDEX)
                for file in entry.files
            )

    def note_content(self, stored: Stored) -> None:
        """Remember that a content is stored."""
        self._contents[stored.sha256] = stored
        if len(self._contents) == _CONTENTS_IN_MEMORY:
            self._has_contents = True
            self._note_contents(self._contents.values())
            self._contents.clear()

    def _note_contents(self, contents: Iterable[Stored]) -> None:
        self._database.executemany("INSERT OR IGNORE INTO content VALUES (?, ?, ?, ?)", contents)
