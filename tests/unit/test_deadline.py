"""A call that hangs is not waited for."""

import threading
import time

import pytest

from mlflow_server.deadline import DeadlineExceededError, call_within, start_within


def test_gives_the_result() -> None:
    assert call_within(30, lambda: 42) == 42


def test_raises_what_the_call_raised() -> None:
    def fail() -> None:
        raise KeyError("the very one")

    with pytest.raises(KeyError, match="the very one"):
        call_within(30, fail)


def test_raises_even_what_ends_a_process() -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        call_within(30, leave)


def test_a_call_that_hangs_is_given_up() -> None:
    release = threading.Event()
    try:
        with pytest.raises(DeadlineExceededError, match=r"no answer within 0\.05 s"):
            call_within(0.05, release.wait)
    finally:
        release.set()


def test_the_deadline_is_a_timeout_error() -> None:
    assert issubclass(DeadlineExceededError, TimeoutError)


def test_started_calls_run_side_by_side() -> None:
    """Each waits for the other: one after the other, they would never end."""
    barrier = threading.Barrier(2)
    waits = [start_within(30, lambda: barrier.wait(30)) for _ in range(2)]
    assert sorted(wait() for wait in waits) == [0, 1]


def test_the_time_counts_from_the_start_not_from_the_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Thirty seconds that are over are not waited for again; else the call would get its result."""
    release = threading.Event()
    clock, real_clock, here = iter([100.0, 1_000.0]), time.monotonic, threading.get_ident()
    monkeypatch.setattr(
        time, "monotonic", lambda: next(clock) if threading.get_ident() == here else real_clock()
    )
    wait = start_within(30, release.wait)
    saviour = threading.Timer(10, release.set)
    saviour.start()
    try:
        with pytest.raises(DeadlineExceededError):
            wait()
    finally:
        monkeypatch.undo()
        saviour.cancel()
        saviour.join()
        release.set()


def test_a_hanging_call_does_not_keep_the_process_alive() -> None:
    release = threading.Event()
    with pytest.raises(DeadlineExceededError):
        call_within(0.01, release.wait)
    try:
        left = [thread for thread in threading.enumerate() if thread.name == "deadline"]
        assert left
        assert all(thread.daemon for thread in left)
    finally:
        release.set()
