"""The HTTPS server of the cluster: connections, requests, answers, and how they are cut."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.standins.ae5.faults import Cut

_CHUNK = 65_536
_IDLE_S = 60.0


@dataclass(frozen=True)
class Call:
    """One request.

    Args:
        method: In capital letters.
        host: As the client wrote it, perhaps with a port.
        path: Without the query, percent signs resolved.
        target: Path and query as they came.
        query: Names and values in their order.
        headers: By name in small letters.
        body: All of it; empty for calls to deployments, whose bodies are streamed.
    """

    method: str
    host: str
    path: str
    target: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)

    def asked(self, name: str, default: str = "") -> str:
        """A value of the query."""
        return dict(self.query).get(name, default)

    def cookie(self, name: str) -> str:
        """The value of a cookie; empty when there is none."""
        with contextlib.suppress(CookieError):
            found = SimpleCookie(self.headers.get("cookie", "")).get(name)
            return found.value if found else ""
        return ""


@dataclass(frozen=True)
class Answer:
    """What is answered.

    Args:
        status: HTTP's.
        body: All of it.
        headers: Names and values; the length is added.
    """

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, value: object, status: int = 200) -> Answer:
        """A JSON document; nothing for None."""
        if value is None:
            return cls(204 if status == 200 else status)
        body = json.dumps(value).encode()
        return cls(status, body, (("Content-Type", "application/json"),))

    @classmethod
    def page(cls, html: str, status: int = 200, cookies: tuple[str, ...] = ()) -> Answer:
        """A page for people."""
        told = (("Content-Type", "text/html; charset=utf-8"),)
        return cls(status, html.encode(), told + tuple(("Set-Cookie", each) for each in cookies))

    @classmethod
    def redirect(cls, url: str, cookies: tuple[str, ...] = ()) -> Answer:
        """Go there instead."""
        return cls(302, b"", (("Location", url), *(("Set-Cookie", each) for each in cookies)))


class Refusal(Exception):
    """An answer that is none of success.

    Args:
        status: HTTP's.
        message: What is wrong.
        complaint: The caller broke a rule of the API, rather than having bad luck.
    """

    def __init__(self, status: int, message: str, *, complaint: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.complaint = complaint

    @property
    def answer(self) -> Answer:
        """What the caller gets; the form is assumed."""
        return Answer.of({"error": {"code": self.status, "message": str(self)}}, self.status)


class Connection(BaseHTTPRequestHandler):
    """One connection of a client, with as many requests as it likes."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = _IDLE_S
    on_request: Callable[[Connection], None]

    def setup(self) -> None:
        """Speak TLS first; here, as the thread that accepts connections has to go on."""
        self.request.settimeout(_IDLE_S)
        self.request.do_handshake()
        super().setup()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: stderr belongs to pytest."""

    def handle_one_request(self) -> None:
        """One request; a client that leaves ends the connection."""
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException):
            self.close_connection = True

    def _handle(self) -> None:
        type(self).on_request(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _handle

    def call(self, body: bytes = b"") -> Call:
        """The request at hand."""
        address = urlsplit(self.path)
        return Call(
            self.command,
            self.headers.get("Host", ""),
            unquote(address.path),
            self.path,
            tuple(parse_qsl(address.query, keep_blank_values=True)),
            {name.lower(): value for name, value in self.headers.items()},
            body,
        )

    def iter_body(self) -> Iterator[bytes]:
        """The request's body, piece by piece."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                yield self._read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self._read(min(left, _CHUNK))
            left -= len(piece)
            yield piece

    def _read(self, size: int) -> bytes:
        piece = self.rfile.read(size)
        if len(piece) < size:
            raise ConnectionResetError("the client left in the middle of a body")
        return piece

    def swallow_half(self) -> None:
        """Take the first half of the request's body, if its length is known."""
        if half := int(self.headers.get("Content-Length") or 0) // 2:
            self._read(half)

    def answer(self, answer: Answer, cut: Cut | None = None) -> None:
        """Send it, or only half of it."""
        if cut is Cut.BEFORE_ANSWER:
            self.cut()
            return
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if self.close_connection:  # or the client may be sending its next request already
            self.send_header("Connection", "close")
        if answer.status != 204:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD" and answer.status != 204:
            self.wfile.write(answer.body if cut is None else answer.body[: len(answer.body) // 2])
        if cut is not None:
            self.cut()

    def cut(self) -> None:
        """Break the connection off, now."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, handler: type[Connection], context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.context = context
        self.connections: set[socket.socket] = set()

    def get_request(self) -> tuple[Any, Any]:
        accepted, address = super().get_request()
        wrapped = self.context.wrap_socket(
            accepted, server_side=True, do_handshake_on_connect=False
        )
        self.connections.add(wrapped)
        return wrapped, address

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that does not trust our certificate is nothing to report."""


@contextlib.contextmanager
def run_https(context: ssl.SSLContext, on_request: Callable[[Connection], None]) -> Iterator[int]:
    """Serve on a free port of 127.0.0.1, a thread for each connection; yields the port."""
    handler = type("Handler", (Connection,), {"on_request": staticmethod(on_request)})
    with _Server(handler, context) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join(10)
            for each in list(server.connections):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
