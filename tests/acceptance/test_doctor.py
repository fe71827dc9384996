"""`doctor`: finds what `serve` would refuse, says what to do about it, changes nothing."""

from __future__ import annotations

import json
import re
import shutil
import socket
import uuid
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import pytest

from tests.standins.network import http_listener, silent_listener
from tests.support.examinations import CHECKS, examine
from tests.support.passwords import PasswordServer
from tests.support.places import Place, snapshot
from tests.support.programs import DESTINATION, STORE, free_port, http, serve
from tests.support.s3 import S3_ANYWHERE, S3Server
from tests.support.stores import OLD_STORE, copy_store, execute, locked, make_head_store

TRACKING_URI = "MLFLOW_TRACKING_URI"
TOKEN = "MLFLOW_TRACKING_TOKEN"

# --- All is well -------------------------------------------------------------------------------


def test_all_is_well_before_the_first_start(place: Place) -> None:
    found = examine(place)
    found.check(0)
    assert "empty" in found.items["schema"]["detail"]


def test_all_is_well_before_the_first_start_with_defaults_only(place: Place) -> None:
    found = examine(place, environment={STORE: "", DESTINATION: ""})
    found.check(0)
    assert list(place.project.iterdir()) == []


@pytest.mark.xdist_group("doctor-sqlite")
@pytest.mark.parametrize(("mode", "shown"), [("delete", "rollback"), ("wal", "wal")])
def test_all_is_well_with_sqlite(place: Place, head_store: Path, mode: str, shown: str) -> None:
    execute(copy_store(head_store, place.store), f"PRAGMA journal_mode = {mode}")
    found = examine(place)
    found.check(0)
    assert found.items["sqlite"]["facts"]["journal_mode"] == shown
    assert found.items["schema"]["facts"]["revision"] == "dc11669786a5"


@pytest.mark.xdist_group("doctor-postgres")
def test_all_is_well_with_postgresql_and_s3(
    place: Place, database: PasswordServer, s3: S3Server, bucket: str
) -> None:
    role = database.new_role("hidden-4711")
    name = database.new_database(role)
    environment = {
        **s3.environment,
        STORE: database.uri(role, "hidden-4711", name),
        DESTINATION: f"s3://{bucket}/artifacts",
    }
    empty = examine(place, environment=environment)
    empty.check(0)
    assert "empty" in empty.items["schema"]["detail"]
    assert database.tables(name) == []
    make_head_store(environment[STORE])
    tables = database.tables(name)
    found = examine(place, environment=environment)
    found.check(0)
    assert found.items["connections"]["facts"]["allowed"] > 0
    assert abs(found.items["clock"]["facts"]["skew_s"]) < 2
    assert s3.content(bucket) == []
    assert database.tables(name) == tables


def test_text_for_people_says_the_same(place: Place) -> None:
    place.store.write_text("This is no database.\n" * 400)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environment = {"MLFLOW_PORT": str(taken.getsockname()[1])}
        ended = place.run("doctor", environment=environment)
    assert ended.returncode == 3
    assert ended.stderr == ""
    lines = ended.stdout.splitlines()
    findings = [line for line in lines if re.match(r"(ok|warn|FAIL|skip) ", line)]
    assert [line.split()[1] for line in findings] == list(CHECKS)
    for index, line in enumerate(lines):
        if line.startswith(("warn", "FAIL")):
            assert lines[index + 1].strip().startswith("fix: ")
    assert f"{len(CHECKS)} checks" in lines[-1]


# --- Beside a running server, and its public address -------------------------------------------


@pytest.mark.xdist_group("doctor-sqlite")
def test_beside_the_running_server(place: Place) -> None:
    """The server's own port is no trouble, and looking does not disturb it."""
    environment = {
        STORE: f"sqlite:///{place.store}",
        DESTINATION: str(place.project / "artifacts"),
        "MLFLOW_WORKERS": "2",
    }
    with serve(place.project, environment=environment) as server:
        found = examine(
            place,
            environment={"MLFLOW_PORT": str(server.port), TRACKING_URI: server.url},
            volatile=["project/store.sqlite", "project/stderr.log"],
        )
        found.check(0)
        assert "answers" in found.items["port"]["detail"]
        assert found.items["tracking-uri"]["status"] == "ok"
        assert found.items["sqlite"]["facts"]["journal_mode"] == "wal"
        assert http(f"{server.url}/readyz").status == 200


