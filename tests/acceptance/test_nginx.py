"""The nginx site of `deploy/`, run by nginx in front of an upstream that says what arrived."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.acceptance.test_systemd import needed
from tests.support.programs import REPOSITORY, free_port

SITE = REPOSITORY / "deploy" / "nginx" / "mlflow.conf"
HOST = "mlflow.example.com"


class Upstream(BaseHTTPRequestHandler):
    """Says what arrived, instead of the tracking server."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        while size > 0:
            size -= len(self.rfile.read(min(size, 1 << 20)))
        arrived = {"path": self.path, **{k.lower(): v for k, v in self.headers.items()}}
        body = json.dumps(arrived).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_GET

    def log_message(self, format: str, *args: object) -> None:
        return


def uncommented_prefix(site: str) -> str:
    """The site with the variant for a path prefix in place of the locations at the root."""
    start = site.index("    # For monitoring on this machine only")
    middle = site.index("    # Under a path instead of at the root")
    return site[:start] + re.sub(
        r"^    #(?=location|    |})", "    ", site[middle:], flags=re.MULTILINE
    )


def make_certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "fullchain.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "privkey.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


class Proxy:
    """nginx with our site, in front of `Upstream`.

    Args:
        port: Where it speaks TLS.
        folder: Holds `fullchain.pem`.
    """

    def __init__(self, port: int, folder: Path) -> None:
        self._port = port
        self._context = ssl.create_default_context(cafile=str(folder / "fullchain.pem"))
        # The certificate is for the name, the connection goes to this machine.
        self._context.check_hostname = False

    def ask(
        self, path: str, *, headers: dict[str, str] | None = None, upload: bytes | None = None
    ) -> tuple[int, dict[str, str]]:
        """Status of the answer, and what arrived upstream (empty when nginx itself answered)."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._port, timeout=20, context=self._context
        )
        try:
            method = "GET" if upload is None else "PUT"
            connection.request(method, path, body=upload, headers={"Host": HOST, **(headers or {})})
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        arrived = json.loads(body) if answer.headers.get_content_type() == "text/plain" else {}
        return answer.status, arrived


@contextlib.contextmanager
def run_proxy(folder: Path, site: str) -> Iterator[Proxy]:
    nginx = needed("nginx")
    folder.chmod(0o755)
    make_certificate(folder)
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    thread = threading.Thread(target=upstream.serve_forever)
    port, plain = free_port(), free_port()
    for old, new in {
        "/etc/ssl/mlflow/": f"{folder}/",
        "127.0.0.1:5000": f"127.0.0.1:{upstream.server_port}",
        "    listen [::]:443 ssl http2;\n": "",
        "    listen [::]:80;\n": "",
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        "listen 80;": f"listen 127.0.0.1:{plain};",
    }.items():
        assert old in site, old
        site = site.replace(old, new)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr warn;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{site}}}\n",
        encoding="utf-8",
    )
    process = subprocess.Popen([nginx, "-p", str(folder), "-c", str(configuration)])
    thread.start()
    try:
        proxy = Proxy(port, folder)
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                proxy.ask("/")
                break
            assert process.poll() is None, "nginx ended; its message is above"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield proxy
    finally:
        process.terminate()
        process.wait(timeout=20)
        upstream.shutdown()
        thread.join()
        upstream.server_close()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    site = SITE.read_text(encoding="utf-8")
    with run_proxy(tmp_path_factory.mktemp("nginx"), site) as running:
        yield running


@pytest.fixture(scope="module")
def prefix_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    site = uncommented_prefix(SITE.read_text(encoding="utf-8"))
    with run_proxy(tmp_path_factory.mktemp("nginx"), site) as running:
        yield running


def test_proxy_tells_who_asked_and_for_what(proxy: Proxy) -> None:
    status, arrived = proxy.ask("/api/2.0/mlflow/experiments/search?max_results=1")
    assert status == 200
    assert arrived["path"] == "/api/2.0/mlflow/experiments/search?max_results=1"
    assert arrived["host"] == HOST
    assert arrived["x-forwarded-proto"] == "https"
    assert arrived["x-forwarded-for"] == "127.0.0.1"


def test_proxy_drops_what_a_client_claims_about_itself(proxy: Proxy) -> None:
    claims = {"X-Forwarded-For": "10.9.9.9", "X-Forwarded-Proto": "gopher", "X-Forwarded-Host": "x"}
    _, arrived = proxy.ask("/", headers=claims)
    assert arrived["x-forwarded-for"] == "127.0.0.1"
    assert arrived["x-forwarded-proto"] == "https"
    assert arrived["x-forwarded-host"] == HOST


def test_proxy_takes_uploads_of_any_size(proxy: Proxy) -> None:
    # nginx's own limit is 1 MiB.
    path = "/api/2.0/mlflow-artifacts/artifacts/1/run/artifacts/model.bin"
    status, arrived = proxy.ask(path, upload=bytes(20 << 20))
    assert (status, arrived["content-length"]) == (200, str(20 << 20))


@pytest.mark.parametrize("path", ["/metrics", "//metrics", "/%6Detrics", "/api/../metrics"])
def test_proxy_keeps_metrics_inside(proxy: Proxy, path: str) -> None:
    assert proxy.ask(path) == (404, {})


def test_proxy_passes_the_prefix_on(prefix_proxy: Proxy) -> None:
    for path in ("/mlflow/", "/mlflow/api/2.0/mlflow-artifacts/artifacts/a", "/mlflow/readyz"):
        status, arrived = prefix_proxy.ask(path)
        assert (status, arrived["path"]) == (200, path)


@pytest.mark.parametrize("path", ["/mlflow/metrics", "/mlflow//metrics", "/metrics", "/version"])
def test_proxy_with_prefix_publishes_nothing_else(prefix_proxy: Proxy, path: str) -> None:
    assert prefix_proxy.ask(path) == (404, {})
