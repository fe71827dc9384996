"""Bad input to `serve`: one or two lines that say what to do, the documented exit code, and
everything as it was before.

The first part of this module is what its neighbours use as well: snapshots of folders, programs
that misbehave on the network, and PostgreSQL roles that need a password.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, urlsplit

import psycopg
import pytest

from tests.conftest import DATA, Postgres
from tests.programs import S3Server, clean_environment, free_port, http, run_cli, serve

OLD_STORE = DATA / "old-stores" / "mlflow-3.1.4.db"
# By the command's own clock: each check takes 5 s at most, all together 10 s; the rest is for
# imports on a busy machine.
WELL_WITHIN_S = 15.0
# In front of a command line: root stays the owner of its files, but what their mode forbids is
# forbidden. Another user could not even enter the folders that Python is installed in.
WITHOUT_POWERS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")


# --- Folders, and what happened to them --------------------------------------------------------


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a folder by relative path: kind, mode, and of files all bytes and times."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(folder))] = (
            (status.st_mode, status.st_uid, _digest(path), status.st_mtime_ns)
            if path.is_file() and not path.is_symlink()
            else (status.st_mode, status.st_uid)
        )
    return found


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except PermissionError:
        return "unreadable"


@dataclass(frozen=True)
class Place:
    """A folder to run commands in; HOME and TMPDIR are in it too, so that leftovers show.

    Args:
        root: Holds everything below.
        prefix: In front of every command line.
    """

    root: Path
    prefix: tuple[str, ...] = ()

    @classmethod
    def make(cls, root: Path, prefix: tuple[str, ...] = ()) -> Place:
        """Create the folders."""
        place = cls(root, prefix)
        for folder in (place.project, place.root / "home", place.root / "tmp"):
            folder.mkdir(parents=True)
        return place

    @property
    def project(self) -> Path:
        """Where commands run."""
        return self.root / "project"

    @property
    def store(self) -> Path:
        """Where a SQLite store would be."""
        return self.project / "store.sqlite"

    def run(
        self, *arguments: str, environment: Mapping[str, str], timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run one command of ours here."""
        whole = {
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{self.store}",
            "MLFLOW_ARTIFACTS_DESTINATION": str(self.project / "artifacts"),
            "TRACKING_SERVER_SECRETS_DIR": str(self.root / "no-secrets"),
            **environment,
        }
        if not self.prefix:
            return run_cli(*arguments, cwd=self.project, environment=whole, timeout=timeout)
        return subprocess.run(
            [*self.prefix, sys.executable, "-m", "mlflow_server", *arguments],
            cwd=self.project,
            env=clean_environment(**whole),
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder of this test alone."""
    return Place.make(tmp_path / "place")


@pytest.fixture
def common_place(tmp_path: Path) -> Iterator[Place]:
    """A folder whose commands must respect the modes of files, as root need not."""
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        prefix = WITHOUT_POWERS
        if shutil.which(prefix[0]) is None or subprocess.run([*prefix, "true"]).returncode != 0:
            pytest.skip("root cannot give up its powers here, so nothing is forbidden")
    place = Place.make(tmp_path / "place", prefix)
    yield place
    for folder in (place.root, *(path for path in place.root.rglob("*") if path.is_dir())):
        folder.chmod(0o755)


def make_head_store(uri: str) -> None:
    """Initialise an empty database as `serve` does, without serving."""
    program = (
        "import os; from mlflow_server.store.schema import initialise; "
        "from mlflow_server.uris import parse_store_uri; "
        "assert initialise(parse_store_uri(os.environ['STORE']))"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment(STORE=uri, MLFLOW_DISABLE_TELEMETRY="true"),
        check=True,
        capture_output=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def head_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store at this release's revision, to be copied."""
    path = tmp_path_factory.mktemp("head") / "head.sqlite"
    make_head_store(f"sqlite:///{path}")
    return path


# --- Programs that misbehave on the network ----------------------------------------------------


@contextlib.contextmanager
def silent_listener() -> Iterator[int]:
    """A port where connections are accepted and never answered; yields the port."""
    held: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                held.append(listener.accept()[0])

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        # close() alone does not wake a thread that waits in accept().
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        listener.close()
        for connection in held:
            connection.close()


@contextlib.contextmanager
def http_listener(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """A small HTTP server; yields its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(10)


class Relay:
    """Passes TCP connections on to another socket, and can be cut like a cable.

    Args:
        target: A Unix socket's path, or a port of this machine.
    """

    def __init__(self, target: str | int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = 0
        self.mend()

    def _call(self, work: Callable[[], object]) -> None:
        async def run() -> None:
            result = work()
            if asyncio.iscoroutine(result):
                await result

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def mend(self) -> None:
        """Listen, on the same port as before."""

        async def start() -> None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

        self._call(start)

    def cut(self) -> None:
        """Refuse new connections and break those that there are."""

        def stop() -> None:
            if self._server is not None:
                self._server.close()
            for writer in self._writers:
                writer.transport.abort()

        self._call(stop)

    def close(self) -> None:
        """Stop for good."""
        self.cut()

        async def finish() -> None:
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._call(finish)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        try:
            if isinstance(self._target, int):
                there = await asyncio.open_connection("127.0.0.1", self._target)
            else:
                there = await asyncio.open_unix_connection(self._target)
            self._writers.add(there[1])
            await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))
            self._writers.discard(there[1])
        except OSError:
            writer.transport.abort()
        finally:
            self._writers.discard(writer)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@dataclass(frozen=True)
class PasswordServer:
    """PostgreSQL over TCP with roles that need their password (SCRAM).

    Args:
        postgres: The server itself, over its Unix socket, where its administrator needs none.
        relay: The TCP port in front of it.
    """

    postgres: Postgres
    relay: Relay

    def new_role(self, password: str) -> str:
        """Create a role that may log in with this password only."""
        name = f"role_{uuid.uuid4().hex[:12]}"
        with self.administer() as connection:
            connection.execute(f"CREATE ROLE {name} LOGIN IN ROLE {_PASSWORD_ROLES}")
        self.set_password(name, password)
        return name

    def set_password(self, role: str, password: str) -> None:
        """Change a role's password."""
        from psycopg import sql

        with self.administer() as connection:
            connection.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                    sql.Identifier(role), sql.Literal(password)
                )
            )

    def new_database(self, owner: str) -> str:
        """Create an empty database that a role owns, and return its name."""
        name = urlsplit(self.postgres.new_database()).path.lstrip("/")
        with self.administer() as connection:
            connection.execute(f"ALTER DATABASE {name} OWNER TO {owner}")
        return name

    def uri(self, role: str, password: str, database: str, scheme: str = "postgresql") -> str:
        """The address of a database for a role, over TCP."""
        secret = quote(password, safe="")
        return f"{scheme}://{role}:{secret}@127.0.0.1:{self.relay.port}/{database}"

    def administer(self, database: str = "postgres") -> psycopg.Connection:
        """A connection of the administrator."""
        uri = self.postgres.uri.replace("/postgres?", f"/{database}?")
        return psycopg.connect(uri, autocommit=True)

    def tables(self, database: str) -> list[str]:
        """Every table in a database that is not PostgreSQL's own."""
        query = (
            "SELECT schemaname || '.' || tablename FROM pg_tables "
            "WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"
        )
        with self.administer(database) as connection:
            return [row[0] for row in connection.execute(query)]


