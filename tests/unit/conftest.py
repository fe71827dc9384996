"""Hypothesis for a shared machine, and one process with MLflow's schema code for this test run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.unit.zygote import Zygote

# On CI hypothesis starts from its own profile `ci`, which draws the same examples every time.
settings.register_profile("shared-machine", parent=settings(), deadline=None)
settings.load_profile("shared-machine")


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """A process that has imported what initialising a store needs; see `tests/unit/zygote.py`."""
    with Zygote.start() as started:
        yield started
