"""The folder of secrets: which files are read, and how."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlflow_server.errors import ExitCode, SettingsError
from mlflow_server.settings.load import Source
from tests.unit.making import load, write_secrets

SECRET = "S3cr3tMarker"


def kubernetes_mount(folder: Path, secrets: dict[str, str]) -> Path:
    """The layout of a mounted Secret: names are links into `..data`, itself a link to a version."""
    version = folder / "..2026_11_21_05_00_00.123456789"
    write_secrets(version, secrets)
    (folder / "..data").symlink_to(version.name)
    for name in secrets:
        (folder / name).symlink_to(Path("..data") / name)
    return folder


def test_reads_settings_from_files(tmp_path: Path) -> None:
    loaded = load(tmp_path, secrets={"MLFLOW_BACKEND_STORE_URI": "postgresql://u:pw@db/x\n"})
    assert loaded.source_of("MLFLOW_BACKEND_STORE_URI") is Source.SECRET
    uri = loaded.settings.store.backend_store_uri.get_secret_value()
    assert uri == "postgresql://u:pw@db/x"


def test_reads_the_layout_that_kubernetes_mounts(tmp_path: Path) -> None:
    folder = kubernetes_mount(tmp_path / "mounted", {"MLFLOW_PORT": "7000", "AWS_PROFILE": "ops"})
    loaded = load(tmp_path, environ={"TRACKING_SERVER_SECRETS_DIR": str(folder)})
    assert loaded.settings.server.port == 7_000
    assert dict(loaded.credentials) == {"AWS_PROFILE": "ops"}


def test_sees_a_new_version_of_the_mount(tmp_path: Path) -> None:
    folder = kubernetes_mount(tmp_path / "mounted", {"MLFLOW_PORT": "7000"})
    write_secrets(folder / "..new", {"MLFLOW_PORT": "7001"})
    (folder / "..data_tmp").symlink_to("..new")
    (folder / "..data_tmp").rename(folder / "..data")
    loaded = load(tmp_path, environ={"TRACKING_SERVER_SECRETS_DIR": str(folder)})
    assert loaded.settings.server.port == 7_001


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "PYTHONPATH",
        "LD_PRELOAD",
        "HOME",
        "PROJECT_DIR",
        "BASH_ENV",
        "mlflow_port",
        "_MLFLOW_SERVER_FILE_STORE",
        "PROMETHEUS_MULTIPROC_DIR",
        "MLFLOW PORT",
        "a.txt",
        "GIT_DIR",
    ],
)
def test_secrets_of_other_names_change_nothing(tmp_path: Path, name: str) -> None:
    loaded = load(tmp_path, secrets={name: "/nowhere"})
    assert loaded.credentials == {}
    assert Source.SECRET not in loaded.sources.values()


@pytest.mark.parametrize("name", [".MLFLOW_PORT", "..MLFLOW_PORT", ".AWS_PROFILE"])
def test_hidden_files_are_left_alone(tmp_path: Path, name: str) -> None:
    loaded = load(tmp_path, secrets={name: b"\xff\0"})
    assert loaded.credentials == {}
    assert loaded.settings.server.port == 5_000


def test_hidden_files_are_left_alone_even_when_asked_for(tmp_path: Path) -> None:
    """`..data` and its like are the platform's."""
    environ = {"TRACKING_SERVER_EXTRA_SECRETS": ".MY_KEY"}
    assert load(tmp_path, environ=environ, secrets={".MY_KEY": "x"}).credentials == {}


def test_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "secrets/MLFLOW_PORT").mkdir(parents=True)
    assert load(tmp_path).settings.server.port == 5_000


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    """A pipe would be read for ever."""
    (tmp_path / "secrets").mkdir()
    os.mkfifo(tmp_path / "secrets/MLFLOW_PORT")
    assert load(tmp_path).settings.server.port == 5_000