_PASSWORD_ROLES = "needs_password"


@contextlib.contextmanager
def password_server(postgres: Postgres) -> Iterator[PasswordServer]:
    """Make the PostgreSQL of the tests ask members of one role for a password, over TCP too.

    It listens on a Unix socket only and trusts everybody there; a relay gives it a port.
    """
    folder = parse_qs(urlsplit(postgres.uri).query)["host"][0]
    with psycopg.connect(postgres.uri, autocommit=True) as connection:
        if not connection.execute(
            "SELECT 1 FROM pg_roles WHERE rolname = %s", [_PASSWORD_ROLES]
        ).fetchone():
            connection.execute(f"CREATE ROLE {_PASSWORD_ROLES}")
            row = connection.execute("SHOW hba_file").fetchone()
            assert row is not None
            rules = Path(row[0])
            text = rules.read_text("utf-8")
            rules.write_text(f"local all +{_PASSWORD_ROLES} scram-sha-256\n{text}", "utf-8")
            connection.execute("SELECT pg_reload_conf()")
    server = PasswordServer(postgres, Relay(f"{folder}/.s.PGSQL.5432"))
    try:
        _wait_until_refusing(server)
        yield server
    finally:
        server.relay.close()


def _wait_until_refusing(server: PasswordServer) -> None:
    uri = server.uri(server.new_role("right"), "wrong", "postgres")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            psycopg.connect(uri, connect_timeout=10).close()
        except psycopg.OperationalError as err:
            assert "password authentication failed" in str(err)
            return
        time.sleep(0.05)
    raise AssertionError("PostgreSQL still trusts everybody")


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> Iterator[PasswordServer]:
    """PostgreSQL with passwords."""
    with password_server(postgres) as server:
        yield server


