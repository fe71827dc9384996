"""The files of a backup in the order of its packs, in a temporary database: they may be many."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby

from mlflow_server.backup.format import Manifest
from mlflow_server.backup.index import read_files
from mlflow_server.backup.names import is_inside
from mlflow_server.backup.scratch import open_scratch
from mlflow_server.errors import BadInputError


@dataclass(frozen=True)
class Content:
    """A content in a pack, with all files that have it.

    Args:
        offset: Where it begins, bytes.
        size_bytes: How long it is.
        sha256: Of it, hexadecimal.
        files: Location and path of each file.
    """

    offset: int
    size_bytes: int
    sha256: str
    files: tuple[tuple[str, str], ...]


class Catalogue:
    """Where each content is and which files have it."""

    def __init__(self) -> None:
        self._database = open_scratch(
            "CREATE TABLE file (pack, start, size_bytes, sha256, location, path)"
        )
        self.files = 0
        self.size_bytes = 0

    def close(self) -> None:
        """Forget everything."""
        self._database.close()

    def add(self, index: Iterable[Sequence[bytes]], manifest: Manifest, shown: str) -> None:
        """Take in an index.

        Args:
            index: Its lines, some at a time.
            manifest: Of the same backup.
            shown: The index, for messages.

        Raises:
            BadInputError: It is damaged, or fits the manifest not, or leads somewhere else.
        """
        packs = {pack.file: pack.size_bytes for pack in manifest.packs}
        told = manifest.artifacts
        different = BadInputError(f"{shown}: has other files than the manifest says")

        def rows() -> Iterator[tuple[str, int, int, str, str, str]]:
            for entry in chain.from_iterable(read_files(lines, shown) for lines in index):
                if told is None or self.files == told.files:
                    raise different
                if not is_inside(entry.path):
                    raise BadInputError(f"{shown}: the path {entry.path[:200]!r} leads elsewhere")
                if entry.offset + entry.size_bytes > packs.get(entry.pack, -1):
                    raise BadInputError(f"{shown}: {entry.path[:200]!r} is in no pack")
                self.files += 1
                self.size_bytes += entry.size_bytes
                yield (
                    entry.pack,
                    entry.offset,
                    entry.size_bytes,
                    entry.sha256,
                    entry.location,
                    entry.path,
                )

        self._database.execute("BEGIN")
        self._database.executemany("INSERT INTO file VALUES (?, ?, ?, ?, ?, ?)", rows())
        self._database.execute("COMMIT")
        if told is None or (told.files, told.size_bytes) != (self.files, self.size_bytes):
            raise different

    def iter_packs(self) -> Iterator[tuple[str, Iterator[Content]]]:
        """Each pack that something is in, with its contents from its beginning to its end."""
        query = (
            "SELECT pack, start, size_bytes, sha256, location, path FROM file "
            "ORDER BY pack, start, size_bytes, sha256"
        )
        for pack, rows in groupby(self._database.execute(query), key=lambda row: row[0]):
            yield pack, _contents(rows)


def _contents(rows: Iterable[tuple[str, int, int, str, str, str]]) -> Iterator[Content]:
    for (start, size_bytes, sha256), same in groupby(rows, key=lambda row: row[1:4]):
        yield Content(start, size_bytes, sha256, tuple((row[4], row[5]) for row in same))
