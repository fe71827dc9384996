"""The document that a benchmark prints: facts of machine and software, table, outcome."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from _machine import load_average, machine_facts, package_versions
from _results import Row, Sample, Verdict, render_table, row_document


def begin_document(
    command: str, stock_python: str, conditions: Sequence[str], effort: dict[str, Any]
) -> dict[str, Any]:
    """Everything a reader must know to judge the numbers, as far as it is known before them.

    Args:
        command: Name of the benchmark.
        stock_python: The peer's interpreter.
        conditions: Sentences.
        effort: How much is measured.
    """
    return {
        "command": command,
        "started_at": now(),
        "load_before": load_average(),
        "machine": machine_facts(),
        "versions": {
            "stock": package_versions(stock_python),
            "ours": package_versions(sys.executable),
        },
        "tools": [],
        "conditions": list(conditions),
        "effort": effort,
    }


def end_document(
    document: dict[str, Any],
    rows: Sequence[Row],
    samples: Sequence[Sample],
    failures: Sequence[str],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """The document with its results."""
    return document | {
        "finished_at": now(),
        "load_after": load_average(),
        "outcome": outcome_of(rows, failures),
        "counts": {v.name.lower(): sum(row.verdict is v for row in rows) for v in Verdict},
        "items": [row_document(row, samples) for row in rows],
        "failures": list(failures),
        "warnings": list(warnings),
    }


def outcome_of(rows: Sequence[Row], failures: Sequence[str]) -> str:
    """One of the keys of `EXIT_STATUS`."""
    verdicts = {row.verdict for row in rows}
    if failures or Verdict.FAILED in verdicts:
        return "failed"
    return "missed" if Verdict.MISSED in verdicts else "met"


EXIT_STATUS = {"met": 0, "failed": 1, "missed": 3}


def print_document(document: dict[str, Any], rows: Sequence[Row], *, as_json: bool) -> int:
    """Print an ended document on stdout; returns the exit status."""
    print(json.dumps(document, indent=2) if as_json else render_text(document, rows))
    return EXIT_STATUS[document["outcome"]]


def render_text(document: dict[str, Any], rows: Sequence[Row]) -> str:
    """Facts, table, troubles and outcome."""
    troubles = [
        *(f"WARNING {warning}" for warning in document["warnings"]),
        *(f"FAILED {failure}" for failure in document["failures"]),
    ]
    parts = [render_facts(document), render_table(rows), "\n".join(troubles)]
    return "\n\n".join([*filter(None, parts), f"bars {document['outcome']}"])


def render_facts(document: dict[str, Any]) -> str:
    """The facts above the table."""
    machine, versions, effort = (document[key] for key in ("machine", "versions", "effort"))
    lines = [
        f"date       {document['started_at']} to {document['finished_at']}",
        f"machine    {machine['processor']}, {machine['cpu_usable']} of {machine['cpu_count']} "
        f"processors, {machine['memory_mib']} MiB, {machine['system']}",
        f"tools      {', '.join(document['tools'])}",
        *(f"{name:10} {render_versions(versions[name])}" for name in ("stock", "ours")),
        f"effort     {', '.join(f'{name} {value}' for name, value in effort.items())}",
        *(f"condition  {condition}" for condition in document["conditions"]),
        f"load       {document['load_before']:.1f} before, {document['load_after']:.1f} after",
    ]
    return "\n".join(lines)


def render_versions(versions: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {version or 'absent'}" for name, version in versions.items())


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
