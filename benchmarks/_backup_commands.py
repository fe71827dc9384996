"""Run ours and what it is compared with: the databases' own programs and `cp`."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _databases import Databases, PostgresqlDatabases
from _programs import Finished, VoidError, run_command, tail
from _servers import REPOSITORY

SQLITE_PROGRAM = (
    "import sqlite3, sys\n"
    "source, target = map(sqlite3.connect, sys.argv[1:])\n"
    "source.backup(target)\n"
    "target.close()\n"
)


@dataclass(frozen=True)
class Reported:
    """A command of ours that has ended well.

    Attributes:
        finished: What it needed.
        report: What it printed.
    """

    finished: Finished
    report: Mapping[str, Any]

    def item(self, name: str) -> Mapping[str, Any]:
        """The facts of an item of the report.

        Raises:
            VoidError: There is none of that name.
        """
        for item in self.report["items"]:
            if item["name"] == name:
                found: Mapping[str, Any] = item["facts"]
                return found
        raise VoidError(f"the report has no item {name}")

    @property
    def rows(self) -> int:
        """How many rows of the backend's database it was about."""
        return int(self.item("database:backend")["rows"])


def run_ours(*arguments: str, uri: str, destination: Path, watches_tree: bool = False) -> Reported:
    """`python -m mlflow_server` out of this repository.

    Args:
        arguments: Command and options.
        uri: The store.
        destination: What `mlflow-artifacts:/` stands for.
        watches_tree: See `run_command`.

    Raises:
        VoidError: It failed, or printed no report.
    """
    command = (sys.executable, "-m", "mlflow_server", *arguments, "--json")
    settings = {
        "PYTHONPATH": str(REPOSITORY),
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_ARTIFACTS_DESTINATION": str(destination),
    }
    finished = run_command(command, settings, watches_tree=watches_tree)
    try:
        return Reported(finished, json.loads(finished.stdout))
    except ValueError:
        raise VoidError(f"no report on stdout: {tail(finished.stdout)}") from None


def create(
    uri: str, destination: Path, shelf: Path, *options: str, watches_tree: bool = False
) -> Reported:
    """`backup create` to a folder."""
    return run_ours(
        "backup", "create", "--to", str(shelf), *options,
        uri=uri, destination=destination, watches_tree=watches_tree,
    )  # fmt: skip


def restore(
    uri: str, destination: Path, shelf: Path, *options: str, watches_tree: bool = False
) -> Reported:
    """`restore` of the newest backup of a folder into an empty store."""
    return run_ours(
        "restore", f"{shelf}/latest", *options,
        uri=uri, destination=destination, watches_tree=watches_tree,
    )  # fmt: skip


def migrate(uri: str, target: str, destination: Path, *, watches_tree: bool = False) -> Reported:
    """`migrate` into another, empty store; artifacts stay."""
    return run_ours(
        "migrate", "--to-backend-store-uri", target,
        uri=uri, destination=destination, watches_tree=watches_tree,
    )  # fmt: skip


def dump_name(databases: Databases) -> str:
    """What the database's own backup is called in the table."""
    return "pg_dump" if isinstance(databases, PostgresqlDatabases) else ".backup"


def dump(databases: Databases, uri: str, target: Path) -> Finished:
    """The database's own backup: `pg_dump -Fc`, or SQLite's `.backup`.

    Raises:
        VoidError: It failed.
    """
    if isinstance(databases, PostgresqlDatabases):
        return run_command(
            (databases.tool("pg_dump"), "-Fc", "-f", str(target), "-d", libpq_uri(uri)), {}
        )
    file = uri.removeprefix("sqlite:///")
    if program := shutil.which("sqlite3"):
        return run_command((program, file, f".backup {target}"), {})
    return run_command((sys.executable, "-c", SQLITE_PROGRAM, file, str(target)), {})


def pg_restore(databases: Databases, uri: str, source: Path) -> Finished:
    """`pg_restore` of a dump into an empty database.

    Raises:
        VoidError: It failed, or the engine is another one.
    """
    if not isinstance(databases, PostgresqlDatabases):
        raise VoidError("only PostgreSQL has pg_restore")
    return run_command((databases.tool("pg_restore"), "-d", libpq_uri(uri), str(source)), {})


def copy_tree(source: Path, target: Path) -> Finished:
    """`cp -r`."""
    return run_command(("cp", "-r", str(source), str(target)), {})


def libpq_uri(uri: str) -> str:
    """As PostgreSQL's programs want it: the driver is SQLAlchemy's affair."""
    return uri.replace("postgresql+psycopg2:", "postgresql:", 1)


def seconds_of(parts: Sequence[Finished]) -> float:
    """Of commands that ran one after the other."""
    return sum(part.seconds for part in parts)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
