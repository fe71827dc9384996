"""How much a transaction takes."""

from __future__ import annotations

import pytest

from mlflow_server.gc.pace import Pace


def test_sizes_keep_within_their_limits() -> None:
    pace = Pace(100, 10, 1_000)
    for _ in range(10):
        pace.took(0.0)
    assert pace.size == 1_000
    for _ in range(10):
        pace.took(60.0)
    assert pace.size == 10


def test_one_odd_transaction_does_not_change_everything() -> None:
    pace = Pace(1_000, 1, 1_000_000)
    pace.took(60.0)
    assert pace.size == 250
    pace.took(0.0)
    assert pace.size == 1_000


@pytest.mark.parametrize("per_second", [1_000, 100_000])
def test_a_store_of_steady_speed_settles_at_half_a_second(per_second: int) -> None:
    pace, slowest = Pace(100, 10, 10_000_000), 0.0
    for turn in range(12):
        seconds = pace.size / per_second
        slowest = max(slowest, seconds if turn else 0.0)
        pace.took(seconds)
    assert pace.size == pytest.approx(per_second / 2, rel=0.01)
    assert slowest < 0.6


def test_a_transaction_takes_from_the_front_what_fits_and_at_least_one() -> None:
    pace = Pace(10, 10, 10)
    assert pace.take([("a", 4), ("b", 6), ("c", 1)]) == ["a", "b"]
    assert pace.take([("a", 40), ("b", 1)]) == ["a"]
    assert pace.take([]) == []
