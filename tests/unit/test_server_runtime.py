"""The folder for the life of one server: its own is safe, those of dead servers go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow_server.server.runtime import RuntimeFolder
from tests.support.programs import REPOSITORY, clean_environment

_SERVER = """
import sys
from pathlib import Path
from mlflow_server.server.runtime import RuntimeFolder
folder = RuntimeFolder(Path(sys.argv[1]))
print(folder.path, flush=True)
sys.stdin.read()
folder.remove()
"""


@contextmanager
def another_server(base: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process with a folder below `base`; ends when its stdin is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(base)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=clean_environment(),
    ) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            if process.poll() is None:
                process.kill()


def test_a_folder_is_made_and_removed(tmp_path: Path) -> None:
    folder = RuntimeFolder(tmp_path)
    assert folder.path.parent == tmp_path
    assert folder.path.stat().st_mode & 0o077 == 0
    assert folder.metrics.is_dir()
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_server_goes_with_the_next_start(tmp_path: Path) -> None:
    with another_server(tmp_path) as (process, path):
        (path / "metrics").mkdir()
        (path / "metrics/gauge.db").write_bytes(b"x")
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        assert path.is_dir()
        folder = RuntimeFolder(tmp_path)
        try:
            assert not path.exists()
        finally:
            folder.remove()


def test_the_folder_of_a_living_server_stays(tmp_path: Path) -> None:
    with another_server(tmp_path) as (process, path):
        RuntimeFolder(tmp_path).remove()
        assert path.is_dir()
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0
        assert not path.exists()


def test_two_servers_of_one_process_do_not_share(tmp_path: Path) -> None:
    first, second = RuntimeFolder(tmp_path), RuntimeFolder(tmp_path)
    try:
        assert first.path != second.path
        assert first.path.is_dir()
    finally:
        first.remove()
        second.remove()


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mlflow-server-run-without-lock").mkdir()
    (tmp_path / "mlflow-server-other").mkdir()
    (tmp_path / "mlflow-server-run-file").write_text("x", "utf-8")
    before = set(tmp_path.iterdir())
    RuntimeFolder(tmp_path).remove()
    assert set(tmp_path.iterdir()) == before


def test_a_forked_worker_cannot_remove_it(tmp_path: Path) -> None:
    folder = RuntimeFolder(tmp_path)
    try:
        child = os.fork()
        if child == 0:
            folder.remove()
            os._exit(0)
        os.waitpid(child, 0)
        assert folder.path.is_dir()
    finally:
        folder.remove()


_STARTS_AND_STOPS = """
import sys
from pathlib import Path
from mlflow_server.server.runtime import RuntimeFolder
sys.stdin.readline()
for _ in range(150):
    folder = RuntimeFolder(Path(sys.argv[1]))
    assert (folder.path / "lock").exists(), "taken away"
    folder.remove()
"""


def test_a_start_beside_a_start_takes_nothing_away(tmp_path: Path) -> None:
    """Replicas on one machine start at the same moment: none may think another one dead."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _STARTS_AND_STOPS, str(tmp_path)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=clean_environment(),
        )
        for _ in range(4)
    ]
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0] * 4, "\n".join(errors)


_OPEN_FILES = """
import os
links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
print([os.readlink(link) for link in links if os.path.exists(link)])
"""


def test_the_lock_is_not_inherited_by_programs_that_the_server_starts(tmp_path: Path) -> None:
    """One of them may live on, and the folder with it."""
    folder = RuntimeFolder(tmp_path)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _OPEN_FILES], capture_output=True, text=True, close_fds=False
        )
        assert done.returncode == 0
        assert str(folder.path) not in done.stdout
    finally:
        folder.remove()
