"""Run a command of ours and count its steps, or end it at one of them.

A step is what changes a disk: a file opened to be written, renamed, made or removed, as Python's
audit events tell; those of the second process of `backup create` are counted for themselves.
`python -m tests.support.stepped` is the other side.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.support import forks
from tests.support.programs import clean_environment
from tests.support.second_process.sitecustomize import tell_steps

_SECOND = Path(__file__).parent / "second_process"
# Longer than any command of these tests; only a hanging one gets there.
_DEADLINE_S = 120


@dataclass(frozen=True)
class Ended:
    """A command that has ended.

    Args:
        returncode: Negative when a signal ended it.
        stdout: What it said.
        stderr: And to whom.
        steps: What it did to the disk: events with their first path.
        second_steps: What its second process did.
    """

    returncode: int
    stdout: str
    stderr: str
    steps: list[str]
    second_steps: list[str]

    @property
    def report(self) -> dict[str, Any]:
        """What `--json` printed."""
        document: dict[str, Any] = json.loads(self.stdout)
        return document


def run_stepped(
    *arguments: str,
    cwd: Path,
    environment: Mapping[str, str],
    kill_at: int = 0,
    second_kill: str = "itself 0",
    number: signal.Signals = signal.SIGKILL,
    after_s: float = 0.0,
) -> Ended:
    """Run one command in a process of its own.

    Args:
        arguments: The command.
        cwd: Where.
        environment: Settings.
        kill_at: Before which step it is sent a signal; 0 for none.
        second_kill: `itself` or `first`, which is killed before a step of the second process, and
            before which.
        number: Which signal.
        after_s: Send it after so many seconds instead.
    """
    with tempfile.TemporaryDirectory() as folder:
        steps, second = Path(folder, "steps"), Path(folder, "second")
        steps.touch()
        second.touch()
        how = json.dumps([str(steps), kill_at, int(number), after_s, str(second), second_kill])
        ended = forks.run(
            [sys.executable, "-m", "tests.support.stepped", how, *arguments],
            cwd=cwd,
            env=clean_environment(MLFLOW_DISABLE_TELEMETRY="true", **environment),
            timeout=_DEADLINE_S,
        )
        noted = [path.read_text("utf-8", "surrogateescape") for path in (steps, second)]
    lines = [text.splitlines() for text in noted]
    return Ended(ended.returncode, ended.stdout, ended.stderr, *lines)


def _main(how: str, *arguments: str) -> None:
    from mlflow_server.cli.main import main

    steps, kill_at, number, after_s, second, second_kill = json.loads(how)
    # For the second process, which gets both from this one.
    os.environ.update(TESTS_SECOND_STEPS=second, TESTS_SECOND_KILL=second_kill)
    sys.path.insert(0, str(_SECOND))
    tell_steps(Path(steps), kill_at, partial(os.kill, os.getpid(), number))
    if after_s:
        _end_after(after_s, number)
    main(arguments)


def _end_after(seconds: float, number: int) -> None:
    pid = os.getpid()
    if os.fork():
        return
    time.sleep(seconds)
    try:
        if os.getppid() == pid:
            os.kill(pid, number)
    finally:
        os._exit(0)


if __name__ == "__main__":
    _main(*sys.argv[1:])
