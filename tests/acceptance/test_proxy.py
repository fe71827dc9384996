"""Behind a platform or a proxy: names, origins, frames, forwarded headers, prefixes, probes."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mlflow_server.store.revision import head_revision
from tests.conftest import Postgres
from tests.standins.proxy import run_proxy
from tests.support.programs import Answer, Server, free_port, serve
from tests.support.programs import http as request

API = "/api/2.0/mlflow"
AJAX = "/ajax-api/2.0/mlflow"
EXPERIMENT = f"{API}/experiments/get?experiment_id=0"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
JSON = {"Content-Type": "application/json"}


def ask(server: Server, path: str = EXPERIMENT, **headers: str) -> Answer:
    """GET with headers; `host="a"` becomes `Host: a`, `x_request_id` `X-Request-Id`."""
    return request(server.url + path, headers={k.replace("_", "-"): v for k, v in headers.items()})


def search(server: Server, headers: Mapping[str, str]) -> Answer:
    """A POST that changes nothing, as a web page would send it."""
    return request(
        f"{server.url}{API}/experiments/search",
        method="POST",
        body=b'{"max_results": 1}',
        headers={**JSON, **headers},
    )


def requests_logged(server: Server) -> list[dict[str, Any]]:
    """The access log, one JSON document a request."""
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("event") == "request"]


def logged(server: Server, request_id: str) -> dict[str, Any]:
    """The line of one request; it is written after the answer."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for line in requests_logged(server):
            if line["request_id"] == request_id:
                return line
        time.sleep(0.02)
    raise AssertionError(f"{request_id} is not in the log:\n{server.log}")


