"""The seeded stores that are backed up, and folders for what comes out."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from _backup_seed import Shape
from _command import tell
from _databases import Databases, open_databases
from _session import Recorder
from _stores import run_seed

SEED_PROGRAM = "_backup_seed.py"


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: How often everything is measured.
        runs: Of the store whose tables are copied.
        peer_runs: That the peer exports and imports.
        memory_rows: Metric points of the store that memory is measured with.
    """

    rounds: int = 1
    runs: int = 1_000
    peer_runs: int = 50
    memory_rows: int = 10_000_000


@dataclass
class Bench:
    """What the scenarios measure with.

    Attributes:
        folder: On a disk; everything is in it.
        stock_python: Interpreter of stock MLflow, which runs the servers of the peer.
        peer_python: Interpreter that has the peer; None where it is not needed.
        effort: How much.
        resources: Closes what is opened on the way.
        recorder: Gets the values.
        round_number: From 1.
    """

    folder: Path
    stock_python: str
    peer_python: str | None
    effort: Effort
    resources: ExitStack
    recorder: Recorder = field(default_factory=Recorder)
    round_number: int = 1
    _databases: dict[str, Databases] = field(default_factory=dict)
    _templates: dict[tuple[str, Shape], str] = field(default_factory=dict)

    @property
    def versions(self) -> list[str]:
        """Of the databases that were used."""
        return [databases.version for databases in self._databases.values()]

    def databases(self, engine: str) -> Databases:
        """Those of an engine, started when they are first asked for."""
        if engine not in self._databases:
            opened = self.resources.enter_context(open_databases(engine, self.folder / engine))
            self._databases[engine] = opened
        return self._databases[engine]

    @contextmanager
    def store(self, engine: str, shape: Shape) -> Iterator[str]:
        """The URI of a fresh copy of a seeded store; it is seeded once."""
        databases = self.databases(engine)
        key = (engine, shape)
        if key not in self._templates:
            tell(f"{engine}: seeding {shape.runs} runs")
            label = f"seeded_{len(self._templates)}"

            def fill(uri: str) -> None:
                run_seed(SEED_PROGRAM, uri, json.dumps(asdict(shape)))

            # Noted before, so that one that failed is not tried again under the same name.
            self._templates[key] = label
            databases.seed(label, fill)
        uri = databases.copy(self._templates[key], "copied")
        try:
            settle()
            yield uri
        finally:
            databases.drop("copied")

    @contextmanager
    def only_store(self, engine: str, shape: Shape) -> Iterator[str]:
        """The URI of a store that is seeded for this once: a copy of a large one takes long."""
        databases = self.databases(engine)
        tell(f"{engine}: seeding {shape.runs} runs")

        def fill(uri: str) -> str:
            run_seed(SEED_PROGRAM, uri, json.dumps(asdict(shape)))
            return uri

        uri = databases.seed("large", fill)
        try:
            settle()
            yield uri
        finally:
            databases.drop("large")

    def add_runs(self, uri: str, shape: Shape, first: int) -> None:
        """Put more runs into a store; `shape` says how many."""
        run_seed(SEED_PROGRAM, uri, json.dumps(asdict(shape)), "--first", str(first))

    @contextmanager
    def empty_store(self, engine: str) -> Iterator[str]:
        """The URI of an empty database."""
        databases = self.databases(engine)
        try:
            yield databases.empty("emptied")
        finally:
            databases.drop("emptied")

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for what comes out; removed at the end."""
        folder = self.folder / "scratch"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def lay_files(root: Path, shape: Shape, first: int = 0) -> int:
    """Make the artifacts of runs, each of other random bytes.

    Args:
        root: The destination.
        shape: Which runs, and how many files each has.
        first: Number of the first run.

    Returns:
        How many bytes.
    """
    count = 0
    for number, run_id in shape.run_ids(first):
        experiment_id = number % shape.experiments + 1
        folder = root / str(experiment_id) / run_id / "artifacts"
        folder.mkdir(parents=True)
        for file in range(shape.files):
            (folder / f"file_{file}.bin").write_bytes(os.urandom(shape.file_bytes))
            count += 1
    return count * shape.file_bytes


def settle() -> None:
    """What was written before is not to be paid for by what comes next."""
    os.sync()
