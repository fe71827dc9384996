"""Run `mlflow gc` and ours."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from _programs import Finished, VoidError, run_command, tail
from _servers import REPOSITORY

AGE = ("--older-than", "30d")


def gc_of_stock(
    python: str, backend_store_uri: str, tracking_uri: str, variables: Mapping[str, str]
) -> Finished:
    """`mlflow gc` of an environment.

    Args:
        python: Its interpreter.
        backend_store_uri: The store.
        tracking_uri: The server, where artifacts are behind one. Without any `mlflow gc` refuses to
            start, also when it is not needed.
        variables: What the artifacts' destination needs.

    Raises:
        VoidError: It failed.
    """
    command = (python, "-m", "mlflow", "gc", "--backend-store-uri", backend_store_uri, *AGE)
    return run_command(command, {"MLFLOW_TRACKING_URI": tracking_uri, **variables})


def gc_of_ours(
    backend_store_uri: str,
    destination: str,
    variables: Mapping[str, str],
    options: Sequence[str] = (),
    python_options: Sequence[str] = (),
) -> Finished:
    """`python -m mlflow_server gc` out of this repository.

    Args:
        backend_store_uri: The store.
        destination: What `mlflow-artifacts:/` stands for.
        variables: What it needs.
        options: Of the command.
        python_options: Of the interpreter.

    Raises:
        VoidError: It failed, or printed no report.
    """
    command = (sys.executable, *python_options, "-m", "mlflow_server", "gc", "--json", *AGE)
    settings = {
        "PYTHONPATH": str(REPOSITORY),
        "MLFLOW_BACKEND_STORE_URI": backend_store_uri,
        "MLFLOW_ARTIFACTS_DESTINATION": destination,
    }
    finished = run_command((*command, *options), {**settings, **variables})
    try:
        report: dict[str, Any] = json.loads(finished.stdout)
    except ValueError:
        raise VoidError(f"no report on stdout: {tail(finished.stdout)}") from None
    return replace(finished, phases=report.get("seconds", {}))
