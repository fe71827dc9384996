"""Fixtures of the acceptance tests: places, a store to be copied, a database with passwords."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Postgres
from tests.support.passwords import PasswordServer, password_server
from tests.support.places import WITHOUT_POWERS, Place
from tests.support.stores import make_head_store


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder of this test alone."""
    return Place.make(tmp_path / "place", as_user=True)


@pytest.fixture
def common_place(tmp_path: Path) -> Iterator[Place]:
    """A folder whose commands must respect the modes of files, as root need not."""
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        prefix = WITHOUT_POWERS
        if shutil.which(prefix[0]) is None or subprocess.run([*prefix, "true"]).returncode != 0:
            pytest.skip("root cannot give up its powers here, so nothing is forbidden")
    place = Place.make(tmp_path / "place", prefix, as_user=True)
    yield place
    for folder in (place.root, *(path for path in place.root.rglob("*") if path.is_dir())):
        folder.chmod(0o755)


@pytest.fixture(scope="module")
def head_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store at this release's revision, to be copied."""
    path = tmp_path_factory.mktemp("head") / "head.sqlite"
    make_head_store(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> Iterator[PasswordServer]:
    """PostgreSQL with passwords."""
    with password_server(postgres) as server:
        yield server