# --- What a refusal must look like -------------------------------------------------------------


@dataclass(frozen=True)
class Refusal:
    """How `serve` ended, checked for form already.

    Args:
        code: Exit code.
        errors: Text behind each `Error: `.
        hints: Text behind each `Try: `.
        seconds: How long it took, by its own clock.
    """

    code: int
    errors: Sequence[str]
    hints: Sequence[str]
    seconds: float

    @property
    def text(self) -> str:
        """Everything said."""
        return "\n".join([*self.errors, *self.hints])


def refusal(
    place: Place,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    plain: bool = True,
) -> Refusal:
    """Run `serve`, plain and with `--json` at the same time, and look how it refuses.

    Args:
        place: Where; nothing in it may change.
        arguments: After `serve`.
        environment: On top of a store and destination in `place`, and a free port.
        plain: False leaves the plain run out, where a neighbouring test has it.
    """
    before = snapshot(place.root)

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        whole = {"MLFLOW_PORT": str(free_port()), **(environment or {})}
        return place.run("serve", *arguments, *more, environment=whole)

    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run, "--json"), *([pool.submit(run)] if plain else [])]
        as_json, *as_text = [waiting.result() for waiting in runs]
    assert snapshot(place.root) == before, "something was changed"
    for ended in as_text:
        assert ended.stdout == ""
        assert ended.returncode == as_json.returncode, (ended.stderr, as_json.stderr)
        _parse(ended)

    errors, hints = _parse(as_json)
    document = json.loads(as_json.stdout)
    assert document["command"] == "serve"
    assert document["outcome"] == "failed"
    assert document["exit_code"] == as_json.returncode
    assert document["error"]["message"] == "\n".join(errors)
    assert document["error"]["hint"] == ("\n".join(hints) or None)
    seconds = duration_s(document)
    assert seconds < WELL_WITHIN_S
    return Refusal(as_json.returncode, errors, hints, seconds)


def duration_s(report: Mapping[str, Any]) -> float:
    """How long a command says it took."""
    started, finished = (
        datetime.fromisoformat(report[name]) for name in ("started_at", "finished_at")
    )
    return (finished - started).total_seconds()


def _parse(ended: subprocess.CompletedProcess[str]) -> tuple[list[str], list[str]]:
    """The errors and hints on stderr; anything else but warnings fails."""
    assert "Traceback" not in ended.stderr
    lines = [line for line in ended.stderr.splitlines() if " WARNING " not in line]
    other = [line for line in lines if not line.startswith(("Error: ", "Try: "))]
    assert other == [], ended.stderr
    errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    hints = [line.removeprefix("Try: ") for line in lines if line.startswith("Try: ")]
    assert errors, ended.stderr
    assert len(hints) <= len(errors)
    return errors, hints


# --- Settings ----------------------------------------------------------------------------------

STORE = "MLFLOW_BACKEND_STORE_URI"
DESTINATION = "MLFLOW_ARTIFACTS_DESTINATION"

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


def test_missing_library_of_an_object_store_is_78_with_the_pip_command(place: Place) -> None:
    if can_import("google.cloud.storage"):
        pytest.skip("google-cloud-storage is installed here")
    found = refusal(place, environment={DESTINATION: "gs://bucket/prefix"})
    assert found.code == 78
    assert "pip install" in found.text
    assert found.errors[0].startswith(DESTINATION)


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


# --- Destinations on this machine --------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "/deep/below"])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_destination_that_is_a_file_is_78(place: Place, scheme: str, below: str) -> None:
    path = place.project / "artifacts"
    path.write_text("precious")
    environment = {DESTINATION: f"{scheme}{path}{below}"}
    found = refusal(place, environment=environment, plain=not below)
    assert found.code == 78
    assert str(path) in found.errors[0]


def test_destination_that_is_a_link_to_nowhere_is_refused(place: Place) -> None:
    path = place.project / "artifacts"
    path.symlink_to(place.project / "gone")
    found = refusal(place, environment={DESTINATION: str(path)})
    assert found.code in (69, 78)
    assert str(path) in found.errors[0]


@pytest.mark.parametrize("below", ["", "/not/yet/there"])
def test_unwritable_destination_is_77(common_place: Place, below: str) -> None:
    path = common_place.project / "artifacts"
    path.mkdir()
    path.chmod(0o555)
    found = refusal(common_place, environment={DESTINATION: f"{path}{below}"})
    assert found.code == 77
    assert str(path) in found.errors[0]


