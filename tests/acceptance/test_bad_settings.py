"""Bad settings, secrets, drivers and ports: `serve` gets one or two
lines that say what to do, the documented exit code, and leaves everything as it was."""

from __future__ import annotations

import importlib
import re
import socket
from pathlib import Path

import pytest

from tests.support.destinations import serve_without
from tests.support.places import Place
from tests.support.programs import DESTINATION, STORE, http, serve
from tests.support.refusals import parse_refusal, refusal

# --- Settings ----------------------------------------------------------------------------------

# What is wrong -> setting, value, words that the answer must hold.
BAD_SETTINGS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "unknown scheme": (STORE, "oracle://ada:hidden@db/mlflow", ("oracle", "postgresql://")),
    "unknown driver": (STORE, "postgresql+asyncpq://ada:hidden@db/mlflow", ("asyncpq", "psycopg")),
    "old name of the scheme": (STORE, "postgres://ada:hidden@db/mlflow", ("postgresql://",)),
    "no URI": (STORE, "mlflow", ("sqlite:///",)),
    "a folder as store": (STORE, "/srv/mlruns", ("sqlite:///",)),
    "nothing but punctuation": (STORE, "://", ("sqlite:///",)),
    "@ in the password": (STORE, "postgresql://ada:hid@den@db/mlflow", ("percent",)),
    "port of words": (STORE, "postgresql://ada:hidden@db:five/mlflow", ("port",)),
    "port of the database too large": (STORE, "postgresql://ada:hidden@db:70000/mlflow", ("port",)),
    "open bracket": (STORE, "postgresql://ada:hidden@[::1/mlflow", ("URI",)),
    "no database": (STORE, "postgresql://ada:hidden@db", ("database",)),
    "two slashes": (STORE, "sqlite://mlflow.db", ("three slashes",)),
    "in memory": (STORE, "sqlite://", ("in-memory",)),
    "bad registry": ("MLFLOW_REGISTRY_STORE_URI", "oracle://ada:hidden@db/m", ("oracle",)),
    "bad replica": ("MLFLOW_READ_REPLICA_BACKEND_STORE_URI", "db", ("sqlite:///",)),
    "unknown scheme of artifacts": (DESTINATION, "s4://bucket/prefix", ("s4", "s3://BUCKET")),
    "no bucket": (DESTINATION, "s3:///prefix", ("s3://BUCKET",)),
    "a file of another host": (DESTINATION, "file://host/srv/artifacts", ("file:///",)),
    "malformed destination": (DESTINATION, "s3://[bucket/prefix", ("URI",)),
    "port 70000": ("MLFLOW_PORT", "70000", ("65535",)),
    "port 0": ("MLFLOW_PORT", "0", ("1",)),
    "port of letters": ("MLFLOW_PORT", "http", ("number",)),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_bad_setting_in_the_environment_is_78(place: Place, name: str) -> None:
    setting, value, words = BAD_SETTINGS[name]
    found = refusal(place, environment={setting: value}, plain=name == "unknown scheme")
    assert found.code == 78
    assert len(found.errors) == 1
    assert f"{setting} (environment)" in found.errors[0]
    for word in words:
        assert word in found.text
    assert "hidden" not in found.text


@pytest.mark.parametrize(
    "name", ["unknown scheme", "port of words", "port 70000", "port 0", "no bucket"]
)
def test_bad_option_is_2(place: Place, name: str) -> None:
    setting, value, words = BAD_SETTINGS[name]
    option = {
        STORE: "--backend-store-uri",
        DESTINATION: "--artifacts-destination",
        "MLFLOW_PORT": "--port",
    }[setting]
    found = refusal(place, option, value, plain=name == "unknown scheme")
    assert found.code == 2
    assert option in found.errors[0]
    for word in words:
        assert word in found.text
    assert "hidden" not in found.text


def test_bad_value_in_a_secret_is_78_and_names_the_secret(place: Place) -> None:
    secrets = place.root / "secrets"
    secrets.mkdir()
    (secrets / "MLFLOW_PORT").write_text("70000\n")
    found = refusal(
        place, environment={"MLFLOW_PORT": "", "TRACKING_SERVER_SECRETS_DIR": str(secrets)}
    )
    assert found.code == 78
    assert "MLFLOW_PORT (secret)" in found.text


def test_project_file_that_is_no_yaml_is_78(place: Place) -> None:
    (place.project / "anaconda-project.yml").write_text("variables: [unclosed")
    found = refusal(place)
    assert found.code == 78
    assert "anaconda-project.yml" in found.text


