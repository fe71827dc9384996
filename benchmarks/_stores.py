"""The seeded backend store of `serve.py` and identical copies of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _databases import Databases, open_databases
from seed import Seeded

HERE = Path(__file__).resolve().parent
SERVER_SETTINGS = (
    "MLFLOW_",
    "_MLFLOW_",
    "TRACKING_SERVER_",
    "UVICORN_",
    "GUNICORN_",
    "WEB_CONCURRENCY",
    "PYTHONPATH",
)
"""Beginnings of the environment variables that would change what is measured."""
TEMPLATE = "seeded"


def neutral_environment() -> dict[str, str]:
    """This process's environment without server settings, and with telemetry off."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(SERVER_SETTINGS)
    }
    return environment | {"MLFLOW_DISABLE_TELEMETRY": "true"}


@dataclass(frozen=True)
class Stores:
    """One seeded store of one database engine, and copies of it.

    Attributes:
        databases: Where it is and the copies go.
        seeded: What is in the store.
    """

    databases: Databases
    seeded: Seeded

    @property
    def name(self) -> str:
        """The engine."""
        return self.databases.name

    def copy(self, label: str) -> str:
        """Make a fresh copy; returns its backend store URI. `label`: letters, digits, "_"."""
        return self.databases.copy(TEMPLATE, label)

    def drop(self, label: str) -> None:
        """Remove a copy; nothing may be connected any more."""
        self.databases.drop(label)


@contextmanager
def open_stores(name: str, folder: Path, run_count: int) -> Iterator[Stores]:
    """Seed a store; leaving the context removes it.

    Args:
        name: Of the engine: "sqlite" or "postgresql".
        folder: Made for the databases.
        run_count: Runs in the store.
    """
    with open_databases(name, folder) as databases:

        def fill(backend_store_uri: str) -> Seeded:
            fields = run_seed("seed.py", backend_store_uri, "--runs", str(run_count))
            return Seeded(**{**fields, "side_run_ids": tuple(fields["side_run_ids"])})

        yield Stores(databases, databases.seed(TEMPLATE, fill))


def run_seed(program: str, *arguments: str) -> Any:
    """Seed a store in a process of its own, so that MLflow is not imported here.

    Args:
        program: File of this folder that prints a JSON value.
        arguments: For it.

    Returns:
        What it printed.
    """
    output = subprocess.run(
        [sys.executable, str(HERE / program), *arguments],
        env=neutral_environment(),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    return json.loads(output)
