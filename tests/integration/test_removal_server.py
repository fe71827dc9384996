"""What is a tracking server's own: workspaces, hosts in locations, sign-in, https, odd answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from mlflow_server.artifacts.removal.freed import Freed
from mlflow_server.artifacts.removal.removers import Removers
from mlflow_server.errors import ExitCode, OpsError
from mlflow_server.uris import parse_artifacts_destination
from tests.standins.forwarder import Forwarder, Reply, forwarder
from tests.standins.intercept import intercepted
from tests.support.forks import serve
from tests.support.programs import DESTINATION, STORE, free_port, http

pytestmark = pytest.mark.xdist_group("removal")
RUN = "0123456789abcdef" * 2
DESTINATION_ITSELF = parse_artifacts_destination("mlflow-artifacts:/", plugin_schemes=frozenset())

Open = Callable[[Mapping[str, str]], Removers]


@pytest.fixture(scope="module")
def tracking_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A server with workspaces, one of them called `team`; its port and destination."""
    folder = tmp_path_factory.mktemp("workspaces")
    destination = folder / "artifacts"
    destination.mkdir()
    environment = {
        STORE: f"sqlite:///{folder}/store.sqlite",
        DESTINATION: str(destination),
        "MLFLOW_ENABLE_WORKSPACES": "true",
    }
    with serve(folder, environment=environment) as server:
        made = http(
            f"{server.url}/api/3.0/mlflow/workspaces",
            method="POST",
            body=json.dumps({"name": "team"}).encode(),
            headers={"Content-Type": "application/json"},
        )
        assert made.status in (200, 201), made.body
        yield server.port, destination


@pytest.fixture
def between(tracking_server: tuple[int, Path]) -> Iterator[Forwarder]:
    """Stands between us and the server."""
    with forwarder(tracking_server[0]) as running:
        yield running


@pytest.fixture
def artifacts(tracking_server: tuple[int, Path]) -> Path:
    """The server's destination."""
    return tracking_server[1]


@pytest.fixture
def open_removers() -> Iterator[Open]:
    """Open what is closed at the end."""
    opened = []

    def open_them(environ: Mapping[str, str]) -> Removers:
        opened.append(Removers(DESTINATION_ITSELF, environ))
        return opened[-1]

    yield open_them
    for removers in opened:
        removers.close()