@pytest.mark.parametrize(
    "name",
    [
        "AWS_SECRET_ACCESS_KEY",
        "AZURE_STORAGE_CONNECTION_STRING",
        "PGPASSWORD",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_FILE",
        "HTTPS_PROXY",
        "https_proxy",
        "NO_PROXY",
        "MLFLOW_S3_ENDPOINT_URL",
        "MLFLOW_TRACKING_PASSWORD",
    ],
)
def test_reads_credentials_of_the_libraries_underneath(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, secrets={name: "value-of-it\n"}).credentials == {name: "value-of-it"}


def test_the_operators_environment_beats_a_librarys_credential(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        environ={"AWS_ACCESS_KEY_ID": "operators"},
        secrets={"AWS_ACCESS_KEY_ID": "mounted", "AWS_REGION": "eu-1"},
    )
    assert loaded.credentials == {"AWS_REGION": "eu-1"}


@pytest.mark.parametrize("names", ["MY_CA, OTHER", "MY_CA OTHER", "MY_CA"])
def test_further_names_are_read_when_asked_for(tmp_path: Path, names: str) -> None:
    loaded = load(
        tmp_path,
        environ={"TRACKING_SERVER_EXTRA_SECRETS": names},
        secrets={"MY_CA": "x", "OTHERS": "y", "PATH": "/nowhere"},
    )
    assert loaded.credentials == {"MY_CA": "x"}


@pytest.mark.parametrize("name", ["TRACKING_SERVER_SECRETS_DIR", "TRACKING_SERVER_EXTRA_SECRETS"])
def test_the_folder_does_not_say_where_it_is_or_what_else_to_read(
    tmp_path: Path, name: str
) -> None:
    loaded = load(tmp_path, secrets={name: "PATH", "PATH": "/nowhere"})
    assert loaded.sources[name] is not Source.SECRET
    assert loaded.credentials == {}


def test_the_project_file_may_name_the_folder(tmp_path: Path) -> None:
    from mlflow_server.settings.load import load_settings
    from tests.unit.making import write_project

    folder = write_secrets(tmp_path / "mounted", {"MLFLOW_PORT": "7000"})
    write_project(tmp_path, {"TRACKING_SERVER_SECRETS_DIR": str(folder)})
    assert load_settings(environ={}, project_dir=tmp_path).settings.server.port == 7_000


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_no_folder_is_fine(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.write_text("x", "utf-8")
    loaded = load(tmp_path, environ={"TRACKING_SERVER_SECRETS_DIR": str(place)})
    assert loaded.credentials == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (SECRET.encode() + b"\xff", "is not UTF-8 text; write plain text"),
        (b"\xff\xfe" + SECRET.encode("utf-16-le"), "NUL byte"),
        (SECRET.encode() + b"\0", "holds a NUL byte; write plain text"),
        (SECRET.encode() * 100_000, "is longer than 1 MiB"),
    ],
)
@pytest.mark.parametrize("name", ["MLFLOW_BACKEND_STORE_URI", "AWS_SECRET_ACCESS_KEY"])
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, secrets={name: content})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{name} (secret): ")
    assert str(tmp_path / "secrets" / name) in problem
    assert words in problem
    assert SECRET not in problem
    assert caught.value.exit_code is ExitCode.SETTINGS


@pytest.mark.parametrize("name", ["PATH", ".hidden", "something"])
def test_a_file_that_nobody_asked_for_may_hold_anything(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, secrets={name: b"\xff\0"}).credentials == {}


def test_a_secret_that_cannot_be_used_is_told_with_all_other_problems(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(
            tmp_path,
            environ={"MLFLOW_PORT": "0"},
            secrets={"AWS_SESSION_TOKEN": b"\0", "AWS_SECRET_ACCESS_KEY": b"\xff"},
        )
    assert len(caught.value.problems) == 3


def test_a_link_to_nowhere_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/MLFLOW_PORT").symlink_to("gone")
    assert load(tmp_path).settings.server.port == 5_000


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A file that even root cannot read: the memory of this process, at address 0."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/MLFLOW_PORT").symlink_to("/proc/self/mem")
    with pytest.raises(SettingsError, match=r"^MLFLOW_PORT \(secret\): cannot read"):
        load(tmp_path)


