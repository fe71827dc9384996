"""The store of `everything.py` to back up and to move, and how two stores are compared."""

from __future__ import annotations

import base64
import difflib
import json
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Postgres
from tests.support import forks
from tests.support.forks import serve
from tests.support.mariadb import MariaDb
from tests.support.places import Place
from tests.support.programs import DESTINATION, STORE, Server, clean_environment, http

SUPPORT = Path(__file__).parent
# Of servers: with it they read the secrets that another one wrote.
SERVER = {
    "MLFLOW_CRYPTO_KEK_PASSPHRASE": "a passphrase of thirty-two bytes",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(bytes(range(32))).decode(),
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WORKERS": "1",
}
BACKUPS = "TRACKING_SERVER_BACKUPS"


@dataclass(frozen=True)
class Everything:
    """A store at rest.

    Args:
        place: Where it is, and where commands run.
        uri: The database.
        artifacts: The destination.
        own: Beside it, the artifacts of one experiment.
        dump: What the API says of it.
        workspaces: That are looked into; empty where they are off.
    """

    place: Place
    uri: str
    artifacts: Path
    own: Path
    dump: str
    workspaces: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """For commands that read it."""
        return {STORE: self.uri, DESTINATION: str(self.artifacts)}


@dataclass
class Copy:
    """Another store: a target, then one to look at.

    Args:
        uri: The database.
        destination: Of artifacts.
        extra: Credentials and the like.
    """

    uri: str
    destination: str
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """For commands."""
        return {STORE: self.uri, DESTINATION: self.destination, **self.extra}


def empty_store(kind: str, request: pytest.FixtureRequest, folder: Path) -> Copy:
    """An empty store on a kind of database, and an empty folder for artifacts."""
    if kind == "sqlite":
        return Copy(f"sqlite:///{folder}/new folder/store.db", str(folder / "artifacts there"))
    name = {"postgresql": "postgres", "mariadb": "mariadb"}[kind]
    database: Postgres | MariaDb = request.getfixturevalue(name)
    return Copy(database.new_database(), str(folder / "artifacts there"))


def make_everything(folder: Path, workspaces: str = "") -> Everything:
    """Make it."""
    place = Place.make(folder / "place")
    artifacts, own = folder / "artifacts", folder / "own location"
    uri = f"sqlite:///{place.store}"
    with serving(Copy(uri, str(artifacts)), folder / "server", workspaces) as server:
        run_program("everything.py", server.url, str(own), WORKSPACES=workspaces)
        dump = dump_of(server, workspaces)
    return Everything(place, uri, artifacts, own, dump, workspaces)


@contextmanager
def serving(store: Copy, folder: Path, workspaces: str = "") -> Iterator[Server]:
    """A server of a store."""
    environment = {**SERVER, **store.environment}
    if workspaces:
        environment["MLFLOW_ENABLE_WORKSPACES"] = "true"
    with serve(folder, environment=environment) as server:
        yield server
        server.stop()


def run_program(name: str, *arguments: str, **environment: str) -> str:
    """Run one of the programs beside this, and return what it prints.

    In a folder of its own: MLflow leaves a database where it has been told of none.
    """
    with tempfile.TemporaryDirectory() as folder:
        ended = forks.run(
            [sys.executable, str(SUPPORT / name), *arguments],
            env=clean_environment(MLFLOW_DISABLE_TELEMETRY="true", **environment),
            cwd=folder,
            timeout=120,
        )
    assert ended.returncode == 0, ended.stderr[-4000:]
    return ended.stdout


def dump_of(server: Server, workspaces: str = "") -> str:
    """What the API says of the store."""
    return run_program("api_dump.py", server.url, WORKSPACES=workspaces)


def assert_same(before: str, after: str) -> None:
    """Show what differs."""
    if before != after:
        lines = difflib.unified_diff(
            before.splitlines(), after.splitlines(), "before", "after", n=6, lineterm=""
        )
        raise AssertionError("\n".join([line[:300] for line in lines][:120]))


def rows_of(path: Path) -> dict[str, list[str]]:
    """All rows of a SQLite file, in no order."""
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {
            name: sorted(map(repr, connection.execute(f'SELECT * FROM "{name}"')))  # noqa: S608
            for (name,) in tables.fetchall()
        }


def assert_sound(path: Path) -> None:
    """A SQLite file has all that its rows refer to."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def command(
    place: Place, *arguments: str, environment: Mapping[str, str], code: int = 0
) -> dict[str, Any]:
    """Run a command, and return its report."""
    ended = place.run(*arguments, "--json", environment=environment, timeout=150)
    assert ended.returncode == code, (ended.returncode, ended.stdout, ended.stderr)
    report: dict[str, Any] = json.loads(ended.stdout)
    return report


def post(server: Server, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """One request to the API."""
    answer = http(
        f"{server.url}/api/2.0/mlflow/{path}",
        method="POST",
        body=json.dumps(document).encode(),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status == 200, (path, answer.body, server.log[-2000:])
    return answer.json()


def assert_goes_on(server: Server) -> None:
    """New things can be made, and get numbers after those that are there."""
    search = {"view_type": "ALL", "max_results": 1000}
    there: Any = post(server, "experiments/search", search)["experiments"]
    largest = max(int(experiment["experiment_id"]) for experiment in there)
    made: Any = post(server, "experiments/create", {"name": "made afterwards"})["experiment_id"]
    assert int(made) == largest + 1
    run: Any = post(server, "runs/create", {"experiment_id": made})["run"]
    run_id = run["info"]["run_id"]
    post(server, "runs/log-metric", {"run_id": run_id, "key": "m", "value": 1, "timestamp": 1})
    post(server, "runs/log-parameter", {"run_id": run_id, "key": "p", "value": "1"})
    address = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/{made}/{run_id}/artifacts/new.txt"
    assert http(address, method="PUT", body=b"new").status == 200
    assert http(address).body == b"new"
