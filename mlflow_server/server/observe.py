"""Request id, access log and metrics for every request, whichever part of MLflow answers it."""

import logging
import os
import re
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING

from mlflow_server.server.front import App, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from mlflow_server.server.metrics import Metrics

access_log = logging.getLogger("mlflow_server.access")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/=+-]{1,128}\Z")
_FLASK_PARAMETER = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")
_FASTAPI_CONVERTER = re.compile(r"\{([^:{}]+):[^{}]+\}")
UNMATCHED = "unmatched"

# A list that the answering part puts its route into: Flask runs in another thread, which gets a
# copy of the context but the same list.
_answered_by: ContextVar[list[str]] = ContextVar("answered_by")


def note_route(template: str) -> None:
    """Remember the route that answers the current request; called from Flask's thread."""
    box = _answered_by.get(None)
    if box is not None:
        box.append(template)


def flask_route(rule: str) -> str:
    """A werkzeug rule in the common form: `/a/<path:b>` becomes `/a/{b}`."""
    return _FLASK_PARAMETER.sub(r"{\1}", rule)


def fastapi_route(path: str) -> str:
    """A Starlette path in the common form: `/a/{b:path}` becomes `/a/{b}`."""
    return _FASTAPI_CONVERTER.sub(r"{\1}", path)


class Observe:
    """ASGI middleware; outermost.

    Args:
        app: The next app.
        metrics: Where to count, if anywhere.
        log_requests: One log line for each request.
    """

    def __init__(self, app: App, metrics: "Metrics | None", *, log_requests: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        if self._metrics is None and not self._log_requests:
            await self._app(scope, receive, _with_request_id(send, request_id))
            return
        await self._observed(scope, receive, send, request_id)

    async def _observed(
        self, scope: Scope, receive: Receive, send: Send, request_id: bytes
    ) -> None:
        started = time.perf_counter()
        status, received, sent = 500, 0, 0
        asked_path = scope["path"]
        box: list[str] = []
        token = _answered_by.set(box)

        async def counting_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def counting_send(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_request_id(message, request_id)
            else:
                sent += len(message.get("body", b""))
            await send(message)

        if self._metrics is not None:
            self._metrics.begin()
        try:
            await self._app(scope, counting_receive, counting_send)
        finally:
            _answered_by.reset(token)
            duration_s = time.perf_counter() - started
            route = box[-1] if box else _fastapi_route_of(scope)
            if self._metrics is not None:
                self._metrics.end(scope["method"], route, status, duration_s, received, sent)
            if self._log_requests:
                client = scope.get("client")
                access_log.info(
                    "%s %s %d",
                    scope["method"],
                    asked_path,
                    status,
                    extra={
                        "event": "request",
                        "request_id": request_id.decode("ascii"),
                        "method": scope["method"],
                        "route": route,
                        "status": status,
                        "duration_s": round(duration_s, 6),
                        "bytes_in": received,
                        "bytes_out": sent,
                        "remote_ip": client[0] if client else "",
                    },
                )


def _request_id(scope: Scope) -> bytes:
    """The id that a proxy gave, when it is sane, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.match(value):
            return bytes(value)
    return os.urandom(12).hex().encode()


def _with_request_id(send: Send, request_id: bytes) -> Send:
    async def send_with_id(message: Message) -> None:
        if message["type"] == "http.response.start":
            _add_request_id(message, request_id)
        await send(message)

    return send_with_id


def _add_request_id(message: Message, request_id: bytes) -> None:
    message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]


def _fastapi_route_of(scope: Scope) -> str:
    route = scope.get("route")
    path = getattr(route, "path", None)
    if path:
        return fastapi_route(path)
    return scope["path"] if scope["path"] in ("/livez", "/readyz", "/metrics") else UNMATCHED