class _PublicAddress(BaseHTTPRequestHandler):
    """A tracking server behind something that wants a bearer token."""

    token: ClassVar[str] = "hidden-token-0815"

    def do_GET(self) -> None:
        if self.path.startswith("/broken/"):
            self._reply(500, {"error_code": "INTERNAL_ERROR"})
        elif self.path.startswith("/elsewhere/"):
            self.send_response(302)
            self.send_header("Location", "/login")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.headers.get("Authorization") != f"Bearer {self.token}":
            self._reply(401, {"error_code": "UNAUTHENTICATED"})
        else:
            self._reply(200, {"experiment": {"experiment_id": "0", "name": "Default"}})

    def _reply(self, status: int, document: Mapping[str, object]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture(scope="module")
def public_address() -> Iterator[str]:
    """The address of that stand-in."""
    with http_listener(_PublicAddress) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("slash", ["", "/"])
def test_public_address_takes_the_token(place: Place, public_address: str, slash: str) -> None:
    environment = {TRACKING_URI: public_address + slash, TOKEN: _PublicAddress.token}
    found = examine(place, environment=environment)
    found.check(0)
    assert found.items["tracking-uri"]["status"] == "ok"


def test_token_comes_from_the_secrets_folder_too(place: Place, public_address: str) -> None:
    secrets = place.root / "secrets"
    secrets.mkdir()
    (secrets / TOKEN).write_text(_PublicAddress.token + "\n")
    environment = {"TRACKING_SERVER_SECRETS_DIR": str(secrets)}
    found = examine(place, "--tracking-uri", public_address, environment=environment)
    found.check(0)
    assert found.items["tracking-uri"]["status"] == "ok"


@pytest.mark.parametrize(
    ("path", "token", "words"),
    [
        ("", "hidden-old-token", TOKEN),
        ("", "", TOKEN),
        ("/elsewhere", _PublicAddress.token, TOKEN),
        ("/broken", _PublicAddress.token, "log"),
    ],
    ids=["wrong token", "no token", "a login page", "broken"],
)
def test_public_address_that_does_not_take_the_token_is_3(
    place: Place, public_address: str, path: str, token: str, words: str
) -> None:
    environment = {TRACKING_URI: public_address + path, TOKEN: token}
    found = examine(place, environment=environment)
    found.check(3, "tracking-uri")
    assert words in found.items["tracking-uri"]["fix"]


def test_public_address_that_is_not_there_is_69(place: Place) -> None:
    environment = {TRACKING_URI: f"http://127.0.0.1:{free_port()}", TOKEN: "hidden"}
    examine(place, environment=environment).check(69, "tracking-uri")


def test_public_address_with_a_password_in_it_is_not_shown(place: Place) -> None:
    environment = {TRACKING_URI: f"http://ada:hidden@127.0.0.1:{free_port()}"}
    examine(place, environment=environment).check(69, "tracking-uri")


# --- Stores ------------------------------------------------------------------------------------


def test_wrong_settings_end_it_with_78(place: Place) -> None:
    before = snapshot(place.root)
    environment = {STORE: "oracle://ada:hidden@db/mlflow", "MLFLOW_PORT": "70000"}
    ended = place.run("doctor", "--json", environment=environment)
    assert ended.returncode == 78
    document = json.loads(ended.stdout)
    assert document["exit_code"] == 78
    assert document["error"]["message"].count("\n") == 1
    assert ended.stderr.count("Error: ") == 2
    assert "hidden" not in ended.stdout + ended.stderr
    assert snapshot(place.root) == before


@pytest.mark.parametrize("setting", [STORE, "MLFLOW_REGISTRY_STORE_URI"])
def test_missing_driver_is_78_with_the_pip_command(place: Place, setting: str) -> None:
    found = examine(place, environment={setting: "mssql+pymssql://ada:hidden@db/mlflow"})
    assert found.code == 78
    assert "pip install 'pymssql'" in found.items["driver"]["fix"]
    assert setting in found.items["driver"]["detail"]


def test_text_instead_of_a_sqlite_file_is_3(place: Place) -> None:
    place.store.write_text("This is no database.\n" * 400)
    found = examine(place)
    found.check(3, "schema")


@pytest.mark.xdist_group("doctor-sqlite")
def test_truncated_sqlite_file_is_3(place: Place, head_store: Path) -> None:
    place.store.write_bytes(head_store.read_bytes()[:10_000])
    found = examine(place)
    found.check(3, "schema")


def test_folder_instead_of_a_sqlite_file_is_no_success(place: Place) -> None:
    place.store.mkdir()
    found = examine(place)
    assert found.code in (3, 78)
    found.check(found.code, "schema")
    assert "folder" in found.items["schema"]["detail"]


@pytest.mark.xdist_group("doctor-sqlite")
def test_locked_sqlite_file_is_3(place: Place, head_store: Path) -> None:
    copy_store(head_store, place.store)
    with locked(place.store, "BEGIN EXCLUSIVE"):
        found = examine(place)
    found.check(3, "schema")


@pytest.mark.xdist_group("doctor-sqlite")
@pytest.mark.parametrize("protected", ["file", "folder"])
def test_sqlite_that_serve_could_not_write_is_3(
    common_place: Place, head_store: Path, protected: str
) -> None:
    folder = common_place.project / "store"
    folder.mkdir()
    path = copy_store(head_store, folder / "mlflow.sqlite")
    if protected == "file":
        path.chmod(0o444)
    else:
        folder.chmod(0o555)
    found = examine(common_place, environment={STORE: f"sqlite:///{path}"})
    assert found.code == 3
    assert found.troubles <= {"schema", "sqlite"}
    assert any("writ" in found.items[name]["detail"] for name in found.troubles)
    found.check(3, *found.troubles)


def test_sqlite_that_could_not_be_made_is_3(common_place: Place) -> None:
    folder = common_place.project / "store"
    folder.mkdir()
    folder.chmod(0o555)
    found = examine(common_place, environment={STORE: f"sqlite:///{folder}/mlflow.sqlite"})
    assert found.code == 3
    found.check(3, *found.troubles)


def test_tables_of_another_application_are_3(place: Place) -> None:
    execute(place.store, "CREATE TABLE invoices (id INTEGER)")
    examine(place).check(3, "schema")


@pytest.mark.xdist_group("doctor-sqlite")
def test_newer_schema_is_3(place: Place, head_store: Path) -> None:
    copy_store(head_store, place.store)
    execute(place.store, "UPDATE alembic_version SET version_num = 'feedfacecafe'")
    found = examine(place)
    found.check(3, "schema")
    assert "upgrade" not in found.items["schema"]["fix"]


def test_old_registry_is_3(place: Place) -> None:
    registry = copy_store(OLD_STORE, place.project / "registry.sqlite")
    found = examine(place, environment={"MLFLOW_REGISTRY_STORE_URI": f"sqlite:///{registry}"})
    found.check(3, "schema")
    assert "registry.sqlite" in found.items["schema"]["detail"]


DATABASE = ("schema", "clock", "connections")


@pytest.mark.xdist_group("doctor-postgres")
def test_wrong_password_is_3(place: Place, database: PasswordServer) -> None:
    role = database.new_role("right-4711")
    environment = {STORE: database.uri(role, "hidden-wrong", "postgres")}
    examine(place, environment=environment).check(3, *DATABASE)


@pytest.mark.xdist_group("doctor-postgres")
def test_missing_database_is_69(place: Place, database: PasswordServer) -> None:
    role = database.new_role("hidden-4711")
    environment = {STORE: database.uri(role, "hidden-4711", "not_there")}
    examine(place, environment=environment).check(69, *DATABASE)


@pytest.mark.xdist_group("doctor-postgres")
def test_more_connections_than_the_database_allows_is_3(
    place: Place, database: PasswordServer
) -> None:
    role = database.new_role("hidden-4711")
    name = database.new_database(role)
    environment = {STORE: database.uri(role, "hidden-4711", name), "MLFLOW_WORKERS": "64"}
    found = examine(place, environment=environment)
    found.check(3, "connections")
    assert found.items["connections"]["facts"]["needed"] > 100


def test_refused_port_of_the_database_is_69(place: Place) -> None:
    uri = f"postgresql://ada:hidden@127.0.0.1:{free_port()}/mlflow"
    examine(place, environment={STORE: uri}).check(69, *DATABASE)


def test_unknown_host_of_the_database_is_69(place: Place) -> None:
    uri = "postgresql://ada:hidden@no-such-host.invalid/mlflow"
    examine(place, environment={STORE: uri}).check(69, *DATABASE)


# --- Destinations ------------------------------------------------------------------------------


def test_destination_that_is_a_file_is_78(place: Place) -> None:
    (place.project / "artifacts").write_text("precious")
    examine(place).check(78, "artifacts")


def test_unwritable_destination_is_3(common_place: Place) -> None:
    path = common_place.project / "artifacts"
    path.mkdir()
    path.chmod(0o555)
    examine(common_place).check(3, "artifacts")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, 3),
        ({"AWS_SECRET_ACCESS_KEY": "hidden-and-wrong"}, 3),
        ({DESTINATION: f"s3://missing-{uuid.uuid4().hex}/artifacts"}, 69),
    ],
    ids=["no credentials", "wrong secret", "missing bucket"],
)
@pytest.mark.xdist_group("doctor-postgres")
def test_s3_that_does_not_let_us_in(
    place: Place, s3: S3Server, bucket: str, change: Mapping[str, str], code: int
) -> None:
    environment = {**s3.environment, DESTINATION: f"s3://{bucket}/artifacts", **change}
    examine(place, environment=environment).check(code, "artifacts")
    assert s3.content(bucket) == []


