"""Stock `mlflow server` and `mlflow_server serve` side by side, on identical stores.

    python benchmarks/serve.py                      # both databases, 3 rounds, about 10 minutes
    python benchmarks/serve.py --only sqlite --quick

What each number means: benchmarks/README.md. Exit status: 0 all bars met, 3 some missed, 1 a
measurement failed, 2 wrong usage or something needed is not installed.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from _command import (
    absolute,
    positive,
    quit_with,
    require_postgresql,
    tell,
    unwind_when_terminated,
)
from _document import begin_document, end_document, print_document
from _machine import wrk_version
from _results import make_rows
from _servers import ServerError, ours, stock
from _session import Effort, Recorder, measure_store
from _stock_environment import stock_python
from _stores import open_stores

STORES = ("sqlite", "postgresql")
CONDITIONS = (
    "both servers: 4 workers, telemetry off (MLFLOW_DISABLE_TELEMETRY=true), one at a time, "
    "each on a fresh copy of one seeded store",
    "stock: no option but address, store and artifacts, job execution on as by default",
    "PostgreSQL: default configuration, fsync on, Unix socket, psycopg2",
    "clients and database run on the same machine",
)
STOCK_WITH_UVLOOP = (
    "stock profits from uvloop here, which MLflow does not require: in a plain installation each "
    "keep-alive answer takes 40 ms longer"
)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=STORES, help="one database engine instead of both")
    parser.add_argument("--runs", type=positive, default=2000, help="runs in the store (2000)")
    parser.add_argument("--rounds", type=positive, help="rounds, medians are shown (3)")
    parser.add_argument("--seconds", type=positive, help="length of each wrk load (5)")
    parser.add_argument("--quick", action="store_true", help="1 round, short loads: rough numbers")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--stock-python",
        type=absolute,
        metavar="PATH",
        help="interpreter for stock (default: .venv-stock, made when missing, without uvloop)",
    )
    parser.add_argument("--logs", type=absolute, metavar="DIR", help="keep the servers' logs here")
    parser.add_argument("--ours-command", help=argparse.SUPPRESS)
    return parser.parse_args()


def choose_effort(arguments: argparse.Namespace) -> Effort:
    quick: bool = arguments.quick
    return Effort(
        run_count=arguments.runs,
        rounds=arguments.rounds or (1 if quick else 3),
        starts=1 if quick else 3,
        seconds=arguments.seconds or (2 if quick else 5),
        warm_up_seconds=1 if quick else 2,
        calls=100 if quick else 300,
        small_transfers=10 if quick else 30,
        large_transfers=3 if quick else 7,
    )


def check_tools(stores: tuple[str, ...]) -> None:
    """End with a hint when something needed is not installed."""
    if shutil.which("wrk") is None:
        quit_with("wrk is not installed (Debian: apt install wrk)")
    if "postgresql" in stores:
        require_postgresql()


def describe(arguments: argparse.Namespace, effort: Effort) -> dict[str, Any]:
    """Everything a reader must know to judge the numbers."""
    document = begin_document(
        "benchmarks/serve",
        str(arguments.stock_python),
        CONDITIONS,
        vars(effort) | {"quick": arguments.quick},
    )
    if document["versions"]["stock"]["uvloop"]:
        document["conditions"].append(STOCK_WITH_UVLOOP)
    document["tools"].append(wrk_version())
    return document


def run(
    arguments: argparse.Namespace, stores: tuple[str, ...], recorder: Recorder
) -> dict[str, Any]:
    """Measure everything; gives the JSON document without the results."""
    effort = choose_effort(arguments)
    pair = (
        stock(str(arguments.stock_python)),
        ours(sys.executable, shlex.split(arguments.ours_command or "")),
    )
    document = describe(arguments, effort)
    with tempfile.TemporaryDirectory(prefix="mlflow-bench-", ignore_cleanup_errors=True) as folder:
        for name in stores:
            tell(f"{name}: seeding {effort.run_count} runs")
            with open_stores(name, Path(folder) / name, effort.run_count) as opened:
                document["tools"].append(opened.databases.version)
                measure_store(opened, pair, effort, Path(folder), arguments.logs, recorder)
    return document


def main() -> int:
    """Measure, print, and give the exit status."""
    arguments = parse_arguments()
    stores = (arguments.only,) if arguments.only else STORES
    check_tools(stores)
    unwind_when_terminated()
    if arguments.logs:
        arguments.logs.mkdir(parents=True, exist_ok=True)
    arguments.stock_python = arguments.stock_python or stock_python()
    recorder = Recorder()
    try:
        document = run(arguments, stores, recorder)
    except ServerError as error:
        tell(f"FAILED: {error}")
        return 1
    except KeyboardInterrupt:
        tell("interrupted; all servers are stopped")
        return 130
    rows = make_rows(recorder.samples, stores)
    document = end_document(document, rows, recorder.samples, recorder.failures, recorder.warnings)
    return print_document(document, rows, as_json=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
