"""Request ids, access log and counts, whichever part of MLflow answers."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_server.log import JsonFormatter, Redactor
from mlflow_server.server.front import App, Receive, Scope, Send
from mlflow_server.server.observe import (
    UNMATCHED,
    Observe,
    fastapi_route,
    flask_route,
    note_route,
)
from tests.unit.asgi import Answer, Recorder, drive, drive_async, http_scope


class Counts:
    """Stands in for the metrics of one server; keeps every call."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended: list[tuple[Any, ...]] = []

    def begin(self) -> None:
        """A request has come in."""
        self.begun += 1

    def end(self, *values: Any) -> None:
        """A request has been answered."""
        self.ended.append(values)


def observe(app: App, counts: Counts | None = None, *, log_requests: bool = False) -> Observe:
    return Observe(app, counts, log_requests=log_requests)  # type: ignore[arg-type]


class Route:
    """As Starlette leaves it in the scope."""

    def __init__(self, path: str) -> None:
        self.path = path


def native(path: str) -> App:
    """An app that answers by a FastAPI route."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = Route(path)
        await Recorder()(scope, receive, send)

    return app


def flask(rule: str) -> App:
    """An app that notes its route in a thread, as Flask's part does."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = Route("/{path:path}")
        await asyncio.to_thread(note_route, flask_route(rule))
        await Recorder()(scope, receive, send)

    return app


