"""Signals while the server is starting, before gunicorn handles them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_came = False


class Stopped(BaseException):
    """SIGTERM or SIGINT came while the server was starting."""


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise `Stopped` in the main thread on SIGTERM or SIGINT, until gunicorn takes over.

    Python ignores what is raised inside a finaliser or a fork callback, so the steps of a start ask
    `check_stopped` as well.
    """
    global _came
    _came = False

    def stop(_signal: int, _frame: FrameType | None) -> NoReturn:
        global _came
        _came = True
        raise Stopped

    before = {sig: signal.signal(sig, stop) for sig in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)


def was_stopped() -> bool:
    """True when a signal came since `stop_on_signals` began."""
    return _came


def check_stopped() -> None:
    """Raise `Stopped` when a signal came and its exception got lost."""
    if _came:
        raise Stopped
