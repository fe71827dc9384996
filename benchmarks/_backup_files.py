"""Rows about artifacts: many small ones, and a second backup of which few are new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from _backup_bench import Bench, lay_files, settle
from _backup_commands import Reported, copy_tree, create, dump, dump_name, seconds_of, size_of
from _backup_seed import Shape
from _backup_tables import DUMPS
from _programs import VoidError
from _results import OURS, Bar, Measurement
from _scenario import Scenario, Way

FIRST = "first"
NEW = 100
"""One run in so many is new at the second backup."""


@dataclass(frozen=True)
class Kind:
    """Which artifacts runs have.

    Attributes:
        files: Of each run.
        file_bytes: Size of each.
        shown: The same, in words.
        first: Bar of the first backup, by engine.
        second: Bar of the time of the second one.
    """

    files: int
    file_bytes: int
    shown: str
    first: Mapping[str, Bar]
    second: Bar | None


# The peer is the one that the bar names.
SMALL = Kind(50, 1024, "of 1 KiB", {"postgresql": Bar(at_most=1.5, ours_at_most=10)}, None)
# Rounded up, so that a third of the time is a third.
LARGE = Kind(10, 512 * 1024, "of 512 KiB", {}, Bar(at_most=0.334))


class Files(Scenario[Bench]):
    """`backup create` beside the database's own backup and `cp -r`, and an incremental one.

    Files have just been written when they are copied, so that they are in the page cache, for both.
    """

    def __init__(self, name: str, engine: str, kind: Kind, runs: int) -> None:
        self.key = f"{name}-{engine}"
        self.shape = Shape(runs, files=kind.files, file_bytes=kind.file_bytes)
        shown = f"create, {runs * kind.files:,} files {kind.shown}"
        self.peer = f"{DUMPS[engine]} + cp -r"
        bars = {engine: kind.first[engine]} if engine in kind.first else {}
        third = {engine: kind.second} if kind.second else {}
        tenth = {engine: Bar(at_most=0.1)}
        super().__init__(
            self.key,
            engine,
            [
                Measurement(self.key, shown, "s", bars, False, self.peer),
                Measurement(f"{self.key}-second", "- again, 1 % new", "s", third, False, FIRST),
                Measurement(
                    f"{self.key}-read", "- artifact bytes read", "MiB", tenth, False, FIRST
                ),
                Measurement(
                    f"{self.key}-written", "- artifact bytes written", "MiB", tenth, False, FIRST
                ),
            ],
        )

    def ways(self, bench: Bench) -> Sequence[Way]:
        return [
            (self.peer, partial(self.measure_peer, bench)),
            (OURS, partial(self.measure_ours, bench)),
        ]

    def measure_peer(self, bench: Bench) -> None:
        databases = bench.databases(self.engine)
        with bench.store(self.engine, self.shape) as uri, bench.scratch() as folder:
            lay_files(folder / "artifacts", self.shape)
            settle()
            parts = [
                dump(databases, uri, folder / "dump"),
                copy_tree(folder / "artifacts", folder / "copied"),
            ]
        what = f"{dump_name(databases)} + cp -r"
        self.keep(bench, self.key, what, seconds_of(parts), parts[-1])

    def measure_ours(self, bench: Bench) -> None:
        with bench.store(self.engine, self.shape) as uri, bench.scratch() as folder:
            places = (folder / "artifacts", folder / "shelf")
            size = lay_files(places[0], self.shape)
            settle()
            first = create(uri, *places)
            self.check(first, places[1], size, self.shape.runs)
            new = replace(self.shape, runs=max(1, self.shape.runs // NEW))
            bench.add_runs(uri, new, self.shape.runs)
            size += lay_files(places[0], new, self.shape.runs)
            written_before = size_of(places[1] / ".packs")
            settle()
            second = create(uri, *places)
            self.check(second, places[1], size, new.runs)
            written = size_of(places[1] / ".packs") - written_before
        self.keep(bench, self.key, OURS, first.finished.seconds, first.finished)
        read = second.item("artifacts")["read_bytes"]
        for suffix, before, now in (
            ("second", first.finished.seconds, second.finished.seconds),
            ("read", size / 2**20, read / 2**20),
            ("written", size / 2**20, written / 2**20),
        ):
            self.keep(bench, f"{self.key}-{suffix}", FIRST, before, first.finished)
            self.keep(bench, f"{self.key}-{suffix}", OURS, now, second.finished)

    def check(self, created: Reported, shelf: Path, size: int, runs: int) -> None:
        """Raise unless everything is in a backup, and what is new was stored.

        Raises:
            VoidError: So it is not.
        """
        facts = created.item("artifacts")
        stored = runs * self.shape.files
        if (facts["bytes"], facts["stored_files"]) != (size, stored):
            raise VoidError(
                f"{facts['bytes']} bytes and {facts['stored_files']} new files in {shelf.name} "
                f"instead of {size} and {stored}"
            )
