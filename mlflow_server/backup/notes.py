"""What a backup has to remember while it works, in a temporary file: it may be much."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mlflow_server.artifacts.locations import normalised
from mlflow_server.backup.scratch import open_scratch
from mlflow_server.uris import mask_uri

_TABLES = """
CREATE TABLE location (
    plain TEXT PRIMARY KEY, location TEXT NOT NULL, is_container INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE known (
    location TEXT, path TEXT, stamp TEXT, size_bytes INTEGER, sha256 TEXT, pack TEXT, start INTEGER,
    PRIMARY KEY (location, path)
) WITHOUT ROWID;
CREATE TABLE content (
    sha256 TEXT PRIMARY KEY, pack TEXT NOT NULL, start INTEGER NOT NULL
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


@dataclass(frozen=True)
class Stored:
    """A content that is in a pack.

    Args:
        sha256: Of it.
        pack: Which pack.
        offset: From where on, bytes.
    """

    sha256: str
    pack: str
    offset: int


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
        # What a first backup would ask the database for in vain, for every file.
        self._knows_any = self._has_contents = False
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

    def note_known(self, entries: Iterable[tuple[str, str, str, int, str, str, int]]) -> None:
        """Remember what the backup before has.

        Args:
            entries: Of each file location, path, stamp, size in bytes, digest, pack and offset.
        """
        self._knows_any = self._has_contents = True
        self._database.executemany(
            "INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?, ?, ?)", entries
        )
        self._database.execute(
            "INSERT OR IGNORE INTO content SELECT sha256, pack, start FROM known"
        )

    def note_copied(self, location: str, path: str, stamp: str) -> None:
        """Remember a file as it was when it was copied."""
        self._knows_any = True
        self._database.execute(
            "INSERT OR REPLACE INTO known VALUES (?, ?, ?, 0, '', '', 0)", (location, path, stamp)
        )

    def forget_known(self) -> None:
        """Take nothing from the backup before."""
        self._knows_any = self._has_contents = False
        self._database.execute("DELETE FROM known")
        self._database.execute("DELETE FROM content")

    def find_known(self, location: str, path: str, stamp: str) -> tuple[int, Stored] | None:
        """A file of the backup before, unless it was changed: its size in bytes and its content."""
        if not self._knows_any:
            return None
        row = self._database.execute(
            "SELECT size_bytes, sha256, pack, start FROM known "
            "WHERE location = ? AND path = ? AND stamp = ?",
            (location, path, stamp),
        ).fetchone()
        return None if row is None else (row[0], Stored(*row[1:]))

    def find_content(self, sha256: str) -> Stored | None:
        """A content that is stored already."""
        if (found := self._contents.get(sha256)) is not None or not self._has_contents:
            return found
        row = self._database.execute(
            "SELECT sha256, pack, start FROM content WHERE sha256 = ?", (sha256,)
        ).fetchone()
        return None if row is None else Stored(*row)

    def note_content(self, stored: Stored) -> None:
        """Remember that a content is stored."""
        self._contents[stored.sha256] = stored
        if len(self._contents) == _CONTENTS_IN_MEMORY:
            self._has_contents = True
            self._database.executemany(
                "INSERT OR IGNORE INTO content VALUES (?, ?, ?)",
                [(each.sha256, each.pack, each.offset) for each in self._contents.values()],
            )
            self._contents.clear()
