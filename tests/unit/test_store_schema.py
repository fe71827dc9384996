"""Initialising a store: all or nothing, by one process, whatever happens to it."""

from __future__ import annotations

import random
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlflow_server.store.revision import SchemaState, head_revision, read_store_status
from mlflow_server.uris import parse_store_uri
from tests.unit.making_stores import make_store
from tests.unit.zygote import DID_IT, FOUND_IT_DONE, Zygote, sqlite_uri

pytestmark = pytest.mark.xdist_group("mlflow")


def state_of(path: Path) -> SchemaState:
    return read_store_status(parse_store_uri(sqlite_uri(path))).state


def tables_of(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    try:
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {row[0] for row in connection.execute(query)}
    finally:
        connection.close()


@dataclass(frozen=True)
class Made:
    """A store made once for all tests of this module, by a process of its own.

    Args:
        path: Its file, in folders that were made for it.
        tables: Its tables.
        seconds: How long making it took, here and today.
    """

    path: Path
    tables: set[str]
    seconds: float


@pytest.fixture(scope="module")
def made(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Made:
    path = tmp_path_factory.mktemp("made") / "deep/er/my.db"
    started = time.monotonic()
    assert zygote.initialise(sqlite_uri(path)) == [DID_IT]
    seconds = time.monotonic() - started
    return Made(path, tables_of(path), seconds)


def test_makes_a_store_that_this_release_can_use(made: Made) -> None:
    assert state_of(made.path) is SchemaState.CURRENT
    assert {"experiments", "runs", "registered_models", "trace_info"} <= made.tables


def test_leaves_nothing_else_behind_but_the_lock(made: Made) -> None:
    assert {entry.name for entry in made.path.parent.iterdir()} == {"my.db", "my.db.lock"}


def test_a_new_file_has_the_mode_of_any_new_file(made: Made, tmp_path: Path) -> None:
    """Made by way of a temporary file, it must not keep that file's 0600."""
    (tmp_path / "other").touch()
    assert made.path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_the_second_call_finds_it_done_and_changes_nothing(zygote: Zygote, made: Made) -> None:
    before = made.path.read_bytes(), made.path.stat().st_mtime_ns
    assert zygote.initialise(sqlite_uri(made.path)) == [FOUND_IT_DONE]
    assert (made.path.read_bytes(), made.path.stat().st_mtime_ns) == before


def test_of_four_at_once_exactly_one_does_it(zygote: Zygote, made: Made, tmp_path: Path) -> None:
    codes = zygote.initialise_at_once(sqlite_uri(tmp_path / "my.db"), 4)
    assert sorted(codes) == [DID_IT] + [FOUND_IT_DONE] * 3
    assert tables_of(tmp_path / "my.db") == made.tables


def test_an_existing_empty_file_behind_a_link_keeps_link_and_mode(
    zygote: Zygote, tmp_path: Path
) -> None:
    real = tmp_path / "volume/real.db"
    real.parent.mkdir()
    real.touch()
    real.chmod(0o640)
    (tmp_path / "my.db").symlink_to(real)
    assert zygote.initialise(sqlite_uri(tmp_path / "my.db")) == [DID_IT]
    assert (tmp_path / "my.db").is_symlink()
    assert state_of(real) is SchemaState.CURRENT
    assert real.stat().st_mode & 0o7777 == 0o640


@pytest.mark.parametrize(
    ("tables", "revisions"),
    [(["users"], []), (["experiments", "runs"], ["0123456789ab"]), ([], [head_revision()])],
)
def test_what_is_no_empty_store_is_not_touched(
    zygote: Zygote, tmp_path: Path, tables: list[str], revisions: list[str]
) -> None:
    path = tmp_path / "my.db"
    make_store(path, tables=tables, revisions=revisions)
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert zygote.initialise(sqlite_uri(path)) == [1]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_a_kill_at_any_moment_leaves_it_empty_or_complete(
    zygote: Zygote, made: Made, tmp_path: Path
) -> None:
    """Five kills in a row, each in another fifth of the work; then one run to the end."""
    path = tmp_path / "my.db"
    moments = random.Random(time.time_ns())  # noqa: S311 - nothing to guess here
    for fifth in range(5):
        moment = moments.uniform(fifth / 5, (fifth + 1) / 5) * made.seconds
        codes = zygote.initialise(sqlite_uri(path), kill_after_s=moment)
        told = f"killed after {moment:.3f} of {made.seconds:.3f} s, exit code {codes}"
        if state_of(path) is SchemaState.EMPTY:
            assert codes == [-9], told
            assert not path.exists(), told
        else:
            assert state_of(path) is SchemaState.CURRENT, told
    assert zygote.initialise(sqlite_uri(path))[0] in (DID_IT, FOUND_IT_DONE)
    assert tables_of(path) == made.tables
    assert {entry.name for entry in tmp_path.iterdir()} == {"my.db", "my.db.lock"}
