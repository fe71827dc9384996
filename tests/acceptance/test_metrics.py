"""`/metrics`, the access log and request ids: what an operator sees of the traffic."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlflow_server import __version__
from mlflow_server.store.revision import head_revision
from tests.support.programs import Server, serve
from tests.support.programs import http as request

API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
ARTIFACT_ROUTE = f"{ARTIFACTS}/{{artifact_path}}"
DURATION = "mlflow_server_http_request_duration_seconds"
IN_FLIGHT = "mlflow_server_http_requests_in_flight"
RECEIVED = "mlflow_server_http_request_bytes_total"
SENT = "mlflow_server_http_response_bytes_total"
POOL = "mlflow_server_db_pool_connections"
BUILD = "mlflow_server_build_info"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(server: Server) -> Samples:
    """Every sample by name and labels, parsed as Prometheus would; each occurs once."""
    answer = request(f"{server.url}/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    samples: Samples = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        assert family.documentation
        assert family.type != "unknown"
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples, f"twice: {key}"
            samples[key] = sample.value
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the samples that have these labels, among others."""
    wanted = labels.items()
    return sum(v for (n, own), v in samples.items() if n == name and wanted <= own)


def requests_counted(samples: Samples, **labels: str) -> float:
    """How many requests were answered, by method, route, status."""
    return value(samples, f"{DURATION}_count", **labels)


def wait_until(condition: Callable[[], object], what: str, timeout: float = 30) -> None:
    """Wait for a state; a request is counted after its answer has been sent."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not after {timeout} s: {what}")
        time.sleep(0.02)


def log_lines(server: Server) -> list[dict[str, Any]]:
    """The access log as JSON documents."""
    lines = [json.loads(line) for line in server.log.splitlines()]
    return [line for line in lines if line.get("event") == "request"]


def line_of(server: Server, request_id: str) -> dict[str, Any]:
    """The log line of one request."""
    wait_until(
        lambda: [x for x in log_lines(server) if x["request_id"] == request_id], "it is logged"
    )
    (line,) = (x for x in log_lines(server) if x["request_id"] == request_id)
    return line


@contextlib.contextmanager
def half_an_upload(server: Server) -> Iterator[socket.socket]:
    """An upload that has sent some of its body and goes no further."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(
            f"PUT {ARTIFACTS}/{uuid.uuid4().hex} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Length: 1000000\r\n\r\n".encode()
            + b"x" * 1000
        )
        yield client


