"""Which schema a store has, judged without importing MLflow."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_server.errors import BadInputError, ExitCode, OpsError, SchemaError
from mlflow_server.store.revision import (
    SchemaState,
    SchemaStatus,
    head_revision,
    judge,
    migration_tree,
    pending_after,
    read_store_status,
    require_usable,
)
from mlflow_server.uris import parse_store_uri
from tests.support.programs import REPOSITORY, clean_environment
from tests.unit.making_stores import make_store
from tests.unit.zygote import Zygote

MLFLOW_TABLES = {"experiments", "runs", "metrics", "alembic_version"}
HEAD = head_revision()
OLD = pending_after(None)[5]  # type: ignore[index]


@pytest.mark.xdist_group("mlflow")
def test_the_tree_is_that_which_alembic_reads_from_the_installed_mlflow(zygote: Zygote) -> None:
    tree = {key: [value] if value else [] for key, value in migration_tree().items()}
    assert tree == zygote.alembic_tree()
    assert len(tree) > 30


def test_pending_revisions_lead_from_each_to_head_in_order() -> None:
    tree = migration_tree()
    for revision in [None, *tree]:
        pending = pending_after(revision)
        assert pending is not None
        at = revision
        for step in pending:
            assert tree[step] == at
            at = step
        assert at == HEAD


def test_nothing_is_pending_at_head() -> None:
    assert pending_after(HEAD) == ()


def test_nobody_knows_what_is_pending_after_an_unknown_revision() -> None:
    assert pending_after("0123456789ab") is None


@pytest.mark.parametrize(
    ("tables", "revisions", "state", "current"),
    [
        (set(), [], SchemaState.EMPTY, None),
        ({"alembic_version"}, [], SchemaState.EMPTY, None),
        (MLFLOW_TABLES, [HEAD], SchemaState.CURRENT, HEAD),
        (MLFLOW_TABLES, [OLD], SchemaState.BEHIND, OLD),
        (MLFLOW_TABLES, ["0123456789ab"], SchemaState.UNKNOWN, "0123456789ab"),
        (MLFLOW_TABLES, [], SchemaState.FOREIGN, None),
        ({"users"}, [], SchemaState.FOREIGN, None),
        ({"users", "alembic_version"}, ["0123456789ab"], SchemaState.FOREIGN, "0123456789ab"),
        ({"users", "alembic_version"}, [HEAD], SchemaState.FOREIGN, HEAD),
        ({"experiments", "alembic_version"}, [HEAD], SchemaState.FOREIGN, HEAD),
        ({"alembic_version"}, [HEAD], SchemaState.BROKEN, HEAD),
        (MLFLOW_TABLES, sorted([HEAD, OLD]), SchemaState.BROKEN, ", ".join(sorted([HEAD, OLD]))),
        (set(), ["b", "a"], SchemaState.BROKEN, "a, b"),
    ],
)
def test_verdicts(
    tables: set[str], revisions: list[str], state: SchemaState, current: str | None
) -> None:
    status = judge(tables, revisions)
    assert (status.state, status.current, status.head) == (state, current, HEAD)
    assert bool(status.pending) is (state is SchemaState.BEHIND)


names = st.sampled_from(sorted(MLFLOW_TABLES | {"users"}))
revision_texts = st.sampled_from([HEAD, OLD, "0123456789ab", "", "x" * 40])


@given(st.sets(names), st.lists(revision_texts, max_size=3))
def test_only_a_whole_store_at_head_or_one_without_anything_is_usable(
    tables: set[str], revisions: list[str]
) -> None:
    status = judge(tables, revisions)
    uri = parse_store_uri("sqlite:///my.db")
    usable = revisions == [HEAD] and {"experiments", "runs"} <= tables
    empty = not revisions and tables <= {"alembic_version"}
    if usable or empty:
        require_usable(status, uri)
    else:
        with pytest.raises(SchemaError):
            require_usable(status, uri)


@pytest.mark.parametrize(
    ("state", "words", "hint"),
    [
        (SchemaState.BEHIND, "2 behind", "mlflow-server upgrade"),
        (SchemaState.UNKNOWN, "a newer MLflow wrote it", "newer"),
        (SchemaState.BROKEN, "fits no MLflow store", "backup"),
        (SchemaState.FOREIGN, "tables of another application", "of its own"),
    ],
)
def test_a_refusal_says_why_and_what_to_do(state: SchemaState, words: str, hint: str) -> None:
    uri = parse_store_uri("postgresql://u:S3cr3tMarker@db/x")
    with pytest.raises(SchemaError, match=words) as caught:
        require_usable(SchemaStatus(state, "abc", HEAD, ("a", "b")), uri)
    assert caught.value.exit_code is ExitCode.SCHEMA
    assert hint in (caught.value.hint or "")
    assert "S3cr3tMarker" not in str(caught.value)


# Files


@pytest.mark.parametrize("wal", [False, True])
def test_reads_a_file_and_leaves_every_byte(tmp_path: Path, wal: bool) -> None:
    path = tmp_path / "my.db"
    uri = make_store(path, wal=wal)
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert read_store_status(uri).state is SchemaState.CURRENT
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert list(tmp_path.iterdir()) == [path]


def test_reads_what_a_running_server_has_not_checkpointed(tmp_path: Path) -> None:
    uri = make_store(tmp_path / "my.db", revisions=[OLD], wal=True)
    server = sqlite3.connect(tmp_path / "my.db", isolation_level=None)
    try:
        server.execute("UPDATE alembic_version SET version_num = ?", (HEAD,))
        assert (tmp_path / "my.db-wal").exists()
        assert read_store_status(uri).state is SchemaState.CURRENT
    finally:
        server.close()


def test_a_missing_file_is_empty_and_is_not_made(tmp_path: Path) -> None:
    uri = parse_store_uri(f"sqlite:///{tmp_path}/deep/my.db")
    assert read_store_status(uri).state is SchemaState.EMPTY
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_bytes_is_empty_and_stays_so(tmp_path: Path) -> None:
    (tmp_path / "my.db").touch()
    uri = parse_store_uri(f"sqlite:///{tmp_path}/my.db")
    assert read_store_status(uri).state is SchemaState.EMPTY
    assert (tmp_path / "my.db").stat().st_size == 0


def test_our_own_tables_are_no_content(tmp_path: Path) -> None:
    uri = make_store(tmp_path / "my.db", revisions=[], tables=["tracking_server_journal"])
    assert read_store_status(uri).state is SchemaState.EMPTY


@pytest.mark.parametrize("content", [b"this is no database at all" * 100, b"short text\n"])
def test_a_file_that_is_no_database_is_bad_input(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "my.db").write_bytes(content)
    with pytest.raises(BadInputError):
        read_store_status(parse_store_uri(f"sqlite:///{tmp_path}/my.db"))
    assert (tmp_path / "my.db").read_bytes() == content


def test_a_truncated_file_is_bad_input(tmp_path: Path) -> None:
    uri = make_store(tmp_path / "my.db", tables=[f"t{n}" for n in range(30)])
    whole = (tmp_path / "my.db").read_bytes()
    (tmp_path / "my.db").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInputError):
        read_store_status(uri)


def test_a_folder_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "my.db").mkdir()
    with pytest.raises(OpsError, match="a folder, not a"):
        read_store_status(parse_store_uri(f"sqlite:///{tmp_path}/my.db"))


@pytest.mark.parametrize("name", ["a b", "a#b", "a%20b", "a'b", "ü"])
def test_a_name_with_special_characters_is_found(tmp_path: Path, name: str) -> None:
    make_store(tmp_path / name / "my.db")
    uri = parse_store_uri(f"sqlite:///{tmp_path}/{name.replace('%', '%25')}/my.db")
    assert read_store_status(uri).state is SchemaState.CURRENT


def test_mlflow_is_not_imported_for_any_of_this(tmp_path: Path) -> None:
    make_store(tmp_path / "my.db")
    code = (
        "import sys\n"
        "from mlflow_server.store.revision import read_store_status\n"
        "from mlflow_server.uris import parse_store_uri\n"
        f"print(read_store_status(parse_store_uri('sqlite:///{tmp_path}/my.db')).state)\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'mlflow', 'alembic'}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=clean_environment(),
    )
    assert (done.stdout.split("\n")[:2], done.stderr) == (["current", "[]"], "")