def test_refused_port_of_the_s3_endpoint_is_69(place: Place) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    environment = {**S3_ANYWHERE, "MLFLOW_S3_ENDPOINT_URL": endpoint}
    examine(place, environment=environment).check(69, "artifacts")


# --- The server's own address ------------------------------------------------------------------


def test_port_of_another_program_is_3(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environment = {"MLFLOW_PORT": str(taken.getsockname()[1])}
        examine(place, environment=environment).check(3, "port")


def test_address_of_another_machine_is_3(place: Place) -> None:
    examine(place, "--host", "192.0.2.1").check(3, "port")


def test_server_for_all_without_a_public_name_is_3(place: Place) -> None:
    found = examine(place, "--host", "0.0.0.0")  # noqa: S104
    found.check(3, "allowed-hosts")
    assert "TRACKING_SERVER_PUBLIC_URL" in found.items["allowed-hosts"]["fix"]
    environment = {"TRACKING_SERVER_PUBLIC_URL": "https://mlflow.example.com"}
    named = examine(place, "--host", "0.0.0.0", environment=environment)  # noqa: S104
    named.check(0)
    assert "mlflow.example.com" in named.items["allowed-hosts"]["detail"]


# --- Nothing answers ---------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "postgresql+psycopg2", "mysql+pymysql"])
def test_ends_in_time_when_nothing_answers(place: Place, scheme: str) -> None:
    with silent_listener() as port:
        store = f"{scheme}://ada:hidden@127.0.0.1:{port}"
        environment = {
            **S3_ANYWHERE,
            STORE: f"{store}/mlflow",
            "MLFLOW_REGISTRY_STORE_URI": f"{store}/registry",
            "MLFLOW_READ_REPLICA_BACKEND_STORE_URI": f"{store}/replica",
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            TRACKING_URI: f"http://127.0.0.1:{port}",
            TOKEN: "hidden-token",
            "MLFLOW_PORT": str(port),
        }
        found = examine(place, environment=environment, attempts=1)
    found.check(69, *DATABASE, "artifacts", "port", "tracking-uri")


def test_copy_of_the_store_is_not_needed(place: Place) -> None:
    """Looking twice gives the same answer: the first look left nothing that the second finds."""
    shutil.copyfile(OLD_STORE, place.store)
    first, second = examine(place), examine(place)
    first.check(3, "schema")
    assert first.items["schema"] == second.items["schema"]