@pytest.mark.xdist_group("metrics-on")
class TestWithMetrics:
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        flags = ("--metrics", "--access-log", "--log-format", "json")
        with serve(tmp_path_factory.mktemp("metrics") / "server", *flags) as server:
            yield server

    def test_build_info_names_the_versions(self, server: Server) -> None:
        samples = scrape(server)
        (labels,) = (dict(own) for name, own in samples if name == BUILD)
        assert labels == {
            "version": __version__,
            "mlflow_version": "3.17.2",
            "db_revision": head_revision(),
        }
        assert value(samples, BUILD) == 1

    def test_pool_gauges_show_the_connections_at_rest(self, server: Server) -> None:
        request(f"{server.url}{API}/experiments/get?experiment_id=0")
        wait_until(
            lambda: value(scrape(server), POOL, state="idle") >= 1, "the pools are looked at", 15
        )
        samples = scrape(server)
        assert {dict(own)["state"] for name, own in samples if name == POOL} == {"idle", "in_use"}

    def test_artifact_routes_are_counted_by_template_with_status_and_bytes(
        self, server: Server
    ) -> None:
        before = scrape(server)
        path = f"{server.url}{ARTIFACTS}/{uuid.uuid4().hex}/a.bin"
        assert request(path, method="PUT", body=b"x" * 100_001).status == 200
        assert request(path).body == b"x" * 100_001
        assert request(f"{path}.missing").status == 404

        def grown(name: str, **labels: str) -> float:
            after = scrape(server)
            return value(after, name, **labels) - value(before, name, **labels)

        count, route = f"{DURATION}_count", ARTIFACT_ROUTE
        wait_until(lambda: grown(count, route=route, method="GET", status="404"), "all counted")
        assert grown(count, route=route, method="PUT", status="200") == 1
        assert grown(count, route=route, method="GET", status="200") == 1
        assert grown(count, route=route) == 3
        assert grown(RECEIVED, route=route, method="PUT") == 100_001
        assert 100_001 <= grown(SENT, route=route, method="GET") < 101_000

    def test_flask_routes_are_counted_by_template(self, server: Server) -> None:
        def counted(route: str, status: str) -> float:
            return requests_counted(scrape(server), route=route, status=status, method="GET")

        experiments, models = f"{API}/experiments/get", f"{API}/logged-models/{{model_id}}"
        before = counted(experiments, "200"), counted(models, "404")
        assert request(f"{server.url}{API}/experiments/get?experiment_id=0").status == 200
        assert request(f"{server.url}{API}/logged-models/m-{uuid.uuid4().hex}").status == 404
        wait_until(lambda: counted(models, "404") == before[1] + 1, "the second is counted")
        assert counted(experiments, "200") == before[0] + 1

    def test_what_nothing_answers_is_one_series(self, server: Server) -> None:
        def unmatched() -> float:
            return requests_counted(scrape(server), route="unmatched", status="404")

        before = unmatched()
        for number in range(3):
            assert request(f"{server.url}/nothing/{uuid.uuid4().hex}{number}").status == 404
            assert request(f"{server.url}{API}/nothing-{uuid.uuid4().hex}").status == 404
        wait_until(lambda: unmatched() == before + 6, "all are counted")
        routes = {dict(own).get("route", "") for _, own in scrape(server)}
        assert not any("nothing" in route for route in routes)

    def test_all_workers_are_counted_together(self, server: Server) -> None:
        def counted() -> float:
            return requests_counted(scrape(server), route="/version")

        before = counted()
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda _: request(f"{server.url}/version"), range(200))
            assert {answer.status for answer in answers} == {200}
        wait_until(lambda: counted() >= before + 200, "all are counted")
        assert {counted() for _ in range(10)} == {before + 200}, "whichever worker is asked"
        workers = {line["pid"] for line in log_lines(server) if line["route"] == "/version"}
        assert len(workers) == 2, "both had their share"

    def test_histogram_is_whole(self, server: Server) -> None:
        samples = scrape(server)
        buckets = {
            dict(own)["le"]: v
            for (name, own), v in samples.items()
            if name == f"{DURATION}_bucket" and ("route", "/readyz") in own
        }
        ordered = [buckets[bound] for bound in sorted(buckets, key=float)]
        assert ordered == sorted(ordered), "cumulative"
        assert buckets["+Inf"] == requests_counted(samples, route="/readyz")
        assert value(samples, f"{DURATION}_sum", route="/readyz") > 0

    def test_requests_in_flight_rise_and_fall(self, server: Server) -> None:
        idle = value(scrape(server), IN_FLIGHT)
        assert idle <= 1, "at most the scrape itself"
        with half_an_upload(server), half_an_upload(server):
            wait_until(lambda: value(scrape(server), IN_FLIGHT) == idle + 2, "both are in flight")
        wait_until(lambda: value(scrape(server), IN_FLIGHT) == idle, "the clients hung up")

    def test_nothing_falls_but_gauges_when_a_worker_is_killed(self, server: Server) -> None:
        def totals() -> Samples:
            rising = ("_total", "_count", "_sum", "_bucket")
            return {key: v for key, v in scrape(server).items() if key[0].endswith(rising)}

        idle = value(scrape(server), IN_FLIGHT)
        with half_an_upload(server):
            wait_until(lambda: value(scrape(server), IN_FLIGHT) == idle + 1, "it is in flight")
            before = totals()
            _, *workers = server.pids()
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
            wait_until(
                lambda: len(set(server.pids()) - set(workers)) == 3, "the workers are replaced"
            )
            server.wait_ready()
            after = totals()
        fallen = {key: (v, after.get(key)) for key, v in before.items() if after.get(key, -1) < v}
        assert fallen == {}
        assert value(scrape(server), IN_FLIGHT) <= 1, "the killed workers' requests are forgotten"

    def test_metrics_are_not_for_web_pages_of_others(self, server: Server) -> None:
        evil = request(f"{server.url}/metrics", headers={"Host": "evil.example"})
        assert evil.status == 403

    def test_log_line_has_every_field(self, server: Server) -> None:
        wanted = f"put-{uuid.uuid4().hex}"
        path = f"{ARTIFACTS}/{uuid.uuid4().hex}"
        request(server.url + path, method="PUT", body=b"x" * 12, headers={"X-Request-ID": wanted})
        line = line_of(server, wanted)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
        assert 0 < line.pop("duration_s") < 30
        assert line.pop("pid") in server.pids()[1:]
        assert line == {
            "level": "INFO",
            "logger": "mlflow_server.access",
            "msg": f"PUT {path} 200",
            "event": "request",
            "request_id": wanted,
            "method": "PUT",
            "route": ARTIFACT_ROUTE,
            "status": 200,
            "bytes_in": 12,
            "bytes_out": 0,
            "remote_ip": "127.0.0.1",
        }

    def test_request_id_of_a_proxy_is_kept(self, server: Server) -> None:
        for wanted in ("abc-123", "A:b/c+d=e.f_g", "x" * 128):
            answer = request(f"{server.url}/livez", headers={"X-Request-ID": wanted})
            assert answer.headers["x-request-id"] == wanted

    @pytest.mark.parametrize("bad", ["", "x" * 129, "a b", 'a"b', "{}", "<script>", "ä"])
    def test_request_id_that_could_confuse_a_log_is_replaced(
        self, server: Server, bad: str
    ) -> None:
        # http.client, because urllib would encode the last one.
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as client:
            client.request("GET", "/livez", headers={"X-Request-ID": bad.encode("utf-8")})
            with client.getresponse() as answer:
                given = answer.headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{24}", given)

    @pytest.mark.parametrize("path", ["/", "/livez", "/nothing", f"{API}/nothing", "/metrics"])
    def test_every_answer_has_an_id_of_its_own(self, server: Server, path: str) -> None:
        ids = {request(server.url + path).headers["x-request-id"] for _ in range(3)}
        assert len(ids) == 3


