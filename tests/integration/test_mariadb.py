"""MySQL's dialect against a real MariaDB: start, kill while initialising, use."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_server.store import lock
from mlflow_server.store.revision import SchemaState, read_store_status
from mlflow_server.store.schema import initialise
from mlflow_server.uris import parse_store_uri
from tests.support.programs import clean_environment, free_port, http, run_cli, serve

MARIADBD = shutil.which("mariadbd", path=os.environ.get("PATH", "") + ":/usr/sbin")
pytestmark = [
    pytest.mark.skipif(
        MARIADBD is None and os.environ.get("CI") != "true", reason="mariadbd is not installed"
    ),
    pytest.mark.xdist_group("mariadb"),
]


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A MariaDB server with user `ml`; yields its port."""
    import pymysql

    assert MARIADBD is not None, "CI must have mariadb-server"
    folder = tmp_path_factory.mktemp("mariadb")
    user = "mysql" if os.geteuid() == 0 else str(os.environ.get("USER"))
    for path in (folder, *folder.parents):
        if path == Path("/tmp"):  # noqa: S108
            break
        path.chmod(0o755)
    shutil.chown(folder, user)
    subprocess.run(
        [
            "mariadb-install-db",
            f"--user={user}",
            f"--datadir={folder}/data",
            "--skip-test-db",
            "--auth-root-authentication-method=normal",
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    port = free_port()
    flags = [f"--user={user}", f"--datadir={folder}/data", f"--port={port}", "--skip-log-bin"]
    flags += ["--bind-address=127.0.0.1", f"--socket={folder}/s.sock", f"--pid-file={folder}/p.pid"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([MARIADBD, "--no-defaults", *flags], stdout=log, stderr=log)
    deadline = time.monotonic() + 60
    while True:
        try:
            root = pymysql.connect(host="127.0.0.1", port=port, user="root", autocommit=True)
            break
        except pymysql.err.OperationalError:
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
    with root, root.cursor() as cursor:
        cursor.execute("CREATE USER 'ml'@'%' IDENTIFIED BY 'pw-of-ml'")
        cursor.execute("GRANT ALL ON `store_%`.* TO 'ml'@'%'")
    yield port
    process.send_signal(signal.SIGTERM)
    process.wait(30)


@pytest.fixture
def uri(mariadb: int, request: pytest.FixtureRequest) -> str:
    """An empty database."""
    import pymysql

    name = f"store_{time.time_ns()}"
    root = pymysql.connect(host="127.0.0.1", port=mariadb, user="root", autocommit=True)
    with root, root.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    return f"mysql+pymysql://ml:pw-of-ml@127.0.0.1:{mariadb}/{name}"


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
