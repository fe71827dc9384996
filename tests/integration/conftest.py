"""Fixtures of the integration tests: a place, and servers of Google's and Azure's APIs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.azure import AzureServer, run_azurite, why_not
from tests.support.gcs import GcsServer, run_gcs
from tests.support.places import Place


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
