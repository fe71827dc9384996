"""Planted secrets appear nowhere: not in output, logs, answers, command lines or files.

Every secret here holds a word of its own that occurs nowhere else. Looking for the word finds the
secret as written, percent-encoded, and cut into pieces.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
import urllib.error
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote, urlsplit

import pytest

from tests.standins.network import Relay, http_listener
from tests.support.passwords import PasswordServer
from tests.support.places import Place
from tests.support.programs import DESTINATION, STORE, Server, free_port, http, serve
from tests.support.s3 import S3Server
from tests.support.stores import OLD_STORE, copy_store

REGISTRY = "MLFLOW_REGISTRY_STORE_URI"
REPLICA = "MLFLOW_READ_REPLICA_BACKEND_STORE_URI"
GROUP = pytest.mark.xdist_group("secrets")
API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


def new_word() -> str:
    """A word that occurs nowhere else."""
    return f"planted{uuid.uuid4().hex[:16]}"


def with_specials(word: str) -> str:
    """A password that must be percent-encoded in a URI."""
    return f"{word}@/:?#%& {word}"


# --- Whatever a server with secrets lets out ---------------------------------------------------


@dataclass
class Harvest:
    """Everything that came out of one server, by where it came from.

    Args:
        words: The planted words, by what they were planted in.
        texts: What came out, by place.
        statuses: Statuses of the answers, by place.
    """

    words: Mapping[str, str]
    texts: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)

    def leaks(self, secret: str) -> list[str]:
        """The places that hold a secret."""
        word = self.words[secret]
        return [place for place, text in self.texts.items() if word in text]

    def ask(self, server: Server, stage: str, requests: Sequence[tuple[str, str, bytes]]) -> None:
        """Send requests and keep the answers, headers included."""
        for method, path, body in requests:
            name = f"{stage}: {method} {path}"
            try:
                answer = http(f"{server.url}{path}", method=method, body=body or None, timeout=40)
            except urllib.error.URLError as err:
                self.texts[name] = repr(err)
                continue
            self.texts[name] = f"{answer.headers}\n{answer.body.decode('utf-8', 'replace')}"
            self.statuses[name] = answer.status


class CommandLines:
    """Collects the command line of every process of this machine, time and again."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> CommandLines:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    with contextlib.suppress(OSError):
                        text = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
                        self.found.add(text)


