"""The stand-ins for platforms do what the tests that use them believe."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.standins.proxy import run_portal, run_proxy
from tests.support.programs import http


class _Echo(BaseHTTPRequestHandler):
    """Says what it was asked."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing else."""

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        seen = {"path": self.path, "size": len(body), "headers": dict(self.headers)}
        answer = json.dumps(seen).encode()
        self.send_response(418)
        self.send_header("X-Echo", "kept")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """The address of an echo server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("strip", "path"), [(False, "/p/a?b=c%20d"), (True, "/a?b=c%20d")])
def test_proxy_keeps_or_strips_the_prefix(target: str, strip: bool, path: str) -> None:
    with run_proxy(target, prefix="/p", strip=strip) as proxy:
        answer = http(f"{proxy.url}/a?b=c%20d", method="PUT", body=b"x" * 1000)
    assert answer.status == 418
    assert answer.headers["X-Echo"] == "kept"
    assert (answer.json()["path"], answer.json()["size"]) == (path, 1000)


def test_proxy_passes_host_on_and_says_who_asked(target: str) -> None:
    claims = {"Host": "public.example", "X-Forwarded-For": "203.0.113.7"}
    with run_proxy(target) as proxy:
        seen = http(f"{proxy.url}/", headers=claims).json()["headers"]
    assert seen["Host"] == "public.example"  # type: ignore[index]
    assert seen["X-Forwarded-For"] == "127.0.0.1"  # type: ignore[index]
    assert seen["X-Forwarded-Proto"] == "http"  # type: ignore[index]


def test_proxy_publishes_nothing_outside_its_prefix(target: str) -> None:
    with run_proxy(target, prefix="/p") as proxy:
        for path in ("/", "/px", "/q/p"):
            assert http(f"http://127.0.0.1:{proxy.port}{path}").status == 404


def test_portal_shows_the_address_in_a_frame() -> None:
    with run_portal("http://framed.example/a/#/b") as port:
        page = http(f"http://127.0.0.1:{port}/").body.decode()
    assert '<iframe src="http://framed.example/a/#/b"' in page
