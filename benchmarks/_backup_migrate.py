"""The row about `migrate` beside mlflow-export-import."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from _backup_bench import Bench
from _backup_commands import migrate
from _backup_peer import Moved, move
from _backup_seed import Shape
from _backup_tables import require_rows
from _programs import VoidError
from _results import OURS, Bar, Measurement
from _scenario import Scenario, Way

PEER = "export-import"


class Migrate(Scenario[Bench]):
    """SQLite to PostgreSQL. The peer gets few runs, and its time for all of them is computed.

    What the peer takes for one run alone is taken off first: its start must not be multiplied.
    """

    def __init__(self, runs: int, peer_runs: int) -> None:
        self.shape = Shape(runs)
        self.peer_shape = Shape(peer_runs, experiments=1)
        bar = {"sqlite": Bar(at_least=100)}
        how = f"- the peer from {peer_runs} runs to {runs:,}"
        rows = [
            Measurement(
                "migrate", f"migrate to PostgreSQL, {runs:,} runs", "s", bar, True, PEER
            ),
            *(
                Measurement(f"migrate-{part}", f"{how}: {part}", "s", is_speedup=True,
                            compared_with=PEER)
                for part in ("export", "import")
            ),
        ]  # fmt: skip
        super().__init__("migrate", "sqlite", rows)

    def ways(self, bench: Bench) -> Sequence[Way]:
        return [
            (PEER, partial(self.measure_peer, bench)),
            (OURS, partial(self.measure_ours, bench)),
        ]

    def measure_ours(self, bench: Bench) -> None:
        with (
            bench.store("sqlite", self.shape) as uri,
            bench.empty_store("postgresql") as target,
            bench.scratch() as folder,
        ):
            moved = migrate(uri, target, folder / "artifacts")
        require_rows(moved.rows, self.shape)
        for key in ("migrate", "migrate-export", "migrate-import"):
            self.keep(bench, key, OURS, moved.finished.seconds, moved.finished)

    def measure_peer(self, bench: Bench) -> None:
        few = self.move_by_peer(bench, Shape(1, experiments=1))
        many = self.move_by_peer(bench, self.peer_shape)
        parts = {
            "export": (few.exported, many.exported),
            "import": (few.imported, many.imported),
        }
        total = 0.0
        for part, (start, end) in parts.items():
            each = (end.seconds - start.seconds) / (self.peer_shape.runs - 1)
            if each <= 0:
                raise VoidError(f"{part} of more runs took less time: the machine is not quiet")
            seconds = start.seconds + each * (self.shape.runs - 1)
            self.keep(bench, f"migrate-{part}", PEER, seconds, end)
            total += seconds
        self.keep(bench, "migrate", PEER, total, many.imported)

    def move_by_peer(self, bench: Bench, shape: Shape) -> Moved:
        """Move a store with one experiment."""
        with (
            bench.store("sqlite", shape) as uri,
            bench.store("postgresql", Shape(0, experiments=0)) as target,
            bench.scratch() as folder,
        ):
            moved = move(bench, uri, target, folder, ["experiment 0"])
            query = "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM metrics)"
            counts = bench.databases("postgresql").query("copied", query)[0]
        expected = (shape.runs, shape.runs * shape.metric_keys * shape.points)
        if tuple(counts) != expected:
            raise VoidError(f"{counts} runs and metric points arrived instead of {expected}")
        return moved
