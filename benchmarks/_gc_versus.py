"""`mlflow gc` and ours, one after the other, wherever files may lie."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from _gc_bench import Bench
from _gc_commands import gc_of_ours, gc_of_stock
from _gc_places import Folder, Place
from _gc_seed import Shape
from _programs import Finished, VoidError, run_command
from _results import OURS, Bar, Measurement
from _scenario import STOCK, Scenario, Way
from _servers import Server, stock

OPTIONS: Mapping[str, tuple[str, ...]] = {"": (), "-offline": ("--offline",)}
"""Ways to run ours, by what they add to the key of a row."""


class SideBySide(Scenario[Bench]):
    """`mlflow gc` and ours on the same store and files.

    The whole command is compared, from start to exit; rows and files of ours are told apart.
    """

    def __init__(
        self, name: str, engine: str, deleted: int, title: str, bars: Mapping[str, Bar]
    ) -> None:
        """Put the rows together.

        Args:
            name: Key of its first row.
            engine: Of the store.
            deleted: Runs.
            title: Of the rows.
            bars: One for each way to run ours, by the keys of `OPTIONS`.
        """
        self.shape = Shape(deleted)
        self.bars = bars
        rows = [
            row
            for suffix, bar in bars.items()
            for row in self._rows(name + suffix, " ".join((title, *OPTIONS[suffix])), engine, bar)
        ]
        super().__init__(name, engine, [*rows, *self.further_rows(engine)])

    def further_rows(self, engine: str) -> Sequence[Measurement]:
        """Rows that only this scenario has."""
        return ()

    def place(self, bench: Bench) -> Place:
        """Where the files lie."""
        return Folder(bench.memory / "artifacts")

    def ways(self, bench: Bench) -> Sequence[Way]:
        return [
            (STOCK, partial(self.measure_stock, bench)),
            *(
                (" ".join((OURS, *OPTIONS[suffix])), partial(self.measure_ours, bench, suffix))
                for suffix in self.bars
            ),
        ]

    def measure_stock(self, bench: Bench) -> None:
        """Once; the value stands beside every way to run ours."""
        place = self.place(bench)
        work = partial(self.run_stock, bench, place)
        finished = bench.collect(self.engine, self.shape, place, work)
        for suffix in self.bars:
            self.keep(bench, self.name + suffix, STOCK, finished.seconds, finished)

    def run_stock(self, bench: Bench, place: Place, uri: str) -> Finished:
        return gc_of_stock(bench.stock_python, uri, uri, place.variables)

    def measure_ours(self, bench: Bench, suffix: str) -> None:
        place = self.place(bench)
        work = partial(self.run_ours, place, OPTIONS[suffix])
        finished = bench.collect(self.engine, self.shape, place, work)
        self.keep_ours(bench, self.name + suffix, finished)

    def run_ours(self, place: Place, options: Sequence[str], uri: str) -> Finished:
        return gc_of_ours(uri, place.destination, place.variables, options)

    def keep_ours(self, bench: Bench, key: str, finished: Finished) -> None:
        """Keep what a run of ours tells."""
        self.keep(bench, key, OURS, finished.seconds, finished)
        for phase in ("rows", "files"):
            self.keep(bench, f"{key}-{phase}", OURS, finished.phase(phase), finished)

    @staticmethod
    def _rows(key: str, title: str, engine: str, bar: Bar) -> Iterator[Measurement]:
        yield Measurement(key, title, "s", {engine: bar}, is_speedup=True)
        for phase in ("rows", "files"):
            yield Measurement(f"{key}-{phase}", f"- {phase}", "s", compared_with=None)


class ThroughProxy(SideBySide):
    """Files behind a server: stock asks it to remove them, ours does it by itself."""

    def place(self, bench: Bench) -> Place:
        return Folder(bench.memory / "artifacts", is_behind_server=True)

    def run_stock(self, bench: Bench, place: Place, uri: str) -> Finished:
        contender = stock(bench.stock_python, place.destination)
        with Server(contender, uri, bench.memory / "server") as server:
            server.wait_until_idle()
            address = f"http://127.0.0.1:{server.port}"
            return gc_of_stock(bench.stock_python, uri, address, place.variables)


class OnS3(SideBySide):
    """Files in a bucket, and how often ours asks for something there."""

    def further_rows(self, engine: str) -> Sequence[Measurement]:
        objects = self.shape.deleted * self.shape.files
        bar = {engine: Bar(ours_at_most=2 * -(-objects // 1000))}
        deletes = f"- requests to delete {objects:,} objects"
        return (
            Measurement("s3-deletes", deletes, "count", bar, compared_with=None),
            Measurement("s3-lists", "- requests to list", "count", compared_with=None),
            Measurement("s3-others", "- other requests", "count", compared_with=None),
        )

    def place(self, bench: Bench) -> Place:
        return bench.bucket()

    def measure_ours(self, bench: Bench, suffix: str) -> None:
        bucket = bench.bucket()

        def work(uri: str) -> tuple[Finished, Counter[str]]:
            before = bucket.requests()
            finished = self.run_ours(bucket, OPTIONS[suffix], uri)
            return finished, bucket.requests() - before

        finished, requests = bench.collect(self.engine, self.shape, bucket, work)
        self.keep_ours(bench, self.name + suffix, finished)
        deletes, lists = requests["DELETE"], requests["LIST"]
        others = requests.total() - deletes - lists
        for name, count in (("deletes", deletes), ("lists", lists), ("others", others)):
            self.keep(bench, f"s3-{name}", OURS, count, finished)


class OnDisk(SideBySide):
    """Files on a disk, which takes its time to remove them, and how long `rm -rf` needs there."""

    RM = "rm -rf"

    def further_rows(self, engine: str) -> Sequence[Measurement]:
        bar = {engine: Bar(at_most=1.3)}
        return (Measurement("disk-rm", "- files and rm -rf", "s", bar, compared_with=self.RM),)

    def place(self, bench: Bench) -> Folder:
        if bench.slow_disk is None:
            raise VoidError("no folder is on a disk: set TMPDIR to one")
        return Folder(bench.slow_disk / "artifacts")

    def ways(self, bench: Bench) -> Sequence[Way]:
        return [*super().ways(bench), (self.RM, partial(self.measure_rm, bench))]

    def measure_rm(self, bench: Bench) -> None:
        """The tree of the deleted runs alone."""
        tree = self.place(bench)
        deleted = (run.run_id for run in self.shape.runs() if run.is_deleted)
        try:
            tree.lay("1", deleted, self.shape.files)
            os.sync()
            finished = run_command(("rm", "-rf", str(tree.root)), {})
            self.keep(bench, "disk-rm", self.RM, finished.seconds, finished)
        finally:
            tree.clear()

    def keep_ours(self, bench: Bench, key: str, finished: Finished) -> None:
        super().keep_ours(bench, key, finished)
        self.keep(bench, "disk-rm", OURS, finished.phase("files"), finished)