def test_all_problems_are_told_at_once(place: Place) -> None:
    secrets = place.root / "secrets"
    secrets.mkdir()
    (secrets / "MLFLOW_REGISTRY_STORE_URI").write_bytes(b"postgresql://\xff")
    environment = {
        STORE: "oracle://ada:hidden@db/mlflow",
        DESTINATION: "s4://bucket",
        "MLFLOW_WORKERS": "0",
        "TRACKING_SERVER_SECRETS_DIR": str(secrets),
    }
    found = refusal(place, "--port", "70000", environment=environment)
    assert found.code == 78
    names = (STORE, DESTINATION, "MLFLOW_WORKERS", "MLFLOW_REGISTRY_STORE_URI", "--port")
    for name in names:
        assert sum(name in line for line in found.errors) == 1, found.errors
    assert len(found.errors) == len(names)


def test_several_bad_options_alone_are_2(place: Place) -> None:
    found = refusal(place, "--port", "70000", "--workers", "0", "--backend-store-uri", "mlflow")
    assert found.code == 2
    assert len(found.errors) == 3


# --- Drivers -----------------------------------------------------------------------------------


def can_import(name: str) -> bool:
    """Whether a module is there and everything it needs as well."""
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


# Not installed with the tests, each with what pip must install.
MISSING_DRIVERS = {
    "postgresql+pg8000://ada:hidden@db/mlflow": "pg8000",
    "mysql+mysqldb://ada:hidden@db/mlflow": "mysqlclient",
    "mysql+mysqlconnector://ada:hidden@db/mlflow": "mysql-connector-python",
    "mssql+pymssql://ada:hidden@db/mlflow": "pymssql",
}


@pytest.mark.parametrize("uri", MISSING_DRIVERS, ids=lambda uri: uri.partition(":")[0])
def test_missing_driver_is_78_with_the_pip_command(place: Place, uri: str) -> None:
    found = refusal(place, environment={STORE: uri}, plain="pymssql" in uri)
    assert found.code == 78
    assert len(found.errors) == 1
    assert f"pip install '{MISSING_DRIVERS[uri]}'" in found.text
    assert "hidden" not in found.text


@pytest.mark.parametrize(
    "setting", ["MLFLOW_REGISTRY_STORE_URI", "MLFLOW_READ_REPLICA_BACKEND_STORE_URI"]
)
def test_missing_driver_of_another_store_names_its_setting(place: Place, setting: str) -> None:
    found = refusal(place, environment={setting: "mssql+pymssql://ada:hidden@db/mlflow"})
    assert found.code == 78
    assert setting in found.text
    assert STORE not in found.text


def test_driver_whose_library_is_missing_is_78(place: Place) -> None:
    """pyodbc may be installed without unixODBC below it: then importing it fails."""
    uri = "mssql+pyodbc://ada:hidden@127.0.0.1:1/mlflow?driver=ODBC+Driver+18+for+SQL+Server"
    if can_import("pyodbc"):
        pytest.skip("pyodbc and its library are both installed here")
    found = refusal(place, environment={STORE: uri})
    assert found.code == 78
    assert "pyodbc" in found.text
    assert "hidden" not in found.text


@pytest.mark.parametrize(
    ("uri", "module", "extra"),
    [
        ("s3://bucket/prefix", "boto3", "s3"),
        ("gs://bucket/prefix", "google.cloud.storage", "gcs"),
        ("wasbs://box@account.blob.core.windows.net/prefix", "azure.storage.blob", "azure"),
        ("abfss://box@account.dfs.core.windows.net/prefix", "azure.storage.filedatalake", "azure"),
        ("abfss://box@account.dfs.core.windows.net/prefix", "azure.identity", "azure"),
    ],
)
def test_missing_library_of_an_object_store_is_78_with_the_pip_command(
    place: Place, uri: str, module: str, extra: str
) -> None:
    ended = serve_without(module, place, {DESTINATION: uri})
    errors, hints = parse_refusal(ended)
    assert ended.returncode == 78
    assert errors == [f"{DESTINATION}: {uri} needs the package {module}, which is not installed"]
    assert hints == [f"pip install 'mlflow-tracking-server[{extra}]'"]


# --- Secrets -----------------------------------------------------------------------------------


