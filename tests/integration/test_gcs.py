"""Google Cloud Storage as the destination: a real server of its API, and its ways to fail."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from mlflow_server.artifacts.probe import probe
from mlflow_server.errors import UnavailableError
from mlflow_server.uris import parse_artifacts_destination
from tests.standins.intercept import intercepted
from tests.standins.network import http_listener, silent_listener
from tests.support.destinations import KEPT, heavy_imports, use_artifacts
from tests.support.examinations import examine
from tests.support.forks import serve
from tests.support.gcs import GcsServer
from tests.support.places import Place
from tests.support.programs import DESTINATION, STORE, free_port
from tests.support.refusals import refusal

pytestmark = pytest.mark.xdist_group("gcs")
ENDPOINT = "STORAGE_EMULATOR_HOST"
KEY_FILE = "GOOGLE_APPLICATION_CREDENTIALS"
# Else Google's library asks the network whether this is one of Google's machines.
NOT_IN_GOOGLES_CLOUD = {"NO_GCE_CHECK": "true"}


def anywhere(endpoint: str) -> dict[str, str]:
    """A destination at an address where no GCS is."""
    return {ENDPOINT: endpoint, DESTINATION: "gs://bucket/artifacts"}


@pytest.fixture
def bucket(gcs: GcsServer) -> str:
    """A new bucket of this test alone."""
    return gcs.new_bucket()


# --- It works ----------------------------------------------------------------------------------


def test_server_keeps_artifacts_there_and_no_probe(
    place: Place, gcs: GcsServer, bucket: str
) -> None:
    environment = {**gcs.environment, DESTINATION: f"gs://{bucket}/deep/artifacts"}
    with serve(place.project, environment=environment) as server:
        use_artifacts(server)
        assert "threads at the time of a fork" not in server.log
        assert server.stop() == 0
    assert gcs.content(bucket) == [f"deep/artifacts/{KEPT}"]


def test_doctor_probes_it_and_leaves_nothing(place: Place, gcs: GcsServer, bucket: str) -> None:
    environment = {**gcs.environment, DESTINATION: f"gs://{bucket}"}
    found = examine(place, environment=environment)
    found.check(0)
    assert found.items["artifacts"]["status"] == "ok"
    assert gcs.content(bucket) == []


class _Google(BaseHTTPRequestHandler):
    """Where a service account gets its token; refuses all but one."""

    protocol_version = "HTTP/1.1"
    refuses: ClassVar[bool] = False

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, document = 200, {"access_token": "hidden-token", "expires_in": 3600}
        if self.refuses:
            status, document = 400, {"error": "invalid_grant", "error_description": "hidden"}
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


class _RefusingGoogle(_Google):
    refuses = True


def write_key_file(folder: Path, token_port: int) -> Path:
    """The key file of a service account that logs in at a port of this machine."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path = folder / "service-account.json"
    document = {
        "type": "service_account",
        "project_id": "tests",
        "private_key_id": "1",
        "private_key": key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
        "client_email": "hidden@tests.iam.gserviceaccount.com",
        "token_uri": f"http://127.0.0.1:{token_port}/token",
    }
    path.write_text(json.dumps(document), "utf-8")
    return path


def test_doctor_logs_in_as_a_service_account(
    place: Place, gcs: GcsServer, bucket: str, tmp_path: Path
) -> None:
    """The way to Google itself: key file, token, https."""
    hosts = ["storage.googleapis.com"]
    with http_listener(_Google) as port, intercepted(gcs.port, hosts, tmp_path) as cloud:
        environment = {
            **cloud.environment,
            KEY_FILE: str(write_key_file(tmp_path, port)),
            DESTINATION: f"gs://{bucket}",
        }
        found = examine(place, environment=environment)
    found.check(0)
    assert found.items["artifacts"]["status"] == "ok"
    assert gcs.content(bucket) == []


# --- It is refused -----------------------------------------------------------------------------


def test_missing_bucket_is_69_and_stays_missing(place: Place, gcs: GcsServer) -> None:
    name = f"missing-{uuid.uuid4().hex}"
    environment = {**gcs.environment, DESTINATION: f"gs://{name}/artifacts"}
    found = refusal(place, environment=environment)
    assert found.code == 69
    assert f"no bucket '{name}'" in found.errors[0]
    assert name not in gcs.buckets()
    assert heavy_imports(place, environment) == set()
    examine(place, environment=environment).check(69, "artifacts")


def test_refused_port_is_69(place: Place) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    found = refusal(place, environment=anywhere(endpoint))
    assert found.code == 69
    assert endpoint in found.errors[0]
    assert ENDPOINT in found.text
    assert heavy_imports(place, anywhere(endpoint)) == set()


def test_endpoint_that_accepts_and_never_answers_is_69_in_time(place: Place) -> None:
    with silent_listener() as port:
        found = refusal(place, environment=anywhere(f"http://127.0.0.1:{port}"))
        assert found.code == 69
        assert heavy_imports(place, anywhere(f"http://127.0.0.1:{port}")) == set()
        looked = examine(place, environment=anywhere(f"http://127.0.0.1:{port}"), attempts=1)
    looked.check(69, "artifacts")


@pytest.mark.parametrize(
    "endpoint", ["not an address", "http://127.0.0.1:99999", "ftp://127.0.0.1"]
)
def test_endpoint_that_is_no_address_is_78(place: Place, endpoint: str) -> None:
    found = refusal(place, environment=anywhere(endpoint), plain=False)
    assert found.code == 78
    assert ENDPOINT in found.text


