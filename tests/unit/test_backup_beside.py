"""The second process of `backup create`, by itself."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mlflow_server.backup.artifacts import Task
from mlflow_server.backup.beside import Beside
from mlflow_server.errors import OpsError, UnavailableError
from mlflow_server.uris import ArtifactUri

ID = "20261121T134115Z"


@pytest.fixture
def beside() -> Iterator[Beside]:
    """One that waits for what it is told."""
    with closing(Beside(os.environ)) as process:
        yield process


def task_of(folder: Path) -> Task:
    """Collect what is at one folder for a backup at another."""
    (folder / "stage").mkdir()
    destination = ArtifactUri.of_folder(folder / "artifacts")
    return Task(destination, ID, folder / "stage", (), looks_ahead=True)


def test_it_begins_without_what_takes_long_to_import() -> None:
    program = "import sys, mlflow_server.backup.beside; print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    heavy = {"pydantic", "sqlalchemy", "mlflow", "click", "boto3", "urllib.request", "rich"}
    assert heavy & set(ended.stdout.split()) == set()


def test_it_collects_what_it_is_told(tmp_path: Path, beside: Beside) -> None:
    for number in range(3000):
        folder = tmp_path / f"artifacts/1/{number}/artifacts"
        folder.mkdir(parents=True)
        (folder / "x.txt").write_text(str(number))
    (tmp_path / "artifacts/1/nobody's").write_text("x")
    beside.start(task_of(tmp_path), ArtifactUri.of_folder(tmp_path / "shelf"))
    beside.note_location("mlflow-artifacts:/1", is_container=True)
    for number in range(3000):
        beside.note_location(f"mlflow-artifacts:/1/{number}/artifacts", is_container=False)
    beside.begin()
    told: list[tuple[int, int | None]] = []
    outcome = beside.finish(lambda done, total: told.append((done, total)))
    assert (outcome.found.files, outcome.found.stored_files) == (3000, 3000)
    assert told
    (pack,) = outcome.packs
    assert (tmp_path / "shelf/.packs" / pack.file).stat().st_size == pack.size_bytes


def test_its_errors_are_those_of_who_began_it(tmp_path: Path, beside: Beside) -> None:
    beside.start(task_of(tmp_path), ArtifactUri.of_folder(tmp_path / "shelf"))
    beside.note_location("mlflow-artifacts:/1/run/artifacts", is_container=False)
    beside.begin()
    with pytest.raises(UnavailableError, match="perhaps a volume is not mounted") as caught:
        beside.finish(lambda done, total: None)
    assert caught.value.hint == "mount it; for the database alone: --no-artifacts"


def test_a_disk_that_fails_is_told(tmp_path: Path, beside: Beside) -> None:
    (tmp_path / "artifacts/1/run").mkdir(parents=True)
    (tmp_path / "artifacts/1/run/x").write_text("x")
    task = task_of(tmp_path)
    (tmp_path / "stage").rmdir()
    (tmp_path / "stage").write_text("no folder")
    beside.start(task, ArtifactUri.of_folder(tmp_path / "shelf"))
    beside.note_location("mlflow-artifacts:/1/run", is_container=False)
    beside.begin()
    with pytest.raises(OSError, match="exists"):
        beside.finish(lambda done, total: None)


def test_one_that_is_killed_is_told(tmp_path: Path, beside: Beside) -> None:
    beside._process.kill()
    beside.start(task_of(tmp_path), ArtifactUri.of_folder(tmp_path / "shelf"))
    for number in range(100_000):  # nobody takes them
        beside.note_location(f"mlflow-artifacts:/1/{number}", is_container=False)
    beside.begin()
    with pytest.raises(OpsError, match="signal 9"):
        beside.finish(lambda done, total: None)


@pytest.mark.parametrize("is_started", [False, True])
def test_it_ends_when_it_is_not_needed_any_more(tmp_path: Path, *, is_started: bool) -> None:
    beside = Beside(os.environ)
    if is_started:
        beside.start(task_of(tmp_path), ArtifactUri.of_folder(tmp_path / "shelf"))
    beside.close()
    assert beside._process.returncode is not None


def test_a_signal_that_comes_in_a_finaliser_is_not_lost(tmp_path: Path) -> None:
    """Python ignores what is raised there, and says so on stderr."""
    program = (
        "import os, signal\n"
        "from mlflow_server.backup import artifacts, beside\n"
        "class Fragile:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "def collect(self, progress):\n"
        "    Fragile()\n"
        "    progress(1, None)\n"
        "    raise AssertionError\n"
        "artifacts.Artifacts.collect = collect\n"
        "beside.main()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as process:  # type: ignore[call-overload]
        pickle.dump((task_of(tmp_path), ArtifactUri.of_folder(tmp_path / "shelf")), process.stdin)
        pickle.dump(None, process.stdin)
        process.stdin.flush()
        assert (process.wait(30), process.stderr.read()) == (143, b"")


@pytest.mark.parametrize("has_begun", [False, True])
def test_it_ends_with_who_began_it(tmp_path: Path, *, has_begun: bool) -> None:
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from mlflow_server.backup.beside import Beside\n"
        "from tests.unit.test_backup_beside import task_of\n"
        "from mlflow_server.uris import ArtifactUri\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "beside = Beside(os.environ)\n"
        "beside.start(task_of(folder), ArtifactUri.of_folder(folder / 'shelf'))\n"
        f"if {has_begun}:\n"
        "    (folder / 'artifacts/1').mkdir(parents=True)\n"
        "    with (folder / 'artifacts/1/large').open('wb') as file:\n"
        "        file.truncate(1 << 40)\n"
        "    beside.note_location('mlflow-artifacts:/1', is_container=False)\n"
        "    beside.begin()\n"
        "print(beside._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        second = int(first.stdout.readline())
        time.sleep(0.2)
        os.kill(second, 0)
        first.kill()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{second}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    shutil.rmtree(tmp_path / "stage")  # it may be large by now
