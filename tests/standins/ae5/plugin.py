"""Fixtures: a cluster for each test, and a program `ae5` that reaches it.

`pytest_plugins = ("tests.standins.ae5.plugin",)` in `tests/conftest.py` makes them known to all;
until then a test module imports them by name. With AE5_CLI, or a real `ae5` on PATH, that program
is used in place of the stand-in.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standins.ae5.cluster import Cluster, cluster
from tests.standins.ae5.program import Program, find_real, install, prepare


@pytest.fixture
def ae5_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """An empty cluster; fails the test when a client did what no client should."""
    with cluster(tmp_path / "ae5-cluster") as running:
        running.pods.grace_s = 5.0
        yield running
        assert running.complaints == []


@pytest.fixture(scope="session")
def ae5_installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bool]:
    """The program `ae5` that does the work, and whether it is a real one."""
    real = find_real()
    return (real, True) if real else (install(tmp_path_factory.mktemp("ae5-env") / "env"), False)


@pytest.fixture
def ae5_program(ae5_cluster: Cluster, ae5_installed: tuple[Path, bool], tmp_path: Path) -> Program:
    """A program `ae5` that reaches `ae5_cluster` as the service account."""
    path, is_real = ae5_installed
    return prepare(path, ae5_cluster, tmp_path / "ae5-home", is_real=is_real)
