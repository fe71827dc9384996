"""What ours has to keep by itself: memory, a quick end, growth, and the waits of others."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial

from _databases import ENGINES
from _gc_bench import Bench
from _gc_client import Call, LoggingClient, p99_ms
from _gc_commands import gc_of_ours, gc_of_stock
from _gc_places import Folder, Place
from _gc_seed import Shape
from _programs import Finished, VoidError
from _results import OURS, Bar, Measurement
from _scenario import STOCK, Scenario, Way
from _servers import Server, ours


def collect_ours(bench: Bench, engine: str, shape: Shape) -> Finished:
    """Ours in its default mode on a store and files in memory."""
    place = Folder(bench.memory / "artifacts")
    return bench.collect(
        engine, shape, place, lambda uri: gc_of_ours(uri, place.destination, place.variables)
    )


class Memory(Scenario[Bench]):
    """Peak memory of ours, for some runs and for many; the many have next to nothing in them."""

    LIMITS_MIB = (120, 150)

    def __init__(self, engine: str, sizes: tuple[int, int]) -> None:
        self.shapes = (
            Shape(sizes[0]),
            Shape(sizes[1], metric_keys=1, points=1, params=1, tags=1, files=1),
        )
        rows = [
            Measurement(
                self.key(engine, shape),
                f"peak memory, {shape.deleted:,} runs",
                "MiB",
                {engine: Bar(ours_at_most=limit)},
                compared_with=None,
            )
            for shape, limit in zip(self.shapes, self.LIMITS_MIB, strict=True)
        ]
        super().__init__(f"memory-{engine}", engine, rows)

    @staticmethod
    def key(engine: str, shape: Shape) -> str:
        return f"memory-{engine}-{shape.deleted}"

    def ways(self, bench: Bench) -> Sequence[Way]:
        return [
            (f"{shape.deleted:,} runs", partial(self.measure, bench, shape))
            for shape in self.shapes
        ]

    def measure(self, bench: Bench, shape: Shape) -> None:
        finished = collect_ours(bench, self.engine, shape)
        self.keep(bench, self.key(self.engine, shape), OURS, finished.peak_mib, finished)


class Nothing(Scenario[Bench]):
    """Nothing to collect, the usual case: start to exit."""

    SHAPE = Shape(0)

    def __init__(self, engine: str) -> None:
        self.key = f"nothing-{engine}"
        bar = {engine: Bar(ours_at_most=1)}
        none = {engine: Bar(ours_at_most=0)}
        rows = [
            Measurement(self.key, "nothing to do, start to exit", "s", bar, is_speedup=True),
            Measurement(
                f"{self.key}-imports", "- modules of mlflow", "count", none, compared_with=None
            ),
        ]
        super().__init__(self.key, engine, rows)

    def ways(self, bench: Bench) -> Sequence[Way]:
        return [
            (STOCK, partial(self.measure_stock, bench)),
            (OURS, partial(self.measure_ours, bench)),
        ]

    def measure_stock(self, bench: Bench) -> None:
        place = Folder(bench.memory / "artifacts")
        finished = bench.collect(
            self.engine,
            self.SHAPE,
            place,
            lambda uri: gc_of_stock(bench.stock_python, uri, uri, place.variables),
        )
        self.keep(bench, self.key, STOCK, finished.seconds, finished)

    def measure_ours(self, bench: Bench) -> None:
        """Some starts, and one more that is not measured and tells what it imports."""
        place = Folder(bench.memory / "artifacts")

        def work(uri: str) -> Finished:
            arguments = (uri, place.destination, place.variables)
            for _ in range(bench.effort.starts):
                finished = gc_of_ours(*arguments)
                self.keep(bench, self.key, OURS, finished.seconds, finished)
            return gc_of_ours(*arguments, python_options=("-X", "importtime"))

        told = bench.collect(self.engine, self.SHAPE, place, work)
        self.keep(bench, f"{self.key}-imports", OURS, count_modules("mlflow", told.stderr), told)


def count_modules(package: str, importtime: str) -> int:
    """How many modules of a package `python -X importtime` names.

    Raises:
        VoidError: It names nothing at all.
    """
    lines = [line for line in importtime.splitlines() if line.startswith("import time:")]
    if not lines:
        raise VoidError("python -X importtime has told nothing")
    names = (line.rpartition("|")[2].strip() for line in lines)
    return sum(name.partition(".")[0] == package for name in names)


class BesideServer(Scenario[Bench]):
    """A client logs to a live server of ours, first alone and then while gc works."""

    CALM = "calm"
    WARM_UP_SECONDS = 3
    WORKERS = 2

    def __init__(self, engine: str, deleted: int) -> None:
        self.shape = Shape(deleted)
        name = f"log-batch-{engine}"
        p99 = {"postgresql": Bar(at_most=2)}
        wait = {"sqlite": Bar(ours_at_most=1.5)}
        none = dict.fromkeys(ENGINES, Bar(ours_at_most=0))
        beside = f"beside gc of {deleted:,} runs"
        rows = [
            Measurement(f"{name}-p99", f"log_batch {beside}, p99", "ms", p99, False, self.CALM),
            Measurement(f"{name}-longest", "- longest wait", "s", wait, False, self.CALM),
            Measurement(f"{name}-failed", "- failed requests", "count", none, compared_with=None),
            Measurement(f"{name}-gc", "- gc meanwhile", "s", compared_with=None),
        ]
        super().__init__(name, engine, rows)

    def ways(self, bench: Bench) -> Sequence[Way]:
        return [(OURS, partial(self.measure, bench))]

    def measure(self, bench: Bench) -> None:
        place = Folder(bench.memory / "artifacts")
        work = partial(self.log, bench, place)
        finished, calm, during = bench.collect(self.engine, self.shape, place, work)
        for contender, some in ((self.CALM, calm), (OURS, during)):
            longest = max(call.seconds for call in some)
            self.keep(bench, f"{self.name}-p99", contender, p99_ms(some), finished)
            self.keep(bench, f"{self.name}-longest", contender, longest, finished)
        failed = sum(not call.is_good for call in during)
        self.keep(bench, f"{self.name}-failed", OURS, failed, finished)
        self.keep(bench, f"{self.name}-gc", OURS, finished.seconds, finished)

    def log(self, bench: Bench, place: Place, uri: str) -> tuple[Finished, list[Call], list[Call]]:
        """Collect beside a server; gives the calls just before, and those meanwhile."""
        options = f"--host 127.0.0.1 --port {{port}} --workers {self.WORKERS}"
        command = (sys.executable, "-m", "mlflow_server", "serve", *options.split())
        contender = ours(sys.executable, command)
        run_id = next(run.run_id for run in self.shape.runs() if not run.is_deleted)
        calm_s = bench.effort.calm_seconds
        with Server(contender, uri, bench.memory / "server") as server:
            server.wait_until_idle()
            with LoggingClient(server.port, run_id) as client:
                time.sleep(self.WARM_UP_SECONDS + calm_s)
                started = time.monotonic()
                finished = gc_of_ours(uri, place.destination, place.variables)
                ended = time.monotonic()
        before = client.between(started - min(ended - started, calm_s), started)
        return finished, before, client.between(started, ended)


class Growth(Scenario[Bench]):
    """How much longer ours takes for ten times the runs."""

    def __init__(self, engine: str, sizes: tuple[int, int]) -> None:
        self.key = f"growth-{engine}"
        few, many = (f"{size:,} runs" for size in sizes)
        self.shapes = {few: Shape(sizes[0]), OURS: Shape(sizes[1])}
        bars = {"postgresql": Bar(at_most=11), "sqlite": Bar(at_most=16)}
        rows = [Measurement(self.key, f"growth, {few} to {many}", "s", bars, compared_with=few)]
        super().__init__(self.key, engine, rows)

    def ways(self, bench: Bench) -> Sequence[Way]:
        return [
            (f"{shape.deleted:,} runs", partial(self.measure, bench, contender, shape))
            for contender, shape in self.shapes.items()
        ] * bench.effort.growth_repeats

    def measure(self, bench: Bench, contender: str, shape: Shape) -> None:
        finished = collect_ours(bench, self.engine, shape)
        self.keep(bench, self.key, contender, finished.seconds, finished)