def files_with(word: str, folder: Path) -> list[str]:
    """The files below a folder that hold a word."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and word.encode() in path.read_bytes()
    ]


HEALTHY: Sequence[tuple[str, str, bytes]] = (
    ("GET", "/readyz", b""),
    ("GET", "/livez", b""),
    ("GET", "/health", b""),
    ("GET", "/version", b""),
    ("GET", "/metrics", b""),
    ("GET", "/ajax-api/3.0/mlflow/server-info", b""),
    ("GET", f"{API}/experiments/get?experiment_id=0", b""),
    ("GET", f"{API}/experiments/get?experiment_id=999", b""),
    ("GET", f"{API}/experiments/get?experiment_id=no%27number", b""),
    ("POST", f"{API}/runs/create", b"{no json"),
    ("POST", f"{API}/runs/search", b'{"experiment_ids": ["0"], "filter": "params.a =="}'),
    ("GET", "/api/2.0/mlflow/registered-models/get?name=none", b""),
    ("GET", "/get-artifact?path=a&run_uuid=none", b""),
    ("GET", f"{ARTIFACTS}/not/there", b""),
    ("GET", f"{ARTIFACTS}/../../../etc/passwd", b""),
    ("GET", f"{ARTIFACTS}/%2e%2e/%2e%2e/etc/passwd", b""),
    ("PUT", f"{ARTIFACTS}/%2e%2e/x", b"x"),
    ("PUT", f"{ARTIFACTS}/a/b", b"x"),
    ("DELETE", f"{ARTIFACTS}/not/there", b""),
    ("POST", "/graphql", b"{"),
    ("GET", "/nothing/here", b""),
)
DATABASE_REQUESTS: Sequence[tuple[str, str, bytes]] = (
    ("GET", f"{API}/experiments/get?experiment_id=0", b""),
    ("POST", f"{API}/experiments/search", b'{"max_results": 10}'),
    ("POST", f"{API}/runs/create", b'{"experiment_id": "0"}'),
    ("GET", f"{API}/registered-models/search", b""),
    ("GET", "/readyz", b""),
)
ARTIFACT_REQUESTS: Sequence[tuple[str, str, bytes]] = (
    ("PUT", f"{ARTIFACTS}/a/c", b"x"),
    ("GET", f"{ARTIFACTS}/a/b", b""),
    ("GET", f"{ARTIFACTS}?path=a", b""),
    ("DELETE", f"{ARTIFACTS}/a/b", b""),
)


@dataclass(frozen=True)
class Equipment:
    """A database and a bucket behind cables that can be cut, and every kind of secret.

    Args:
        place: Where the server runs.
        words: The planted words.
        environment: For our commands; further secrets are files in the secrets folder.
        store_role: The role of the backend store.
        store_password: Its password.
        store_database: Its database.
        s3: The cable to the S3 server.
    """

    place: Place
    words: Mapping[str, str]
    environment: Mapping[str, str]
    store_role: str
    store_password: str
    store_database: str
    s3: Relay


@pytest.fixture(scope="module")
def equipment(
    tmp_path_factory: pytest.TempPathFactory, database: PasswordServer, s3: S3Server
) -> Iterator[Equipment]:
    """Plant the secrets: in the environment, in files, in URIs."""
    where = Place.make(tmp_path_factory.mktemp("secrets") / "place", as_user=True)
    # The S3 server accepts one secret key only; its words occur in no other place either.
    words = {name: new_word() for name in ("store", "registry", "replica", "token", "extra")}
    words |= {"azure": new_word(), "s3": s3.secret_key}
    passwords = {name: with_specials(words[name]) for name in ("store", "registry", "replica")}
    roles = {name: database.new_role(password) for name, password in passwords.items()}
    databases = {name: database.new_database(roles[name]) for name in ("store", "registry")}
    with database.administer() as connection:
        connection.execute(f"GRANT {roles['store']} TO {roles['replica']}")
    bucket = f"b{uuid.uuid4().hex}"
    s3.make_bucket(bucket)
    port = urlsplit(s3.endpoint).port
    assert port is not None
    relay = Relay(port)
    secrets = where.root / "secrets"
    secrets.mkdir()
    uris = {
        name: database.uri(roles[name], passwords[name], databases.get(name, databases["store"]))
        for name in roles
    }
    (secrets / STORE).write_text(uris["store"] + "\n")
    (secrets / "MLFLOW_TRACKING_TOKEN").write_text(words["token"] + "\n")
    (secrets / "AZURE_STORAGE_ACCESS_KEY").write_text(words["azure"])
    (secrets / "OUR_OWN_KEY").write_text(words["extra"])
    environment = {
        **s3.environment,
        "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{relay.port}",
        "AWS_MAX_ATTEMPTS": "1",
        "TRACKING_SERVER_SECRETS_DIR": str(secrets),
        "TRACKING_SERVER_EXTRA_SECRETS": "OUR_OWN_KEY",
        STORE: "",
        REGISTRY: uris["registry"],
        REPLICA: uris["replica"],
        DESTINATION: f"s3://{bucket}/artifacts",
        "TMPDIR": str(where.root / "tmp"),
        "HOME": str(where.root / "home"),
        "MLFLOW_WORKERS": "2",
    }
    try:
        yield Equipment(
            where, words, environment, roles["store"], passwords["store"], databases["store"], relay
        )
    finally:
        relay.close()


@pytest.fixture(scope="module")
def harvest(equipment: Equipment, database: PasswordServer) -> Harvest:
    """Run a server from start to stop, break everything below it, keep all that comes out."""
    found = Harvest(equipment.words)
    place = equipment.place
    options = ["-vv", "--debug", "--access-log", "--metrics"]
    with (
        CommandLines() as command_lines,
        serve(place.project, *options, environment=equipment.environment) as server,
    ):
        found.ask(server, "healthy", HEALTHY)
        evil = {"Host": "evil.example.com", "Origin": "https://evil.example.com"}
        refused = http(f"{server.url}{API}/experiments/search", headers=evil)
        found.texts["refused host"] = f"{refused.headers}\n{refused.body!r}"
        for word in equipment.words.values():
            for name in files_with(word, place.root / "tmp"):
                found.texts[f"file {name}"] = word

        with database.administer(equipment.store_database) as connection:
            connection.execute("ALTER TABLE experiments RENAME TO moved")
            found.ask(server, "table gone", DATABASE_REQUESTS)
            connection.execute("ALTER TABLE moved RENAME TO experiments")

        database.set_password(equipment.store_role, "changed")
        _end_sessions(database, equipment.store_database)
        found.ask(server, "password changed", DATABASE_REQUESTS)
        database.set_password(equipment.store_role, equipment.store_password)

        database.relay.cut()
        found.ask(server, "database gone", DATABASE_REQUESTS)
        database.relay.mend()

        equipment.s3.cut()
        found.ask(server, "bucket gone", ARTIFACT_REQUESTS)
        equipment.s3.mend()

        _crash_a_worker(server)
        found.ask(server, "after the crash", HEALTHY[:7])
        assert server.stop() == 0
        found.texts["log"] = server.log
        found.texts["stdout"] = server.output
    found.texts["command lines"] = "\n".join(command_lines.found)
    assert any("mlflow_server" in line for line in command_lines.found)
    return found


def _end_sessions(database: PasswordServer, name: str) -> None:
    query = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = %s"
    with database.administer() as connection:
        connection.execute(query, [name])


def _crash_a_worker(server: Server) -> None:
    """Kill one as a bug in a library would, and wait until another is in its place."""
    before = server.pids()
    os.kill(before[-1], signal.SIGSEGV)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        now = server.pids()
        if before[-1] not in now and len(now) == len(before):
            server.wait_ready()
            return
        time.sleep(0.05)
    raise AssertionError("the worker was not replaced")


@GROUP
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "secret", ["store", "registry", "replica", "s3", "token", "extra", "azure"]
)
def test_server_lets_no_secret_out(harvest: Harvest, secret: str) -> None:
    assert harvest.leaks(secret) == []


@GROUP
@pytest.mark.timeout(300)
def test_everything_failed_that_was_to_fail(harvest: Harvest) -> None:
    """Else the test above would prove little."""
    statuses = harvest.statuses

    def of(stage: str) -> list[int]:
        return [status for name, status in statuses.items() if name.startswith(stage)]

    assert statuses["healthy: GET /readyz"] == 200
    assert {400, 404} <= set(of("healthy"))
    for stage in ("table gone", "password changed", "database gone", "bucket gone"):
        assert any(status >= 400 for status in of(stage)), (stage, of(stage))
    assert set(of("after the crash")) <= {200, 404}
    assert "DEBUG" in harvest.texts["log"]
    assert "Traceback" in harvest.texts["log"]
    assert harvest.texts["stdout"] == ""


# --- Commands ----------------------------------------------------------------------------------


@GROUP
@pytest.mark.parametrize("more", [(), ("--json",), ("-vv", "--debug")], ids=["", "json", "debug"])
@pytest.mark.parametrize("command", ["settings", "doctor"])
def test_commands_let_no_secret_out(
    equipment: Equipment, command: str, more: Sequence[str]
) -> None:
    environment = {**equipment.environment, "MLFLOW_PORT": str(free_port())}
    ended = equipment.place.run(command, *more, environment=environment)
    # 69: on a busy machine something may miss doctor's 2.6 s.
    assert ended.returncode in (0, 3, 69), ended.stderr
    output = ended.stdout + ended.stderr
    assert [name for name, word in equipment.words.items() if word in output] == []
    assert equipment.store_role in output


@GROUP
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("harvest")  # its server has initialised the store
@pytest.mark.parametrize("more", [(), ("--json",), ("-vv", "--debug")], ids=["", "json", "debug"])
def test_gc_lets_no_secret_out(equipment: Equipment, more: Sequence[str]) -> None:
    ended = equipment.place.run("gc", "--dry-run", *more, environment=equipment.environment)
    assert ended.returncode == 0, ended.stderr
    output = ended.stdout + ended.stderr
    assert [name for name, word in equipment.words.items() if word in output] == []


@GROUP
def test_settings_show_that_a_secret_is_there(equipment: Equipment) -> None:
    ended = equipment.place.run("settings", "--json", environment=equipment.environment)
    document = json.loads(ended.stdout)
    settings = {entry["name"]: entry for entry in document["settings"]}
    assert settings[STORE]["source"] == "secret"
    assert "***" in settings[STORE]["value"]
    assert settings["MLFLOW_TRACKING_TOKEN"]["value"] == "***"
    assert settings[REGISTRY]["source"] == "environment"
    assert {"AZURE_STORAGE_ACCESS_KEY", "OUR_OWN_KEY"} <= set(document["other_secrets"])


# --- Refused starts, and odd places for a password ---------------------------------------------

# Name -> environment; WORD is replaced by the secret, PORT by one that nobody listens on.
BAD_STARTS: dict[str, dict[str, str]] = {
    "refused port": {STORE: "postgresql://ada:WORD@127.0.0.1:PORT/mlflow"},
    "refused port, psycopg2": {STORE: "postgresql+psycopg2://ada:WORD@127.0.0.1:PORT/mlflow"},
    "refused port, MySQL": {STORE: "mysql+pymysql://ada:WORD@127.0.0.1:PORT/mlflow"},
    "unknown host": {STORE: "postgresql://ada:WORD@no-such-host.invalid/mlflow"},
    "unescaped @": {STORE: "postgresql://ada:x@WORD@127.0.0.1:PORT/mlflow"},
    "unescaped /": {STORE: "postgresql://ada:x/WORD@127.0.0.1:PORT/mlflow"},
    "unescaped :": {STORE: "postgresql://ada:x:WORD@127.0.0.1:PORT/mlflow"},
    "unescaped #": {STORE: "postgresql://ada:x#WORD@127.0.0.1:PORT/mlflow"},
    "unescaped space": {STORE: "postgresql://ada:x WORD@127.0.0.1:PORT/mlflow"},
    "escaped": {STORE: "postgresql://ada:%40%2F%3A%57ORD@127.0.0.1:PORT/mlflow"},
    "unknown scheme": {STORE: "oracle://ada:WORD@127.0.0.1:PORT/mlflow"},
    "unknown driver": {STORE: "postgresql+WORD://ada:WORD@127.0.0.1:PORT/mlflow"},
    "old scheme": {STORE: "postgres://ada:WORD@127.0.0.1:PORT/mlflow"},
    "no slashes": {STORE: "postgresql:ada:WORD@127.0.0.1:PORT/mlflow"},
    "one slash": {STORE: "postgresql:/ada:WORD@127.0.0.1:PORT/mlflow"},
    "bad port": {STORE: "postgresql://ada:WORD@127.0.0.1:99999/mlflow"},
    "no database": {STORE: "postgresql://ada:WORD@127.0.0.1:PORT"},
    "missing driver": {STORE: "mssql+pymssql://ada:WORD@127.0.0.1:PORT/mlflow"},
    "in the query": {STORE: "postgresql://ada@127.0.0.1:PORT/mlflow?password=WORD"},
    "key of a certificate": {
        STORE: "postgresql://ada@127.0.0.1:PORT/mlflow?sslmode=require&sslpassword=WORD"
    },
    "ODBC connection string": {
        STORE: "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7Bx%7D%3BUID%3Dada%3BPWD%3DWORD"
    },
    "registry": {REGISTRY: "postgresql://ada:WORD@127.0.0.1:PORT/mlflow"},
    "replica": {REPLICA: "mysql+pymysql://ada:WORD@127.0.0.1:PORT/mlflow"},
    "sftp": {DESTINATION: "sftp://ada:WORD@127.0.0.1:PORT/artifacts"},
    "unknown destination": {DESTINATION: "s4://ada:WORD@127.0.0.1:PORT/artifacts"},
    "S3 endpoint": {
        DESTINATION: "s3://bucket/artifacts",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "WORD",
        "MLFLOW_S3_ENDPOINT_URL": "http://ada:WORD@127.0.0.1:PORT",
    },
    "S3 upload arguments": {
        DESTINATION: "s3://bucket/artifacts",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "WORD",
        "MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:PORT",
        "MLFLOW_S3_UPLOAD_EXTRA_ARGS": '{"SSECustomerKey": "WORD", ',
    },
    "public URL": {"TRACKING_SERVER_PUBLIC_URL": "https://ada:WORD@mlflow.example.com"},
    "old schema": {STORE: "sqlite:///old.sqlite?password=WORD"},
}


def _filled(name: str, word: str) -> dict[str, str]:
    port = str(free_port())
    # A letter of the word that is percent-encoded needlessly: the same password once decoded.
    encoded = quote(word)
    return {
        setting: text.replace("%57ORD", f"%{ord(word[0]):02X}{encoded[1:]}")
        .replace("WORD", word)
        .replace("PORT", port)
        for setting, text in BAD_STARTS[name].items()
    }


@pytest.mark.parametrize("name", BAD_STARTS)
def test_refused_start_lets_no_secret_out(place: Place, name: str) -> None:
    word = new_word()
    copy_store(OLD_STORE, place.project / "old.sqlite")
    environment = {"MLFLOW_PORT": str(free_port()), **_filled(name, word)}
    ended = place.run("serve", "-vv", "--debug", "--json", environment=environment)
    # Without its first letter: that one may be percent-encoded.
    assert word[1:] not in ended.stdout + ended.stderr
    assert ended.returncode not in (0, 1)


@pytest.mark.parametrize("command", ["settings", "doctor"])
@pytest.mark.parametrize("name", ["in the query", "ODBC connection string", "sftp", "S3 endpoint"])
def test_odd_place_for_a_password_is_masked(place: Place, command: str, name: str) -> None:
    word = new_word()
    environment = {"MLFLOW_PORT": str(free_port()), **_filled(name, word)}
    for more in ((), ("--json",)):
        ended = place.run(command, *more, environment=environment)
        assert ended.returncode in (0, 3, 69, 78), ended.stderr
        assert word not in ended.stdout + ended.stderr


@pytest.mark.parametrize("command", ["settings", "doctor"])
@pytest.mark.parametrize(
    "setting", ["MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_DEFAULT_ARTIFACT_ROOT"]
)
def test_password_in_a_setting_that_is_no_secret_is_masked(
    place: Place, command: str, setting: str
) -> None:
    word = new_word()
    environment = {
        "MLFLOW_PORT": str(free_port()),
        setting: f"http://ada:{word}@127.0.0.1:{free_port()}/mlflow",
        "HTTPS_PROXY": f"http://ada:{word}@127.0.0.1:1",
    }
    ended = place.run(command, environment=environment)
    assert ended.returncode in (0, 3, 69)
    assert word not in ended.stdout + ended.stderr


@pytest.mark.parametrize("content", [b"\0", b"\xff"], ids=["NUL", "not UTF-8"])
def test_secret_that_cannot_be_read_is_not_quoted(place: Place, content: bytes) -> None:
    word = new_word()
    folder = place.root / "secrets"
    folder.mkdir()
    (folder / STORE).write_bytes(b"postgresql://ada:" + word.encode() + content + b"@db/mlflow")
    environment = {STORE: "", "TRACKING_SERVER_SECRETS_DIR": str(folder)}
    for command in ("serve", "settings"):
        ended = place.run(command, "-vv", "--debug", "--json", environment=environment)
        assert ended.returncode == 78
        assert word not in ended.stdout + ended.stderr


@GROUP
@pytest.mark.parametrize("change", ["password", "database", "key"])
def test_refusal_of_the_other_side_is_not_quoted(
    equipment: Equipment, database: PasswordServer, change: str
) -> None:
    """PostgreSQL and S3 themselves say no here, and their words may hold anything."""
    word = new_word()
    environment = {**equipment.environment, "MLFLOW_PORT": str(free_port())}
    if change == "password":
        environment[STORE] = database.uri(equipment.store_role, with_specials(word), "postgres")
    elif change == "database":
        role = database.new_role(with_specials(word))
        environment[STORE] = database.uri(role, with_specials(word), "not_there")
    else:
        environment["AWS_SECRET_ACCESS_KEY"] = word
    ended = equipment.place.run("serve", "-vv", "--debug", "--json", environment=environment)
    assert ended.returncode == (69 if change == "database" else 77)
    output = ended.stdout + ended.stderr
    assert word not in output
    assert [name for name, planted in equipment.words.items() if planted in output] == []


# --- On the command line -----------------------------------------------------------------------

OPTIONS = {
    "--backend-store-uri": STORE,
    "--registry-store-uri": REGISTRY,
    "--read-replica-backend-store-uri": REPLICA,
}


@GROUP
@pytest.mark.parametrize("option", OPTIONS)
def test_password_given_as_option_is_warned_about(
    equipment: Equipment, harvest: Harvest, database: PasswordServer, option: str
) -> None:
    """It is visible by nature; the warning says where to put it, and does not repeat it."""
    role, password = equipment.store_role, equipment.store_password
    uri = database.uri(role, password, equipment.store_database)
    folder = equipment.place.project
    environment = {**equipment.environment, REGISTRY: "", REPLICA: ""}
    with serve(folder, option, uri, environment=environment, wait=False) as server:
        deadline = time.monotonic() + 60
        while "command line" not in server.log and time.monotonic() < deadline:
            if server.process.poll() is not None:
                break
            time.sleep(0.05)
        log = server.log
    warnings = [line for line in log.splitlines() if " WARNING " in line]
    assert any("command line" in line and OPTIONS[option] in line for line in warnings), log
    assert equipment.words["store"] not in log


@GROUP
def test_doctor_warns_about_a_password_given_as_option(
    equipment: Equipment, harvest: Harvest, database: PasswordServer
) -> None:
    role, password = equipment.store_role, equipment.store_password
    uri = database.uri(role, password, equipment.store_database)
    environment = {**equipment.environment, "MLFLOW_PORT": str(free_port())}
    ended = equipment.place.run(
        "doctor", "--json", "--backend-store-uri", uri, environment=environment
    )
    assert ended.returncode == 3
    items = {item["name"]: item for item in json.loads(ended.stdout)["items"]}
    assert items["settings"]["status"] == "warning"
    assert "command line" in items["settings"]["detail"]
    assert equipment.words["store"] not in ended.stdout + ended.stderr


# --- A destination whose address holds the password --------------------------------------------


class _Shelf(BaseHTTPRequestHandler):
    """What MLflow's client needs of another server's artifact routes, until told to fail."""

    kept: ClassVar[dict[str, bytes]] = {}
    broken: ClassVar[bool] = False
    passwords: ClassVar[set[str]] = set()

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.passwords.add(self.headers.get("Authorization") or "")
        path = self.path.partition("?")[0]
        if self.broken:
            self._reply(500, b"out of order")
        elif self.command == "PUT":
            self.kept[path] = body
            self._reply(200, b"")
        elif self.command == "DELETE":
            self.kept.pop(path, None)
            self._reply(200, b"")
        elif "?" in self.path:
            self._reply(200, b'{"files": []}')
        elif path in self.kept:
            self._reply(200, self.kept[path])
        else:
            self._reply(404, b"not here")

    do_GET = do_PUT = do_DELETE = do_HEAD = do_POST = answer

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.mark.timeout(300)
def test_destination_with_a_password_is_not_named_in_errors(place: Place) -> None:
    word = new_word()
    with http_listener(_Shelf) as port:
        environment = {
            STORE: f"sqlite:///{place.store}",
            DESTINATION: f"http://ada:{word}@127.0.0.1:{port}{ARTIFACTS}",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "MLFLOW_WORKERS": "1",
        }
        options = ("-vv", "--debug", "--log-format", "json", "--access-log")
        with serve(place.project, *options, environment=environment) as server:
            found = Harvest({"destination": word})
            found.ask(server, "healthy", ARTIFACT_REQUESTS[:2])
            _Shelf.broken = True
            found.ask(server, "broken", ARTIFACT_REQUESTS)
            found.ask(server, "meanwhile", HEALTHY)
            assert server.stop() == 0
            found.texts["log"] = server.log
            found.texts["stdout"] = server.output
    assert any(header.startswith("Basic ") for header in _Shelf.passwords)
    assert any(code >= 500 for name, code in found.statuses.items() if name.startswith("broken"))
    for line in server.log.splitlines():
        json.loads(line)
    assert found.leaks("destination") == []