# Which texts must never be shown


@pytest.mark.parametrize(
    "secrets",
    [
        {"MLFLOW_TRACKING_TOKEN": SECRET},
        {"MLFLOW_BACKEND_STORE_URI": f"postgresql://u:{SECRET}@db/x"},
        {"MLFLOW_BACKEND_STORE_URI": f"postgresql://db/x?password={SECRET}"},
        {"AWS_SECRET_ACCESS_KEY": SECRET},
        {"AWS_ACCESS_KEY_ID": SECRET},
        {"HTTPS_PROXY": f"http://u:{SECRET}@proxy:3128"},
        {"PGPASSWORD": SECRET},
        {"AZURE_STORAGE_ACCESS_KEY": SECRET},
    ],
)
def test_knows_the_secrets_of_the_folder(tmp_path: Path, secrets: dict[str, str]) -> None:
    assert SECRET in load(tmp_path, secrets=secrets).secret_values


@pytest.mark.parametrize(
    "environ",
    [
        {"MLFLOW_TRACKING_TOKEN": SECRET},
        {"MLFLOW_BACKEND_STORE_URI": f"postgresql://u:{SECRET}@db/x"},
        {"MLFLOW_ARTIFACTS_DESTINATION": f"sftp://u:{SECRET}@host/x"},
        {"AWS_SECRET_ACCESS_KEY": SECRET},
        {"AWS_SESSION_TOKEN": SECRET},
        {"HTTP_PROXY": f"http://u:{SECRET}@proxy:3128"},
        {"PGPASSWORD": SECRET},
        {"MLFLOW_TRACKING_PASSWORD": SECRET},
        {"MLFLOW_FLASK_SERVER_SECRET_KEY": SECRET},
        {"TRACKING_SERVER_EXTRA_SECRETS": "MY_KEY", "MY_KEY": SECRET},
    ],
)
def test_knows_the_secrets_of_the_environment(tmp_path: Path, environ: dict[str, str]) -> None:
    assert SECRET in load(tmp_path, environ=environ).secret_values


def test_knows_both_forms_of_a_password_in_a_uri(tmp_path: Path) -> None:
    uri = "postgresql://u:p%40ss%2Fword@db/x"
    hidden = load(tmp_path, environ={"MLFLOW_BACKEND_STORE_URI": uri}).secret_values
    assert {"p%40ss%2Fword", "p@ss/word"} <= hidden


@pytest.mark.parametrize(
    "environ",
    [
        {"MLFLOW_LOGGING_LEVEL": "WARNING"},
        {"PGAPPNAME": "mlflow"},
        {"PGUSER": "mlflow"},
        {"MLFLOW_TRACKING_USERNAME": "mlflow"},
        {"AWS_DEFAULT_REGION": "eu-central-1"},
        {"AWS_REGION": "eu-central-1"},
        {"AWS_CONFIG_FILE": "/root/.aws/config"},
        {"MLFLOW_S3_ENDPOINT_URL": "http://storage:9000"},
        {"MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "enabled"},
        {"MLFLOW_HTTP_REQUEST_TIMEOUT": "120000"},
        {"AWS_MAX_ATTEMPTS": "1000000"},
        {"GOOGLE_CLOUD_PROJECT": "mlflow-prod"},
        {"AZURE_TENANT_ID": "00000000-0000-0000-0000-000000000000"},
        {"NO_PROXY": "localhost,127.0.0.1"},
    ],
)
def test_what_is_no_secret_stays_readable(tmp_path: Path, environ: dict[str, str]) -> None:
    """Masked everywhere, `WARNING` or `mlflow` would make every log line unreadable."""
    (value,) = environ.values()
    assert value not in load(tmp_path, environ=environ).secret_values