class _Answers(BaseHTTPRequestHandler):
    """Answers everything alike."""

    protocol_version = "HTTP/1.1"
    status: ClassVar[int] = 200
    body: ClassVar[bytes] = b"<html><body>hidden</body></html>"
    requests: ClassVar[list[str]] = []

    def answer(self) -> None:
        self.requests.append(self.command)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_PUT = do_DELETE = do_POST = answer

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (200, 69, ENDPOINT),
        (401, 77, "refuses these credentials"),
        (403, 77, "storage.objectUser"),
        (503, 69, "GCS answered 503"),
    ],
)
def test_endpoint_that_answers_otherwise(place: Place, status: int, code: int, words: str) -> None:
    handler = type("Answers", (_Answers,), {"status": status})
    with http_listener(handler) as port:
        environment = anywhere(f"http://127.0.0.1:{port}")
        found = refusal(place, environment=environment, plain=False)
    assert found.code == code
    assert words in found.text
    assert "hidden" not in found.text


@pytest.mark.parametrize("verbose", [(), ("-vv",)])
def test_refused_service_account_is_77(
    place: Place, tmp_path: Path, verbose: tuple[str, ...]
) -> None:
    with http_listener(_RefusingGoogle) as port:
        environment = {
            KEY_FILE: str(write_key_file(tmp_path, port)),
            DESTINATION: "gs://bucket/artifacts",
        }
        ended = place.run("serve", *verbose, environment=environment)
        found = refusal(place, environment=environment)
    assert (found.code, ended.returncode) == (77, 77)
    assert KEY_FILE in found.text
    assert "hidden" not in found.text
    assert "PRIVATE KEY" not in ended.stderr
    assert "hidden-token" not in ended.stderr


def test_unreachable_log_in_is_69(place: Place, tmp_path: Path) -> None:
    environment = {
        KEY_FILE: str(write_key_file(tmp_path, free_port())),
        DESTINATION: "gs://bucket/artifacts",
    }
    found = refusal(place, environment=environment)
    assert found.code == 69
    assert "log in" in found.text or "no answer" in found.text


def test_no_credentials_are_77(place: Place, tmp_path: Path) -> None:
    """Like MLflow, the probe is nobody then, which is what Google's answer says."""
    handler = type("Answers", (_Answers,), {"status": 401})
    with (
        http_listener(handler) as port,
        intercepted(port, ["storage.googleapis.com"], tmp_path) as cloud,
    ):
        environment = {
            **cloud.environment,
            **NOT_IN_GOOGLES_CLOUD,
            DESTINATION: "gs://bucket/artifacts",
        }
        found = refusal(place, environment=environment)
        assert found.code == 77
        assert "no GCS credentials" in found.errors[0]
        assert KEY_FILE in found.hints[0]
        assert heavy_imports(place, environment) == set()


@pytest.mark.parametrize("content", [None, "", "{}", "folder"])
def test_key_file_that_is_none_is_78(place: Place, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "key.json"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    handler = type("Answers", (_Answers,), {"status": 401})
    with (
        http_listener(handler) as port,
        intercepted(port, ["storage.googleapis.com"], tmp_path) as cloud,
    ):
        environment = {
            **cloud.environment,
            KEY_FILE: str(path),
            DESTINATION: "gs://bucket/artifacts",
        }
        found = refusal(place, environment=environment, plain=False)
    assert found.code == 78
    assert found.errors[0].startswith(f"{KEY_FILE}: ")


# --- The probe itself --------------------------------------------------------------------------


class _Forgetful(BaseHTTPRequestHandler):
    """Takes objects, cannot give them back, and deletes them."""

    protocol_version = "HTTP/1.1"
    requests: ClassVar[list[str]]
    gives: ClassVar[tuple[int, bytes]]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._reply(200, b'{"name": "n", "bucket": "b", "generation": "1"}')

    def do_GET(self) -> None:
        self._reply(*self.gives)

    def do_DELETE(self) -> None:
        self._reply(204)

    def _reply(self, status: int, body: bytes = b"") -> None:
        self.requests.append(self.command)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Forgetful]]:
    """Such a server, at the address that the library looks for."""
    handler = type("Forgetful", (_Forgetful,), {"requests": [], "gives": (200, b"other")})
    with http_listener(handler) as port:
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{port}")
        yield handler


@pytest.mark.parametrize(
    ("gives", "words"), [((200, b"other"), "other bytes"), ((500, b""), "GCS answered 500")]
)
def test_object_is_deleted_whatever_reading_says(
    forgetful: type[_Forgetful], gives: tuple[int, bytes], words: str
) -> None:
    forgetful.gives = gives
    uri = parse_artifacts_destination("gs://bucket/prefix", plugin_schemes=frozenset())
    with pytest.raises(UnavailableError, match=words):
        probe(uri, {}, timeout_s=5)
    time.sleep(0.2)  # for requests that the library sends on its own
    assert forgetful.requests == ["POST", "GET", "DELETE"]


def test_store_comes_first_and_leaves_no_object(place: Place, gcs: GcsServer, bucket: str) -> None:
    place.store.write_text("This is no database.\n" * 400)
    environment = {
        **gcs.environment,
        STORE: f"sqlite:///{place.store}",
        DESTINATION: f"gs://{bucket}",
    }
    assert refusal(place, environment=environment, plain=False).code == 65
    assert gcs.content(bucket) == []
