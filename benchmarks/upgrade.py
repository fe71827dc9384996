"""`upgrade` beside `mlflow db upgrade`, on identical stores of MLflow 2.9 and 3.16.

    python benchmarks/upgrade.py                 # everything, about ten minutes
    python benchmarks/upgrade.py --quick         # small stores: does it work
    python benchmarks/upgrade.py --only metrics-postgresql --rounds 3

What each number means: benchmarks/README.md. Exit status: 0 all bars met, 3 some missed, 1 a
measurement failed, 2 wrong usage or something needed is not installed.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from _command import (
    require_postgresql,
    row_parser,
    tell,
    unwind_when_terminated,
)
from _databases import ENGINES, Databases, PostgresqlDatabases, open_databases
from _document import begin_document
from _gc_places import file_system
from _programs import Finished, VoidError, run_command, tail
from _results import OURS, Bar, Measurement
from _scenario import STOCK, Scenario, Way, choose, print_results
from _servers import REPOSITORY
from _session import Recorder
from _stock_environment import stock_python
from _stores import run_seed
from _upgrade_seed import METRIC_KEYS
from _upgrade_traces_seed import SPANS

RUNS = 300
CONDITIONS = (
    "from start to exit of the whole command, telemetry off, on fresh copies of one seeded store, "
    "a sync before each",
    f"{RUNS} runs of MLflow 2.9 with {METRIC_KEYS} metrics each; no traces",
    f"traces: a store of MLflow 3.16 with {SPANS} spans, an assessment and eight keys each",
    "the migration itself: ours as the command reports it; of stock the command, without what it "
    "takes where nothing is pending",
    "PostgreSQL: default configuration, fsync on, Unix socket, psycopg2; pg_dump makes the backup",
)


@dataclass
class Bench:
    """What the scenarios measure with.

    Attributes:
        folder: On a disk; everything is in it.
        stock_python: Interpreter of stock MLflow.
        points: Of each metric.
        traces: How many.
        resources: Closes what is opened on the way.
        recorder: Gets the values.
        round_number: From 1.
    """

    folder: Path
    stock_python: str
    points: int
    traces: int
    resources: ExitStack
    recorder: Recorder = field(default_factory=Recorder)
    round_number: int = 1
    _databases: dict[str, Databases] = field(default_factory=dict)
    _seeded: set[tuple[str, str]] = field(default_factory=set)

    def databases(self, engine: str) -> Databases:
        """Those of an engine, when they are first asked for."""
        if engine not in self._databases:
            opened = open_databases(engine, self.folder / engine)
            self._databases[engine] = self.resources.enter_context(opened)
        return self._databases[engine]

    @contextmanager
    def store(self, engine: str, content: str) -> Iterator[str]:
        """The URI of a fresh copy of a store, which is seeded when it is first asked for.

        Args:
            engine: Of the database.
            content: Key of `_SEEDS`.
        """
        databases = self.databases(engine)
        if (engine, content) not in self._seeded:
            # Noted before, so that one that failed is not tried again under the same name.
            self._seeded.add((engine, content))
            tell(f"{engine}: seeding {content}")
            program, arguments = _SEEDS[content]
            given = [str(each) for each in arguments(self)]
            databases.seed(content, lambda uri: run_seed(program, uri, *given))
        uri = databases.copy(content, "copied")
        try:
            os.sync()
            yield uri
        finally:
            databases.drop("copied")


_SEEDS: dict[str, tuple[str, Callable[[Bench], Sequence[int]]]] = {
    "metrics": ("_upgrade_seed.py", lambda bench: (RUNS, bench.points)),
    "traces": ("_upgrade_traces_seed.py", lambda bench: (bench.traces,)),
}


class Upgrade(Scenario[Bench]):
    """`--check`, the upgrade, and once more when nothing is pending."""

    content, label = "metrics", "upgrade, 44 revisions"
    bar, bar_itself = Bar(at_most=2), Bar(at_most=1.1)

    def __init__(self, engine: str) -> None:
        key = f"{self.content}-{engine}"
        limit = {engine: Bar(ours_at_most=1.5)}
        super().__init__(
            key,
            engine,
            [
                Measurement(f"{key}-check", "--check", "s", limit, compared_with=None),
                Measurement(key, self.label, "s", {engine: self.bar}),
                Measurement(
                    f"{key}-itself", "- the migration itself", "s", {engine: self.bar_itself}
                ),
                Measurement(
                    f"{key}-nothing", "nothing pending", "s", {engine: Bar(ours_at_most=1)}
                ),
            ],
        )

    def ways(self, bench: Bench) -> Sequence[Way]:
        return [
            (STOCK, partial(self.measure_stock, bench)),
            (OURS, partial(self.measure_ours, bench)),
        ]

    def measure_stock(self, bench: Bench) -> None:
        with bench.store(self.engine, self.content) as uri:
            command = (bench.stock_python, "-m", "mlflow", "db", "upgrade", uri)
            done, nothing = run_command(command, {}), run_command(command, {})
            self.check(bench)
        self.keep(bench, self.name, STOCK, done.seconds, done)
        self.keep(bench, f"{self.name}-itself", STOCK, done.seconds - nothing.seconds, done)
        self.keep(bench, f"{self.name}-nothing", STOCK, nothing.seconds, nothing)

    def measure_ours(self, bench: Bench) -> None:
        with bench.store(self.engine, self.content) as uri:
            checked, _ = self.run_ours(bench, uri, "--check", code=3)
            done, report = self.run_ours(bench, uri, "--backup-folder", str(bench.folder / "kept"))
            nothing, _ = self.run_ours(bench, uri)
            self.check(bench)
        seconds = report["items"][0]["facts"]["seconds"]
        tell(f"{self.name}: {seconds}")
        self.keep(bench, f"{self.name}-check", OURS, checked.seconds, checked)
        self.keep(bench, self.name, OURS, done.seconds, done)
        self.keep(bench, f"{self.name}-itself", OURS, seconds["migration"], done)
        self.keep(bench, f"{self.name}-nothing", OURS, nothing.seconds, nothing)

    def run_ours(
        self, bench: Bench, uri: str, *options: str, code: int = 0
    ) -> tuple[Finished, dict[str, Any]]:
        """Run `upgrade` out of this repository, with PostgreSQL's programs on PATH."""
        settings = {"PYTHONPATH": str(REPOSITORY), "MLFLOW_BACKEND_STORE_URI": uri}
        databases = bench.databases(self.engine)
        if isinstance(databases, PostgresqlDatabases):
            folder = Path(databases.tool("pg_dump")).parent
            settings["PATH"] = f"{folder}:{os.environ['PATH']}"
        # The exit code of --check says that something is pending.
        program = (
            "import subprocess, sys; sys.exit(subprocess.run(sys.argv[2:]).returncode "
            "!= int(sys.argv[1]))"
        )
        ours = (sys.executable, "-m", "mlflow_server", "upgrade", *options, "--json")
        wrapped = (sys.executable, "-c", program, str(code), *ours)
        finished = run_command(ours if code == 0 else wrapped, settings)
        try:
            return finished, json.loads(finished.stdout)
        except ValueError:
            raise VoidError(f"no report on stdout: {tail(finished.stdout)}") from None

    def check(self, bench: Bench) -> None:
        """Raise unless the store is at the newest revision with all its points.

        Raises:
            VoidError: It is not.
        """
        self.require(bench, "SELECT count(*) FROM metrics", RUNS * METRIC_KEYS * bench.points)

    def require(self, bench: Bench, query: str, count: int) -> None:
        """Raise unless the store is at the newest revision and a query gives a number.

        Raises:
            VoidError: It is not, or does not.
        """
        whole = f"SELECT (SELECT version_num FROM alembic_version), ({query})"  # noqa: S608
        found = tuple(bench.databases(self.engine).query("copied", whole)[0])
        if found != ("dc11669786a5", count):
            raise VoidError(f"the store is at {found}")


