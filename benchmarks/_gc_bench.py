"""Give a collection its own copy of store and files, and look at what it leaves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from _command import tell
from _databases import Databases, open_databases
from _gc_places import Place
from _gc_s3 import Bucket, run_s3
from _gc_seed import LIVE_PREFIX, Shape
from _programs import VoidError
from _session import Recorder
from _stores import run_seed

T = TypeVar("T")
SEED_PROGRAM = "_gc_seed.py"
COPY = "copied"


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: How often everything is measured.
        sizes: Deleted runs of the rows with everything in memory.
        proxy: Deleted runs of the row through the artifact proxy.
        s3: The same on S3.
        disk: The same on a disk.
        memory: Deleted runs of the two rows about memory.
        beside: Deleted runs that are collected beside a server.
        growth: Few and many deleted runs.
        growth_repeats: How often each of the two is collected in a round.
        starts: How often a collection that finds nothing is started in a round.
        calm_seconds: How long a client logs before gc starts beside it.
    """

    rounds: int = 1
    sizes: tuple[int, ...] = (3_000, 10_000)
    proxy: int = 3_000
    s3: int = 1_000
    disk: int = 3_000
    memory: tuple[int, int] = (10_000, 100_000)
    beside: int = 10_000
    growth: tuple[int, int] = (1_000, 10_000)
    growth_repeats: int = 3
    starts: int = 5
    calm_seconds: int = 30


@dataclass
class Bench:
    """What the scenarios measure with.

    Attributes:
        stock_python: Interpreter of stock.
        memory: Folder on tmpfs: files, SQLite, S3.
        disk: Folder for PostgreSQL.
        slow_disk: Folder on a disk for the row about it; None where there is no disk.
        weed: The S3 server's program.
        effort: How much.
        resources: Closes what is opened on the way.
        recorder: Gets the values.
        round_number: From 1.
    """

    stock_python: str
    memory: Path
    disk: Path
    slow_disk: Path | None
    weed: Path | None
    effort: Effort
    resources: ExitStack
    recorder: Recorder = field(default_factory=Recorder)
    round_number: int = 1
    _databases: dict[str, Databases] = field(default_factory=dict)
    _templates: dict[tuple[str, Shape, str], tuple[str, str]] = field(default_factory=dict)
    _bucket: Bucket | None = None

    @property
    def versions(self) -> list[str]:
        """Of the databases that were used."""
        return [databases.version for databases in self._databases.values()]

    def bucket(self) -> Bucket:
        """The S3 server, started when it is first asked for.

        Raises:
            VoidError: There is none.
            ServerError: It does not start.
        """
        if self._bucket is None:
            if self.weed is None:
                raise VoidError("there is no S3 server")
            self._bucket = self.resources.enter_context(run_s3(self.weed, self.memory / "s3"))
        return self._bucket

    def collect(self, engine: str, shape: Shape, place: Place, work: Callable[[str], T]) -> T:
        """Run a collection on a fresh copy of a store and its files, and check what it leaves.

        Args:
            engine: Of the store.
            shape: What is in it.
            place: Where the files are; empty before and after.
            work: Collects from the store of this URI.

        Returns:
            What `work` returned.

        Raises:
            VoidError: It failed, or left or took what it must not.
        """
        databases = self._open(engine)
        template, experiment_id = self._template(engine, shape, place.location)
        uri = databases.copy(template, COPY)
        try:
            place.lay(experiment_id, (run.run_id for run in shape.runs()), shape.files)
            os.sync()  # what was written before is not to be paid for here
            result = work(uri)
            self._check_rows(databases, shape)
            check_files(place, shape)
            return result
        finally:
            databases.drop(COPY)
            place.clear()

    def _open(self, engine: str) -> Databases:
        if engine not in self._databases:
            folder = (self.memory if engine == "sqlite" else self.disk) / engine
            opened = self.resources.enter_context(open_databases(engine, folder))
            self._databases[engine] = opened
        return self._databases[engine]

    def _template(self, engine: str, shape: Shape, location: str) -> tuple[str, str]:
        """Label of the seeded database, and the id of its experiment; seeded once."""
        key = (engine, shape, location)
        if key not in self._templates:
            tell(f"{engine}: seeding {shape.deleted} deleted runs")
            label = f"seeded_{len(self._templates)}"

            def fill(uri: str) -> str:
                return str(run_seed(SEED_PROGRAM, uri, location, json.dumps(asdict(shape))))

            self._templates[key] = label, self._open(engine).seed(label, fill)
        return self._templates[key]

    def _check_rows(self, databases: Databases, shape: Shape) -> None:
        """No row of a deleted run is left, and every row of the others.

        Raises:
            VoidError: Not so.
        """
        query = "SELECT COUNT(*) FROM runs WHERE lifecycle_stage = 'deleted'"
        if left := databases.query(COPY, query)[0][0]:
            raise VoidError(f"{left} of {shape.deleted} deleted runs are left")
        for table, per_run in shape.rows_per_run.items():
            kept = "" if table == "runs" else f" WHERE key NOT LIKE '{LIVE_PREFIX}%'"
            query = f"SELECT COUNT(*) FROM {table}{kept}"  # noqa: S608 - of constants
            count = databases.query(COPY, query)[0][0]
            if count != shape.active * per_run:
                raise VoidError(f"{table} has {count} rows instead of {shape.active * per_run}")


def check_files(place: Place, shape: Shape) -> None:
    """No file of a deleted run is left, and every file of the others.

    Raises:
        VoidError: Not so.
    """
    count, expected = place.count(), shape.active * shape.files
    if count != expected:
        raise VoidError(f"{count} files are left instead of {expected}")
