"""A stock MLflow client finds in our server what it knows from MLflow's.

Each store is served once; the client is a program of its own (`tests/standins/stock_client.py`)
that logs everything, reads it back and reports; the tests judge the report.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Postgres
from tests.support.programs import REPOSITORY, clean_environment, free_port, serve
from tests.support.s3 import S3Server

CLIENT = REPOSITORY / "tests" / "standins" / "stock_client.py"
LARGE = 50 * 1024 * 1024
SMALL = 100_000


@dataclass(frozen=True)
class Case:
    """One server and the address a client is given.

    Args:
        database: `sqlite` or `postgresql`.
        artifacts: `local` or `s3`.
        flags: Further arguments of `serve`; PORT is replaced.
        prefix: Path prefix of the tracking URI.
        artifact_bytes: Size of the large artifact.
    """

    database: str = "sqlite"
    artifacts: str = "local"
    flags: tuple[str, ...] = ()
    prefix: str = ""
    artifact_bytes: int = LARGE


# What the platform appends; it writes `--flag value` or `--flag=value`.
_SWITCHES = ("--anaconda-project-no-browser", "--anaconda-project-use-xheaders")
_FLAGS = {
    "--anaconda-project-port": "PORT",
    "--anaconda-project-address": "127.0.0.1",
    "--anaconda-project-host": "mlflow.apps.example",
    "--anaconda-project-url-prefix": "/deployments/mlflow",
    "--anaconda-project-iframe-hosts": "portal.example",
}
_WITH_SPACE = (*(word for flag in _FLAGS.items() for word in flag), *_SWITCHES)
_WITH_EQUALS = (*(f"{name}={text}" for name, text in _FLAGS.items()), *_SWITCHES)


@pytest.fixture(scope="class")
def case(request: pytest.FixtureRequest) -> Case:
    """The case of the class that is running."""
    found: Case = request.cls.case
    return found


@pytest.fixture(scope="class")
def facts(
    case: Case, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """What the client reported."""
    environment = {}
    if case.database == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        environment["MLFLOW_BACKEND_STORE_URI"] = postgres.new_database()
    if case.artifacts == "s3":
        s3: S3Server = request.getfixturevalue("s3")
        bucket = f"b{uuid.uuid4().hex}"
        s3.make_bucket(bucket)
        environment |= s3.environment
        environment["MLFLOW_ARTIFACTS_DESTINATION"] = f"s3://{bucket}/some/where"
    folder = tmp_path_factory.mktemp("client")
    port = free_port()
    flags = [flag.replace("PORT", str(port)) for flag in case.flags]
    with serve(folder / "server", *flags, environment=environment, port=port) as server:
        yield run_client(folder, server.url + case.prefix, case.artifact_bytes)
        assert " ERROR " not in server.log, server.log


def run_client(folder: Path, tracking_uri: str, artifact_bytes: int) -> dict[str, Any]:
    """Run the client to its end, with nothing of this project on its path."""
    environment = clean_environment(
        MLFLOW_TRACKING_URI=tracking_uri, MLFLOW_DISABLE_TELEMETRY="true"
    )
    del environment["PYTHONPATH"]
    done = subprocess.run(
        [sys.executable, str(CLIENT), "--artifact-bytes", str(artifact_bytes)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


class Client:
    """What every client finds, whatever is behind the server."""

    case: Case

    def test_experiment_has_its_tag_and_proxied_location(self, facts: dict[str, Any]) -> None:
        experiment = facts["experiment"]
        assert experiment["all"] == ["Default", "acceptance"]
        assert experiment["team"] == "tests"
        assert experiment["location"].startswith("mlflow-artifacts:/")

    def test_run_comes_back_as_logged(self, facts: dict[str, Any]) -> None:
        assert facts["run"] == {
            "status": "FINISHED",
            "params": {"alpha": "0.5", "text": "ä ö / \u2603"},
            "metrics": {"loss": 0.2, "accuracy": 0.75, "huge": 1e300},
            "stage": "trial",
            "history": [[step, 1.0 / (step + 1)] for step in range(5)],
        }

    def test_search_finds_the_run_by_metric_param_and_tag(self, facts: dict[str, Any]) -> None:
        assert facts["search"] == ["first"]

    def test_large_artifact_comes_back_with_equal_bytes(
        self, facts: dict[str, Any], case: Case
    ) -> None:
        assert facts["artifact"] == {
            "size": case.artifact_bytes,
            "equal": True,
            "listed": [["deep/er/large ü.bin", case.artifact_bytes]],
        }

    def test_logged_model_belongs_to_its_run(self, facts: dict[str, Any]) -> None:
        assert facts["logged_model"] == {
            "name": "doubler",
            "status": "READY",
            "params": {"factor": "2"},
            "from_run": True,
            "found": ["doubler"],
        }

    def test_registered_model_is_found_and_loaded_by_alias(self, facts: dict[str, Any]) -> None:
        assert facts["registered_model"] == {
            "version": 1,
            "status": "READY",
            "from_run": True,
            "names": ["doubler"],
            "predicts": [2, 42],
        }

    def test_trace_has_its_spans(self, facts: dict[str, Any]) -> None:
        assert facts["trace"] == {
            "spans": ["inner", "outer"],
            "state": "OK",
            "outputs": {"answer": 42},
            "found": [True],
        }


@pytest.mark.xdist_group("client-sqlite-local")
class TestSqliteAndLocalFiles(Client):
    case = Case()


@pytest.mark.xdist_group("client-sqlite-s3")
class TestSqliteAndS3(Client):
    case = Case(artifacts="s3")


@pytest.mark.xdist_group("client-postgresql-local")
class TestPostgresqlAndLocalFiles(Client):
    case = Case("postgresql")


@pytest.mark.xdist_group("client-postgresql-s3")
class TestPostgresqlAndS3(Client):
    case = Case("postgresql", "s3")


@pytest.mark.xdist_group("client-prefix")
class TestBelowPrefix(Client):
    case = Case(flags=("--static-prefix", "/team/mlflow"), prefix="/team/mlflow")


@pytest.mark.xdist_group("client-platform")
class TestPlatformFlags(Client):
    case = Case(flags=_WITH_SPACE, prefix="/deployments/mlflow", artifact_bytes=SMALL)


@pytest.mark.xdist_group("client-platform-equals")
class TestPlatformFlagsWithEqualsSign(Client):
    case = Case(flags=_WITH_EQUALS, prefix="/deployments/mlflow", artifact_bytes=SMALL)