def test_destination_that_may_not_be_entered_is_77(common_place: Place) -> None:
    path = common_place.project / "closed"
    path.mkdir()
    path.chmod(0)
    found = refusal(common_place, environment={DESTINATION: f"{path}/artifacts"})
    assert found.code == 77
    assert str(path) in found.errors[0]


def _own_mounts(*mounts: str) -> list[str]:
    """The beginning of a command line with these mounts of its own; skips where it may not."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("mounting is not allowed here")
    script = " && ".join([*mounts, 'exec "$@"'])
    return ["unshare", "-m", "sh", "-c", script, "sh"]


@pytest.mark.parametrize(
    ("options", "code"), [("ro", 77), ("size=4k", 69)], ids=["read-only", "full"]
)
def test_destination_on_a_volume_that_takes_nothing(place: Place, options: str, code: int) -> None:
    path = place.project / "volume"
    path.mkdir()
    mounts = [f"mount -t tmpfs -o {options} tmpfs '{path}'"]
    if code == 69:
        mounts.append(f"head -c 4096 /dev/zero > '{path}/filler'")
    environment = clean_environment(
        **{
            STORE: f"sqlite:///{place.store}",
            DESTINATION: str(path),
            "MLFLOW_PORT": str(free_port()),
        }
    )
    before = snapshot(place.root)
    ended = subprocess.run(
        [*_own_mounts(*mounts), sys.executable, "-m", "mlflow_server", "serve"],
        cwd=place.project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    errors, _ = _parse(ended)
    assert ended.returncode == code
    assert str(path) in errors[0]
    assert ended.stdout == ""
    assert snapshot(place.root) == before


# --- SQLite files ------------------------------------------------------------------------------


def copy_store(source: Path, target: Path) -> Path:
    """Copy a store, writable."""
    shutil.copyfile(source, target)
    return target


def execute(path: Path, *statements: str) -> None:
    """Change a SQLite file."""
    connection = sqlite3.connect(path)
    try:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    finally:
        connection.close()


def test_sqlite_file_that_is_text_is_65(place: Place) -> None:
    place.store.write_text("This is no database.\n" * 400)
    found = refusal(place)
    assert found.code == 65
    assert "not a SQLite" in found.errors[0]


def test_sqlite_file_of_two_bytes_is_65(place: Place) -> None:
    place.store.write_text("x\n")
    assert refusal(place).code == 65


SQLITE = pytest.mark.xdist_group("bad-input-sqlite")


@SQLITE
@pytest.mark.parametrize("keep", ["50", "100", "1000", "4096", "half", "all but a page"])
def test_truncated_sqlite_file_is_65(place: Place, head_store: Path, keep: str) -> None:
    content = head_store.read_bytes()
    size = {"half": len(content) // 2, "all but a page": len(content) - 4096}.get(keep)
    place.store.write_bytes(content[: int(keep) if size is None else size])
    assert refusal(place, plain=keep == "half").code == 65


@SQLITE
def test_sqlite_file_with_an_overwritten_schema_is_65(place: Place, head_store: Path) -> None:
    content = bytearray(head_store.read_bytes())
    content[100:4096] = b"\xa5" * 3996
    place.store.write_bytes(content)
    assert refusal(place).code == 65


@SQLITE
def test_read_only_sqlite_file_is_77(common_place: Place, head_store: Path) -> None:
    copy_store(head_store, common_place.store).chmod(0o444)
    found = refusal(common_place)
    assert found.code == 77
    assert str(common_place.store) in found.errors[0]


@SQLITE
def test_unreadable_sqlite_file_is_77(common_place: Place, head_store: Path) -> None:
    copy_store(head_store, common_place.store).chmod(0)
    found = refusal(common_place)
    assert found.code == 77


@SQLITE
def test_sqlite_file_in_a_folder_that_is_not_writable_is_77(
    common_place: Place, head_store: Path
) -> None:
    folder = common_place.project / "store"
    folder.mkdir()
    path = copy_store(head_store, folder / "mlflow.sqlite")
    folder.chmod(0o555)
    found = refusal(common_place, environment={STORE: f"sqlite:///{path}"})
    assert found.code == 77
    assert str(folder) in found.errors[0]


def test_sqlite_file_to_be_made_in_a_folder_that_is_not_writable_is_77(common_place: Place) -> None:
    folder = common_place.project / "store"
    folder.mkdir()
    folder.chmod(0o555)
    path = folder / "new" / "mlflow.sqlite"
    found = refusal(common_place, environment={STORE: f"sqlite:///{path}"})
    assert found.code == 77
    assert str(folder) in found.errors[0]


def test_sqlite_file_in_a_folder_that_may_not_be_entered_is_77(common_place: Place) -> None:
    folder = common_place.project / "store"
    folder.mkdir()
    folder.chmod(0)
    found = refusal(common_place, environment={STORE: f"sqlite:///{folder}/mlflow.sqlite"})
    assert found.code == 77


def test_folder_instead_of_a_sqlite_file_is_78(place: Place) -> None:
    place.store.mkdir()
    found = refusal(place)
    assert found.code == 78
    assert "folder" in found.errors[0]


def test_sqlite_file_below_a_file_is_78(place: Place) -> None:
    (place.project / "file").write_text("precious")
    found = refusal(place, environment={STORE: f"sqlite:///{place.project}/file/mlflow.sqlite"})
    assert found.code == 78
    assert str(place.project / "file") in found.errors[0]


@contextlib.contextmanager
def locked(path: Path, *statements: str) -> Iterator[None]:
    """Have another process hold locks on a SQLite file.

    Another process, because POSIX locks of this one end when it closes any descriptor of the file,
    as a snapshot does.
    """
    program = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "[connection.execute(statement).fetchall() for statement in sys.argv[2:]]; "
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path), *statements],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield
        process.stdin.close()


@SQLITE
@pytest.mark.parametrize("statement", ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"])
def test_locked_sqlite_file_is_75(place: Place, head_store: Path, statement: str) -> None:
    copy_store(head_store, place.store)
    with locked(place.store, statement):
        found = refusal(place)
    assert found.code == 75
    assert "lock" in found.errors[0]


@SQLITE
def test_locked_sqlite_file_in_wal_mode_is_75(place: Place, head_store: Path) -> None:
    copy_store(head_store, place.store)
    with locked(place.store, "PRAGMA journal_mode = WAL", "BEGIN IMMEDIATE"):
        # Where readers stand is written into this file, which holds nothing that lasts.
        shared = "project/store.sqlite-shm"
        before = snapshot(place.root)
        ended = place.run("serve", environment={"MLFLOW_PORT": str(free_port())})
        after = snapshot(place.root)
    errors, _ = _parse(ended)
    assert ended.returncode == 75
    assert "lock" in errors[0]
    assert before.pop(shared)[:2] == after.pop(shared)[:2]
    assert after == before


def test_old_schema_is_4(place: Place) -> None:
    copy_store(OLD_STORE, place.store)
    found = refusal(place)
    assert found.code == 4
    assert "bda7b8c39065" in found.errors[0]
    assert "upgrade" in found.hints[0]


@SQLITE
def test_newer_schema_is_4(place: Place, head_store: Path) -> None:
    copy_store(head_store, place.store)
    execute(place.store, "UPDATE alembic_version SET version_num = 'feedfacecafe'")
    found = refusal(place)
    assert found.code == 4
    assert "feedfacecafe" in found.errors[0]
    assert "newer" in found.text
    assert "upgrade" not in found.text


@SQLITE
@pytest.mark.parametrize(
    "statements",
    [
        ("INSERT INTO alembic_version VALUES ('bda7b8c39065')",),
        ("DELETE FROM alembic_version",),
        ("DROP TABLE alembic_version",),
        ("DROP TABLE alembic_version", "CREATE TABLE alembic_version (number INTEGER)"),
    ],
    ids=["two rows", "no row", "no table", "another column"],
)
def test_store_with_a_damaged_revision_is_4(
    place: Place, head_store: Path, statements: Sequence[str]
) -> None:
    copy_store(head_store, place.store)
    execute(place.store, *statements)
    found = refusal(place)
    assert found.code == 4
    assert len(found.hints) == 1


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TABLE invoices (id INTEGER)",),
        ("CREATE TABLE invoices (id INTEGER)", "CREATE TABLE alembic_version (version_num TEXT)"),
        (
            "CREATE TABLE invoices (id INTEGER)",
            "CREATE TABLE alembic_version (version_num TEXT)",
            "INSERT INTO alembic_version VALUES ('feedfacecafe')",
        ),
        ("CREATE TABLE runs (id INTEGER)",),
        ("CREATE VIEW invoices AS SELECT 1 AS id",),
    ],
    ids=["a table", "with alembic", "with a revision", "called as MLflow's", "a view"],
)
def test_tables_of_another_application_are_4(place: Place, statements: Sequence[str]) -> None:
    execute(place.store, *statements)
    found = refusal(place, plain=False)
    assert found.code == 4
    assert len(found.hints) == 1


@SQLITE
def test_registry_with_an_old_schema_is_4_and_the_other_store_is_not_initialised(
    place: Place,
) -> None:
    registry = copy_store(OLD_STORE, place.project / "registry.sqlite")
    found = refusal(place, environment={"MLFLOW_REGISTRY_STORE_URI": f"sqlite:///{registry}"})
    assert found.code == 4
    assert "registry.sqlite" in found.errors[0]


# --- PostgreSQL and MySQL over the network -----------------------------------------------------

POSTGRES = pytest.mark.xdist_group("bad-input-postgres")
PSYCOPGS = pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg2"])


@POSTGRES
@PSYCOPGS
def test_wrong_password_is_77(place: Place, database: PasswordServer, scheme: str) -> None:
    role = database.new_role("right-4711")
    name = database.new_database(role)
    uri = database.uri(role, "wrong-0815", name, scheme)
    found = refusal(place, environment={STORE: uri})
    assert found.code == 77
    assert len(found.errors) == 1
    assert "wrong-0815" not in found.text
    assert database.tables(name) == []


@POSTGRES
def test_missing_password_is_77(place: Place, database: PasswordServer) -> None:
    role = database.new_role("right-4711")
    uri = f"postgresql://{role}@127.0.0.1:{database.relay.port}/postgres"
    assert refusal(place, environment={STORE: uri}).code == 77


@POSTGRES
def test_unknown_user_is_77(place: Place, database: PasswordServer) -> None:
    found = refusal(
        place, environment={STORE: database.uri("nobody_of_that_name", "x", "postgres")}
    )
    assert found.code == 77


@POSTGRES
@pytest.mark.parametrize("setting", ["MLFLOW_REGISTRY_STORE_URI"])
def test_wrong_password_of_another_store_names_its_setting(
    place: Place, database: PasswordServer, setting: str
) -> None:
    role = database.new_role("right-4711")
    uri = database.uri(role, "wrong-0815", "postgres")
    found = refusal(place, environment={setting: uri})
    assert found.code == 77
    assert setting in found.text
    assert STORE not in found.text


@POSTGRES
@PSYCOPGS
def test_missing_database_is_69(place: Place, database: PasswordServer, scheme: str) -> None:
    role = database.new_role("right-4711")
    found = refusal(
        place, environment={STORE: database.uri(role, "right-4711", "not_there", scheme)}
    )
    assert found.code == 69
    assert "no such database" in found.errors[0]
    with database.administer() as connection:
        query = "SELECT 1 FROM pg_database WHERE datname = 'not_there'"
        assert connection.execute(query).fetchone() is None


@POSTGRES
def test_database_without_the_right_to_connect_is_77(
    place: Place, database: PasswordServer
) -> None:
    role = database.new_role("right-4711")
    name = database.new_database("postgres")
    with database.administer() as connection:
        connection.execute(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")
    found = refusal(place, environment={STORE: database.uri(role, "right-4711", name)})
    assert found.code == 77
    assert database.tables(name) == []


@POSTGRES
def test_empty_database_without_the_right_to_create_tables_is_77(
    place: Place, database: PasswordServer
) -> None:
    role = database.new_role("right-4711")
    name = database.new_database("postgres")
    found = refusal(place, environment={STORE: database.uri(role, "right-4711", name)})
    assert found.code == 77
    assert database.tables(name) == []


@POSTGRES
@pytest.mark.parametrize(
    ("statements", "word"),
    [
        (("INSERT INTO alembic_version VALUES ('bda7b8c39065')",), "upgrade"),
        (("INSERT INTO alembic_version VALUES ('feedfacecafe')",), "newer"),
        (("INSERT INTO alembic_version VALUES ('bda7b8c39065'), ('feedfacecafe')",), "backup"),
        ((), "another application"),
        (("DROP TABLE alembic_version",), "another application"),
    ],
    ids=["old", "newer", "two rows", "no row", "no revision"],
)
def test_schema_that_does_not_fit_is_4_on_postgresql(
    place: Place, database: PasswordServer, statements: Sequence[str], word: str
) -> None:
    role = database.new_role("right-4711")
    name = database.new_database(role)
    uri = database.uri(role, "right-4711", name)
    tables = (
        "CREATE TABLE experiments (experiment_id INTEGER)",
        "CREATE TABLE runs (run_uuid TEXT)",
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)",
    )
    with psycopg.connect(uri, autocommit=True) as connection:
        for statement in (*tables, *statements):
            connection.execute(statement)
    before = database.tables(name)
    found = refusal(place, environment={STORE: uri})
    assert found.code == 4
    assert word in found.text
    assert database.tables(name) == before


UNREACHABLE_SCHEMES = pytest.mark.parametrize(
    "scheme", ["postgresql", "postgresql+psycopg2", "mysql+pymysql"]
)


@UNREACHABLE_SCHEMES
def test_refused_port_of_the_database_is_69(place: Place, scheme: str) -> None:
    uri = f"{scheme}://ada:hidden@127.0.0.1:{free_port()}/mlflow"
    found = refusal(place, environment={STORE: uri}, plain=scheme == "postgresql")
    assert found.code == 69
    assert "refused" in found.errors[0]
    assert "hidden" not in found.text


@UNREACHABLE_SCHEMES
def test_database_that_accepts_and_never_answers_is_69_in_time(place: Place, scheme: str) -> None:
    with silent_listener() as port:
        uri = f"{scheme}://ada:hidden@127.0.0.1:{port}/mlflow"
        found = refusal(place, environment={STORE: uri})
    assert found.code == 69
    assert "no answer" in found.errors[0]
    assert "hidden" not in found.text


@UNREACHABLE_SCHEMES
def test_unknown_host_of_the_database_is_69(place: Place, scheme: str) -> None:
    uri = f"{scheme}://ada:hidden@no-such-host.invalid/mlflow"
    found = refusal(place, environment={STORE: uri}, plain=scheme == "postgresql")
    assert found.code == 69
    assert "no-such-host.invalid" in found.errors[0]


def test_database_on_a_machine_that_is_not_there_is_69_in_time(place: Place) -> None:
    """192.0.2.0/24 is for documentation (RFC 5737): packets are lost, or the router says no."""
    found = refusal(place, environment={STORE: "postgresql://ada:hidden@192.0.2.1/mlflow"})
    assert found.code == 69


class _NoDatabase(BaseHTTPRequestHandler):
    """Something that talks, but not as expected."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.settimeout(10)
            self.connection.recv(1024)
            self.connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


