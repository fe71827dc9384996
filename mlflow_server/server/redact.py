"""Middleware that takes credentials out of error answers."""

import json
from typing import Any

from mlflow_server.log import Redactor
from mlflow_server.server.front import App

MAX_ERROR_BYTES = 1 << 20
_TOO_LONG = json.dumps(
    {
        "error_code": "INTERNAL_ERROR",
        "message": "The error message is longer than 1 MiB; the log of the server may tell more.",
    }
).encode()


class RedactErrors:
    """Take credentials out of error answers: MLflow quotes the destination's address in some.

    An error answer is held back until it is whole, since a credential may lie across two parts of
    it; one longer than 1 MiB is replaced. Answers below 400 pass untouched, part by part.

    Args:
        app: The next app.
        redact: Knows the credentials.
    """

    def __init__(self, app: App, redact: Redactor) -> None:
        self._app = app
        self._redact = redact

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one connection."""
        start: Any = None
        held = bytearray()
        is_too_long = False

        async def redacting_send(message: Any) -> None:
            nonlocal start, is_too_long
            if message["type"] == "http.response.start" and message["status"] >= 400:
                start = message
                return
            if start is None or message["type"] != "http.response.body":
                await send(message)
                return
            if not is_too_long:
                held.extend(message.get("body", b""))
                if len(held) > MAX_ERROR_BYTES:
                    is_too_long = True
                    held.clear()
            if message.get("more_body"):
                return
            await _send_error(send, start, _TOO_LONG if is_too_long else self._cleaned(held))

        await self._app(scope, receive, redacting_send)

    def _cleaned(self, body: bytearray) -> bytes:
        text = body.decode("utf-8", "surrogateescape")
        return self._redact(text).encode("utf-8", "surrogateescape")


async def _send_error(send: Any, start: Any, body: bytes) -> None:
    replaced = {b"content-length"} | ({b"content-type"} if body is _TOO_LONG else set())
    headers = [entry for entry in start["headers"] if entry[0].lower() not in replaced]
    if body is _TOO_LONG:
        headers.append((b"content-type", b"application/json"))
    headers.append((b"content-length", str(len(body)).encode()))
    await send({**start, "headers": headers})
    await send({"type": "http.response.body", "body": body})
