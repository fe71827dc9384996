"""The database of MLflow's basic authentication is backed up with the store, and restored."""

from __future__ import annotations

import configparser
import importlib.util
from pathlib import Path

import pytest
import sqlalchemy
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

from tests.support.everything_place import BACKUPS, command, empty_store
from tests.support.places import Place, snapshot
from tests.support.programs import DESTINATION, STORE
from tests.support.stores import make_head_store, open_store

pytestmark = pytest.mark.xdist_group("restore-auth")

CONFIG = "MLFLOW_AUTH_CONFIG_PATH"
FIRST = "8606fa83a998"
VERSION = "alembic_version_auth"


def make_auth(uri: str, revision: str = "head") -> None:
    """Make the tables as MLflow does, without its application: that needs Flask-WTF."""
    spec = importlib.util.find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    scripts = ScriptDirectory(str(Path(spec.origin).parent / "server/auth/db/migrations"))
    environment = EnvironmentContext(
        Config(), scripts, fn=lambda at, _: scripts._upgrade_revs(revision, at)
    )
    with open_store(uri).begin() as connection, environment:
        environment.configure(connection=connection, version_table=VERSION)
        with environment.begin_transaction():
            environment.run_migrations()


def execute(uri: str, *statements: str) -> None:
    with open_store(uri).begin() as connection:
        for statement in statements:
            connection.execute(sqlalchemy.text(statement))


def rows(uri: str, table: str) -> list[tuple[object, ...]]:
    with open_store(uri).connect() as connection:
        query = f"SELECT * FROM {table}"  # noqa: S608
        return sorted(tuple(row) for row in connection.execute(sqlalchemy.text(query)))


def shape(uri: str) -> dict[str, object]:
    """What a database insists on, by table: keys, what is unique, what refers to what."""
    inspector = sqlalchemy.inspect(open_store(uri))
    found = {}
    for table in inspector.get_table_names():
        columns = inspector.get_columns(table)
        found[table] = (
            [(column["name"], column["nullable"], str(column["type"])) for column in columns],
            inspector.get_pk_constraint(table)["constrained_columns"],
            sorted(each["column_names"] for each in inspector.get_unique_constraints(table)),
            sorted(
                (each["constrained_columns"], each["referred_table"])
                for each in inspector.get_foreign_keys(table)
            ),
            sorted(
                str(each["name"]) for each in inspector.get_indexes(table) if not each["unique"]
            ),
        )
    return found


def configured(folder: Path, uri: str) -> str:
    """A configuration of the application that names a database."""
    parser = configparser.RawConfigParser()
    parser["mlflow"] = {"default_permission": "READ", "database_uri": uri}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "basic_auth.ini"
    with path.open("w") as file:
        parser.write(file)
    return str(path)


@pytest.fixture
def source(place: Place, tmp_path: Path) -> dict[str, str]:
    """The environment of a server with users."""
    uri = f"sqlite:///{place.store}"
    make_head_store(uri)
    users = f"sqlite:///{tmp_path}/users.db"
    make_auth(users)
    execute(
        users,
        "INSERT INTO users (id, username, password_hash, is_admin) "
        "VALUES (1, 'admin', 'scrypt:32768:8:1$x$y', 1), (7, 'größe', 'hash', 0)",
        "INSERT INTO roles (id, name, workspace) VALUES (3, 'readers', 'default')",
        "INSERT INTO role_permissions (id, role_id, resource_type, resource_pattern, permission) "
        "VALUES (5, 3, 'experiment', '*', 'READ')",
        "INSERT INTO user_role_assignments (id, user_id, role_id) VALUES (1, 7, 3)",
    )
    return {STORE: uri, CONFIG: configured(tmp_path / "source", users), "USERS": users}


