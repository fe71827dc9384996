"""The shortest way through: start, use with a stock client, stop."""

from pathlib import Path

import pytest

from tests.conftest import Postgres
from tests.support.programs import http, serve
from tests.support.s3 import S3Server


def test_serves_on_the_embedded_default(tmp_path: Path) -> None:
    with serve(tmp_path / "server") as server:
        assert http(f"{server.url}/health").body == b"OK"
        answer = http(f"{server.url}/api/2.0/mlflow/experiments/get?experiment_id=0")
        assert answer.status == 200
        assert server.stop() == 0
        assert server.wait_gone() == []
    assert server.output == ""


@pytest.mark.timeout(240)
def test_serves_on_postgresql_and_s3(
    tmp_path: Path, database_uri: str, s3: S3Server, bucket: str
) -> None:
    environment = {
        **s3.environment,
        "MLFLOW_BACKEND_STORE_URI": database_uri,
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{bucket}/artifacts",
    }
    with serve(tmp_path / "server", environment=environment) as server:
        path = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/a/b.bin"
        assert http(path, method="PUT", body=b"x" * 100_000).status == 200
        assert http(path).body == b"x" * 100_000
        assert server.stop() == 0


def test_databases_of_tests_are_separate(postgres: Postgres) -> None:
    assert postgres.new_database() != postgres.new_database()
