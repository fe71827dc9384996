"""Batches grow while transactions are short and shrink when one was long."""

from __future__ import annotations

from mlflow_server.gc.pace import Pace


def test_batches_grow_up_to_a_limit() -> None:
    pace = Pace()
    sizes = []
    for _ in range(10):
        sizes.append(pace.size)
        pace.took(0.01)
    assert sizes[:3] == [100, 200, 400]
    assert pace.size == 5_000


def test_batches_shrink_down_to_a_limit() -> None:
    pace = Pace()
    pace.took(3)
    assert pace.size == 50
    for _ in range(10):
        pace.took(3)
    assert pace.size == 10


def test_between_the_two_they_stay() -> None:
    pace = Pace()
    pace.took(0.3)
    assert pace.size == 100


def test_a_store_of_steady_speed_settles_below_the_limit() -> None:
    """A thousand entities a second: no transaction after the first few takes 0.7 s."""
    pace = Pace()
    seconds = []
    for _ in range(50):
        seconds.append(pace.size / 1_000)
        pace.took(seconds[-1])
    assert max(seconds) < 0.7