@UNREACHABLE_SCHEMES
def test_something_else_in_place_of_the_database_is_69(place: Place, scheme: str) -> None:
    with http_listener(_NoDatabase) as port:
        uri = f"{scheme}://ada:hidden@127.0.0.1:{port}/mlflow"
        found = refusal(place, environment={STORE: uri}, plain=scheme == "postgresql")
    assert found.code == 69
    assert "hidden" not in found.text


# --- S3 ----------------------------------------------------------------------------------------

S3 = pytest.mark.xdist_group("bad-input-s3")


@contextlib.contextmanager
def administer(s3: S3Server) -> Iterator[Any]:
    """A boto3 client of the server's owner."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
        region_name="us-east-1",
    )
    try:
        yield client
    finally:
        client.close()


def content_of(s3: S3Server, bucket: str) -> list[str]:
    """Every object and unfinished upload in a bucket."""
    with administer(s3) as client:
        objects = client.list_objects_v2(Bucket=bucket).get("Contents", [])
        uploads = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return [entry["Key"] for entry in (*objects, *uploads)]


def buckets_of(s3: S3Server) -> list[str]:
    """The names of all buckets."""
    with administer(s3) as client:
        return [entry["Name"] for entry in client.list_buckets()["Buckets"]]


def warm_up(s3: S3Server, bucket: str) -> None:
    """Write into a new bucket once: the first object in one may take seconds."""
    with administer(s3) as client:
        client.put_object(Bucket=bucket, Key="first", Body=b"x")
        client.delete_object(Bucket=bucket, Key="first")


@S3
@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no S3 credentials"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "no S3 credentials"),
        ({"AWS_ACCESS_KEY_ID": "somebody-else"}, "refuses"),
        ({"AWS_SECRET_ACCESS_KEY": "not-the-secret-key-9876543210"}, "refuses"),
    ],
    ids=["none", "half", "wrong key", "wrong secret"],
)
def test_s3_with_bad_credentials_is_77(
    place: Place, s3: S3Server, bucket: str, change: Mapping[str, str], word: str
) -> None:
    environment = {**s3.environment, DESTINATION: f"s3://{bucket}/artifacts", **change}
    found = refusal(place, environment=environment)
    assert found.code == 77
    assert word in found.errors[0]
    assert "AWS_" in found.text or "s3:PutObject" in found.text
    assert s3.secret_key not in found.text
    assert "not-the-secret-key" not in found.text
    assert content_of(s3, bucket) == []


@S3
def test_missing_bucket_is_69_and_stays_missing(place: Place, s3: S3Server) -> None:
    name = f"missing-{uuid.uuid4().hex}"
    found = refusal(place, environment={**s3.environment, DESTINATION: f"s3://{name}/artifacts"})
    assert found.code == 69
    assert name in found.errors[0]
    assert name not in buckets_of(s3)


@S3
def test_database_that_fails_leaves_the_bucket_empty(
    place: Place, s3: S3Server, bucket: str
) -> None:
    copy_store(OLD_STORE, place.store)
    environment = {**s3.environment, DESTINATION: f"s3://{bucket}/artifacts"}
    assert refusal(place, environment=environment).code == 4
    assert content_of(s3, bucket) == []


S3_ANYWHERE: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "hidden",
    "AWS_DEFAULT_REGION": "us-east-1",
    DESTINATION: "s3://bucket/artifacts",
}


@pytest.mark.parametrize(
    ("endpoint", "code"),
    [("http://no-such-host.invalid:9000", 69), ("not an address", 78)],
    ids=["unknown host", "no URL"],
)
def test_bad_s3_endpoint(place: Place, endpoint: str, code: int) -> None:
    found = refusal(place, environment={**S3_ANYWHERE, "MLFLOW_S3_ENDPOINT_URL": endpoint})
    assert found.code == code
    assert "MLFLOW_S3_ENDPOINT_URL" in found.text
    assert "hidden" not in found.text


def test_refused_port_of_the_s3_endpoint_is_69(place: Place) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    found = refusal(place, environment={**S3_ANYWHERE, "MLFLOW_S3_ENDPOINT_URL": endpoint})
    assert found.code == 69
    assert endpoint in found.errors[0]
    assert "MLFLOW_S3_ENDPOINT_URL" in found.text


def test_s3_endpoint_that_accepts_and_never_answers_is_69_in_time(place: Place) -> None:
    with silent_listener() as port:
        endpoint = f"http://127.0.0.1:{port}"
        found = refusal(place, environment={**S3_ANYWHERE, "MLFLOW_S3_ENDPOINT_URL": endpoint})
    assert found.code == 69
    assert "hidden" not in found.text


def test_everything_silent_at_once_still_ends_in_time(place: Place) -> None:
    with silent_listener() as port:
        uri = f"postgresql://ada:hidden@127.0.0.1:{port}"
        environment = {
            **S3_ANYWHERE,
            STORE: f"{uri}/mlflow",
            "MLFLOW_REGISTRY_STORE_URI": f"{uri}/registry",
            "MLFLOW_READ_REPLICA_BACKEND_STORE_URI": f"{uri}/replica",
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }
        found = refusal(place, environment=environment)
    assert found.code == 69
    assert found.seconds < 13


class _NotS3(BaseHTTPRequestHandler):
    """An HTTP server that knows nothing of S3."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b"<html><body>Welcome</body></html>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer

    def log_message(self, format: str, *args: object) -> None:
        return


