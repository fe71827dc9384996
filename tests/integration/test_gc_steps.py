"""What is too large for one short transaction of SQLite goes in steps, and is never seen half."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy

from tests.support.forks import serve
from tests.support.gc_place import EXPERIMENTS, GONE_RUNS, KILLED, RUNS, Yard
from tests.support.mariadb import MARIADB
from tests.support.programs import http
from tests.support.stores import open_store

API = "/api/2.0/mlflow"
pytestmark = pytest.mark.xdist_group("gc-steps")

# Runs the command as if a handful of rows were many.
_AS_IF_LARGE = """
from mlflow_server.gc import batches
from mlflow_server.gc.pace import Pace
from mlflow_server.gc.writer import Writer

batches._LARGE_ROWS = 5
Writer.pace = lambda self: Pace(2, 2, 2)
"""
_SMALL = f"{_AS_IF_LARGE}\nfrom mlflow_server.cli.main import main\nmain(['gc'])"
_BEGUN = ("mlflow_server.gc.entities", "Entities:of_experiment", "1", "before")
FAULTS = [
    ("mlflow_server.gc.condemned", "condemn", "1", "after"),
    ("mlflow_server.gc.condemned", "condemn", "2", "before"),
    _BEGUN,
    ("mlflow_server.gc.entities", "Entities:drain", "1", "after"),
    ("mlflow_server.gc.entities", "Entities:drain", "2", "before"),
    ("mlflow_server.gc.entities", "Entities:of_experiment", "2", "before"),
    ("mlflow_server.gc.entities", "Entities:of_experiment", "4", "before"),
    ("mlflow_server.gc.condemned", "release", "1", "before"),
    ("mlflow_server.gc.condemned", "release", "1", "after"),
    ("mlflow_server.gc.condemned", "release", "2", "after"),
]


def _ours(yard: Yard) -> list[str]:
    """What gc has left in the schema of the store."""
    return sorted(
        yard.query("SELECT name FROM sqlite_master WHERE name LIKE 'tracking_server_gc_%'")
    )


def test_it_ends_the_same(yard: Yard) -> None:
    done = yard.run_program(_SMALL)
    assert done.returncode == 0, done.stderr
    yard.check_collected()
    assert _ours(yard) == ["tracking_server_gc_journal"], "no trigger stays"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: "-".join(fault[1:]))
@pytest.mark.parametrize("again", ["in steps", "at once"])
def test_killed_anywhere_and_run_again_it_ends_the_same(
    yard: Yard, fault: tuple[str, ...], again: str
) -> None:
    killed = yard.run_program(_AS_IF_LARGE + KILLED, *fault)
    assert killed.returncode == -9, killed.stderr
    assert yard.query("PRAGMA foreign_key_check") == []
    if again == "in steps":
        assert yard.run_program(_SMALL).returncode == 0
    else:
        yard.report()
    yard.check_collected()
    assert _ours(yard) == ["tracking_server_gc_journal"]


def test_what_has_begun_to_go_cannot_be_restored(yard: Yard) -> None:
    """Through a live server, after a gc that was killed: refused now, gone after the next one."""
    assert yard.run_program(_AS_IF_LARGE + KILLED, *_BEGUN).returncode == -9
    gone, run = yard.ids["gone"], yard.ids["gone-1"]
    with serve(yard.place.root / "server", environment=yard.environment) as server:

        def post(path: str, **body: str) -> int:
            headers = {"Content-Type": "application/json"}
            data = json.dumps(body).encode()
            return http(
                f"{server.url}{API}/{path}", method="POST", body=data, headers=headers
            ).status

        assert post("experiments/restore", experiment_id=gone) >= 400
        assert post("runs/restore", run_id=run) >= 400
        source = {"source": f"runs:/{run}/model", "run_id": run}
        assert post("model-versions/create", name="registered", **source) >= 400
        assert post("runs/restore", run_id=yard.ids["held-old"]) == 200, "others can be"
        yard.report()
        assert post("experiments/restore", experiment_id=gone) == 404
    runs, _, experiments = yard.left()
    assert runs == RUNS - GONE_RUNS | {"held-old"}
    assert experiments == EXPERIMENTS - {"gone"}


def test_no_transaction_takes_more_than_it_should(yard: Yard) -> None:
    """Counted in rows, of a run with very many: what one transaction deletes is bounded."""
    old = yard.ids["old"]
    with _open(yard) as connection:
        connection.executemany(
            "INSERT INTO metrics (key, value, timestamp, run_uuid, step) VALUES ('k', 0, ?, ?, ?)",
            [(step, old, step) for step in range(250_000)],
        )
    program = (
        "import mlflow_server.gc.entities as e\n"
        "from mlflow_server.gc.writer import Writer\n"
        "drain = e.Entities.drain\n"
        "def count(*args):\n"
        "    found = drain(*args); print('drained', found); return found\n"
        "e.Entities.drain = count\n"
        "from mlflow_server.cli.main import main\n"
        "main(['gc'])"
    )
    done = yard.run_program(program)
    assert done.returncode == 0, done.stderr
    drained = [int(line.split()[1]) for line in done.stdout.splitlines() if "drained" in line]
    assert sum(drained) == 250_000 + 6
    assert len(drained) > 1
    assert max(drained) < 250_000
    yard.check_collected()


@contextmanager
def _open(yard: Yard) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(yard.place.store)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


# --- Counts ------------------------------------------------------------------------------------

_COUNTED = """
from sqlalchemy import event
from sqlalchemy.engine import Engine

statements = 0

@event.listens_for(Engine, "before_cursor_execute")
def count(*args):
    global statements
    statements += 1

from mlflow_server.cli.main import main
try:
    main(["gc"])
finally:
    print("statements", statements)
"""


@pytest.mark.parametrize("yard", ["sqlite", "postgresql", MARIADB], indirect=True)
def test_statements_do_not_grow_with_the_runs_of_a_batch(yard: Yard) -> None:
    def statements() -> int:
        done = yard.run_program(_COUNTED)
        assert done.returncode == 0, done.stderr
        return int(done.stdout.split()[-1])

    def add_runs(number: int) -> None:
        where = yard.ids["stays"]
        ids = [f"{number:016x}{index:016x}" for index in range(number)]
        insert = sqlalchemy.text(
            "INSERT INTO runs (run_uuid, experiment_id, lifecycle_stage, deleted_time, status, "
            "artifact_uri) VALUES (:id, :where, 'deleted', 1, 'FINISHED', :uri)"
        )
        runs = [
            {"id": each, "where": int(where), "uri": f"mlflow-artifacts:/{where}/{each}/artifacts"}
            for each in ids
        ]
        with open_store(yard.uri).begin() as connection:
            connection.execute(insert, runs)

    statements()
    add_runs(3)
    few = statements()
    add_runs(300)
    assert statements() == few < 80
    yard.check_collected()