class Traces(Upgrade):
    """The upgrade of a store with many traces, whose rows become columns."""

    content, label = "traces", "upgrade, with traces"
    bar, bar_itself = Bar(at_most=0.6), Bar(at_most=0.5)

    def check(self, bench: Bench) -> None:
        query = "SELECT count(*) FROM spans WHERE model_name = 'large' AND total_cost = 0.5"
        self.require(bench, query, bench.traces * SPANS)


def main() -> int:
    """Measure, print, and give the exit status."""
    arguments = row_parser(__doc__).parse_args()
    rounds = arguments.rounds or 1
    points = 3 if arguments.quick else 330
    traces = 300 if arguments.quick else 25_000
    made = [kind(engine) for kind in (Upgrade, Traces) for engine in ENGINES]
    scenarios = choose(made, arguments.only)
    require_postgresql()
    unwind_when_terminated()
    stock = str(arguments.stock_python or stock_python())
    try:
        with ExitStack() as resources:
            root = tempfile.TemporaryDirectory(prefix="mlflow-bench-", ignore_cleanup_errors=True)
            folder = Path(resources.enter_context(root)).resolve()
            bench = Bench(folder, stock, points, traces, resources)
            effort = {"rounds": rounds, "points": points, "traces": traces}
            effort["quick"] = arguments.quick
            document = begin_document("benchmarks/upgrade", stock, CONDITIONS, effort)
            document["conditions"].append(f"everything on {file_system(folder)}")
            for bench.round_number in range(1, rounds + 1):
                for scenario in scenarios:
                    scenario.run(bench)
    except KeyboardInterrupt:
        tell("interrupted; everything is stopped and removed")
        return 130
    return print_results(document, scenarios, bench.recorder, as_json=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
