"""`gc` killed, interrupted and started twice at any moment: the end is always the same.

TRACKING_SERVER_TEST_SEED repeats the moments of a run that failed, as far as a machine can.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from mlflow_server.store.lock import exclusive
from mlflow_server.uris import parse_store_uri
from tests.support import forks
from tests.support.gc_large_store import large_store
from tests.support.gc_oracle import Request, judge
from tests.support.gc_place import KILLED
from tests.support.gc_random_store import Store
from tests.support.gc_yard import Files, Tables, Yard, differences
from tests.support.mariadb import MARIADB
from tests.support.programs import clean_environment

KILLS = 12
PAIRS = 6
SEED = int(os.environ.get("TRACKING_SERVER_TEST_SEED", random.SystemRandom().randrange(2**32)))
DEADLINE_S = 120.0
BUSY = 75
# In the middle of a transaction, with most of the work still to be done.
AT_WORK = ("mlflow_server.gc.ids", "Ids:execute", "12", "after")
pytestmark = [pytest.mark.xdist_group("gc-killed"), pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Collected:
    """A large store, and what an uninterrupted collection makes of it.

    Args:
        now_ms: What ages are counted from, so that each copy is the same.
        seconds: How long it took.
    """

    yard: Yard
    store: Store
    now_ms: int
    tables: Tables
    files: Files
    seconds: float

    @classmethod
    def make(cls, yard: Yard, size: int) -> Collected:
        """Build it and collect once."""
        store, now_ms = large_store(size), round(time.time() * 1000)
        yard.build(store, now_ms)
        before = yard.tables()
        began = time.monotonic()
        ended = _finish(yard)
        seconds = time.monotonic() - began
        assert ended == 0
        tables = yard.tables()
        gone = judge(store, Request()).all_gone
        assert not differences(tables, yard.expected_tables(before, store, gone))
        return cls(yard, store, now_ms, tables, _clean(yard.files()), seconds)

    def build(self) -> None:
        """Another copy, in the place of what is there."""
        self.yard.build(self.store, self.now_ms)

    def is_done(self) -> bool:
        """Whether everything is gone that should be."""
        return self.yard.tables() == self.tables

    def check_end(self) -> None:
        """The same end as if nothing had happened."""
        assert not differences(self.yard.tables(), self.tables)
        files = _clean(self.yard.files())
        assert not files.keys() - self.files.keys(), "files are left"
        assert not self.files.keys() - files.keys(), "files are missing"
        assert self.yard.journal() == 0

    def check_restorable(self) -> None:
        """What has its row has all its files."""
        tables, files = self.yard.tables(), self.yard.files()
        rows = {key[0] for name in ("runs", "logged_models", "trace_info") for key in tables[name]}
        lost = [
            file.path
            for file in self.store.files()
            if file.owner in rows and file.path not in files
        ]
        assert not lost


@pytest.fixture(scope="module", params=["sqlite", "postgresql", MARIADB])
def yard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Yard:
    fixture = {"postgresql": "postgres", "mariadb": "mariadb"}.get(request.param)
    server = request.getfixturevalue(fixture) if fixture else None
    return Yard.make(tmp_path_factory.mktemp("gc-killed"), server)


@pytest.fixture(scope="module")
def large(yard: Yard) -> Collected:
    return Collected.make(yard, 60)


@pytest.fixture(scope="module")
def small(yard: Yard) -> Collected:
    return Collected.make(yard, 6)


def test_killed_again_and_again_it_ends_the_same(large: Collected) -> None:
    chance = _seeded()
    large.build()
    kills = 0
    while kills < KILLS:
        process = _start(large.yard)
        try:
            code = process.wait(chance.uniform(0, large.seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            large.check_restorable()
        else:
            # It has ended by itself, or what is left of a killed one in the database has the lock.
            assert code in (0, BUSY), process.communicate()
            process.communicate()
            if code == 0:
                large.check_end()
                large.build()
    assert _finish(large.yard) == 0
    large.check_end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_at_work_it_says_so_and_leaves_the_rest(
    large: Collected, number: signal.Signals
) -> None:
    large.build()
    ended = forks.run(
        [sys.executable, "-c", KILLED, *AT_WORK, str(int(number))],
        env=clean_environment(**large.yard.environment),
        cwd=large.yard.root,
        timeout=DEADLINE_S,
    )
    assert ended.returncode == 128 + number, ended.stderr
    assert "Traceback" not in ended.stderr
    assert not large.is_done(), "it went on to the end"
    large.check_restorable()
    assert _finish(large.yard) == 0
    large.check_end()


# Most moments are Python's and not the database's: two are enough.
@pytest.mark.parametrize("yard", ["sqlite", "postgresql"], indirect=True, scope="module")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_at_any_moment_it_ends_the_same(
    large: Collected, number: signal.Signals
) -> None:
    chance = _seeded()
    large.build()
    for _ in range(KILLS // 3):
        process = _start(large.yard)
        try:
            process.wait(chance.uniform(0, large.seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        _, stderr = process.communicate(timeout=DEADLINE_S)
        # Python itself dies of the signal before there is anything to be stopped in good order.
        is_before_ours = "Fatal Python error: init_import_site" in stderr
        assert is_before_ours or process.returncode in (128 + number, -number, 0), stderr
        large.check_restorable()
    assert _finish(large.yard) == 0
    large.check_end()


def test_two_at_once(small: Collected) -> None:
    for _ in range(PAIRS):
        small.build()
        both = [_start(small.yard) for _ in range(2)]
        ends = [process.communicate(timeout=DEADLINE_S) for process in both]
        codes = {process.returncode for process in both}
        assert 0 in codes, ends
        assert codes <= {0, BUSY}, ends
        small.check_end()


def test_it_waits_for_its_turn_while_another_operation_holds_the_lock(small: Collected) -> None:
    small.build()
    before = small.yard.tables(), small.yard.files()
    with exclusive(parse_store_uri(small.yard.uri), "upgrade"):
        process = _start(small.yard)
        _, stderr = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == BUSY
        holder = "connection" if small.yard.uri.startswith("mysql") else "upgrade"
        assert holder in stderr, "it says who holds it"
        process = _start(small.yard, "--skip-if-busy")
        stdout, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0
        assert "skipped" in stdout
        assert (small.yard.tables(), small.yard.files()) == before
    assert _finish(small.yard) == 0
    small.check_end()


def _seeded() -> random.Random:
    print(f"TRACKING_SERVER_TEST_SEED={SEED}")
    return random.Random(SEED)  # noqa: S311


def _start(yard: Yard, *options: str) -> subprocess.Popen[str]:
    return forks.Popen(
        [sys.executable, "-m", "mlflow_server", "gc", "--json", *options],
        env=clean_environment(**yard.environment),
        cwd=yard.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(yard: Yard) -> int:
    """Run it to its end; a database frees the lock of a killed one when it notices."""
    for _ in _attempts():
        process = _start(yard)
        process.communicate(timeout=DEADLINE_S)
        if process.returncode != BUSY:
            break
    return process.returncode


def _attempts() -> Iterator[None]:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        yield
        time.sleep(0.01)


def _clean(files: Files) -> Files:
    """Without the folders: which empty ones are left above is nobody's promise."""
    return {path: content for path, content in files.items() if content is not None}
