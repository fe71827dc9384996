"""Stand-ins for what stands between a user and the server: a reverse proxy, a portal with a frame.

The proxy is what platforms put in front of an app: it keeps or strips a path prefix, passes the
Host header on and says with X-Forwarded-* who asked. The portal is a page of another host that
shows the app in an `iframe`.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

# Between two neighbours only; RFC 9110 section 7.6.1.
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
_WITHOUT_BODY = frozenset({204, 304})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that leaves closes its connections half way: nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: stderr belongs to pytest."""

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status not in _WITHOUT_BODY:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status not in _WITHOUT_BODY:
            self.wfile.write(body)


@dataclass(frozen=True)
class ReverseProxy:
    """A running proxy.

    Args:
        port: Where it listens on 127.0.0.1.
        prefix: Path below which it publishes the server.
    """

    port: int
    prefix: str

    @property
    def url(self) -> str:
        """The public address of the server."""
        return f"http://127.0.0.1:{self.port}{self.prefix}"


@contextlib.contextmanager
def run_proxy(target: str, *, prefix: str = "", strip: bool = False) -> Iterator[ReverseProxy]:
    """Publish the server at `target` below `prefix`; everything else is 404.

    Args:
        target: `http://HOST:PORT` of the server.
        prefix: With leading, without trailing slash.
        strip: Take the prefix away before the request is passed on.
    """
    upstream = urlsplit(target).netloc

    class Handler(_Handler):
        def handle_one_request(self) -> None:
            with contextlib.suppress(ConnectionError, TimeoutError):
                super().handle_one_request()

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path
            if prefix and not (path == prefix or path.startswith((prefix + "/", prefix + "?"))):
                self.answer(404, [("Content-Type", "text/plain")], b"not published here\n")
                return
            if strip:
                path = path.removeprefix(prefix) or "/"
            headers = {
                name: value
                for name, value in self.headers.items()
                if name.lower() not in _HOP_BY_HOP and not name.lower().startswith("x-forwarded-")
            }
            headers["X-Forwarded-For"] = str(self.client_address[0])
            headers["X-Forwarded-Proto"] = "http"
            connection = http.client.HTTPConnection(upstream, timeout=60)
            try:
                connection.request(self.command, path, body or None, headers)
                with connection.getresponse() as response:
                    content = response.read()
                    kept = [
                        (name, value)
                        for name, value in response.getheaders()
                        if name.lower() not in _HOP_BY_HOP | {"content-length"}
                    ]
            finally:
                connection.close()
            self.answer(response.status, kept, content)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _forward

    with _running(Handler) as port:
        yield ReverseProxy(port, prefix)


@contextlib.contextmanager
def run_portal(framed: str) -> Iterator[int]:
    """A page that shows `framed` in a frame, at `/` of the yielded port of 127.0.0.1."""
    page = (
        '<!doctype html><html lang="en"><head><title>portal</title><link rel="icon" href="data:,">'
        f'</head><body><h1>portal</h1><iframe src="{framed}" width="1200" height="800">'
        "</iframe></body></html>"
    ).encode()

    class Handler(_Handler):
        def do_GET(self) -> None:
            self.answer(200, [("Content-Type", "text/html; charset=utf-8")], page)

    with _running(Handler) as port:
        yield port


@contextlib.contextmanager
def _running(handler: type[_Handler]) -> Iterator[int]:
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join(10)
