"""What `server/app.py` takes for granted about MLflow; fails when a release moves it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.conftest import Postgres
from tests.support.forks import serve
from tests.support.programs import Answer, Server, clean_environment, http

API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
WORKSPACE = "X-MLFLOW-WORKSPACE"
WORKERS, POOL, OVERFLOW = 2, 2, 1
# Makes the app as the server does and tells which middleware is wrapped; in a process of its own,
# because it changes MLflow's app for good.
_MIDDLEWARE = """
import json, os, sys
from pathlib import Path
from mlflow_server.server.environment import server_environment
from mlflow_server.server.plan import Facts, make_plan
from mlflow_server.settings.load import load_settings

plan = make_plan(load_settings(environ={}), Facts(usable_cores=2))
os.environ.update(server_environment(plan))
from mlflow_server.server.app import create_app, import_mlflow
import_mlflow()
from mlflow.server.fastapi_app import app

def names():
    found = {}
    for middleware in app.user_middleware:
        function = middleware.kwargs.get("dispatch")
        found[getattr(function, "__name__", middleware.cls.__name__)] = middleware.cls.__name__
    return found

before = names()
create_app(plan, Path(sys.argv[1]), None)
print(json.dumps([before, names()]))
"""


# Asks the routes where requests end up, before and after the short way to Flask was put in front.
_ROUTES = """
import json, sys
from mlflow.server import app as flask_app
from mlflow.server.fastapi_app import app
from starlette.routing import Match
from mlflow_server.server.shortcuts import route_straight_to_flask, use_own_bridge

use_own_bridge(app, flask_app)
inner = list(app.router.routes)
mount = inner[-1]

def fixed(routes, prefix=""):
    for route in routes:
        original = getattr(route, "original_router", None)
        if original is not None:
            yield from fixed(original.routes, prefix + route.include_context.prefix)
        for method in getattr(route, "methods", None) or ():
            yield method, prefix + route.path

paths = {(method, rule.rule) for rule in flask_app.url_map.iter_rules() for method in rule.methods}
paths |= set(fixed(inner))
paths |= {(method, "/nothing/here") for method in ("GET", "POST")}

def ends_at(method, path, root_path=""):
    scope = {"type": "http", "method": method, "path": path, "root_path": root_path, "headers": []}
    for route in app.router.routes:
        if route.matches(scope)[0] is Match.FULL:
            return type(route).__name__, getattr(route, "app", None) is mount.app
    return None

before = {key: ends_at(*key) for key in paths}
route_straight_to_flask(app, flask_app)
changed = []
short = 0
for key in paths:
    after = ends_at(*key)
    if after[0] == "StraightToFlask":
        short += 1
        if before[key] != ("Mount", True):
            changed.append(key)
    elif after != before[key]:
        changed.append(key)
behind_root = ends_at("POST", "/api/2.0/mlflow/runs/log-metric", "/api")
print(json.dumps([changed, short, ends_at("POST", "/api/2.0/mlflow/runs/log-metric")[0],
                  behind_root[0], len(paths), sum(v[0] != "Mount" for v in before.values())]))
"""


def run_script(script: str, folder: Path, **environment: str) -> Any:
    """What a script prints as JSON on its last line."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        cwd=folder,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def middleware(folder: Path, **environment: str) -> tuple[dict[str, str], dict[str, str]]:
    """MLflow's middleware, name to class, before and after ours was put in front."""
    before, after = run_script(_MIDDLEWARE, folder, **environment)
    return before, after


