"""Signals while the server is starting, before gunicorn handles them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Stopped(BaseException):
    """SIGTERM or SIGINT came while the server was starting."""


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise `Stopped` in the main thread on SIGTERM or SIGINT, until gunicorn takes over."""

    def stop(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise Stopped

    before = {sig: signal.signal(sig, stop) for sig in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)