async def broken(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that fails before it answers."""
    raise RuntimeError("broken")


# Request ids


MODES = [(None, False), (Counts(), False), (None, True), (Counts(), True)]


@pytest.mark.parametrize(("counts", "log_requests"), MODES)
@pytest.mark.parametrize(
    "request_id", ["a", "0af7651916cd43dd8448eb211c80319c", "A.b_c:/=+-9", "x" * 128]
)
def test_a_sane_request_id_is_taken_and_returned(
    counts: Counts | None, log_requests: bool, request_id: str
) -> None:
    app = observe(Recorder(), counts, log_requests=log_requests)
    answer = drive(app, http_scope(headers={"X-Request-ID": request_id}))
    assert answer.header("x-request-id") == request_id


@pytest.mark.parametrize(("counts", "log_requests"), MODES)
@pytest.mark.parametrize(
    "request_id",
    ["", "x" * 129, "a b", "a\n", "a\r\nSet-Cookie: x", "<script>", "a;b", "ü", "a\0", "'", '"'],
)
def test_any_other_is_replaced(counts: Counts | None, log_requests: bool, request_id: str) -> None:
    app = observe(Recorder(), counts, log_requests=log_requests)
    answer = drive(app, http_scope(headers={"X-Request-ID": request_id}))
    given = answer.header("x-request-id")
    assert given is not None
    assert re.fullmatch(r"[0-9a-f]{24}", given)


def test_each_request_gets_an_id_of_its_own() -> None:
    app = observe(Recorder())
    ids = {drive(app, http_scope()).header("x-request-id") for _ in range(50)}
    assert len(ids) == 50


def test_other_headers_stay() -> None:
    answer = drive(observe(Recorder(headers=((b"etag", b"1"),))), http_scope())
    assert answer.header("etag") == "1"


@given(st.binary(max_size=140))
def test_no_request_id_breaks_a_header(value: bytes) -> None:
    scope = http_scope()
    scope["headers"].append((b"x-request-id", value))
    given = drive(observe(Recorder()), scope).header("x-request-id")
    assert given is not None
    assert re.fullmatch(r"[A-Za-z0-9._:/=+-]{1,128}", given)


# Routes


@pytest.mark.parametrize(
    ("rule", "template"),
    [
        ("/health", "/health"),
        ("/api/<name>", "/api/{name}"),
        ("/a/<path:b>", "/a/{b}"),
        ("/a/<int:b>/c/<string(length=2):d>", "/a/{b}/c/{d}"),
    ],
)
def test_routes_of_flask_in_the_common_form(rule: str, template: str) -> None:
    assert flask_route(rule) == template


@pytest.mark.parametrize(
    ("path", "template"),
    [("/a/{b}", "/a/{b}"), ("/a/{b:path}", "/a/{b}"), ("/{a:int}/{b:path}", "/{a}/{b}")],
)
def test_routes_of_fastapi_in_the_common_form(path: str, template: str) -> None:
    assert fastapi_route(path) == template


@pytest.mark.parametrize(
    ("app", "path", "route"),
    [
        (native("/v1/traces"), "/v1/traces", "/v1/traces"),
        (native("/art/{artifact_path:path}"), "/art/a/b/c.bin", "/art/{artifact_path}"),
        (flask("/api/<path:p>"), "/api/x/y", "/api/{p}"),
        (Recorder(404), "/nobody/knows/this/42", UNMATCHED),
        (Recorder(), "/livez", "/livez"),
        (Recorder(), "/readyz", "/readyz"),
        (Recorder(), "/metrics", "/metrics"),
    ],
)
def test_counts_by_route_template_never_by_path(app: App, path: str, route: str) -> None:
    counts = Counts()
    drive(observe(app, counts), http_scope(path))
    assert [ended[1] for ended in counts.ended] == [route]


def test_routes_of_requests_at_the_same_time_do_not_mix() -> None:
    counts = Counts()

    async def run() -> None:
        barrier = asyncio.Barrier(2)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await barrier.wait()
            await asyncio.to_thread(note_route, "/from" + scope["path"])
            await barrier.wait()
            await Recorder()(scope, receive, send)

        wrapped = observe(app, counts)
        await asyncio.gather(*(drive_async(wrapped, http_scope(path)) for path in ("/a", "/b")))

    asyncio.run(run())
    assert sorted(ended[1] for ended in counts.ended) == ["/from/a", "/from/b"]


def test_a_route_noted_outside_a_request_is_forgotten() -> None:
    contextvars.copy_context().run(note_route, "/nowhere")
    counts = Counts()
    drive(observe(Recorder(), counts), http_scope())
    assert counts.ended[0][1] == UNMATCHED


# Counts


def test_counts_method_status_and_bytes() -> None:
    counts = Counts()
    app = observe(Recorder(201, pieces=(b"12345", b"678")), counts)
    drive(app, http_scope(method="PUT"), body=(b"1" * 1_000, b"2" * 24))
    ((method, _, status, seconds, received, sent),) = counts.ended
    assert (method, status, received, sent) == ("PUT", 201, 1_024, 8)
    assert seconds >= 0
    assert counts.begun == 1


def test_an_exception_counts_as_500_and_goes_on() -> None:
    counts = Counts()
    with pytest.raises(RuntimeError, match="broken"):
        drive(observe(broken, counts), http_scope())
    assert [ended[2] for ended in counts.ended] == [500]
    assert counts.begun == 1


def test_a_request_that_is_cancelled_is_no_longer_in_flight() -> None:
    counts = Counts()

    async def run() -> None:
        started = asyncio.Event()

        async def hanging(scope: Scope, receive: Receive, send: Send) -> None:
            started.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(drive_async(observe(hanging, counts), http_scope()))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert (counts.begun, len(counts.ended)) == (1, 1)


def test_what_is_no_http_request_is_neither_counted_nor_changed() -> None:
    counts, app = Counts(), Recorder()

    async def never(*_: object) -> Any:
        raise AssertionError("nothing to receive or send")

    asyncio.run(observe(app, counts)({"type": "lifespan"}, never, never))
    assert (counts.begun, len(app.scopes)) == (0, 1)


# Access log


def log_of(
    app: App, scope: Scope, caplog: pytest.LogCaptureFixture
) -> tuple[Answer, list[dict[str, Any]]]:
    formatter = JsonFormatter(Redactor())
    with caplog.at_level(logging.INFO, "mlflow_server.access"):
        answer = drive(observe(app, log_requests=True), scope)
    return answer, [json.loads(formatter.format(record)) for record in caplog.records]


def test_the_access_log_has_the_documented_fields(caplog: pytest.LogCaptureFixture) -> None:
    scope = http_scope("/art/a/b", method="GET", headers={"x-request-id": "r1"})
    _, (line,) = log_of(native("/art/{p:path}"), scope, caplog)
    assert line["msg"] == "GET /art/a/b 200"
    expected = {
        "event": "request",
        "request_id": "r1",
        "method": "GET",
        "route": "/art/{p}",
        "status": 200,
        "bytes_in": 0,
        "bytes_out": 6,
        "remote_ip": "192.0.2.7",
    }
    assert {name: line[name] for name in expected} == expected
    assert line["duration_s"] >= 0


def test_the_logged_request_id_is_the_one_returned(caplog: pytest.LogCaptureFixture) -> None:
    answer, (line,) = log_of(Recorder(), http_scope(), caplog)
    assert line["request_id"] == answer.header("x-request-id")


def test_a_request_over_a_unix_socket_has_no_address(caplog: pytest.LogCaptureFixture) -> None:
    scope = http_scope()
    scope["client"] = None
    _, (line,) = log_of(Recorder(), scope, caplog)
    assert line["remote_ip"] == ""


def test_the_query_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Tokens travel in queries."""
    scope = http_scope("/x")
    scope["query_string"] = b"token=S3cr3tMarker"
    _, (line,) = log_of(Recorder(), scope, caplog)
    assert "S3cr3tMarker" not in json.dumps(line)


def test_nothing_is_logged_unless_asked(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "mlflow_server.access"):
        drive(observe(Recorder(), Counts()), http_scope())
    assert caplog.records == []
