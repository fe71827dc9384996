"""The middleware in front of MLflow: host names, prefix, same origin, frames."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_server.errors import SettingsError
from mlflow_server.server.front import App, Front, HostGuard
from mlflow_server.server.plan import LOOPBACK_HOSTS
from tests.unit.asgi import Answer, Recorder, drive, http_scope
from tests.unit.making import plan_for

API = "/api/2.0/mlflow/experiments/get"


def front_for(
    folder: Path, app: App, probes: dict[str, App] | None = None, **environ: str
) -> Front:
    return Front(app, plan_for(folder, environ=environ), probes or {})


def ask(front: Front, path: str = API, host: str | None = "localhost", **headers: str) -> Answer:
    scope = http_scope(path, headers={name.replace("_", "-"): v for name, v in headers.items()})
    scope["headers"] = [entry for entry in scope["headers"] if entry[0] != b"host"]
    if host is not None:
        scope["headers"].insert(0, (b"host", host.encode("latin-1")))
    return drive(front, scope)


# Host names


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:5000",
        "LOCALHOST:80",
        "127.0.0.1",
        "127.8.9.1:5000",
        "[::1]",
        "[::1]:5000",
        "0.0.0.0:5000",
        "10.0.0.1",
        "10.255.1.2:8086",
        "172.16.0.1",
        "172.31.255.1",
        "192.168.1.1:5000",
        "[fd00::1]",
        "[fc12::1]:5000",
        "mlflow.example.com",
        "MLflow.Example.com:8443",
        "a.wild.example.com:1",
    ],
)
def test_lets_in_its_own_names_and_private_addresses(host: str) -> None:
    guard = HostGuard((*LOOPBACK_HOSTS, "mlflow.example.com", "*.wild.example.com"))
    assert guard.allows(host.encode())
    assert guard.allows(host.encode())  # the second time from memory


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":5000",
        "10.evil.com",
        "10.0.0.1.evil.com",
        "127.0.0.1.nip.io",
        "192.168.evil.com",
        "localhost.evil.com",
        "evil.com",
        "evil.com:5000",
        "evilocalhost",
        "localhost.",
        "8.8.8.8",
        "172.15.0.1",
        "172.32.0.1",
        "[2001:db8::1]",
        "[::ffff:8.8.8.8]",
        "mlflow.example.com.evil",
        "mlflow.example.com@evil.com",
        "xmlflow.example.com",
        "wild.example.com",
        "10.0.0",
        "2130706433",
        "169.254.169.254",
        "*",
        "[fd.evil.com]",
        "fd00.evil.com",
        "\xff\xfe",
        "mlflow.example.com\t.e",
    ],
)
def test_keeps_out_everything_else(host: str) -> None:
    guard = HostGuard((*LOOPBACK_HOSTS, "mlflow.example.com", "*.wild.example.com"))
    assert not guard.allows(host.encode("latin-1"))
    assert not guard.allows(host.encode("latin-1"))


def test_a_star_lets_everything_in_but_no_host_at_all() -> None:
    guard = HostGuard(("*",))
    assert guard.allows(b"anything.example.com:1")
    assert not guard.allows(b"")


names = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)


@given(name=names, port=st.integers(min_value=1, max_value=65_535))
def test_a_port_never_changes_the_decision(name: str, port: int) -> None:
    guard = HostGuard(("mlflow.example.com", "a"))
    assert guard.allows(name.encode()) == guard.allows(f"{name}:{port}".encode())


@given(st.binary(max_size=60))
def test_no_header_makes_the_guard_fail(header: bytes) -> None:
    assert HostGuard(("mlflow.example.com",)).allows(header) in (True, False)


def test_remembers_a_bounded_number_of_hosts() -> None:
    guard = HostGuard(("mlflow.example.com",))
    for number in range(3_000):
        assert not guard.allows(f"h{number}.evil.com".encode())
    assert guard.allows(b"mlflow.example.com")
    remembered = max(len(v) for v in vars(guard).values() if isinstance(v, dict))
    assert remembered <= 1_000


def test_a_wrong_host_gets_403_that_says_what_to_do(tmp_path: Path) -> None:
    app = Recorder()
    answer = ask(front_for(tmp_path, app), host="10.evil.com:5000")
    assert answer.status == 403
    assert answer.header("content-type") == "application/json"
    assert answer.header("content-length") == str(len(answer.body))
    assert answer.header("x-content-type-options") == "nosniff"
    document = json.loads(answer.body)
    assert document["error_code"] == "PERMISSION_DENIED"
    assert "'10.evil.com'" in document["message"]
    assert "TRACKING_SERVER_PUBLIC_URL" in document["message"]
    assert app.scopes == []


def test_a_request_without_host_gets_403(tmp_path: Path) -> None:
    assert ask(front_for(tmp_path, Recorder()), host=None).status == 403


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/version"])
@pytest.mark.parametrize("host", [None, "evil.com", "100.64.0.1:8086"])
def test_probes_are_answered_to_any_host(tmp_path: Path, path: str, host: str | None) -> None:
    app = Recorder()
    assert ask(front_for(tmp_path, app, {"/livez": app, "/readyz": app}), path, host).status == 200
    assert app.paths == [path]


def test_metrics_are_not_for_any_host(tmp_path: Path) -> None:
    app, metrics = Recorder(), Recorder(pieces=(b"metrics",))
    front = front_for(tmp_path, app, {"/metrics": metrics})
    assert ask(front, "/metrics", "evil.com").status == 403
    assert ask(front, "/metrics").body == b"metrics"
    assert app.scopes == []


@pytest.mark.parametrize("path", ["/livez/", "/livez/x", "//livez", "/healthx", "/LIVEZ"])
def test_what_looks_like_a_probe_is_none(tmp_path: Path, path: str) -> None:
    assert ask(front_for(tmp_path, Recorder()), path, "evil.com").status == 403


# Prefix


@pytest.mark.parametrize(
    ("path", "inner"),
    [
        ("/mlflow/", "/"),
        ("/mlflow" + API, API),
        ("/mlflow/mlflow/x", "/mlflow/x"),
        (API, API),  # a proxy has taken the prefix away already
        ("/", "/"),
        ("/mlflowx/y", "/mlflowx/y"),
    ],
)
def test_takes_the_prefix_away(tmp_path: Path, path: str, inner: str) -> None:
    app = Recorder()
    assert ask(front_for(tmp_path, app, MLFLOW_STATIC_PREFIX="/mlflow"), path).status == 200
    assert app.paths == [inner]
    assert app.scopes[0]["raw_path"] == inner.encode()


def test_takes_the_prefix_away_from_the_raw_path_and_leaves_its_escapes(tmp_path: Path) -> None:
    app = Recorder()
    front = front_for(tmp_path, app, MLFLOW_STATIC_PREFIX="/team/mlflow")
    scope = http_scope("/team/mlflow/a b/ü", raw_path=b"/team/mlflow/a%20b/%C3%BC")
    drive(front, scope)
    assert app.paths == ["/a b/ü"]
    assert app.scopes[0]["raw_path"] == b"/a%20b/%C3%BC"


def test_works_without_a_raw_path(tmp_path: Path) -> None:
    app = Recorder()
    scope = http_scope("/mlflow/x")
    del scope["raw_path"]
    drive(front_for(tmp_path, app, MLFLOW_STATIC_PREFIX="/mlflow"), scope)
    assert app.paths == ["/x"]


def test_probes_answer_below_the_prefix_too(tmp_path: Path) -> None:
    probe = Recorder(pieces=(b"alive",))
    front = front_for(tmp_path, Recorder(), {"/livez": probe}, MLFLOW_STATIC_PREFIX="/mlflow")
    assert ask(front, "/mlflow/livez", "evil.com").body == b"alive"
    assert ask(front, "/livez", "evil.com").body == b"alive"


def test_the_prefix_itself_leads_to_the_ui(tmp_path: Path) -> None:
    """Relative links of the UI need the slash."""
    answer = ask(front_for(tmp_path, Recorder(), MLFLOW_STATIC_PREFIX="/mlflow"), "/mlflow")
    assert (answer.status, answer.header("location")) == (308, "/mlflow/")


def test_the_redirect_keeps_the_query(tmp_path: Path) -> None:
    front = front_for(tmp_path, Recorder(), MLFLOW_STATIC_PREFIX="/mlflow")
    scope = http_scope("/mlflow")
    scope["query_string"] = b"workspace=a%20b&c=d"
    assert drive(front, scope).header("location") == "/mlflow/?workspace=a%20b&c=d"


def test_a_wrong_host_is_refused_below_the_prefix(tmp_path: Path) -> None:
    app = Recorder()
    front = front_for(tmp_path, app, MLFLOW_STATIC_PREFIX="/mlflow")
    assert ask(front, "/mlflow/x", "evil.com").status == 403
    assert app.scopes == []


# Same origin


@pytest.mark.parametrize(
    ("scheme", "host", "origin", "passed_on"),
    [
        ("http", "localhost:5000", "http://localhost:5000", False),
        ("https", "localhost", "https://LOCALHOST", False),
        ("http", "localhost", "https://localhost", True),
        ("http", "localhost:5000", "http://localhost:5001", True),
        ("http", "localhost", "http://evil.com", True),
        ("http", "localhost", "null", True),
        ("http", "localhost", "http://localhost.evil.com", True),
    ],
)
def test_only_requests_of_its_own_pages_lose_their_origin(
    tmp_path: Path, scheme: str, host: str, origin: str, passed_on: bool
) -> None:
    app = Recorder()
    headers = {"host": host, "origin": origin, "accept": "*/*"}
    drive(front_for(tmp_path, app), http_scope(API, headers=headers, scheme=scheme))
    seen = dict(app.scopes[0]["headers"])
    assert (b"origin" in seen) is passed_on
    assert seen[b"accept"] == b"*/*"
    assert seen[b"host"] == host.encode()


# Frames


def test_frames_are_allowed_to_those_named_and_to_itself(tmp_path: Path) -> None:
    app = Recorder(headers=((b"x-frame-options", b"SAMEORIGIN"), (b"x-other", b"kept")))
    frames = "ae5.example.com https://b.example.com"
    answer = ask(front_for(tmp_path, app, TRACKING_SERVER_FRAME_ANCESTORS=frames))
    assert answer.header("content-security-policy") == (
        "frame-ancestors 'self' https://ae5.example.com ae5.example.com https://b.example.com"
    )
    assert answer.header("x-frame-options") is None
    assert answer.header("x-other") == "kept"
    assert answer.body == b"answer"


def test_without_names_the_apps_own_headers_stay(tmp_path: Path) -> None:
    app = Recorder(headers=((b"x-frame-options", b"SAMEORIGIN"),))
    answer = ask(front_for(tmp_path, app))
    assert answer.header("x-frame-options") == "SAMEORIGIN"
    assert answer.header("content-security-policy") is None


def test_an_international_frame_host_is_understood_or_refused_by_name(tmp_path: Path) -> None:
    frames = "пример.example.com"
    try:
        front = front_for(tmp_path, Recorder(), TRACKING_SERVER_FRAME_ANCESTORS=frames)
    except SettingsError as err:
        assert "TRACKING_SERVER_FRAME_ANCESTORS" in str(err)
    else:
        assert "xn--e1afmkfd.example.com" in str(ask(front).header("content-security-policy"))


# The rest


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_what_is_no_http_request_is_passed_on(tmp_path: Path, kind: str) -> None:
    app = Recorder()
    scope: dict[str, Any] = {"type": kind, "path": "/mlflow/x", "headers": []}

    async def never(*_: object) -> Any:
        raise AssertionError("nothing to receive or send")

    front = front_for(tmp_path, app, MLFLOW_STATIC_PREFIX="/mlflow")
    asyncio.run(front(scope, never, never))
    assert [seen["type"] for seen in app.scopes] == [kind]


def test_bodies_pass_in_the_pieces_they_came_in(tmp_path: Path) -> None:
    """Streams must not be collected in memory."""
    pieces = (b"one", b"two", b"three")
    app = Recorder(pieces=pieces)
    sent: list[bytes] = []

    async def run() -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                sent.append(message["body"])

        front = front_for(tmp_path, app, TRACKING_SERVER_FRAME_ANCESTORS="a")
        await front(http_scope(API), receive, send)

    asyncio.run(run())
    assert tuple(sent) == pieces
