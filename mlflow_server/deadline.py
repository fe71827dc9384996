"""Run a call that may hang, and stop waiting for it in time."""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class DeadlineExceededError(TimeoutError):
    """The call did not answer in time; it may still be running in its thread."""


def call_within(seconds: float, function: Callable[[], T]) -> T:
    """Call `function` in a thread of its own and wait at most `seconds` for it.

    A call that hangs is left behind in a daemon thread: use this where the process is about to end
    or where the call has a time limit of its own that is only less reliable.

    Raises:
        DeadlineExceededError: No answer in time.
    """
    return start_within(seconds, function)()


def start_within(seconds: float, function: Callable[[], T]) -> Callable[[], T]:
    """Start `function` now; the returned call waits for it until `seconds` after the start.

    Two started calls run side by side, so that two checks of 5 s take 5 s together.
    """
    import time

    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as err:
            failure.append(err)

    thread = threading.Thread(target=run, daemon=True, name="deadline")
    started = time.monotonic()
    thread.start()

    def wait() -> T:
        thread.join(max(0.0, seconds - (time.monotonic() - started)))
        if thread.is_alive():
            raise DeadlineExceededError(f"no answer within {seconds:g} s")
        if failure:
            raise failure[0]
        return outcome[0]

    return wait