@pytest.mark.xdist_group("proxy-platform")
class TestPlatform:
    """The platform names two hosts and two places for frames, and says it forwards."""

    FLAGS = (
        "--anaconda-project-host",
        "mlflow.apps.example:8443",
        "--anaconda-project-host=second.example",
        "--anaconda-project-iframe-hosts",
        "portal.example:* *.apps.example",
        "--anaconda-project-use-xheaders",
        "--anaconda-project-no-browser",
        "--anaconda-project-address=127.0.0.1",
        "--anaconda-project-something-new",
        "value",
        "--access-log",
        "--log-format=json",
        "--cors-allowed-origins=https://friend.example",
    )

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        port = free_port()
        flags = ("--anaconda-project-port", str(port), *cls.FLAGS)
        with serve(tmp_path_factory.mktemp("platform") / "server", *flags, port=port) as server:
            yield server

    @pytest.mark.parametrize(
        "host",
        [
            "mlflow.apps.example:8443",
            "mlflow.apps.example",
            "mlflow.apps.example:443",
            "MLflow.Apps.Example",
            "second.example",
            "second.example:1234",
            "localhost",
            "localhost:5000",
            "127.0.0.1:8086",
            "127.0.0.2",
            "[::1]:8086",
            "10.1.2.3",
            "10.255.255.255:5000",
            "172.16.0.1",
            "172.31.255.254:80",
            "192.168.1.2:5000",
            "[fd00::1]:5000",
        ],
    )
    def test_answers_to_its_names_and_private_addresses(self, server: Server, host: str) -> None:
        assert ask(server, host=host).status == 200

    @pytest.mark.parametrize(
        "host",
        [
            "evil.example",
            "10.evil.example",
            "192.168.evil.example",
            "172.16.evil.example:80",
            "mlflow.apps.example.evil.example",
            "evil-mlflow.apps.example",
            "apps.example",
            "8.8.8.8",
            "172.32.0.1",
            "[2001:db8::1]:5000",
            "localhost.evil.example",
            "mlflow.apps.example@evil.example",
        ],
    )
    def test_other_names_get_403_that_says_what_to_do(self, server: Server, host: str) -> None:
        answer = ask(server, host=host)
        assert answer.status == 403
        message = str(answer.json()["message"])
        assert host.rpartition(":")[0].strip("[]") in message or host in message
        assert "TRACKING_SERVER_PUBLIC_URL" in message

    def test_ui_is_guarded_like_the_api(self, server: Server) -> None:
        assert ask(server, "/", host="evil.example").status == 403
        assert ask(server, f"{ARTIFACTS}/a", host="evil.example").status == 403

    @pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/version"])
    def test_probes_answer_to_any_name(self, server: Server, path: str) -> None:
        assert ask(server, path, host="evil.example").status == 200

    @pytest.mark.parametrize(
        ("origin", "status"),
        [
            ("https://evil.example", 403),
            ("http://evil.example", 403),
            ("null", 403),
            ("https://mlflow.apps.example.evil.example", 403),
            ("https://mlflow.apps.example:8443", 200),
            ("https://second.example", 200),
            ("https://friend.example", 200),
            ("http://friend.example", 403),
        ],
    )
    def test_posts_from_other_origins_are_refused(
        self, server: Server, origin: str, status: int
    ) -> None:
        answer = search(server, {"Host": "mlflow.apps.example:8443", "Origin": origin})
        assert answer.status == status

    def test_same_origin_is_no_cross_origin(self, server: Server) -> None:
        # By an address the server was never told of: what counts is that page and API are one.
        host = "10.1.2.3:8086"
        assert search(server, {"Host": host, "Origin": f"http://{host}"}).status == 200
        assert search(server, {"Host": host, "Origin": "http://10.1.2.4:8086"}).status == 403

    def test_allowed_origin_may_read_the_answer(self, server: Server) -> None:
        headers = {"Host": "second.example", "Origin": "https://friend.example"}
        answer = search(server, headers)
        assert answer.headers["access-control-allow-origin"] == "https://friend.example"
        preflight = request(
            f"{server.url}{API}/experiments/search",
            method="OPTIONS",
            headers={**headers, "Access-Control-Request-Method": "POST"},
        )
        assert preflight.status in (200, 204)
        assert preflight.headers["access-control-allow-origin"] == "https://friend.example"

    @pytest.mark.parametrize("path", ["/", EXPERIMENT, "/static-files/manifest.json", "/nothing"])
    def test_frames_of_the_named_hosts_are_allowed(self, server: Server, path: str) -> None:
        headers = {name.lower(): value for name, value in ask(server, path).headers.items()}
        assert "x-frame-options" not in headers
        directive, *sources = headers["content-security-policy"].split()
        assert directive == "frame-ancestors"
        assert "'self'" in sources
        assert "https://portal.example:*" in sources
        assert "https://*.apps.example" in sources
        assert "*" not in sources

    def test_forwarded_address_of_a_private_proxy_is_believed(self, server: Server) -> None:
        wanted = f"forwarded-{uuid.uuid4().hex}"
        ask(server, x_forwarded_for="203.0.113.7", x_request_id=wanted)
        assert logged(server, wanted)["remote_ip"] == "203.0.113.7"

    def test_address_that_a_client_claims_before_a_proxy_adds_the_true_one_is_not_believed(
        self, server: Server
    ) -> None:
        wanted = f"forwarded-{uuid.uuid4().hex}"
        ask(server, x_forwarded_for="198.51.100.1, 203.0.113.7, 10.0.0.9", x_request_id=wanted)
        assert logged(server, wanted)["remote_ip"] == "203.0.113.7"

    def test_forwarded_scheme_makes_https_pages_same_origin(self, server: Server) -> None:
        headers = {"Host": "10.1.2.3", "Origin": "https://10.1.2.3"}
        assert search(server, headers).status == 403
        assert search(server, {**headers, "X-Forwarded-Proto": "https"}).status == 200

    def test_unknown_flag_is_named_without_its_value(self, server: Server) -> None:
        assert "--anaconda-project-something-new" in server.log
        assert '"value"' not in server.log


