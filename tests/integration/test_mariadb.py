"""MySQL's dialect against a real MariaDB: start, kill while initialising, use."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlflow_server.store import lock
from mlflow_server.store.revision import SchemaState, read_store_status
from mlflow_server.store.schema import initialise
from mlflow_server.uris import parse_store_uri
from tests.support.forks import serve
from tests.support.mariadb import MariaDb
from tests.support.programs import clean_environment, http, run_cli

pytestmark = pytest.mark.xdist_group("mariadb")


@pytest.fixture
def uri(mariadb: MariaDb) -> str:
    """An empty database."""
    return mariadb.new_database()


def test_serves_on_mariadb(tmp_path: Path, uri: str) -> None:
    environment = {"MLFLOW_BACKEND_STORE_URI": uri}
    with serve(tmp_path / "server", environment=environment) as server:
        answer = http(f"{server.url}/api/2.0/mlflow/experiments/get?experiment_id=0")
        assert answer.status == 200
        assert server.stop() == 0
    doctor = run_cli("doctor", cwd=tmp_path, environment=environment)
    assert doctor.returncode == 0, doctor.stdout


def test_refuses_a_wrong_password(tmp_path: Path, uri: str) -> None:
    environment = {"MLFLOW_BACKEND_STORE_URI": uri.replace("pw-of-ml", "planted-secret")}
    result = run_cli("serve", cwd=tmp_path, environment=environment)
    assert result.returncode == 77
    assert "planted-secret" not in result.stderr


def test_names_who_holds_the_lock(uri: str) -> None:
    store = parse_store_uri(uri)
    with (
        lock.exclusive(store, "first"),
        pytest.raises(lock.BusyError, match="connection"),
        lock.exclusive(store, "second"),
    ):
        pass


def test_starts_over_after_a_kill_while_initialising(uri: str) -> None:
    store = parse_store_uri(uri)
    script = (
        "import mlflow.store.db.utils\n"
        "from mlflow_server.store.schema import initialise\n"
        "from mlflow_server.uris import parse_store_uri\n"
        "import os\n"
        "print('go', flush=True)\n"
        "initialise(parse_store_uri(os.environ['STORE']))\n"
        "print('done', flush=True)\n"
    )
    unfinished = 0
    for delay_s in (0.3, 0.6, 0.9):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", script],
            env=clean_environment(STORE=uri),
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay_s)
        process.kill()
        process.communicate(timeout=30)
        unfinished += read_store_status(store).state is SchemaState.EMPTY
    initialise(store)
    assert read_store_status(store).state is SchemaState.CURRENT
    assert unfinished > 0
