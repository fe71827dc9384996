"""Do one thing after the other in a thread, while the next one is being prepared."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec

P = ParamSpec("P")


class Behind:
    """A thread that has at most one thing to do; begun with the first one."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._doing: Future[object] | None = None

    def do(self, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Do something once what was asked for before is done.

        Raises:
            Exception: What that has raised.
        """
        self.wait()
        self._doing = self._pool.submit(work, *args, **kwargs)

    def wait(self) -> None:
        """Until everything is done.

        Raises:
            Exception: What it has raised.
        """
        if self._doing is not None:
            doing, self._doing = self._doing, None
            doing.result()

    def close(self) -> None:
        """End the thread, after what it is doing."""
        self._pool.shutdown()
