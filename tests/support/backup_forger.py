"""Change a backup as somebody would who knows the format: with all checksums made anew."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mlflow_server.backup.names import INDEX, MANIFEST, SUMS, render_sums
from mlflow_server.store.tables import Checksum, Column, Kind, Table
from tests.support.backup_place import as_json


class Forger:
    """Changes one backup at a local place.

    Args:
        place: The place.
        name: The backup.
    """

    def __init__(self, place: Path, name: str) -> None:
        self.place = place
        self.folder = place / name
        self.manifest: dict[str, Any] = json.loads((self.folder / MANIFEST).read_bytes())

    @property
    def tables(self) -> list[dict[str, Any]]:
        """Entries of the backend's tables."""
        tables: list[dict[str, Any]] = self.manifest["databases"]["backend"]["tables"]
        return tables

    def table(self, name: str) -> dict[str, Any]:
        """The entry of a table."""
        return next(entry for entry in self.tables if entry["name"] == name)

    def rows(self, name: str) -> list[list[Any]]:
        """The rows of a table."""
        text = gzip.decompress((self.folder / self.table(name)["file"]).read_bytes())
        return [json.loads(line) for line in text.splitlines()]

    def write_rows(self, name: str, rows: Iterable[list[Any]]) -> None:
        """Other rows for a table, with a checksum that fits as far as there is one."""
        entry = self.table(name)
        lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows]
        columns = tuple(Column(c["name"], Kind(c["kind"])) for c in entry["columns"])
        checksum = Checksum(Table(entry["name"], columns))
        with_end = [f"{line}\n".encode() for line in lines]
        try:
            checksum.add_lines(with_end)
        except Exception:
            checksum.rows = len(lines)
        entry["rows"], entry["checksum"] = checksum.rows, checksum.text
        self.write(entry["file"], gzip.compress(b"".join(with_end), mtime=0))

    def index(self) -> list[dict[str, Any]]:
        """The files of the index, one by one."""
        text = gzip.decompress((self.folder / INDEX).read_bytes())
        return [
            {
                "location": line["location"],
                "path": f"{line['folder']}/{file[0]}" if line["folder"] else file[0],
                **dict(zip(("size_bytes", "sha256", "stamp"), file[1:4], strict=True)),
                "pack": line["packs"][file[4]],
                "offset": file[5],
            }
            for line in map(json.loads, text.splitlines())
            for file in line["files"]
        ]

    def write_index(self, entries: Iterable[dict[str, Any]]) -> None:
        """Another index, with numbers that fit; a line for each file."""
        entries = list(entries)
        told = self.manifest["artifacts"]
        told["files"] = len(entries)
        told["size_bytes"] = sum(entry["size_bytes"] for entry in entries)
        lines = []
        for entry in entries:
            above, _, name = entry["path"].rpartition("/")
            values = [entry[key] for key in ("size_bytes", "sha256", "stamp")]
            line = {
                "location": entry["location"],
                "folder": above,
                "packs": [entry["pack"]],
                "files": [[name, *values, 0, entry["offset"]]],
            }
            lines.append(json.dumps(line, separators=(",", ":")) + "\n")
        self.write(INDEX, gzip.compress("".join(lines).encode(), mtime=0))

    def change_index(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the first file of the index."""
        entries = self.index()
        change(entries[0])
        self.write_index(entries)

    def write(self, path: str, content: bytes) -> None:
        """Another content for a file of the backup."""
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(content)

    def write_pack(self, file: str, content: bytes) -> None:
        """Another content for a pack."""
        (self.place / ".packs" / file).write_bytes(content)
        for entry in self.manifest["packs"]:
            if entry["file"] == file:
                entry["size_bytes"] = len(content)
                entry["sha256"] = hashlib.sha256(content).hexdigest()

    def sign(self, manifest: bytes | None = None) -> None:
        """Make all checksums fit what is there."""
        for database in self.manifest["databases"].values():
            for entry in database["tables"]:
                path = self.folder / str(entry.get("file"))
                if path.is_file():
                    entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        self.write(MANIFEST, manifest if manifest is not None else as_json(self.manifest))
        sums = {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.folder.rglob("*")
            if path.is_file() and path.name != SUMS
        }
        self.write(SUMS, render_sums(sums))