def call(server: Server, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    """One API call; `workspace="a"` names a workspace."""
    if "workspace" in headers:
        headers[WORKSPACE] = headers.pop("workspace")
    data = None if body is None else json.dumps(body).encode()
    headers["Content-Type"] = "application/json"
    return http(server.url + path, method=method, body=data, headers=headers)


class TestMiddleware:
    def test_both_function_middlewares_exist_and_are_spared(self, tmp_path: Path) -> None:
        before, after = middleware(tmp_path)
        functions = {"workspace_context_middleware", "gateway_timing_middleware"}
        # Exactly these: a third one would be worth sparing as well.
        assert {name for name, cls in before.items() if cls == "BaseHTTPMiddleware"} == functions
        assert {after[name] for name in functions} == {"_OnlyIf"}
        assert list(after) == list(before), "the order stays"

    def test_workspace_middleware_stays_where_workspaces_are_used(self, tmp_path: Path) -> None:
        _, after = middleware(tmp_path, MLFLOW_ENABLE_WORKSPACES="true")
        assert after["workspace_context_middleware"] == "BaseHTTPMiddleware"
        assert after["gateway_timing_middleware"] == "_OnlyIf"


def test_every_route_ends_where_it_did_and_small_calls_get_there_at_once(tmp_path: Path) -> None:
    changed, short, log_metric, behind_a_root, total, fastapi = run_script(_ROUTES, tmp_path)
    assert changed == []
    assert (log_metric, behind_a_root) == ("StraightToFlask", "Mount")
    assert short > 300
    assert fastapi > 10, "FastAPI's own routes were looked at as well"
    assert total > short + fastapi, "and paths with a parameter, which go the long way"


@pytest.mark.xdist_group("app-postgresql")
class TestServer:
    """One server on PostgreSQL, with pools so small that their sum can be counted."""

    @pytest.fixture(scope="class")
    @classmethod
    def uri(cls, postgres: Postgres) -> str:
        return postgres.new_database()

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        with serve(
            tmp_path_factory.mktemp("app") / "server", "-v", environment=small_pools(uri)
        ) as server:
            yield server

    def test_stores_are_opened_by_the_lifespan_of_the_workers(self, server: Server) -> None:
        # Ready is the server when one worker is; uvicorn (-v) says it for each.
        deadline = time.monotonic() + 30
        while server.log.count("Application startup complete") < WORKERS:
            assert time.monotonic() < deadline, server.log
            time.sleep(0.05)
        assert "lifespan' protocol appears unsupported" not in server.log

    @pytest.mark.parametrize("path", [f"{API}/experiments/get?experiment_id=0", f"{ARTIFACTS}/x"])
    def test_naming_a_workspace_gets_mlflows_own_refusal(self, server: Server, path: str) -> None:
        # FEATURE_DISABLED is 500 in MLflow 3.17.2; a stock server answers the same.
        answer = call(server, "GET", path, workspace="team-a")
        assert answer.status == 500
        assert answer.json()["error_code"] == "FEATURE_DISABLED"
        assert "workspaces are not enabled" in str(answer.json()["message"])

    def test_empty_workspace_header_is_none(self, server: Server) -> None:
        path = f"{API}/experiments/get?experiment_id=0"
        assert call(server, "GET", path, workspace="").status == 200

    def test_server_info_answers_whatever_workspace_is_named(self, server: Server) -> None:
        path = "/api/3.0/mlflow/server-info"
        assert call(server, "GET", path, workspace="team-a").status == 200

    def test_gateway_calls_are_timed(self, server: Server) -> None:
        answer = call(server, "POST", "/gateway/nothing/mlflow/invocations", {"messages": []})
        assert answer.status == 404
        assert int(answer.headers["x-mlflow-gateway-duration-ms"]) >= 0

    def test_other_calls_are_not(self, server: Server) -> None:
        answer = call(server, "GET", f"{API}/experiments/get?experiment_id=0")
        assert "x-mlflow-gateway-duration-ms" not in answer.headers

    def test_one_pool_a_worker_serves_all_stores(self, server: Server, uri: str) -> None:
        most, names = connections_under_load(server, uri)
        assert WORKERS <= most <= WORKERS * (POOL + OVERFLOW + 1)
        assert names == {"mlflow-tracking-server"}


def small_pools(uri: str) -> dict[str, str]:
    """Settings with which a worker may open `POOL + OVERFLOW` connections and one for `/readyz`."""
    return {
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_WORKERS": str(WORKERS),
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": str(POOL),
        "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": str(OVERFLOW),
        # More requests at a time than connections, so that the pools are what limits.
        "TRACKING_SERVER_THREADS": "12",
    }


def connections_under_load(server: Server, uri: str, **headers: str) -> tuple[int, set[str]]:
    """The most connections at a time, and their names, while all stores are busy."""
    most, names, end = 0, set[str](), threading.Event()

    def watch() -> None:
        nonlocal most
        with psycopg.connect(uri, autocommit=True) as connection:
            while not end.is_set():
                rows = connection.execute(
                    "SELECT application_name FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                    " AND datname = current_database() AND backend_type = 'client backend'"
                ).fetchall()
                most = max(most, len(rows))
                names.update(row[0] for row in rows)
                time.sleep(0.005)

    def load(number: int) -> None:
        model = f"model-{number}-{uuid.uuid4().hex}"
        for turn in range(8):
            paths = (
                ("POST", f"{API}/experiments/search", {"max_results": 10}),
                ("POST", f"{API}/registered-models/create", {"name": f"{model}-{turn}"}),
                ("GET", f"{API}/registered-models/search?max_results=10", None),
                ("GET", "/readyz", None),
            )
            for method, path, body in paths:
                assert call(server, method, path, body, **headers).status == 200

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(24) as pool:
            list(pool.map(load, range(24)))
    finally:
        end.set()
        watcher.join()
    return most, names


@pytest.mark.xdist_group("app-workspaces")
class TestWorkspaces:
    """With MLFLOW_ENABLE_WORKSPACES=true they work through our server."""

    @pytest.fixture(scope="class")
    @classmethod
    def uri(cls, postgres: Postgres) -> str:
        return postgres.new_database()

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        environment = {**small_pools(uri), "MLFLOW_ENABLE_WORKSPACES": "true"}
        folder = tmp_path_factory.mktemp("workspaces") / "server"
        with serve(folder, environment=environment) as server:
            for name in ("team-a", "team-b"):
                answer = call(server, "POST", "/api/3.0/mlflow/workspaces", {"name": name})
                assert answer.status == 201, answer.body
            yield server

    def test_experiments_are_seen_in_their_workspace_only(self, server: Server) -> None:
        create = f"{API}/experiments/create"
        assert call(server, "POST", create, {"name": "a"}, workspace="team-a").status == 200
        search, body = f"{API}/experiments/search", {"max_results": 10}
        for workspace, expected in (("team-a", ["a"]), ("team-b", []), ("default", ["Default"])):
            found = call(server, "POST", search, body, workspace=workspace).json()
            names = [each["name"] for each in found.get("experiments", [])]  # type: ignore[attr-defined]
            assert names == expected

    def test_artifacts_are_seen_in_their_workspace_only(self, server: Server) -> None:
        path = f"{ARTIFACTS}/{uuid.uuid4().hex}/a.json"
        assert call(server, "PUT", path, {"a": 1}, workspace="team-a").status == 200
        assert call(server, "GET", path, workspace="team-a").json() == {"a": 1}
        assert call(server, "GET", path, workspace="team-b").status == 404
        assert call(server, "GET", path).status == 404

    def test_no_request_inherits_the_workspace_of_another(self, server: Server) -> None:
        search, body = f"{API}/experiments/search", {"max_results": 10}

        def names(workspace: str | None) -> list[str]:
            headers = {"workspace": workspace} if workspace else {}
            found = call(server, "POST", search, body, **headers).json()
            return [each["workspace"] for each in found.get("experiments", [])]  # type: ignore[attr-defined]

        call(server, "POST", f"{API}/experiments/create", {"name": "b"}, workspace="team-b")
        asked = ["team-b", None] * 40
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(names, asked))
        for workspace, found in zip(asked, answers, strict=True):
            assert set(found) == {workspace or "default"}

    def test_unknown_workspace_is_mlflows_404(self, server: Server) -> None:
        path = f"{API}/experiments/get?experiment_id=0"
        answer = call(server, "GET", path, workspace="nowhere")
        assert answer.status == 404
        assert answer.json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"

    def test_workspaces_need_no_pool_of_their_own(self, server: Server, uri: str) -> None:
        most, names = connections_under_load(server, uri, workspace="team-a")
        assert WORKERS <= most <= WORKERS * (POOL + OVERFLOW + 1)
        assert names == {"mlflow-tracking-server"}
