"""SQLite stores to be copied, changed and locked."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy

from tests.conftest import DATA
from tests.support import forks
from tests.support.programs import clean_environment

# On MySQL too, double quotes name columns, and experiment 0 gets its number.
_AS_ELSEWHERE = "SET sql_mode = CONCAT(@@sql_mode, ',ANSI_QUOTES,NO_AUTO_VALUE_ON_ZERO')"
OLD_STORE = DATA / "old-stores" / "mlflow-3.1.4.db"


def make_head_store(uri: str) -> None:
    """Initialise an empty database as `serve` does, without serving."""
    program = (
        "import os; from mlflow_server.store.schema import initialise; "
        "from mlflow_server.uris import parse_store_uri; "
        "assert initialise(parse_store_uri(os.environ['STORE']))"
    )
    forks.run(
        [sys.executable, "-c", program],
        env=clean_environment(STORE=uri, MLFLOW_DISABLE_TELEMETRY="true"),
        check=True,
        timeout=120,
    )


def open_store(uri: str) -> sqlalchemy.Engine:
    """An engine for any store, without a pool."""
    arguments = {"init_command": _AS_ELSEWHERE} if uri.startswith("mysql") else {}
    uri = uri.replace("postgresql:", "postgresql+psycopg2:")
    return sqlalchemy.create_engine(uri, connect_args=arguments, poolclass=sqlalchemy.NullPool)


def copy_store(source: Path, target: Path) -> Path:
    """Copy a store, writable."""
    shutil.copyfile(source, target)
    return target


def execute(path: Path, *statements: str) -> None:
    """Change a SQLite file."""
    connection = sqlite3.connect(path)
    try:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    finally:
        connection.close()


@contextlib.contextmanager
def locked(path: Path, *statements: str) -> Iterator[None]:
    """Have another process hold locks on a SQLite file.

    Another process, because POSIX locks of this one end when it closes any descriptor of the file,
    as a snapshot does.
    """
    program = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "[connection.execute(statement).fetchall() for statement in sys.argv[2:]]; "
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path), *statements],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield
        process.stdin.close()
