"""The life of a worker: open the stores before the first request, close them after the last."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_server.server.front import App, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from mlflow_server.server.metrics import Metrics

log = logging.getLogger("mlflow_server.server")

_RETRY_S = 2.0


class WorkerLifespan:
    """ASGI middleware for the `lifespan` scope.

    A worker that cannot open the stores ends the server, as long as none ever could. Later, when a
    worker that died is replaced while the database is away, it starts all the same, says 503 on
    `/readyz`, and opens them when it can: a passing outage must not end a server that ran.

    Args:
        app: MLflow's app.
        open_stores: Opens the stores and returns their database engines; may take long.
        threads: Requests that this worker handles at a time.
        runtime_folder: Shared by the workers of this server; remembers that one was ready.
        metrics: Where pools are counted, if anywhere.
    """

    def __init__(
        self,
        app: App,
        open_stores: Callable[[], list[Any]],
        *,
        threads: int,
        runtime_folder: Path,
        metrics: "Metrics | None",
    ) -> None:
        self._app = app
        self._open_stores = open_stores
        self._threads = threads
        self._was_ready = runtime_folder / "was-ready"
        self._metrics = metrics
        self._engines: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        import anyio.to_thread

        anyio.to_thread.current_default_thread_limiter().total_tokens = self._threads
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._open()
        except Exception as err:
            log.debug("the stores cannot be opened", exc_info=True)
            log.error("the stores cannot be opened: %s", _in_one_line(err))
            if not self._was_ready.exists():
                await receive()
                await send({"type": "lifespan.startup.failed", "message": ""})
                return
            tasks.append(asyncio.create_task(self._open_later()))
        if self._metrics is not None:
            tasks.append(asyncio.create_task(self._metrics.watch_pools(self._pools)))

        async def send_when_closed(message: Message) -> None:
            # uvicorn ends the event loop as soon as it has heard of the end.
            if message["type"].startswith("lifespan.shutdown"):
                await self._close(tasks)
            await send(message)

        try:
            await self._app(scope, receive, send_when_closed)
        finally:
            await self._close(tasks)

    async def _close(self, tasks: list[asyncio.Task[None]]) -> None:
        """Stop watching and close the connections; idempotent."""
        while tasks:
            task = tasks.pop()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        while self._engines:
            await asyncio.to_thread(self._engines.pop().dispose)

    async def _open(self) -> None:
        self._engines = await asyncio.to_thread(self._open_stores)
        self._was_ready.touch()

    async def _open_later(self) -> None:
        while True:
            await asyncio.sleep(_RETRY_S)
            try:
                await self._open()
            except Exception as err:
                log.debug("the stores still cannot be opened: %s", _in_one_line(err))
            else:
                log.info("the stores are open")
                return

    def _pools(self) -> list[Any]:
        return [engine.pool for engine in self._engines]


def _in_one_line(err: Exception) -> str:
    first = str(err).strip().partition("\n")[0]
    return f"{type(err).__name__}: {first}"[:300]