@pytest.mark.xdist_group("proxy-prefix")
class TestPrefix:
    """Published below a path, and told to trust only a proxy that is not us."""

    PREFIX = "/team/mlflow"

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        flags = (
            *("--static-prefix", cls.PREFIX, "--trusted-proxies", "192.0.2.1"),
            *("--access-log", "--log-format", "json"),
        )
        folder = tmp_path_factory.mktemp("prefix") / "server"
        with serve(folder, *flags, environment={"MLFLOW_WORKERS": "1"}) as server:
            yield server

    # With the prefix as a proxy passes it on, and without it as one that strips it does.
    @pytest.fixture(params=["keeps", "strips"])
    def public(self, server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
        strip = request.param == "strips"
        with run_proxy(server.url, prefix=self.PREFIX, strip=strip) as proxy:
            yield proxy.url

    def test_ui(self, public: str) -> None:
        answer = request(f"{public}/")
        assert answer.status == 200
        assert b"static-files/" in answer.body

    def test_ui_finds_its_files_below_the_prefix(self, public: str) -> None:
        page = request(f"{public}/").body.decode()
        sources = [part.partition('"')[0] for part in page.split('src="')[1:]]
        assert sources
        for source in sources:
            assert not source.startswith("/"), "relative: right below any prefix"
            assert request(f"{public}/{source}").status == 200

    @pytest.mark.parametrize("api", [API, AJAX])
    def test_api(self, public: str, api: str) -> None:
        answer = request(f"{public}{api}/experiments/get?experiment_id=0")
        assert answer.status == 200
        assert answer.json()["experiment"]["name"] == "Default"  # type: ignore[index]

    def test_native_routes(self, public: str) -> None:
        assert request(f"{public}/ajax-api/3.0/mlflow/server-info").status == 200

    @pytest.mark.parametrize("api", ["/api", "/ajax-api"])
    def test_artifacts(self, public: str, api: str) -> None:
        path = f"{public}{api}/2.0/mlflow-artifacts/artifacts/a%20b/c%25d.bin"
        content = uuid.uuid4().bytes * 1000
        assert request(path, method="PUT", body=content).status == 200
        assert request(path).body == content
        listed = request(f"{public}{api}/2.0/mlflow-artifacts/artifacts?path=a%20b").json()
        assert [each["path"] for each in listed["files"]] == ["c%d.bin"]  # type: ignore[attr-defined]

    @pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/version"])
    def test_probes(self, public: str, path: str) -> None:
        assert request(public + path).status == 200

    def test_bare_prefix_leads_to_the_ui(self, server: Server) -> None:
        answer = ask(server, self.PREFIX)
        assert answer.status in (301, 302, 307, 308)
        location = answer.headers["location"]
        assert location == f"{self.PREFIX}/"
        assert ask(server, location).status == 200

    def test_path_that_only_begins_like_the_prefix_is_another(self, server: Server) -> None:
        assert ask(server, f"{self.PREFIX}x/version").status == 404

    def test_log_names_the_route_without_the_prefix(self, server: Server) -> None:
        wanted = f"prefix-{uuid.uuid4().hex}"
        ask(server, self.PREFIX + EXPERIMENT, x_request_id=wanted)
        line = logged(server, wanted)
        assert line["route"] == f"{API}/experiments/get"
        assert line["msg"].startswith(f"GET {self.PREFIX}{API}/experiments/get ")

    def test_forwarded_headers_of_strangers_are_not_believed(self, server: Server) -> None:
        wanted = f"forwarded-{uuid.uuid4().hex}"
        ask(server, x_forwarded_for="203.0.113.7", x_request_id=wanted)
        assert logged(server, wanted)["remote_ip"] == "127.0.0.1"
        headers = {"Host": "10.1.2.3", "Origin": "https://10.1.2.3", "X-Forwarded-Proto": "https"}
        assert search(server, headers).status == 403

    def test_frames_of_others_are_forbidden(self, server: Server) -> None:
        headers = {name.lower(): value for name, value in ask(server, "/").headers.items()}
        assert headers["x-frame-options"] == "SAMEORIGIN"
        assert "content-security-policy" not in headers


@contextlib.contextmanager
def nginx(folder: Path, locations: str) -> Iterator[str]:
    """A real nginx with these locations; skips where there is none."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("nginx is missing, and CI does not skip")
        pytest.skip("no nginx on this machine")
    folder.mkdir()
    port = free_port()
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"{'user root; ' if os.geteuid() == 0 else ''}"
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;\n"
        "events { worker_connections 64; }\n"
        f"http {{ access_log off; client_max_body_size 0; {temporary}"
        f"server {{ listen 127.0.0.1:{port};\n"
        "proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $remote_addr;\n"
        "proxy_set_header X-Forwarded-Proto https; proxy_http_version 1.1;\n"
        f'proxy_set_header Connection "";\n{locations}\n}} }}\n'
    )
    process = subprocess.Popen(
        [program, "-p", str(folder), "-c", str(folder / "nginx.conf")],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            assert process.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@pytest.mark.xdist_group("proxy-nginx")
class TestNginx:
    """A real reverse proxy, with the prefix kept and stripped, for the public URL it serves."""

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        flags = (
            *("--public-url", "https://mlflow.example.com/mlflow"),
            *("--access-log", "--log-format", "json"),
        )
        folder = tmp_path_factory.mktemp("nginx") / "server"
        with serve(folder, *flags, environment={"MLFLOW_WORKERS": "1"}) as server:
            yield server

    @pytest.fixture(scope="class", params=["", "/"], ids=["keeps", "strips"])
    @classmethod
    def public(
        cls,
        server: Server,
        request: pytest.FixtureRequest,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Iterator[str]:
        locations = f"location /mlflow/ {{ proxy_pass {server.url}{request.param}; }}"
        with nginx(tmp_path_factory.mktemp("nginx") / "nginx", locations) as url:
            yield f"{url}/mlflow"

    HEADERS: Mapping[str, str] = {"Host": "mlflow.example.com"}

    def test_everything_is_found(self, public: str) -> None:
        for path in ("/", EXPERIMENT, "/readyz", "/version", "/ajax-api/3.0/mlflow/server-info"):
            assert request(public + path, headers=self.HEADERS).status == 200, path

    def test_page_may_call_the_api(self, public: str) -> None:
        headers = {**self.HEADERS, "Origin": "https://mlflow.example.com", **JSON}
        path = f"{public}{AJAX}/experiments/search"
        body = b'{"max_results": 1}'
        assert request(path, method="POST", body=body, headers=headers).status == 200
        headers["Origin"] = "https://evil.example"
        assert request(path, method="POST", body=body, headers=headers).status == 403

    def test_artifact_comes_back(self, public: str) -> None:
        path = f"{public}{ARTIFACTS}/{uuid.uuid4().hex}/%C3%BC%20b.bin"
        content = os.urandom(3_000_000)
        assert request(path, method="PUT", body=content, headers=self.HEADERS).status == 200
        assert request(path, headers=self.HEADERS).body == content

    def test_client_address_is_the_one_nginx_saw(self, public: str, server: Server) -> None:
        wanted = f"nginx-{uuid.uuid4().hex}"
        claimed = {"X-Forwarded-For": "203.0.113.7", "X-Request-ID": wanted}
        request(public + EXPERIMENT, headers={**self.HEADERS, **claimed})
        assert logged(server, wanted)["remote_ip"] == "127.0.0.1"


@pytest.mark.xdist_group("proxy-plain")
class TestPlain:
    """No proxy, no platform: MLflow's own behaviour, and connections without delay."""

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        with serve(tmp_path_factory.mktemp("plain") / "server") as server:
            yield server

    def test_health_and_version_are_mlflows(self, server: Server) -> None:
        assert ask(server, "/health").body == b"OK"
        assert ask(server, "/version").body == b"3.17.2"

    def test_livez_says_ok(self, server: Server) -> None:
        answer = ask(server, "/livez")
        assert (answer.status, answer.json()) == (200, {"status": "ok"})
        assert answer.headers["cache-control"] == "no-store"

    def test_readyz_names_its_checks(self, server: Server) -> None:
        answer = ask(server, "/readyz")
        assert answer.status == 200
        assert answer.json() == {
            "status": "ok",
            "checks": [
                {"name": "database", "status": "ok"},
                {"name": "schema", "status": "ok"},
                {"name": "artifacts", "status": "ok"},
            ],
        }

    def test_connections_have_no_nagle_delay(self, server: Server) -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as client:
            began = time.monotonic()
            for _ in range(50):
                client.request("GET", EXPERIMENT)
                with client.getresponse() as answer:
                    assert answer.status == 200
                    answer.read()
            took = time.monotonic() - began
            own = client.sock.getsockname()
            options = [
                nodelay
                for pid in server.pids()[1:]
                for peer, nodelay in tcp_connections(pid)
                if peer == own
            ]
        # Where the kernel does not let us look, the clock decides: with the delay it is 2 s.
        assert options == [True] if options else took < 2


def tcp_connections(pid: int) -> Iterator[tuple[tuple[str, int], bool]]:
    """Peer and TCP_NODELAY of each TCP connection of another process; nothing where forbidden.

    `pidfd_getfd` (Linux 5.6) gives a copy of the other's descriptor, to a tracer or root.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.ExitStack() as stack:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return
        stack.callback(os.close, pidfd)
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if not str(entry.readlink()).startswith("socket:"):
                    continue
                copy = libc.syscall(438, pidfd, int(entry.name), 0)
                if copy < 0:
                    continue
                with socket.socket(fileno=copy) as connection:
                    if connection.family == socket.AF_INET:
                        nodelay = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                        yield connection.getpeername(), bool(nodelay)


def failed_checks(server: Server) -> list[str]:
    """The names of the checks that `/readyz` says have failed."""
    answer = ask(server, "/readyz")
    document = answer.json()
    failed = [each["name"] for each in document["checks"] if each["status"] != "ok"]  # type: ignore[attr-defined]
    assert (answer.status, document["status"]) == ((503, "failed") if failed else (200, "ok"))
    return failed


def wait_for_checks(server: Server, expected: list[str], what: str) -> None:
    """Wait until exactly these checks fail; results are kept for 2 s."""
    deadline = time.monotonic() + 15
    found = None
    while time.monotonic() < deadline:
        found = failed_checks(server)
        if found == expected:
            return
        time.sleep(0.1)
    raise AssertionError(f"{what}: {found} instead of {expected}")


class Readiness:
    """What `/readyz` says when something breaks, and when it is whole again."""

    @pytest.fixture(scope="class")
    @classmethod
    def temporary(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("tmp")

    def assert_others_are_unmoved(self, server: Server) -> None:
        """The process is alive, whatever its surroundings."""
        assert ask(server, "/livez").status == 200
        assert ask(server, "/health").body == b"OK"


def forget_artifact_probe(temporary: Path) -> None:
    """Have the next request probe the destination, instead of waiting for 30 s."""
    for path in temporary.glob("mlflow-server-run-*/artifact-probe.json"):
        path.unlink()


@pytest.mark.xdist_group("proxy-ready-sqlite")
class TestReadinessOnSqlite(Readiness):
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        environment = {"TMPDIR": str(temporary), "MLFLOW_WORKERS": "1"}
        folder = tmp_path_factory.mktemp("ready") / "server"
        with serve(folder, environment=environment) as server:
            yield server

    def test_database_file_that_is_gone(self, server: Server) -> None:
        database = server.folder / "data/mlflow/standalone/store/mydb.sqlite"
        away = database.with_name("away.sqlite")
        database.rename(away)
        try:
            wait_for_checks(server, ["database"], "the file is gone")
            self.assert_others_are_unmoved(server)
            assert not database.exists(), "looking makes no file"
        finally:
            away.rename(database)
        wait_for_checks(server, [], "the file is back")

    def test_artifact_folder_that_cannot_be_written(self, server: Server, temporary: Path) -> None:
        folder = server.folder / "data/mlflow/standalone/artifacts"
        away = folder.with_name("away")
        folder.rename(away)
        folder.write_text("a file where the folder was")
        try:
            forget_artifact_probe(temporary)
            wait_for_checks(server, ["artifacts"], "no folder")
            self.assert_others_are_unmoved(server)
        finally:
            folder.unlink()
            away.rename(folder)
        forget_artifact_probe(temporary)
        wait_for_checks(server, [], "the folder is back")

    def test_answer_tells_strangers_no_paths(self, server: Server, temporary: Path) -> None:
        database = server.folder / "data/mlflow/standalone/store/mydb.sqlite"
        away = database.with_name("away.sqlite")
        database.rename(away)
        try:
            wait_for_checks(server, ["database"], "the file is gone")
            assert b"sqlite" not in ask(server, "/readyz").body
            assert str(server.folder).encode() not in ask(server, "/readyz").body
        finally:
            away.rename(database)
        wait_for_checks(server, [], "the file is back")


@pytest.mark.xdist_group("proxy-ready-postgresql")
class TestReadinessOnPostgresql(Readiness):
    @pytest.fixture(scope="class")
    @classmethod
    def role(cls) -> str:
        return f"role_{uuid.uuid4().hex}"

    @pytest.fixture(scope="class")
    @classmethod
    def admin(cls, postgres: Postgres, role: str) -> Iterator[psycopg.Connection]:
        uri = postgres.new_database()
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'planted-secret'")
            connection.execute(f"GRANT ALL ON SCHEMA public TO {role}")
            yield connection

    @pytest.fixture(scope="class")
    @classmethod
    def server(
        cls,
        admin: psycopg.Connection,
        postgres: Postgres,
        role: str,
        temporary: Path,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Iterator[Server]:
        uri = postgres.uri.replace("//postgres:@", f"//{role}:planted-secret@").replace(
            "/postgres?", f"/{admin.info.dbname}?"
        )
        environment = {
            "MLFLOW_BACKEND_STORE_URI": uri,
            "TMPDIR": str(temporary),
            "MLFLOW_WORKERS": "1",
        }
        folder = tmp_path_factory.mktemp("ready") / "server"
        with serve(folder, environment=environment) as server:
            yield server
            assert "planted-secret" not in server.log

    @pytest.fixture
    def at_the_end(
        self, admin: psycopg.Connection, server: Server
    ) -> Iterator[Callable[[str], None]]:
        """Statements that mend what the test is going to break."""
        statements: list[str] = []
        yield statements.append
        for statement in statements:
            admin.execute(statement)
        wait_for_checks(server, [], "all is well again")

    def test_role_that_may_no_longer_log_in(
        self,
        server: Server,
        admin: psycopg.Connection,
        role: str,
        at_the_end: Callable[[str], None],
    ) -> None:
        at_the_end(f"ALTER ROLE {role} LOGIN")
        admin.execute(f"ALTER ROLE {role} NOLOGIN")
        admin.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE usename = %s",
            [role],
        )
        wait_for_checks(server, ["database"], "no login")
        self.assert_others_are_unmoved(server)
        assert role.encode() not in ask(server, "/readyz").body

    def test_schema_of_another_release(
        self, server: Server, admin: psycopg.Connection, at_the_end: Callable[[str], None]
    ) -> None:
        admin.execute("CREATE TABLE tracking_server_kept AS TABLE alembic_version")
        at_the_end(
            "UPDATE alembic_version SET version_num = k.version_num FROM tracking_server_kept k"
        )
        at_the_end("DROP TABLE tracking_server_kept")
        admin.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
        wait_for_checks(server, ["schema"], "another revision")
        assert head_revision().encode() in ask(server, "/readyz").body
        self.assert_others_are_unmoved(server)

    def test_api_works_again_after_the_outage(
        self, server: Server, admin: psycopg.Connection, role: str
    ) -> None:
        assert ask(server).status == 200
        admin.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE usename = %s",
            [role],
        )
        assert ask(server).status == 200, "a pooled connection that died is replaced"
