"""Call MLflow's Flask app from ASGI with one hop into a thread and one back.

The bridge in MLflow 3.17.2 (`server/fastapi_app.py`) goes back to the event loop once for the start
of an answer and once for each part of it, and the thread waits each time: 30 to 50 % of the time of
a small request under load. Here the thread returns a small answer whole; a large one goes on in
pieces, each asked for when the client has taken the one before.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mlflow_server.server.front import Receive, Scope, Send

# Answers up to this size go out in one piece, larger ones in pieces of about this size.
_PIECE_BYTES = 256 * 1024

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Any]


@dataclass
class _Answer:
    """An answer as far as it has been produced; touched by one thread at a time."""

    parts: Iterator[bytes] = field(default_factory=lambda: iter(()))
    close: Callable[[], None] | None = None
    status: int = 500
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    ended: bool = False

    def start(self, status: str, headers: list[tuple[str, str]], error: Any = None) -> Any:
        """WSGI's `start_response`."""
        self.status = int(status.split(" ", 1)[0])
        self.headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers
        ]
        return _no_write

    def next_piece(self) -> bytes:
        """The next piece of the body; `ended` says whether it is the last."""
        piece = bytearray()
        for part in self.parts:
            piece += part
            if len(piece) >= _PIECE_BYTES:
                return bytes(piece)
        self.ended = True
        self.finish()
        return bytes(piece)

    def finish(self) -> None:
        """Tell the application that nobody wants more; idempotent."""
        close, self.close = self.close, None
        if close is not None:
            close()


def _no_write(data: bytes) -> None:
    raise RuntimeError("Flask never uses WSGI's write()")


class WsgiBridge:
    """An ASGI app that calls a WSGI app in a thread.

    Args:
        app: The WSGI app.
        build_environ: From an ASGI scope and the whole request body to WSGI's environ.
    """

    def __init__(
        self, app: WsgiApp, build_environ: Callable[[Scope, bytes], dict[str, Any]]
    ) -> None:
        self._app = app
        self._build_environ = build_environ

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; WebSockets are refused, as MLflow's bridge does."""
        from anyio.to_thread import run_sync

        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        if scope["type"] != "http":
            return
        body = await _whole_body(receive)
        answer = _Answer()
        piece = await run_sync(self._begin, scope, body, answer)
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": answer.status,
                    "headers": answer.headers,
                }
            )
            while not answer.ended:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                piece = await run_sync(answer.next_piece)
            await send({"type": "http.response.body", "body": piece})
        finally:
            if not answer.ended:
                await run_sync(answer.finish)

    def _begin(self, scope: Scope, body: bytes, answer: _Answer) -> bytes:
        result = self._app(self._build_environ(scope, body), answer.start)
        answer.close = getattr(result, "close", None)
        answer.parts = iter(result)
        try:
            return answer.next_piece()
        except BaseException:
            answer.finish()
            raise


async def _whole_body(receive: Receive) -> bytes:
    message = await receive()
    if not message.get("more_body", False):
        return bytes(message.get("body", b""))
    body = io.BytesIO()
    body.write(message.get("body", b""))
    while message.get("more_body", False):
        message = await receive()
        body.write(message.get("body", b""))
    return body.getvalue()
