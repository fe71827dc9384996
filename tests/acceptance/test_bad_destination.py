"""Artifact destinations that cannot be used: `serve` gets one or two
lines that say what to do, the documented exit code, and leaves everything as it was."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import pytest

from tests.standins.network import http_listener, silent_listener
from tests.support.places import Place, snapshot
from tests.support.programs import DESTINATION, STORE, clean_environment, free_port
from tests.support.refusals import parse_refusal, refusal
from tests.support.s3 import S3_ANYWHERE, S3Server
from tests.support.stores import OLD_STORE, copy_store, locked

# --- Destinations on this machine --------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "/deep/below"])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_destination_that_is_a_file_is_78(place: Place, scheme: str, below: str) -> None:
    path = place.project / "artifacts"
    path.write_text("precious")
    environment = {DESTINATION: f"{scheme}{path}{below}"}
    found = refusal(place, environment=environment, plain=not below)
    assert found.code == 78
    assert str(path) in found.errors[0]


def test_destination_that_is_a_link_to_nowhere_is_refused(place: Place) -> None:
    path = place.project / "artifacts"
    path.symlink_to(place.project / "gone")
    found = refusal(place, environment={DESTINATION: str(path)})
    assert found.code in (69, 78)
    assert str(path) in found.errors[0]


@pytest.mark.parametrize("below", ["", "/not/yet/there"])
def test_unwritable_destination_is_77(common_place: Place, below: str) -> None:
    path = common_place.project / "artifacts"
    path.mkdir()
    path.chmod(0o555)
    found = refusal(common_place, environment={DESTINATION: f"{path}{below}"})
    assert found.code == 77
    assert str(path) in found.errors[0]


def test_destination_that_may_not_be_entered_is_77(common_place: Place) -> None:
    path = common_place.project / "closed"
    path.mkdir()
    path.chmod(0)
    found = refusal(common_place, environment={DESTINATION: f"{path}/artifacts"})
    assert found.code == 77
    assert str(path) in found.errors[0]


def _own_mounts(*mounts: str) -> list[str]:
    """The beginning of a command line with these mounts of its own; skips where it may not."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("mounting is not allowed here")
    script = " && ".join([*mounts, 'exec "$@"'])
    return ["unshare", "-m", "sh", "-c", script, "sh"]


@pytest.mark.parametrize(
    ("options", "code"), [("ro", 77), ("size=4k", 69)], ids=["read-only", "full"]
)
def test_destination_on_a_volume_that_takes_nothing(place: Place, options: str, code: int) -> None:
    path = place.project / "volume"
    path.mkdir()
    mounts = [f"mount -t tmpfs -o {options} tmpfs '{path}'"]
    if code == 69:
        mounts.append(f"head -c 4096 /dev/zero > '{path}/filler'")
    environment = clean_environment(
        **{
            STORE: f"sqlite:///{place.store}",
            DESTINATION: str(path),
            "MLFLOW_PORT": str(free_port()),
        }
    )
    before = snapshot(place.root)
    ended = subprocess.run(
        [*_own_mounts(*mounts), sys.executable, "-m", "mlflow_server", "serve"],
        cwd=place.project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    errors, _ = parse_refusal(ended)
    assert ended.returncode == code
    assert str(path) in errors[0]
    assert ended.stdout == ""
    assert snapshot(place.root) == before


# --- S3 ----------------------------------------------------------------------------------------

S3 = pytest.mark.xdist_group("bad-input-s3")


@S3
@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no S3 credentials"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "no S3 credentials"),
        ({"AWS_ACCESS_KEY_ID": "somebody-else"}, "refuses"),
        ({"AWS_SECRET_ACCESS_KEY": "not-the-secret-key-9876543210"}, "refuses"),
    ],
    ids=["none", "half", "wrong key", "wrong secret"],
)
def test_s3_with_bad_credentials_is_77(
    place: Place, s3: S3Server, bucket: str, change: Mapping[str, str], word: str
) -> None:
    environment = {**s3.environment, DESTINATION: f"s3://{bucket}/artifacts", **change}
    found = refusal(place, environment=environment)
    assert found.code == 77
    assert word in found.errors[0]
    assert "AWS_" in found.text or "s3:PutObject" in found.text
    assert s3.secret_key not in found.text
    assert "not-the-secret-key" not in found.text
    assert s3.content(bucket) == []