@pytest.fixture
def secrets(place: Place) -> Path:
    """An empty secrets folder."""
    folder = place.root / "secrets"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"postgresql://ada:\xff\xfe@db/mlflow", "UTF-8"),
        (b"postgresql://ada:hid\0den@db/mlflow", "NUL"),
        ("postgresql://ada:hidden@db/mlflow".encode("utf-16"), ""),
        (b"x" * (1024 * 1024 + 1), "1 MiB"),
    ],
    ids=["not UTF-8", "NUL", "UTF-16", "too long"],
)
def test_secret_that_is_no_text_is_78_and_names_the_file(
    place: Place, secrets: Path, content: bytes, words: str
) -> None:
    (secrets / STORE).write_bytes(content)
    found = refusal(place, environment={STORE: "", "TRACKING_SERVER_SECRETS_DIR": str(secrets)})
    assert found.code == 78
    assert len(found.errors) == 1
    assert str(secrets / STORE) in found.errors[0]
    assert words in found.errors[0]
    assert "hidden" not in found.text


def test_credential_that_is_no_text_is_78(place: Place, secrets: Path) -> None:
    (secrets / "AWS_SECRET_ACCESS_KEY").write_bytes(b"abc\0def")
    found = refusal(place, environment={"TRACKING_SERVER_SECRETS_DIR": str(secrets)})
    assert found.code == 78
    assert "AWS_SECRET_ACCESS_KEY" in found.errors[0]


def test_unreadable_secret_is_78(common_place: Place) -> None:
    folder = common_place.root / "secrets"
    folder.mkdir()
    (folder / STORE).write_text("postgresql://ada:hidden@db/mlflow")
    (folder / STORE).chmod(0)
    environment = {STORE: "", "TRACKING_SERVER_SECRETS_DIR": str(folder)}
    found = refusal(common_place, environment=environment)
    assert found.code == 78
    assert len(found.errors) == 1
    assert str(folder / STORE) in found.errors[0]


def test_unreadable_secrets_folder_is_78(common_place: Place) -> None:
    folder = common_place.root / "secrets"
    folder.mkdir()
    folder.chmod(0)
    found = refusal(common_place, environment={"TRACKING_SERVER_SECRETS_DIR": str(folder)})
    assert found.code == 78
    assert str(folder) in found.errors[0]


# --- The port ----------------------------------------------------------------------------------


def test_port_in_use_is_69(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        found = refusal(place, "--port", port)
    assert found.code == 69
    assert port in found.errors[0]
    assert "--port" in found.text


def test_port_in_use_on_all_addresses_is_69(place: Place) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:  # noqa: S104
        found = refusal(place, "--port", str(taken.getsockname()[1]))
    assert found.code == 69


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "256.1.1.1", "2001:db8::1"])
def test_host_of_another_machine_is_69(place: Place, host: str) -> None:
    found = refusal(place, "--host", host, plain=host == "192.0.2.1")
    assert found.code == 69
    assert host in found.errors[0]
    assert "--host" in found.errors[0]


def test_port_that_needs_more_rights_is_77(common_place: Place) -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if lowest <= 81:
        pytest.skip("everybody may use every port here")
    found = refusal(common_place, "--port", "81")
    assert found.code == 77
    assert "81" in found.errors[0]


# --- What looks bad and is good ----------------------------------------------------------------


def test_empty_file_and_odd_secrets_are_no_reason_to_refuse(place: Place, secrets: Path) -> None:
    """An empty SQLite file is initialised; a secret's last newline does not count; PATH is none of
    ours, nor is a secret of another application that is no text; hidden files are left alone.
    """
    place.store.touch(mode=0o640)
    (secrets / STORE).write_text(f"sqlite:///{place.store}\n")
    (secrets / DESTINATION).write_text(f"{place.project}/artifacts\r\n")
    (secrets / "PATH").write_text("/nowhere")
    (secrets / "LD_PRELOAD").write_text("/nowhere.so")
    (secrets / "PYTHONPATH").write_text("/nowhere")
    (secrets / "certificate-of-others").write_bytes(b"\xff\0\xfe")
    (secrets / "..data").mkdir()
    (secrets / ".MLFLOW_PORT").write_text("70000")
    (secrets / "TRACKING_SERVER_SECRETS_DIR").write_text("/nowhere")
    environment = {"TRACKING_SERVER_SECRETS_DIR": str(secrets)}
    with serve(place.project, environment=environment) as server:
        answer = http(f"{server.url}/api/2.0/mlflow/experiments/get?experiment_id=0")
        assert answer.status == 200
        path = Path(f"/proc/{server.process.pid}/environ").read_bytes()
        assert b"PATH=/nowhere" not in path
        children = {
            variable
            for pid in server.pids()
            for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        }
        assert not any(b"/nowhere" in variable for variable in children)
        assert server.stop() == 0
    assert place.store.stat().st_mode & 0o777 == 0o640
    assert (place.project / "artifacts").is_dir()
    assert not re.search("Traceback|ERROR", server.log)
