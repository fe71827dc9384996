"""Rows about tables alone: create, size of the archive, restore."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from _backup_bench import Bench, settle
from _backup_commands import create, dump, dump_name, pg_restore, restore, size_of
from _backup_seed import Shape
from _programs import VoidError
from _results import OURS, Bar, Measurement
from _scenario import Scenario, Way

NO_ARTIFACTS = "--no-artifacts"
DUMPS = {"sqlite": ".backup", "postgresql": "pg_dump"}


class Tables(Scenario[Bench]):
    """`backup create --no-artifacts` beside the database's own backup; size of what comes out."""

    def __init__(self, engine: str, runs: int) -> None:
        self.key = f"create-{engine}"
        self.shape = Shape(runs)
        rate = Bar(ours_at_least=60_000)
        title = f"create, {runs:,} runs, tables alone"
        peer = DUMPS[engine]
        rows = [
            Measurement(self.key, title, "s", {engine: Bar(ours_at_most=5)}, compared_with=peer),
            Measurement(
                f"{self.key}-rate", "- with the start", "rows/s", {engine: rate}, True, None
            ),
            Measurement(
                f"{self.key}-net", "- without the start", "rows/s", {engine: rate}, True, None
            ),
            Measurement(f"{self.key}-start", "- of an empty store", "s", compared_with=None),
        ]
        if engine == "postgresql":
            bar = {engine: Bar(at_most=1.2)}
            rows.append(
                Measurement(f"{self.key}-size", "- size of the tables", "MiB", bar, False, peer)
            )
        super().__init__(self.key, engine, rows)

    def ways(self, bench: Bench) -> Sequence[Way]:
        return [
            (DUMPS[self.engine], partial(self.measure_peer, bench)),
            (OURS, partial(self.measure_ours, bench)),
        ]

    def measure_peer(self, bench: Bench) -> None:
        with bench.store(self.engine, self.shape) as uri, bench.scratch() as folder:
            databases = bench.databases(self.engine)
            target = folder / "dump"
            finished = dump(databases, uri, target)
            peer = dump_name(databases)
            self.keep(bench, self.key, peer, finished.seconds, finished)
            if self.engine == "postgresql":
                size = target.stat().st_size / 2**20
                self.keep(bench, f"{self.key}-size", peer, size, finished)

    def measure_ours(self, bench: Bench) -> None:
        """The store, and one that has only the schema, which tells what the start takes."""
        with bench.store(self.engine, Shape(0)) as uri, bench.scratch() as folder:
            start = create(uri, folder / "artifacts", folder / "shelf", NO_ARTIFACTS).finished
        with bench.store(self.engine, self.shape) as uri, bench.scratch() as folder:
            created = create(uri, folder / "artifacts", folder / "shelf", NO_ARTIFACTS)
            size = sum(size_of(tables) for tables in (folder / "shelf").glob("*/tables"))
        require_rows(created.rows, self.shape)
        finished, rows = created.finished, created.rows
        self.keep(bench, self.key, OURS, finished.seconds, finished)
        self.keep(bench, f"{self.key}-rate", OURS, rows / finished.seconds, finished)
        net = finished.seconds - start.seconds
        self.keep(bench, f"{self.key}-net", OURS, rows / net, finished)
        self.keep(bench, f"{self.key}-start", OURS, start.seconds, start)
        if self.engine == "postgresql":
            self.keep(bench, f"{self.key}-size", OURS, size / 2**20, finished)


class Restore(Scenario[Bench]):
    """`restore` into an empty database, schema included, beside `pg_restore`."""

    def __init__(self, runs: int) -> None:
        self.key = "restore-postgresql"
        self.shape = Shape(runs)
        bar = {"postgresql": Bar(ours_at_most=12)}
        title = f"restore, {runs:,} runs, tables and schema"
        rows = [Measurement(self.key, title, "s", bar, compared_with="pg_restore")]
        super().__init__(self.key, "postgresql", rows)

    def ways(self, bench: Bench) -> Sequence[Way]:
        return [
            ("pg_restore", partial(self.measure_peer, bench)),
            (OURS, partial(self.measure_ours, bench)),
        ]

    def measure_peer(self, bench: Bench) -> None:
        databases = bench.databases(self.engine)
        with bench.scratch() as folder:
            with bench.store(self.engine, self.shape) as uri:
                dump(databases, uri, folder / "dump")
            with bench.empty_store(self.engine) as target:
                settle()
                finished = pg_restore(databases, target, folder / "dump")
        self.keep(bench, self.key, "pg_restore", finished.seconds, finished)

    def measure_ours(self, bench: Bench) -> None:
        with bench.scratch() as folder:
            places: tuple[Path, Path] = (folder / "artifacts", folder / "shelf")
            with bench.store(self.engine, self.shape) as uri:
                create(uri, *places, NO_ARTIFACTS)
            with bench.empty_store(self.engine) as target:
                settle()
                restored = restore(target, *places, NO_ARTIFACTS)
        require_rows(restored.rows, self.shape)
        self.keep(bench, self.key, OURS, restored.finished.seconds, restored.finished)


def require_rows(count: int, shape: Shape) -> None:
    """Raise when there were fewer rows than the runs alone have.

    Raises:
        VoidError: So it was.
    """
    tags = shape.tags + shape.system_tags
    per_run = 1 + shape.metric_keys * (shape.points + 1) + shape.params + tags
    if count < shape.runs * per_run:
        raise VoidError(f"{count} rows instead of {shape.runs * per_run} at least")
