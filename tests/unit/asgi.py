"""Drive an ASGI app with a hand-made request and look at what it sends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow_server.server.front import App, Message, Receive, Scope, Send


@dataclass
class Answer:
    """What an app sent: status, headers in order, body."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """A header's value; fails when it is there twice."""
        found = [value.decode("latin-1") for key, value in self.headers if key == name.encode()]
        assert len(found) <= 1, f"{name} is there {len(found)} times"
        return found[0] if found else None


def http_scope(
    path: str = "/",
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    raw_path: bytes | None = None,
    scheme: str = "http",
) -> Scope:
    """A scope as uvicorn makes it; Host is localhost unless `headers` says otherwise."""
    pairs = {"host": "localhost:5000", **(headers or {})}
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": path,
        "raw_path": path.encode() if raw_path is None else raw_path,
        "query_string": b"",
        "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in pairs.items()],
        "client": ("192.0.2.7", 40_000),
        "server": ("127.0.0.1", 5_000),
    }


def drive(app: App, scope: Scope, body: Iterable[bytes] = (b"",)) -> Answer:
    """One request through an app, in an event loop of its own."""
    return asyncio.run(drive_async(app, scope, body))


async def drive_async(app: App, scope: Scope, body: Iterable[bytes] = (b"",)) -> Answer:
    """One request through an app; `body` in the given pieces."""
    answer = Answer()
    pieces = list(body)

    async def receive() -> Message:
        piece = pieces.pop(0) if pieces else b""
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = list(message.get("headers", ()))
        else:
            answer.body += message.get("body", b"")

    await app(scope, receive, send)
    return answer


@dataclass
class Recorder:
    """An app that remembers the scopes it got and answers as told."""

    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    pieces: tuple[bytes, ...] = (b"answer",)
    scopes: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the request to its end, then answer."""
        self.scopes.append(dict(scope))
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        start = {"type": "http.response.start", "status": self.status, "headers": [*self.headers]}
        await send(start)
        for index, piece in enumerate(self.pieces, start=1):
            more = index < len(self.pieces)
            await send({"type": "http.response.body", "body": piece, "more_body": more})

    @property
    def paths(self) -> list[str]:
        """Paths of the requests, as this app saw them."""
        return [scope["path"] for scope in self.scopes]
