"""Child programs are ended together with everything they started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlflow_server.process import end_tree, tree_of

# A parent, a child and a grandchild, each telling its id; all wait for ever.
_FAMILY = """
import os, signal, sys, time
if {stubborn}:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(2):
    if os.fork():
        break
sys.stdout.write(str(os.getpid()) + "\\n")
sys.stdout.flush()
while True:
    time.sleep(60)
"""


def is_running(pid: int) -> bool:
    """Alive and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


Family = Callable[[bool], tuple["subprocess.Popen[str]", list[int]]]


@pytest.fixture
def family() -> Iterator[Family]:
    """Starts three generations; whatever is left of them is killed at the end."""
    started: list[subprocess.Popen[str]] = []
    pids: list[int] = []

    def start(stubborn: bool) -> tuple[subprocess.Popen[str], list[int]]:
        process = subprocess.Popen(
            [sys.executable, "-c", _FAMILY.format(stubborn=stubborn)],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        found = [int(process.stdout.readline()) for _ in range(3)]
        pids.extend(found)
        return process, found

    yield start
    for pid in pids:
        if is_running(pid):
            os.kill(pid, signal.SIGKILL)
    for process in started:
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def test_finds_all_generations_parents_first(family: Family) -> None:
    process, pids = family(False)
    found = tree_of(process.pid)
    assert found[0] == process.pid
    assert set(found) == set(pids)


def test_a_process_without_children_is_its_own_tree(family: Family) -> None:
    process, _ = family(False)
    youngest = tree_of(process.pid)[-1]
    assert tree_of(youngest) == [youngest]


def test_ends_every_generation(family: Family) -> None:
    process, pids = family(False)
    end_tree(process.pid, timeout_s=30)
    assert [pid for pid in pids if is_running(pid)] == []


def test_ends_those_that_ignore_sigterm(family: Family) -> None:
    process, pids = family(True)
    end_tree(process.pid, timeout_s=0.2)
    # Grandchildren are not ours to wait for: the kernel needs a moment to be done with them.
    deadline = time.monotonic() + 30
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [pid for pid in pids if is_running(pid)] == []


def test_a_tree_that_has_ended_already_is_fine(family: Family) -> None:
    process, pids = family(False)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    end_tree(process.pid, timeout_s=5)
    end_tree(process.pid, timeout_s=5)
    assert not is_running(process.pid)