def lay(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("12345")


def at(port: int) -> dict[str, str]:
    """The environment to use a server."""
    return {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}/"}


def only(results: list[Freed | str]) -> Freed | str:
    """The one result."""
    (result,) = results
    return result


# --- Where it is -------------------------------------------------------------------------------


def test_workspaces_are_named_to_the_server(
    between: Forwarder, artifacts: Path, open_removers: Open
) -> None:
    lay(artifacts, f"workspaces/team/7/{RUN}/artifacts/a", f"7/{RUN}/artifacts/b")
    removers = open_removers(at(between.port))
    asked = [(f"mlflow-artifacts:/workspaces/team/7/{RUN}/artifacts", RUN)]
    assert removers.remove(asked) == [Freed(1, 5)]
    assert {request.headers.get("x-mlflow-workspace") for request in between.requests} == {"team"}
    assert not (artifacts / "workspaces/team/7" / RUN).exists()
    between.requests.clear()
    assert removers.remove([(f"mlflow-artifacts:/7/{RUN}/artifacts", RUN)]) == [Freed(1, 5)]
    assert {request.headers.get("x-mlflow-workspace") for request in between.requests} == {None}
    missing = only(removers.remove([(f"mlflow-artifacts:/workspaces/gone/7/{RUN}", RUN)]))
    assert isinstance(missing, str), "what nobody can look at is not gone"


def test_a_location_with_a_host_is_at_that_host(
    between: Forwarder, artifacts: Path, open_removers: Open
) -> None:
    lay(artifacts, f"1/{RUN}/a")
    removers = open_removers(at(between.port))
    for host in ("127.0.0.1", "other.example:80"):
        asked = [(f"mlflow-artifacts://{host}/1/{RUN}", RUN)]
        refusal = f"the artifacts are at the server {host}, not at 127.0.0.1:{between.port}"
        assert removers.remove(asked) == [refusal]
    own = f"mlflow-artifacts://127.0.0.1:{between.port}/1/{RUN}"
    assert removers.remove([(own, RUN)]) == [Freed(1, 5)]


@pytest.mark.parametrize("name", ["a%20b", "a b#", "a b?", "a b;", "file:a b", "a\tb"])
def test_names_that_a_server_reads_otherwise_are_not_told_to_it(
    between: Forwarder, artifacts: Path, open_removers: Open, name: str
) -> None:
    """It would remove the folder `a b`."""
    lay(artifacts, "a b/kept", f"{name}/kept")
    removers = open_removers(at(between.port))
    for found in (only(removers.remove_below([(name,)])), removers.measure_below([(name,)])[0]):
        assert isinstance(found, str)
        assert "cannot be asked for" in found
    assert between.requests == []


# --- Who asks, and how -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "header"),
    [
        ({"MLFLOW_TRACKING_TOKEN": "t"}, "Bearer t"),
        (
            {
                "MLFLOW_TRACKING_TOKEN": "t",
                "MLFLOW_TRACKING_USERNAME": "ü",
                "MLFLOW_TRACKING_PASSWORD": "p",
            },
            "Basic w7w6cA==",
        ),
        ({"MLFLOW_TRACKING_USERNAME": "u"}, None),
    ],
)
def test_credentials_are_those_of_mlflow(
    between: Forwarder, open_removers: Open, environ: Mapping[str, str], header: str | None
) -> None:
    open_removers({**at(between.port), **environ}).check()
    assert {request.headers.get("authorization") for request in between.requests} == {header}


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize(
    "setting", ["", "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_INSECURE_TLS"]
)
def test_certificates_are_checked_as_told(
    tracking_server: tuple[int, Path],
    tmp_path: Path,
    open_removers: Open,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
) -> None:
    with intercepted(tracking_server[0], ["localhost"], tmp_path) as cloud:
        monkeypatch.setenv("HTTPS_PROXY", cloud.environment["HTTPS_PROXY"])
        monkeypatch.setenv("NO_PROXY", "")
        value = "true" if setting.endswith("TLS") else str(tmp_path / "certificate.pem")
        environ = {"MLFLOW_TRACKING_URI": "https://localhost", setting: value}
        removers = open_removers(environ)
        if setting:
            assert removers.check() in (True, False)
            return
        with pytest.raises(OpsError, match="SSLError") as failure:
            removers.check()
        assert failure.value.exit_code is ExitCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("", 78),
        ("sqlite:///store.sqlite", 78),
        ("http://", 78),
        ("http://[::1", 78),
        ("http://127.0.0.1:99999", 78),
        ("http://user:hidden@127.0.0.1:{port}", 69),
    ],
)
def test_addresses_without_a_server(open_removers: Open, uri: str, code: int) -> None:
    uri = uri.replace("{port}", str(free_port()))
    removers = open_removers({"MLFLOW_TRACKING_URI": uri, "MLFLOW_TRACKING_TOKEN": "hidden"})
    with pytest.raises(OpsError) as failure:
        removers.check()
    assert (failure.value.exit_code, "hidden" in failure.value.message) == (code, False)
    found = only(removers.remove([(f"mlflow-artifacts:/1/{RUN}", RUN)]))
    assert isinstance(found, str)
    assert "hidden" not in found


# --- What it answers ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 307, 401, 403])
def test_who_has_to_sign_in_is_77_and_follows_nobody(
    between: Forwarder, open_removers: Open, status: int
) -> None:
    between.answers = lambda _: Reply(status)
    removers = open_removers(at(between.port))
    with pytest.raises(OpsError) as failure:
        removers.check()
    assert failure.value.exit_code is ExitCode.NOT_PERMITTED
    assert len(between.requests) == 1


NOTHING = b'{"error_code": "INTERNAL_ERROR", "message": "No such file or directory: \'x\'"}'


@pytest.mark.parametrize(
    ("listed", "deleted", "is_gone"),
    [
        ((200, b"{}"), (200, b"{}"), True),
        ((200, b"{}"), (404, b""), True),
        ((200, b"{}"), (500, NOTHING), True),  # Azure behind it
        ((200, b"{}"), (500, b"{}"), False),
        ((200, b'{"files": [{"path": "a", "is_dir": false}]}'), (404, b""), False),
        ((200, b'{"files": [{"path": "a", "is_dir": false}]}'), (500, NOTHING), False),
        ((200, b"<html>sign in</html>"), (200, b"{}"), False),
        ((200, b"{}"), (200, b"<html>sign in</html>"), False),
        ((200, b"[]"), (200, b"{}"), False),
        ((404, b"{}"), (404, b"{}"), False),  # another address, or a workspace that is gone
    ],
)
def test_what_counts_as_gone(
    between: Forwarder,
    open_removers: Open,
    listed: tuple[int, bytes],
    deleted: tuple[int, bytes],
    is_gone: bool,
) -> None:
    between.answers = lambda request: Reply(*(listed if request.method == "GET" else deleted))
    found = only(open_removers(at(between.port)).remove([(f"mlflow-artifacts:/1/{RUN}", RUN)]))
    assert isinstance(found, Freed) == is_gone, found
