"""A store to collect in, with what should be gone afterwards, and the command that does it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy

from tests.support import forks
from tests.support.places import Place
from tests.support.programs import DESTINATION, REPOSITORY, STORE, clean_environment
from tests.support.stores import open_store

GONE_RUNS = {"old", "gone-1", "gone-2", "held-old"}
GONE_MODELS = {"model-old", "gone-model"}
RUNS = {"active", "old", "young", "needed", "unknown", *GONE_RUNS, "held-active"}
MODELS = {"model-active", "model-needed", *GONE_MODELS}
EXPERIMENTS = {"stays", "gone", "held"}

# Runs the command, and kills it at the Nth call of a function, or sends it another signal.
KILLED = """
import importlib, itertools, os, signal, sys
module, name, when, after = sys.argv[1:5]
holder = importlib.import_module(module)
if ":" in name:
    holder, name = getattr(holder, name.partition(":")[0]), name.partition(":")[2]
original, calls = getattr(holder, name), itertools.count(1)
number = int(sys.argv[5]) if sys.argv[5:] else signal.SIGKILL

def fault(*args, **kwargs):
    is_last = next(calls) == int(when)
    if is_last and after == "before":
        os.kill(os.getpid(), number)
    result = original(*args, **kwargs)
    if is_last:
        os.kill(os.getpid(), number)
    return result

setattr(holder, name, fault)
from mlflow_server.cli.main import main
main(["gc"])
"""


@dataclass(frozen=True)
class Made:
    """A store with everything that has to be told apart; see `tests/support/gc_store.py`."""

    uri: str
    artifacts: Path
    ids: Mapping[str, str]


@dataclass(frozen=True)
class Yard:
    """A copy of it to collect in."""

    place: Place
    uri: str
    artifacts: Path
    ids: Mapping[str, str]

    def gc(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command."""
        return self.place.run("gc", *options, environment={**self.environment, **environment})

    def run_program(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a Python program that runs the command, with something in its way."""
        return forks.run(
            [sys.executable, "-c", program, *arguments],
            env=clean_environment(**self.environment),
            cwd=self.place.project,
            timeout=60,
        )

    @property
    def environment(self) -> dict[str, str]:
        """The settings."""
        return {STORE: self.uri, DESTINATION: str(self.artifacts)}

    def report(self, *options: str, code: int = 0) -> dict[str, Any]:
        """Run the command and read its report."""
        ended = self.gc("--json", *options)
        assert ended.returncode == code, ended.stderr
        document: dict[str, Any] = json.loads(ended.stdout)
        return document

    def query(self, statement: str, **parameters: Any) -> list[Any]:
        """Ask the database, or change it."""
        with open_store(self.uri).begin() as connection:
            result = connection.execute(sqlalchemy.text(statement), parameters)
            return list(result.scalars()) if result.returns_rows else []

    def left(self) -> tuple[set[str], set[str], set[str]]:
        """Names of the runs, logged models and experiments whose rows are there."""
        found = {
            *self.query("SELECT run_uuid FROM runs"),
            *self.query("SELECT model_id FROM logged_models"),
            *map(str, self.query("SELECT experiment_id FROM experiments")),
        }
        names = {name for name, entity_id in self.ids.items() if entity_id in found}
        return names & RUNS, names & MODELS, names & EXPERIMENTS

    def with_files(self) -> set[str]:
        """Names of the runs and logged models that have files."""
        there = {
            part for path in self.artifacts.rglob("*") for part in path.parts if path.is_file()
        }
        return {name for name, entity_id in self.ids.items() if entity_id in there} - EXPERIMENTS

    def check_collected(self) -> None:
        """Everything that should be gone is, and nothing else."""
        runs, models = RUNS - GONE_RUNS, MODELS - GONE_MODELS
        assert self.left() == (runs, models, EXPERIMENTS - {"gone"})
        assert self.with_files() == runs | models
        assert {path.name for path in self.artifacts.iterdir()} <= set(self.ids.values())
        assert self.query("SELECT COUNT(*) FROM tracking_server_gc_journal") == [0]
        self.check_rows()

    def check_rows(self) -> None:
        """No row is left of what is gone, and none of what stays is missing."""
        left = len(self.query("SELECT run_uuid FROM runs"))
        for table, per_run in (("metrics", 6), ("latest_metrics", 2), ("params", 1)):
            assert self.query(f"SELECT COUNT(*) FROM {table}") == [per_run * left]  # noqa: S608
        run_ids = set(self.query("SELECT run_uuid FROM runs"))
        assert set(self.query("SELECT DISTINCT run_uuid FROM tags")) <= run_ids
        linked = set(self.query("SELECT destination_id FROM inputs WHERE destination_type = 'RUN'"))
        linked |= set(self.query("SELECT source_id FROM inputs WHERE source_type = 'RUN_OUTPUT'"))
        assert linked <= run_ids
        inputs = set(self.query("SELECT input_uuid FROM inputs"))
        assert set(self.query("SELECT input_uuid FROM input_tags")) <= inputs
        if self.uri.startswith("sqlite"):
            assert self.query("PRAGMA foreign_key_check") == []


def make(uri: str, artifacts: Path) -> Made:
    """Make the store in a process of its own: MLflow is imported there, not here."""
    artifacts.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "tests/support/gc_store.py"), uri, str(artifacts)],
        env=clean_environment(MLFLOW_DISABLE_TELEMETRY="true"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return Made(uri, artifacts, json.loads(done.stdout.splitlines()[-1]))