@pytest.mark.xdist_group("metrics-off")
class TestWithoutMetrics:
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        folder = tmp_path_factory.mktemp("plain") / "server"
        with serve(folder, "--access-log", environment={"MLFLOW_WORKERS": "1"}) as server:
            yield server

    def test_metrics_are_not_served(self, server: Server) -> None:
        answer = request(f"{server.url}/metrics")
        assert answer.status == 404
        assert b"mlflow_server" not in answer.body

    def test_log_line_for_people_has_every_field(self, server: Server) -> None:
        wanted = f"text-{uuid.uuid4().hex}"
        request(
            f"{server.url}{API}/experiments/get?experiment_id=0", headers={"X-Request-ID": wanted}
        )
        wait_until(lambda: wanted in server.log, "it is logged")
        (line,) = (line for line in server.log.splitlines() if wanted in line)
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO mlflow_server\.access: "
            rf"GET {API}/experiments/get 200 request_id={wanted} method=GET "
            rf"route={API}/experiments/get status=200 duration_s=0\.\d+ "
            r"bytes_in=0 bytes_out=\d+ remote_ip=127\.0\.0\.1",
            line,
        )

    def test_query_is_not_logged(self, server: Server) -> None:
        wanted = f"query-{uuid.uuid4().hex}"
        request(f"{server.url}/version?token=planted-secret", headers={"X-Request-ID": wanted})
        wait_until(lambda: wanted in server.log, "it is logged")
        assert "planted-secret" not in server.log

    def test_line_break_in_a_path_makes_no_second_line(self, server: Server) -> None:
        wanted = f"break-{uuid.uuid4().hex}"
        request(
            f"{server.url}/a%0A2026-01-31T12:00:00.000Z%20ERROR%20forged",
            headers={"X-Request-ID": wanted},
        )
        wait_until(lambda: wanted in server.log, "it is logged")
        assert not any(line.startswith("2026-01-31T12") for line in server.log.splitlines())


@pytest.mark.xdist_group("metrics-off")
def test_access_log_is_off_unless_asked_for(tmp_path: Path) -> None:
    with serve(tmp_path / "server", environment={"MLFLOW_WORKERS": "1"}) as server:
        answer = request(f"{server.url}{API}/experiments/get?experiment_id=0")
        assert answer.headers["x-request-id"]
        assert server.stop() == 0
        assert "mlflow_server.access" not in server.log
        assert "request_id" not in server.log
