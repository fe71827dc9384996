"""Stands in front of a real server: counts what it is asked, and now and then answers itself."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TypeAlias

from tests.standins.network import http_listener


@dataclass(frozen=True)
class Request:
    """What was asked.

    Args:
        number: Counted from 1.
        method: In capital letters.
        path: With the query.
        headers: By name in small letters.
        body: All of it.
    """

    number: int
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What to answer.

    Args:
        status: HTTP's.
        body: All of it.
        headers: But for the length.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cut:
    """Pass a request on, and break off in the middle of the answer.

    Args:
        after: So many bytes of its body.
    """

    after: int


# None for a request that is to be passed on.
Answers: TypeAlias = Callable[[Request], Reply | Cut | None]


@dataclass
class Forwarder:
    """A running one.

    Args:
        port: Where it listens on 127.0.0.1.
        answers: What it answers by itself.
        requests: All that came, in their order.
    """

    port: int
    answers: Answers
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def forwarder(upstream: int, answers: Answers = lambda _: None) -> Iterator[Forwarder]:
    """Pass requests on to a port of this machine, every header as it is."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: stderr belongs to pytest."""

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                headers = {name.lower(): value for name, value in self.headers.items()}
                number = len(running.requests) + 1
                request = Request(number, self.command, self.path, headers, body)
                running.requests.append(request)
            reply = running.answers(request)
            if isinstance(reply, Reply):
                self._answer(reply.status, reply.body, list(reply.headers.items()))
                return
            connection = http.client.HTTPConnection("127.0.0.1", upstream, timeout=60)
            try:
                connection.putrequest(
                    self.command, self.path, skip_host=True, skip_accept_encoding=True
                )
                for name, value in self.headers.items():
                    connection.putheader(name, value)
                connection.endheaders(body or None)
                with connection.getresponse() as response:
                    content = response.read()
                    answered = response.getheaders()
            finally:
                connection.close()
            dropped = {"transfer-encoding", "connection"}
            if self.command != "HEAD":  # there it is the length of what is not sent
                dropped |= {"content-length"}
            kept = [(name, value) for name, value in answered if name.lower() not in dropped]
            self._answer(response.status, content, kept, reply)

        def _answer(
            self,
            status: int,
            body: bytes,
            headers: list[tuple[str, str]],
            cut: Cut | None = None,
        ) -> None:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            if status != 204 and "content-length" not in (name.lower() for name, _ in headers):
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body if cut is None else body[: cut.after])
            if cut is not None:
                self.close_connection = True

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _forward

    running = Forwarder(0, answers)
    with http_listener(Handler) as port:
        running.port = port
        yield running
