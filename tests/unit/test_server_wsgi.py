"""The bridge to Flask: small answers in one piece, large ones in pieces, nothing left open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.middleware.wsgi import build_environ

from mlflow_server.server.wsgi import WsgiBridge

Messages = list[dict[str, Any]]


def scope(kind: str = "http") -> dict[str, Any]:
    return {
        "type": kind,
        "method": "POST",
        "path": "/a",
        "query_string": b"b=c",
        "http_version": "1.1",
        "headers": [(b"content-type", b"text/plain")],
    }


def run(app: Callable[..., Any], parts: list[bytes], fail_at: int | None = None) -> Messages:
    """Call the bridge; `fail_at` makes the client go away at that message."""
    sent: Messages = []
    queue = [
        {"type": "http.request", "body": part, "more_body": index < len(parts) - 1}
        for index, part in enumerate(parts)
    ]

    async def receive() -> dict[str, Any]:
        return queue.pop(0)

    async def send(message: Any) -> None:
        if fail_at is not None and len(sent) == fail_at:
            raise ConnectionResetError
        sent.append(dict(message))

    asyncio.run(WsgiBridge(app, build_environ)(scope(), receive, send))  # type: ignore[arg-type]
    return sent


class Body:
    """A WSGI answer that knows whether it was closed."""

    def __init__(self, parts: list[bytes]) -> None:
        self.parts = parts
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.parts)

    def close(self) -> None:
        self.closed += 1


def answering(body: Body) -> Callable[..., Any]:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Body:
        start("201 Created", [("X-Length", str(len(environ["wsgi.input"].read())))])
        return body

    return app


def test_a_small_answer_goes_out_in_one_piece() -> None:
    body = Body([b"a", b"b", b"c"])
    start, rest = run(answering(body), [b"12", b"345"])
    assert (start["status"], start["headers"]) == (201, [(b"x-length", b"5")])
    assert (rest["body"], rest.get("more_body", False)) == (b"abc", False)
    assert body.closed == 1


def test_a_large_answer_goes_out_in_pieces_and_whole() -> None:
    body = Body([bytes([n]) * 100_000 for n in range(12)])
    _, *rest = run(answering(body), [b""])
    assert len(rest) > 2
    assert b"".join(message["body"] for message in rest) == b"".join(body.parts)
    assert [message.get("more_body", False) for message in rest] == [True] * (len(rest) - 1) + [
        False
    ]
    assert body.closed == 1


def test_a_client_that_goes_away_closes_the_answer() -> None:
    body = Body([b"x" * 300_000] * 3)
    with pytest.raises(ConnectionResetError):
        run(answering(body), [b""], fail_at=1)
    assert body.closed == 1


def test_an_error_of_the_application_is_raised_and_closes_the_answer() -> None:
    class Failing(Body):
        def __iter__(self) -> Iterator[bytes]:
            yield b"a"
            raise ValueError("broken")

    body = Failing([])
    with pytest.raises(ValueError, match="broken"):
        run(answering(body), [b""])
    assert body.closed == 1


def test_a_websocket_is_refused() -> None:
    sent: Messages = []

    async def send(message: Any) -> None:
        sent.append(dict(message))

    async def receive() -> dict[str, Any]:
        raise AssertionError("nothing to receive")

    bridge = WsgiBridge(answering(Body([])), build_environ)  # type: ignore[arg-type]
    asyncio.run(bridge(scope("websocket"), receive, send))
    assert sent == [{"type": "websocket.close", "code": 1000}]