@S3
def test_missing_bucket_is_69_and_stays_missing(place: Place, s3: S3Server) -> None:
    name = f"missing-{uuid.uuid4().hex}"
    found = refusal(place, environment={**s3.environment, DESTINATION: f"s3://{name}/artifacts"})
    assert found.code == 69
    assert name in found.errors[0]
    assert name not in s3.buckets()


@S3
def test_database_that_fails_leaves_the_bucket_empty(
    place: Place, s3: S3Server, bucket: str
) -> None:
    copy_store(OLD_STORE, place.store)
    environment = {**s3.environment, DESTINATION: f"s3://{bucket}/artifacts"}
    assert refusal(place, environment=environment).code == 4
    assert s3.content(bucket) == []


@pytest.mark.parametrize(
    ("endpoint", "code"),
    [("http://no-such-host.invalid:9000", 69), ("not an address", 78)],
    ids=["unknown host", "no URL"],
)
def test_bad_s3_endpoint(place: Place, endpoint: str, code: int) -> None:
    found = refusal(place, environment={**S3_ANYWHERE, "MLFLOW_S3_ENDPOINT_URL": endpoint})
    assert found.code == code
    assert "MLFLOW_S3_ENDPOINT_URL" in found.text
    assert "hidden" not in found.text


def test_refused_port_of_the_s3_endpoint_is_69(place: Place) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    found = refusal(place, environment={**S3_ANYWHERE, "MLFLOW_S3_ENDPOINT_URL": endpoint})
    assert found.code == 69
    assert endpoint in found.errors[0]
    assert "MLFLOW_S3_ENDPOINT_URL" in found.text


def test_s3_endpoint_that_accepts_and_never_answers_is_69_in_time(place: Place) -> None:
    with silent_listener() as port:
        endpoint = f"http://127.0.0.1:{port}"
        found = refusal(place, environment={**S3_ANYWHERE, "MLFLOW_S3_ENDPOINT_URL": endpoint})
    assert found.code == 69
    assert "hidden" not in found.text


def test_everything_silent_at_once_still_ends_in_time(place: Place) -> None:
    with silent_listener() as port:
        uri = f"postgresql://ada:hidden@127.0.0.1:{port}"
        environment = {
            **S3_ANYWHERE,
            STORE: f"{uri}/mlflow",
            "MLFLOW_REGISTRY_STORE_URI": f"{uri}/registry",
            "MLFLOW_READ_REPLICA_BACKEND_STORE_URI": f"{uri}/replica",
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }
        found = refusal(place, environment=environment)
    assert found.code == 69
    assert found.seconds < 13


class _NotS3(BaseHTTPRequestHandler):
    """An HTTP server that knows nothing of S3."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b"<html><body>Welcome</body></html>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer

    def log_message(self, format: str, *args: object) -> None:
        return


class _SlowS3(_NotS3):
    """As much of S3 as a probe needs, taking its time to write."""

    objects: ClassVar[dict[str, bytes]] = {}

    def do_PUT(self) -> None:
        time.sleep(2.5)
        self.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._reply(200)

    def do_GET(self) -> None:
        self._reply(200, self.objects[self.path])

    def do_HEAD(self) -> None:
        self._reply(200)

    def do_DELETE(self) -> None:
        self.objects.pop(self.path.partition("?")[0], None)
        self._reply(204)

    def _reply(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("ETag", f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.xdist_group("bad-input-sqlite")
def test_probe_in_flight_is_taken_back_when_another_check_fails_first(
    place: Place, head_store: Path
) -> None:
    copy_store(head_store, place.store)
    with http_listener(_SlowS3) as port, locked(place.store, "BEGIN EXCLUSIVE"):
        environment = {**S3_ANYWHERE, "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        assert refusal(place, environment=environment).code == 75
        time.sleep(3)  # for requests that nobody waits for any more
    assert list(_SlowS3.objects) == []


def test_s3_endpoint_that_is_a_web_page_is_69(place: Place) -> None:
    with http_listener(_NotS3) as port:
        endpoint = f"http://127.0.0.1:{port}"
        found = refusal(place, environment={**S3_ANYWHERE, "MLFLOW_S3_ENDPOINT_URL": endpoint})
    assert found.code == 69
    assert "hidden" not in found.text
