"""One operation at a time per SQLite store; the other databases are tested with real servers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlflow_server.errors import BusyError, ExitCode, OpsError
from mlflow_server.store.lock import exclusive
from mlflow_server.uris import StoreUri, parse_store_uri
from tests.support.programs import REPOSITORY, clean_environment

_HOLDER = """
import sys
from mlflow_server.store.lock import exclusive
from mlflow_server.uris import parse_store_uri
with exclusive(parse_store_uri(sys.argv[1]), "backup"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(uri: StoreUri) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the lock until its stdin is closed or it is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, uri.text],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=clean_environment(),
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture
def uri(tmp_path: Path) -> StoreUri:
    return parse_store_uri(f"sqlite:///{tmp_path}/my.db")


def test_busy_names_the_holder_and_since_when(uri: StoreUri) -> None:
    with held_elsewhere(uri) as process, pytest.raises(BusyError) as caught, exclusive(uri, "gc"):
        raise AssertionError("nobody may get here")
    message = str(caught.value)
    assert f"backup (pid {process.pid} on " in message
    assert re.search(r"since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", message)
    assert caught.value.exit_code is ExitCode.BUSY
    assert caught.value.hint


def test_free_after_a_kill(uri: StoreUri) -> None:
    with held_elsewhere(uri) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        with exclusive(uri, "gc"):
            pass


def test_free_after_the_end(uri: StoreUri) -> None:
    for _ in range(2):
        with exclusive(uri, "gc"):
            pass


def test_free_after_a_failure(uri: StoreUri) -> None:
    with pytest.raises(KeyError), exclusive(uri, "gc"):
        raise KeyError
    with exclusive(uri, "gc"):
        pass


def test_waits_for_the_other_to_end(uri: StoreUri) -> None:
    with held_elsewhere(uri) as process:
        assert process.stdin is not None
        release = threading.Timer(0.3, process.stdin.close)
        release.start()
        with exclusive(uri, "gc", wait_s=60):
            assert process.wait(30) == 0
        release.join()


def test_waits_no_longer_than_told(uri: StoreUri) -> None:
    with held_elsewhere(uri), pytest.raises(BusyError), exclusive(uri, "gc", wait_s=0.2):
        raise AssertionError("nobody may get here")


def test_excludes_a_second_holder_in_the_same_process(uri: StoreUri) -> None:
    with exclusive(uri, "gc"), pytest.raises(BusyError, match="gc"), exclusive(uri, "upgrade"):
        raise AssertionError("nobody may get here")


def test_stores_beside_each_other_do_not_share_a_lock(uri: StoreUri, tmp_path: Path) -> None:
    other = parse_store_uri(f"sqlite:///{tmp_path}/other.db")
    with exclusive(uri, "gc"), exclusive(other, "gc"):
        pass


def test_all_ways_to_a_file_lead_to_one_lock(
    uri: StoreUri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    for text in (f"sqlite:///{tmp_path}/link/my.db", "sqlite:///my.db", "sqlite:///x/../my.db"):
        with exclusive(uri, "gc"), pytest.raises(BusyError), exclusive(parse_store_uri(text), "x"):
            raise AssertionError("nobody may get here")


def test_the_database_itself_is_neither_made_nor_touched(uri: StoreUri, tmp_path: Path) -> None:
    with exclusive(uri, "gc"):
        assert [path.name for path in tmp_path.iterdir()] == ["my.db.lock"]


def test_the_lock_file_says_nothing_once_nobody_holds_it(uri: StoreUri, tmp_path: Path) -> None:
    with exclusive(uri, "gc"):
        assert str(os.getpid()) in (tmp_path / "my.db.lock").read_text("utf-8")
    assert (tmp_path / "my.db.lock").read_text("utf-8") == ""


@pytest.mark.parametrize("content", ["", "no json", "[]", "{}", '{"command": 1}', "\xff"])
def test_an_unreadable_holder_is_still_busy(uri: StoreUri, tmp_path: Path, content: str) -> None:
    with held_elsewhere(uri):
        (tmp_path / "my.db.lock").write_bytes(content.encode("latin-1"))
        with pytest.raises(BusyError, match="not known which"), exclusive(uri, "gc"):
            raise AssertionError("nobody may get here")


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_place_that_cannot_hold_a_lock_is_an_error_for_operators(
    tmp_path: Path, kind: str
) -> None:
    if kind == "file":
        (tmp_path / "place").write_text("x", "utf-8")
    uri = parse_store_uri(f"sqlite:///{tmp_path}/place/my.db")
    with pytest.raises(OpsError, match="place"), exclusive(uri, "gc"):
        raise AssertionError("nobody may get here")


def test_sixteen_processes_take_turns(uri: StoreUri, tmp_path: Path) -> None:
    """Each adds one to a number in a file, which loses counts unless they take turns."""
    counter = tmp_path / "counter"
    counter.write_text("0", "utf-8")
    children = []
    for _ in range(16):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with exclusive(uri, "gc", wait_s=60):
                    counter.write_text(str(int(counter.read_text("utf-8")) + 1), "utf-8")
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * 16
    assert counter.read_text("utf-8") == "16"