def back_up(place: Place, source: dict[str, str], at: Path) -> dict[str, str]:
    environment = {**source, BACKUPS: str(at)}
    report = command(place, "backup", "create", "--no-artifacts", environment=environment)
    assert report["warnings"] == []
    command(place, "backup", "verify", "latest", "--drill", environment=environment)
    return environment


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_users_come_back(
    kind: str,
    place: Place,
    source: dict[str, str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    environment = back_up(place, source, tmp_path / "backups")
    store = empty_store(kind, request, tmp_path / "store")
    users = empty_store(kind, request, tmp_path / "users").uri
    config = configured(tmp_path / "target", users)
    command(
        place,
        *("restore", "latest", "--no-artifacts"),
        environment={**environment, **store.environment, CONFIG: config},
    )
    tables = {*shape(source["USERS"])}
    assert {table: rows(users, table) for table in tables} == {
        table: rows(source["USERS"], table) for table in tables
    }
    fresh = empty_store(kind, request, tmp_path / "fresh").uri
    if kind == "sqlite":
        Path(fresh.removeprefix("sqlite:///")).parent.mkdir(parents=True)
    make_auth(fresh)
    assert shape(users) == shape(fresh), "as MLflow itself would have made them"
    insert = "INSERT INTO users (username, password_hash, is_admin) VALUES "
    execute(users, insert + "('new', 'hash', false)")
    assert max(rows(users, "users"))[:2] == (8, "new"), "numbers go on"
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        execute(users, insert + "('admin', 'hash', false)")


def test_a_database_of_before_revisions_comes_back_at_the_first_one(
    place: Place, source: dict[str, str], tmp_path: Path
) -> None:
    users = f"sqlite:///{tmp_path}/old.db"
    make_auth(users, FIRST)
    execute(
        users,
        f"DROP TABLE {VERSION}",
        "INSERT INTO users (id, username) VALUES (1, 'ada')",
        "INSERT INTO experiment_permissions VALUES (1, '5', 1, 'READ')",
    )
    old = {**source, CONFIG: configured(tmp_path / "source", users)}
    environment = back_up(place, old, tmp_path / "backups")
    new = f"sqlite:///{tmp_path}/new.db"
    config = configured(tmp_path / "target", new)
    changed = {STORE: f"sqlite:///{tmp_path}/store.db", CONFIG: config}
    command(place, "restore", "latest", "--no-artifacts", environment={**environment, **changed})
    assert rows(new, VERSION) == [(FIRST,)]
    assert rows(new, "experiment_permissions") == rows(users, "experiment_permissions")


def test_tables_of_users_in_the_store_itself(
    place: Place,
    source: dict[str, str],
    postgres: object,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    """MLflow takes one database for both, too."""
    make_auth(source[STORE])
    execute(source[STORE], "INSERT INTO users (id, username) VALUES (4, 'ada')")
    both = {**source, CONFIG: configured(tmp_path / "source", source[STORE])}
    environment = back_up(place, both, tmp_path / "backups")
    target = empty_store("postgresql", request, tmp_path)
    config = configured(tmp_path / "target", target.uri)
    command(
        place,
        *("restore", "latest", "--no-artifacts"),
        environment={**environment, **target.environment, CONFIG: config},
    )
    assert rows(target.uri, VERSION) == rows(source[STORE], VERSION)
    assert rows(target.uri, "users") == [(4, "ada", None, None)]
    execute(target.uri, "INSERT INTO users (username) VALUES ('new')")
    assert (5, "new") in [row[:2] for row in rows(target.uri, "users")]


def test_users_that_are_there_are_only_replaced_when_asked(
    place: Place, source: dict[str, str], tmp_path: Path
) -> None:
    environment = back_up(place, source, tmp_path / "backups")
    users = f"sqlite:///{tmp_path}/other.db"
    make_auth(users)
    execute(users, "INSERT INTO users (username) VALUES ('other')")
    config = configured(tmp_path / "target", users)
    target = {STORE: f"sqlite:///{tmp_path}/store.db", CONFIG: config}
    line = ("restore", "latest", "--no-artifacts")
    before = snapshot(tmp_path)
    command(place, *line, environment={**environment, **target}, code=1)
    after = snapshot(tmp_path)
    assert {name for name in after if before.get(name) != after[name]} <= {"place/tmp"}
    line = (*line, "--replace", "--yes")
    report = command(place, *line, environment={**environment, **target})
    assert report["saved_as"].endswith("before-restore")
    assert rows(users, "users") == rows(source["USERS"], "users")


def test_a_backup_with_users_asks_where_they_go(
    place: Place, source: dict[str, str], tmp_path: Path
) -> None:
    environment = back_up(place, source, tmp_path / "backups")
    del environment[CONFIG]
    target = {STORE: f"sqlite:///{tmp_path}/store.db", DESTINATION: str(tmp_path / "artifacts")}
    ended = place.run("restore", "latest", environment={**environment, **target})
    assert ended.returncode == 78
    assert CONFIG in ended.stderr


def test_users_cannot_be_on_mysql(place: Place, source: dict[str, str], tmp_path: Path) -> None:
    """MLflow's own migrations fail there: two foreign keys have one name."""
    environment = back_up(place, source, tmp_path / "backups")
    config = configured(tmp_path / "target", "mysql+pymysql://ml:hidden@127.0.0.1:1/users")
    target = {STORE: f"sqlite:///{tmp_path}/store.db", CONFIG: config}
    ended = place.run("restore", "latest", "--no-artifacts", environment={**environment, **target})
    assert ended.returncode == 78
    assert "MariaDB" in ended.stderr
    assert not list(tmp_path.glob("store.db*"))
