"""The gateway in front of deployments: `https://ENDPOINT.HOST/…` with the deployment's token.

Programs need `Authorization: Bearer TOKEN`, browsers the session of somebody who may look at the
deployment. Assumed: without either, a redirect to the sign-in page; a token that is void, or
another deployment's, is 401.
"""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.standins.ae5.faults import Cut
from tests.standins.ae5.login import CALLBACK, sign_in_url
from tests.standins.ae5.state import Deployment
from tests.standins.ae5.wire import Answer, Connection

if TYPE_CHECKING:
    from tests.standins.ae5.cluster import Cluster

PROBE = "/_errors/404.html"
# Between two neighbours only; RFC 9110 section 7.6.1.
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
_PIECE = 65_536
_UPSTREAM_S = 120.0


def serve(cluster: Cluster, connection: Connection, endpoint: str) -> int:
    """Answer one request to an endpoint; returns the status, 0 when the connection was cut."""
    call = connection.call()
    fault = cluster.meet_fault(call.method, f"{endpoint}{call.path}")
    deployment = cluster.at_endpoint(endpoint)
    answer: Answer | None = None
    if fault is not None and fault.cut is Cut.REQUEST:
        connection.swallow_half()
        connection.cut()
        return 0
    if fault is not None and fault.status is not None:
        answer = Answer.page(f"fault {fault.status}", fault.status)
    elif deployment is None:
        answer = Answer.page("nothing is deployed here", 404)
    elif call.path == PROBE:
        answer = Answer.page("not found")
    elif call.path == CALLBACK:
        answer = cluster.login.enter(call, endpoint, f"https://{endpoint}.{cluster.authority}/")
    else:
        answer = _admit(cluster, connection, deployment)
    cut = fault.cut if fault is not None else None
    if answer is None:
        assert deployment is not None
        return _forward(connection, deployment, cut)
    for _ in connection.iter_body():
        pass
    connection.answer(answer, cut)
    return answer.status


def _admit(cluster: Cluster, connection: Connection, deployment: Deployment) -> Answer | None:
    """None for who may go on."""
    call = connection.call()
    word, _, token = call.headers.get("authorization", "").partition(" ")
    if deployment.public or (word == "Bearer" and token and token == deployment.token):
        return None
    if word == "Bearer":
        return Answer.of({"message": "the token is not valid"}, cluster.bad_token_status)
    visitor = cluster.login.visitor(call, deployment.endpoint)
    if visitor is None:
        return Answer.redirect(sign_in_url(cluster, deployment.endpoint, call.target))
    if cluster.may_look(visitor, deployment):
        return None
    return Answer.page(f"{visitor} has no access to this deployment", 403)


def _forward(connection: Connection, deployment: Deployment, cut: Cut | None) -> int:
    """Pass a request on to the pod, and its answer back, piece by piece."""
    upstream = http.client.HTTPConnection("127.0.0.1", deployment.port, timeout=_UPSTREAM_S)
    with contextlib.closing(upstream):
        try:
            if deployment.state != "started":
                raise ConnectionRefusedError
            _send(connection, upstream)
            response = upstream.getresponse()
        except (OSError, http.client.HTTPException):
            connection.close_connection = True
            connection.answer(Answer.page("502 Bad Gateway", 502))
            return 502
        with response:
            _send_back(connection, response, cut)
        return response.status


def _send(connection: Connection, upstream: http.client.HTTPConnection) -> None:
    headers = connection.headers
    upstream.putrequest(
        connection.command, connection.path, skip_host=True, skip_accept_encoding=True
    )
    for name, value in headers.items():
        lower = name.lower()
        if lower not in _HOP_BY_HOP | {"expect"} and not lower.startswith("x-forwarded-"):
            upstream.putheader(name, value)
    host = headers.get("Host", "")
    upstream.putheader("X-Forwarded-For", "127.0.0.1")
    upstream.putheader("X-Forwarded-Proto", "https")
    upstream.putheader("X-Forwarded-Host", host)
    upstream.putheader("X-Forwarded-Port", str(urlsplit(f"//{host}").port or 443))
    is_chunked = "Transfer-Encoding" in headers
    if is_chunked:
        upstream.putheader("Transfer-Encoding", "chunked")
    upstream.endheaders()
    for piece in connection.iter_body():
        upstream.send(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
    if is_chunked:
        upstream.send(b"0\r\n\r\n")


def _pieces(response: http.client.HTTPResponse, most: int | None) -> Iterator[bytes]:
    """What comes, as it comes, up to so many bytes."""
    while piece := response.read1(_PIECE if most is None else min(most, _PIECE)):
        yield piece
        if most is not None:
            most -= len(piece)
            if not most:
                return


def _send_back(connection: Connection, response: http.client.HTTPResponse, cut: Cut | None) -> None:
    if cut is Cut.BEFORE_ANSWER:
        connection.cut()
        return
    length = response.headers.get("Content-Length")
    has_body = connection.command != "HEAD" and response.status not in (204, 304)
    is_chunked = has_body and length is None
    connection.send_response_only(response.status, response.reason)
    for name, value in response.getheaders():
        if name.lower() not in _HOP_BY_HOP:
            connection.send_header(name, value)
    if is_chunked:
        connection.send_header("Transfer-Encoding", "chunked")
    connection.end_headers()
    if has_body:
        for piece in _pieces(response, int(length or 2) // 2 if cut else None):
            connection.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
    if cut is Cut.ANSWER:
        connection.cut()
    elif is_chunked:
        connection.wfile.write(b"0\r\n\r\n")
