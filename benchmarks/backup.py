"""Backup, restore and migrate beside `pg_dump`, `.backup`, `cp -r` and mlflow-export-import.

    python benchmarks/backup.py                          # everything, about an hour
    python benchmarks/backup.py --quick                  # small stores: does it work
    python benchmarks/backup.py --only create,restore --rounds 3
    python benchmarks/backup.py --only migrate --peer-runs 100
    python benchmarks/backup.py --only memory            # ten million rows

What each number means: benchmarks/README.md. Exit status: 0 all bars met, 3 some missed, 1 a
measurement failed, 2 wrong usage or something needed is not installed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from _backup_bench import Bench, Effort
from _backup_migrate import Migrate
from _backup_peer import COMMIT, SOURCE, make_peer
from _backup_scenarios import make_scenarios
from _command import (
    absolute,
    positive,
    require_postgresql,
    row_parser,
    tell,
    unwind_when_terminated,
)
from _document import begin_document
from _gc_places import file_system
from _scenario import Scenario, choose, print_results
from _stock_environment import stock_python

QUICK = Effort(runs=50, peer_runs=2, memory_rows=20_000)
CONDITIONS = (
    "from start to exit of the whole command, telemetry off, on fresh copies of one seeded store, "
    "one at a time, a sync before each",
    "each run of the stores without artifacts: 20 metrics of 10 points, 10 parameters, 9 tags of "
    "which MLflow's client sets 4; ten experiments",
    "files: 50 of 1 KiB or 10 of 512 KiB of random bytes for each run, from one folder to "
    "another of the same disk; just written, so in the page cache, for both",
    "mlflow-export-import: few runs of one experiment, without artifacts, through `mlflow server`s "
    "of SQLite and PostgreSQL; what it takes for more is computed per run, its start taken off",
    "PostgreSQL: default configuration, fsync on, Unix socket, psycopg2",
    "databases, servers and clients run on the same machine",
)


def parse_arguments() -> argparse.Namespace:
    parser = row_parser(__doc__)
    parser.add_argument(
        "--peer-runs",
        type=at_least_two,
        metavar="N",
        help="runs that mlflow-export-import gets (50); it takes some seconds for each",
    )
    parser.add_argument(
        "--peer-python",
        type=absolute,
        metavar="PATH",
        help="interpreter that has mlflow-export-import (default: one made in a temporary folder)",
    )
    parser.add_argument(
        "--peer-source",
        default=SOURCE,
        metavar="URL",
        help=f"where pip gets it from, at commit {COMMIT} (default: {SOURCE})",
    )
    return parser.parse_args()


def at_least_two(text: str) -> int:
    """For argparse: what one run takes is taken off."""
    number = positive(text)
    if number < 2:
        raise argparse.ArgumentTypeError("must be at least 2")
    return number


def choose_effort(arguments: argparse.Namespace) -> Effort:
    effort = QUICK if arguments.quick else Effort()
    return replace(
        effort,
        rounds=arguments.rounds or effort.rounds,
        peer_runs=arguments.peer_runs or effort.peer_runs,
    )


def find_peer(
    arguments: argparse.Namespace, stock: str, scenarios: list[Scenario[Bench]], folder: Path
) -> str | None:
    """The interpreter of the peer, where a row is about it."""
    if not any(isinstance(scenario, Migrate) for scenario in scenarios):
        return None
    if arguments.peer_python:
        return str(arguments.peer_python)
    return make_peer(folder, stock, arguments.peer_source)


def run(
    arguments: argparse.Namespace, scenarios: list[Scenario[Bench]], bench: Bench
) -> dict[str, Any]:
    """Measure everything; gives the document without the results."""
    document = begin_document(
        "benchmarks/backup",
        bench.stock_python,
        CONDITIONS,
        vars(bench.effort) | {"quick": arguments.quick},
    )
    document["conditions"].append(f"everything on {file_system(bench.folder)}")
    for number in range(1, bench.effort.rounds + 1):
        bench.round_number = number
        for scenario in scenarios:
            scenario.run(bench)
    document["tools"] += bench.versions
    if bench.peer_python:
        document["tools"].append(f"mlflow-export-import {COMMIT}")
    return document


def main() -> int:
    """Measure, print, and give the exit status."""
    arguments = parse_arguments()
    effort = choose_effort(arguments)
    scenarios = choose(make_scenarios(effort), arguments.only)
    require_postgresql()
    unwind_when_terminated()
    stock = str(arguments.stock_python or stock_python())
    try:
        with ExitStack() as resources:
            made = tempfile.TemporaryDirectory(prefix="mlflow-bench-", ignore_cleanup_errors=True)
            folder = Path(resources.enter_context(made)).resolve()
            peer = find_peer(arguments, stock, scenarios, folder / "peer")
            bench = Bench(folder, stock, peer, effort, resources)
            document = run(arguments, scenarios, bench)
    except KeyboardInterrupt:
        tell("interrupted; everything is stopped and removed")
        return 130
    return print_results(document, scenarios, bench.recorder, as_json=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
