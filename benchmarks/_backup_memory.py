"""Peak memory with ten million rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from _backup_bench import Bench
from _backup_commands import Reported, create, migrate, restore
from _backup_seed import Shape
from _backup_tables import NO_ARTIFACTS
from _results import OURS, Bar, Measurement
from _scenario import Scenario, Way

LIMIT_MIB = 200
RUNS = 1_000
METRIC_KEYS = 20
COMMANDS = ("create", "restore", "migrate")


class Memory(Scenario[Bench]):
    """Create, restore and migrate: the largest process, and all of them together.

    Migrated is to the other engine.
    """

    def __init__(self, engine: str, rows: int) -> None:
        self.other = {"sqlite": "postgresql", "postgresql": "sqlite"}[engine]
        points = max(1, rows // (RUNS * METRIC_KEYS))
        self.shape = Shape(RUNS, metric_keys=METRIC_KEYS, points=points)
        bar = {engine: Bar(ours_at_most=LIMIT_MIB)}
        measurements = [
            row
            for command in COMMANDS
            for row in (
                Measurement(
                    f"memory-{engine}-{command}",
                    f"peak memory of {command}, {rows:,} points",
                    "MiB",
                    bar,
                    compared_with=None,
                ),
                Measurement(
                    f"memory-{engine}-{command}-tree",
                    "- all processes together",
                    "MiB",
                    bar,
                    compared_with=None,
                ),
                Measurement(
                    f"memory-{engine}-{command}-time", "- seconds", "s", compared_with=None
                ),
            )
        ]
        super().__init__(f"memory-{engine}", engine, measurements)

    def ways(self, bench: Bench) -> Sequence[Way]:
        return [(OURS, partial(self.measure, bench))]

    def measure(self, bench: Bench) -> None:
        with bench.scratch() as folder:
            places = (folder / "artifacts", folder / "shelf")
            with bench.only_store(self.engine, self.shape) as uri:
                self.note(bench, "create", create(uri, *places, NO_ARTIFACTS, watches_tree=True))
                with bench.empty_store(self.other) as target:
                    moved = migrate(uri, target, places[0], watches_tree=True)
                self.note(bench, "migrate", moved)
            with bench.empty_store(self.engine) as target:
                restored = restore(target, *places, NO_ARTIFACTS, watches_tree=True)
            self.note(bench, "restore", restored)

    def note(self, bench: Bench, command: str, done: Reported) -> None:
        """Keep what a command needed."""
        key, finished = f"{self.name}-{command}", done.finished
        self.keep(bench, key, OURS, finished.peak_mib, finished)
        self.keep(bench, f"{key}-tree", OURS, finished.tree_mib, finished)
        self.keep(bench, f"{key}-time", OURS, finished.seconds, finished)
