"""The way to host names that no DNS knows: an HTTP proxy that only builds tunnels.

A cluster's host and its endpoints are names such as `mlflow.ae5.test`. Nothing on a test machine
resolves them (`*.localhost` neither, without systemd-resolved), and `/etc/hosts` belongs to the
machine. All clients that matter honour `HTTPS_PROXY`: `requests` (the real `ae5`, MLflow's client),
`urllib`, `httpx`, curl. So the names are given to this proxy, which knows one cluster.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

_MOST = 65_536


@dataclass
class Tunnel:
    """A running proxy.

    Args:
        port: Where it listens on 127.0.0.1.
        strangers: Everything else that it was asked for (`host:port`), refused with 403.
    """

    port: int = 0
    strangers: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """What `HTTPS_PROXY` has to say."""
        return f"http://127.0.0.1:{self.port}"


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves half way is nothing to report."""


@contextlib.contextmanager
def run_tunnel(host: str, port: int, target: int) -> Iterator[Tunnel]:
    """Lead `host:port` and `*.host:port` to a port of this machine.

    Args:
        host: Of the cluster.
        port: That clients believe it listens on.
        target: Where it does, on 127.0.0.1.
    """
    tunnel = Tunnel()
    open_sockets: set[socket.socket] = set()

    class Handler(socketserver.StreamRequestHandler):
        disable_nagle_algorithm = True

        def handle(self) -> None:
            method, _, rest = self.rfile.readline(_MOST).decode("latin-1").partition(" ")
            authority = rest.partition(" ")[0]
            while self.rfile.readline(_MOST).strip():
                pass
            name, _, asked_port = authority.rpartition(":")
            known = name == host or name.endswith(f".{host}")
            if method != "CONNECT" or not known or asked_port != str(port):
                tunnel.strangers.append(authority)
                self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", target)) as there:
                there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
                open_sockets.update((self.connection, there))
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=(there, self.connection), daemon=True)
                back.start()
                _pump(self.connection, there)
                back.join()
                open_sockets.difference_update((self.connection, there))

    with _Server(("127.0.0.1", 0), Handler) as server:
        tunnel.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield tunnel
        finally:
            server.shutdown()
            thread.join(10)
            for each in list(open_sockets):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Carry bytes until the source ends; then tell the target."""
    with contextlib.suppress(OSError):
        while data := source.recv(_MOST):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