class _SlowS3(_NotS3):
    """As much of S3 as a probe needs, taking its time to write."""

    objects: ClassVar[dict[str, bytes]] = {}

    def do_PUT(self) -> None:
        time.sleep(2.5)
        self.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._reply(200)

    def do_GET(self) -> None:
        self._reply(200, self.objects[self.path])

    def do_HEAD(self) -> None:
        self._reply(200)

    def do_DELETE(self) -> None:
        self.objects.pop(self.path.partition("?")[0], None)
        self._reply(204)

    def _reply(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("ETag", f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@SQLITE
def test_probe_in_flight_is_taken_back_when_another_check_fails_first(
    place: Place, head_store: Path
) -> None:
    copy_store(head_store, place.store)
    with http_listener(_SlowS3) as port, locked(place.store, "BEGIN EXCLUSIVE"):
        environment = {**S3_ANYWHERE, "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        assert refusal(place, environment=environment).code == 75
        time.sleep(3)  # for requests that nobody waits for any more
    assert list(_SlowS3.objects) == []


def test_s3_endpoint_that_is_a_web_page_is_69(place: Place) -> None:
    with http_listener(_NotS3) as port:
        endpoint = f"http://127.0.0.1:{port}"
        found = refusal(place, environment={**S3_ANYWHERE, "MLFLOW_S3_ENDPOINT_URL": endpoint})
    assert found.code == 69
    assert "hidden" not in found.text


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
