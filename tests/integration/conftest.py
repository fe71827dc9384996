"""Fixtures of the integration tests: places, stores, servers of Google's and Azure's APIs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import Postgres
from tests.standins.forwarder import Forwarder, Reply, forwarder
from tests.standins.gcs_pages import run_gcs_pages
from tests.standins.intercept import intercepted
from tests.standins.lake import run_lake
from tests.support.azure import AzureServer, run_azurite, why_not
from tests.support.backup_place import Depot
from tests.support.everything_place import Everything, make_everything
from tests.support.gc_place import Made, Yard, make
from tests.support.gcs import GcsServer, run_gcs
from tests.support.mariadb import MARIADBD, MariaDb, run_mariadb
from tests.support.places import Place
from tests.support.shelves import (
    LAKE_HOSTS,
    Shelf,
    azure_shelf,
    gcs_shelf,
    lake_shelf,
    local_shelf,
    s3_shelf,
    server_shelf,
)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder of this test alone."""
    return Place.make(tmp_path / "place")


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    """A GCS server from pip, started on first use."""
    with run_gcs(tmp_path_factory.mktemp("gcs")) as server:
        yield server


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    """An Azure server from npm, started on first use; missing is a failure in CI only."""
    if reason := why_not():
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with run_azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDb]:
    """A MariaDB server, started on first use; missing is a failure in CI only."""
    if MARIADBD is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI must have mariadb-server")
        pytest.skip("mariadbd is not installed")
    with run_mariadb(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture(scope="session")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("gc-sqlite")
    return make(f"sqlite:///{folder}/my.db", folder / "artifacts")


@pytest.fixture(scope="session")
def on_postgresql(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Made:
    uri = postgres.new_database().replace("postgresql:", "postgresql+psycopg2:")
    return make(uri, tmp_path_factory.mktemp("gc-postgresql") / "artifacts")


@pytest.fixture(scope="session")
def on_mariadb(mariadb: MariaDb, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(mariadb.new_database(), tmp_path_factory.mktemp("gc-mariadb") / "artifacts")


@pytest.fixture
def yard(request: pytest.FixtureRequest, tmp_path: Path) -> Yard:
    """A copy on SQLite, or on what the test is parametrised with."""
    place = Place.make(tmp_path / "place")
    kind = getattr(request, "param", "sqlite")
    made: Made = request.getfixturevalue(f"on_{kind}")
    artifacts = place.root / "artifacts"
    shutil.copytree(made.artifacts, artifacts)
    if kind == "sqlite":
        uri = f"sqlite:///{place.store}"
        shutil.copy(made.uri.removeprefix("sqlite:///"), place.store)
    else:
        fixture = {"postgresql": "postgres", "mariadb": "mariadb"}[kind]
        database: Postgres | MariaDb = request.getfixturevalue(fixture)
        template = made.uri.partition("?")[0].rpartition("/")[2]
        uri = database.new_database(template=template)
    return Yard(place, uri, artifacts, made.ids)


@pytest.fixture
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    """An empty destination of the kind that is asked for."""
    match request.param:
        case "local":
            return local_shelf(tmp_path)
        case "s3":
            return s3_shelf(request.getfixturevalue("s3"), request.getfixturevalue("bucket"))
        case "gcs":
            server = request.getfixturevalue("gcs")
            pages = request.getfixturevalue("gcs_pages")
            refusing = request.getfixturevalue("refusing")
            return gcs_shelf(server, pages.port, refusing.port, server.new_bucket())
        case "azure":
            azurite = request.getfixturevalue("azurite")
            return azure_shelf(azurite, azurite.new_container())
        case "lake":
            shelf: Shelf = request.getfixturevalue("lake")
            return shelf
        case "server":
            return server_shelf(*request.getfixturevalue("tracking_server"))
    raise AssertionError(request.param)


@pytest.fixture(scope="module")
def gcs_pages(gcs: GcsServer) -> Iterator[Forwarder]:
    """What stands in front of the emulator."""
    with run_gcs_pages(gcs.port) as running:
        yield running


@pytest.fixture
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """A stand-in for Data Lake, where the library looks for it."""
    with ExitStack() as stack:

        def at_port(port: int) -> Mapping[str, str]:
            folder = tmp_path_factory.mktemp("certificate")
            return stack.enter_context(intercepted(port, LAKE_HOSTS, folder)).environment

        yield lake_shelf(stack.enter_context(run_lake()), at_port)


@pytest.fixture(scope="module")
def refusing() -> Iterator[Forwarder]:
    """A server that nobody may use."""
    with forwarder(0, lambda _: Reply(403)) as running:
        yield running


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Everything:
    """A store with everything in it, which nobody changes."""
    return make_everything(tmp_path_factory.mktemp("everything"))


@pytest.fixture
def depot(on_sqlite: Made, tmp_path: Path) -> Depot:
    """A copy of a store on SQLite, to be backed up."""
    return Depot.make(tmp_path / "depot", on_sqlite)
