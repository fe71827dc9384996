"""What a server behind a platform or proxy needs before MLflow's app sees a request.

Path prefix, host names, same-origin requests, frames. An ASGI middleware; no MLflow import.
"""

import fnmatch
import ipaddress
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from mlflow_server.server.plan import PRIVATE_NETWORKS, LaunchPlan, without_port

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Answered to any Host: platforms and load balancers probe by pod address or with no name at all.
_PROBES = frozenset({"/livez", "/readyz", "/health", "/version"})
_CACHED_HOSTS = 1_000


class HostGuard:
    """Decides whether a Host header is one of ours.

    Names count in full, with any port. Addresses count when they are loopback or private. MLflow's
    own patterns (`10.*`) would also let `10.attacker.example` in.

    Args:
        names: Lower case, without port; may hold `fnmatch` patterns.
    """

    def __init__(self, names: Iterable[str]) -> None:
        names = tuple(names)
        self._exact = frozenset(name for name in names if "*" not in name)
        self._patterns = tuple(name for name in names if "*" in name)
        self._networks = tuple(ipaddress.ip_network(network) for network in PRIVATE_NETWORKS)
        self._known: dict[bytes, bool] = {}

    def allows(self, header: bytes) -> bool:
        """True when the server answers to this Host header."""
        known = self._known.get(header)
        if known is None:
            known = self._decide(header.decode("latin-1"))
            if len(self._known) < _CACHED_HOSTS:
                self._known[header] = known
        return known

    def _decide(self, header: str) -> bool:
        name = without_port(header)
        if not name:
            return False
        if name in self._exact or any(fnmatch.fnmatch(name, p) for p in self._patterns):
            return True
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return any(address in network for network in self._networks)


class Front:
    """ASGI middleware for what stands in front of the server.

    Args:
        app: What to call with the request as MLflow expects it.
        plan: The launch.
        probes: Path to ASGI app for paths that are answered here (`/livez`, `/readyz`, `/metrics`).
    """

    def __init__(self, app: App, plan: LaunchPlan, probes: dict[str, App]) -> None:
        self._app = app
        self._prefix = plan.url_prefix
        self._guard = HostGuard(plan.allowed_names)
        self._probes = probes
        self._frame_policy = (
            ("frame-ancestors 'self' " + " ".join(plan.frame_ancestors)).encode("latin-1")
            if plan.frame_ancestors
            else None
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._prefix and await self._strip_prefix(scope, send):
            return
        path = scope["path"]
        host = origin = b""
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
            elif name == b"origin":
                origin = value
        if path not in _PROBES and not self._guard.allows(host):
            await _answer(send, 403, _wrong_host(host))
            return
        if host != host.lower():
            # Names have no case, but MLflow compares them as texts.
            scope["headers"] = [
                (name, value.lower() if name == b"host" else value)
                for name, value in scope["headers"]
            ]
        probe = self._probes.get(path)
        if probe is not None:
            await probe(scope, receive, send)
            return
        if origin and _is_same_origin(scope, origin, host):
            # A page of this very server: no cross-origin request, whatever name it was opened by.
            scope["headers"] = [entry for entry in scope["headers"] if entry[0] != b"origin"]
        if self._frame_policy is None:
            await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, self._with_frame_policy(send))

    async def _strip_prefix(self, scope: Scope, send: Send) -> bool:
        """Take the prefix away; a proxy that already did so is fine. True when answered."""
        path: str = scope["path"]
        if path == self._prefix:
            location = self._prefix.encode() + b"/"
            if scope.get("query_string"):
                location += b"?" + scope["query_string"]
            await _answer(send, 308, b"", ((b"location", location),))
            return True
        if path.startswith(self._prefix + "/"):
            scope["path"] = path[len(self._prefix) :]
            raw: bytes | None = scope.get("raw_path")
            if raw and raw.startswith(self._prefix.encode() + b"/"):
                scope["raw_path"] = raw[len(self._prefix) :]
        return False

    def _with_frame_policy(self, send: Send) -> Send:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [
                    entry for entry in message.get("headers", ()) if entry[0] != b"x-frame-options"
                ]
                headers.append((b"content-security-policy", self._frame_policy))
                message["headers"] = headers
            await send(message)

        return send_with_policy


def _is_same_origin(scope: Scope, origin: bytes, host: bytes) -> bool:
    scheme: str = scope.get("scheme", "http")
    return origin.lower() == scheme.encode() + b"://" + host.lower()


def _wrong_host(host: bytes) -> bytes:
    name = without_port(host.decode("latin-1"))[:100] or "(none)"
    message = (
        f"The host name {name!r} is not one this server answers to. Its operator can allow it with "
        "TRACKING_SERVER_PUBLIC_URL or MLFLOW_SERVER_ALLOWED_HOSTS."
    )
    return json.dumps({"error_code": "PERMISSION_DENIED", "message": message}).encode()


async def _answer(
    send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"x-content-type-options", b"nosniff"),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
