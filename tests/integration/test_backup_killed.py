"""Backups made, restored, moved and pruned, killed or stopped at any step: the end is the same.

TRACKING_SERVER_TEST_SEED repeats the moments of a run that failed, as far as a machine can.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sqlite3
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest

from tests.conftest import Postgres
from tests.support.backup_place import Depot, files_of, is_sqlite_sound, rows_of
from tests.support.programs import DESTINATION, STORE
from tests.support.stepped import Ended

SEED = int(os.environ.get("TRACKING_SERVER_TEST_SEED", random.SystemRandom().randrange(2**32)))
MARK = ".mlflow-server-filling.json"
BUSY = 75
pytestmark = [pytest.mark.xdist_group("backup-killed"), pytest.mark.timeout(600)]


def telling(steps: Sequence[str]) -> list[int]:
    """The first and the last step of each kind, counted from 1."""
    found: dict[str, list[int]] = {}
    for number, step in enumerate(steps, 1):
        kind = re.sub(r"[^ /]+\.jsonl\.gz|[0-9a-f]{16,}|tmp/.*|[0-9]+", "*", step)
        found.setdefault(kind, []).append(number)
    return sorted({number for numbers in found.values() for number in (numbers[0], numbers[-1])})


def _seeded() -> random.Random:
    print(f"TRACKING_SERVER_TEST_SEED={SEED}")
    return random.Random(SEED)  # noqa: S311


def _add_artifact(depot: Depot, name: str) -> None:
    folder = depot.artifacts / depot.ids["stays"] / depot.ids["active"] / "artifacts"
    (folder / name).write_text(name)


# --- Making one ----------------------------------------------------------------------------------


def test_create_killed_at_any_step(depot: Depot) -> None:
    first = depot.create()
    trial = depot.folder.with_name("trial")
    shutil.copytree(depot.folder, trial)
    _add_artifact(depot, "new")
    steps = depot.done("backup", "create").steps
    shutil.rmtree(depot.folder)
    trial.rename(depot.folder)
    numbers = telling(steps)
    assert len(numbers) > 12
    for count, number in enumerate(numbers):
        ended = depot.run("backup", "create", kill_at=number)
        assert ended.returncode == -signal.SIGKILL
        assert first in depot.names()
        depot.check_sound()
        if count % 4 == 3:
            _add_artifact(depot, f"after {number}")
            made = depot.create()
            assert depot.leftovers() == set(), steps[number - 1]
            assert depot.verified(made).files == 23 + count // 4 + 1
    depot.create()
    assert depot.leftovers() == set()
    depot.check_sound()


def test_create_killed_at_any_step_of_its_second_process(depot: Depot) -> None:
    first = depot.create()
    numbers = telling(depot.run("backup", "create", "--full").second_steps)
    assert len(numbers) > 6
    names = depot.names()
    for number in numbers:
        ended = depot.run("backup", "create", "--full", second_kill=f"first {number}")
        assert ended.returncode == -signal.SIGKILL
        assert depot.names() == names
        depot.check_sound()
    depot.create("--full")
    assert depot.leftovers() == set()
    assert first in depot.names()


def test_a_second_process_that_is_killed(depot: Depot) -> None:
    first = depot.create()
    steps = depot.run("backup", "create", "--full", "--dry-run").second_steps
    assert steps == []
    steps = depot.run("backup", "create", "--full").second_steps
    depot.done("backup", "prune", "--keep-last", "1")
    names = depot.names()
    assert first not in names
    for number in telling(steps):
        ended = depot.run("backup", "create", "--full", second_kill=f"itself {number}")
        assert ended.returncode == 1, ended
        assert "process that collects the artifacts has ended" in ended.stderr
        assert "signal 9" in ended.stderr
        assert (depot.names(), depot.leftovers()) == (names, set())
    depot.create()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_create_stopped_leaves_nothing(depot: Depot, number: signal.Signals, code: int) -> None:
    first = depot.create()
    _add_artifact(depot, "new")
    steps = depot.run("backup", "create", "--dry-run").steps
    at = {"open": 0, "rename": 0}
    ended = depot.run("backup", "create", kill_at=len(steps) + 60, number=number)
    assert ended.returncode == code, ended.stderr
    assert (depot.names(), depot.leftovers()) == ([first], set())
    # Its pack is where packs are already.
    whole = depot.run("backup", "create", "--full")
    depot.run("backup", "prune", "--keep-last", "1")
    at = next(n for n, step in enumerate(whole.steps, 1) if step.endswith("manifest.json"))
    names = depot.names()
    ended = depot.run("backup", "create", "--full", kill_at=at, number=number)
    assert ended.returncode == code, ended.stderr
    assert (depot.names(), depot.leftovers()) == (names, set())
    depot.check_sound()


# --- Removing some -------------------------------------------------------------------------------


def test_prune_killed_at_any_step(depot: Depot) -> None:
    depot.create()
    for name in ("second", "third"):
        _add_artifact(depot, name)
        depot.create()
    last = depot.create("--full")
    kept = depot.folder.with_name("kept")
    shutil.copytree(depot.folder, kept)
    prune = ("backup", "prune", "--keep-last", "1")
    steps = depot.done(*prune).steps
    expected = files_of(depot.folder)
    del expected[".packs/lock"]
    numbers = telling(steps)
    assert len(numbers) > 8
    for number in numbers[:2] + numbers[2:-4:3] + numbers[-4:]:
        shutil.rmtree(depot.folder)
        shutil.copytree(kept, depot.folder)
        assert depot.run(*prune, kill_at=number).returncode == -signal.SIGKILL
        assert last in depot.names()
        depot.check_sound()
        depot.done(*prune)
        left = files_of(depot.folder)
        del left[".packs/lock"]
        assert left == expected
        assert depot.leftovers() == set()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_prune_stopped(depot: Depot, number: signal.Signals, code: int) -> None:
    for _ in range(2):
        depot.create("--full")
    ended = depot.run("backup", "prune", "--keep-last", "1", kill_at=5, number=number)
    assert ended.returncode == code
    depot.check_sound()
    depot.done("backup", "prune", "--keep-last", "1")
    assert depot.leftovers() == set()


# --- Restoring one -------------------------------------------------------------------------------


def _state(target: dict[str, str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    return rows_of(target[STORE]), files_of(Path(target[DESTINATION]))


def _is_there(target: dict[str, str]) -> bool:
    path = Path(target[STORE].removeprefix("sqlite:///"))
    return path.exists()


def _clear(target: dict[str, str]) -> None:
    shutil.rmtree(Path(target[DESTINATION]).parent, ignore_errors=True)


def _beside(target: dict[str, str]) -> set[str]:
    folder = Path(target[DESTINATION]).parent
    return {path.name for path in folder.iterdir()}


def test_restore_killed_at_any_step(depot: Depot) -> None:
    depot.create()
    target = depot.target()
    steps = depot.done("restore", "latest", **target).steps
    expected, beside = _state(target), _beside(target)
    _clear(target)
    numbers = iter(telling(steps))
    while chosen := list(islice(numbers, 4)):
        for number in chosen:
            ended = depot.run("restore", "latest", environment=target, kill_at=number)
            # One that goes on may have fewer steps.
            assert ended.returncode == -signal.SIGKILL or number != chosen[0]
            if _is_there(target):
                assert is_sqlite_sound(Path(target[STORE].removeprefix("sqlite:///")))
                assert rows_of(target[STORE]) == expected[0]
                break
        if not (Path(target[DESTINATION]) / MARK).exists() and _is_there(target):
            _clear(target)
            continue
        again = depot.run("restore", "latest", environment=target)
        assert again.returncode == 0, (steps[chosen[-1] - 1], again.stderr)
        assert _state(target) == expected, chosen
        assert _beside(target) == beside
        _clear(target)


def test_restore_killed_right_before_its_end(depot: Depot) -> None:
    depot.create()
    target = depot.target()
    steps = depot.done("restore", "latest", **target).steps
    expected = _state(target)
    _clear(target)
    last = max(n for n, step in enumerate(steps, 1) if "filling.json" in step)
    assert steps[last - 1].startswith("os.remove")
    depot.run("restore", "latest", environment=target, kill_at=last)
    assert rows_of(target[STORE]) == expected[0]
    # A server that began meanwhile has written something.
    with sqlite3.connect(target[STORE].removeprefix("sqlite:///")) as connection:
        connection.execute("INSERT INTO experiment_tags VALUES ('new', 'tag', 0)")
    connection.close()
    report = depot.done("restore", "latest", "--json", **target).report
    assert report["resumed"]
    assert files_of(Path(target[DESTINATION])) == expected[1]
    # And now it is as if nothing had been: a restore into a store that is there.
    assert depot.run("restore", "latest", environment=target).returncode == 1


def test_another_store_is_not_taken_for_the_one_that_was_restored(depot: Depot) -> None:
    depot.create()
    target = depot.target()
    steps = depot.done("restore", "latest", **target).steps
    _clear(target)
    last = max(n for n, step in enumerate(steps, 1) if "filling.json" in step)
    depot.run("restore", "latest", environment=target, kill_at=last)
    path = Path(target[STORE].removeprefix("sqlite:///"))
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM metrics")
    connection.close()
    ended = depot.run("restore", "latest", environment=target)
    assert ended.returncode == 1
    assert "not empty" in ended.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_restore_stopped(depot: Depot, number: signal.Signals, code: int) -> None:
    depot.create()
    target = depot.target()
    steps = depot.done("restore", "latest", **target).steps
    expected = _state(target)
    _clear(target)
    for part in (0.4, 0.6):
        at = round(len(steps) * part)
        ended = depot.run("restore", "latest", environment=target, kill_at=at, number=number)
        assert ended.returncode == code, ended.stderr
        assert not _is_there(target)
        files = files_of(Path(target[DESTINATION]))
        assert files.keys() - {MARK} <= expected[1].keys()
    depot.done("restore", "latest", **target)
    assert _state(target) == expected


def test_restore_into_postgresql_killed_at_any_moment(depot: Depot, postgres: Postgres) -> None:
    chance = _seeded()
    depot.create()
    expected: dict[str, list[str]] = {}
    for kills in (0, 4):
        target = depot.target(f"restored-{kills}", postgres.new_database())
        target[DESTINATION] = str(depot.place.root / "files")
        for _ in range(kills):
            depot.run("restore", "latest", environment=target, after_s=chance.uniform(0.2, 2.5))
        _finish(depot, "restore", "latest", environment=target)
        rows = rows_of(target[STORE])
        expected = expected or rows
        assert rows == expected
        assert not (Path(target[DESTINATION]) / MARK).exists()
        assert len(files_of(Path(target[DESTINATION]))) == 22
        shutil.rmtree(target[DESTINATION])


def _finish(depot: Depot, *command: str, environment: dict[str, str]) -> Ended:
    """Run it to its end; a database frees the lock of a killed one when it notices."""
    for _ in range(100):
        ended = depot.run(*command, environment=environment)
        if ended.returncode != BUSY:
            break
    # It may have been killed after its last step.
    assert ended.returncode == 0 or "not empty" in ended.stderr, ended.stderr
    return ended


# --- Moving a store ------------------------------------------------------------------------------


def _to(target: dict[str, str]) -> dict[str, str]:
    return {
        "TRACKING_SERVER_TO_BACKEND_STORE_URI": target[STORE],
        "TRACKING_SERVER_TO_ARTIFACTS_DESTINATION": target[DESTINATION],
    }


def test_migrate_killed_at_any_step(depot: Depot) -> None:
    target = depot.target("moved")
    before = rows_of(depot.uri), files_of(depot.artifacts)
    steps = depot.done("migrate", **_to(target)).steps
    expected, beside = _state(target), _beside(target)
    assert expected[1] == before[1]
    _clear(target)
    numbers = iter(telling(steps)[::2])
    while chosen := list(islice(numbers, 4)):
        for number in chosen:
            depot.run("migrate", environment=_to(target), kill_at=number)
            if _is_there(target):
                break
        if not (Path(target[DESTINATION]) / MARK).exists() and _is_there(target):
            assert _state(target) == expected
            _clear(target)
            continue
        again = depot.run("migrate", environment=_to(target))
        assert again.returncode == 0, (steps[chosen[-1] - 1], again.stderr)
        assert _state(target) == expected
        assert _beside(target) == beside
        _clear(target)
    assert (rows_of(depot.uri), files_of(depot.artifacts)) == before


def test_migrate_to_postgresql_killed_at_any_moment(depot: Depot, postgres: Postgres) -> None:
    chance = _seeded()
    expected: dict[str, list[str]] = {}
    for kills in (0, 3):
        target = depot.target("moved", postgres.new_database())
        for _ in range(kills):
            depot.run("migrate", environment=_to(target), after_s=chance.uniform(0.2, 2.5))
        _finish(depot, "migrate", environment=_to(target))
        rows = rows_of(target[STORE])
        expected = expected or rows
        assert rows == expected
        assert files_of(Path(target[DESTINATION])) == files_of(depot.artifacts)
        _clear(target)
