"""A process that has our commands imported and forks a child for each, to be killed at any step.

A step is what changes a disk: a file opened to be written, renamed, made or removed, as Python's
audit events tell; those of the second process of `backup create` are counted for themselves.
`python -m tests.support.backup_forks` is the other side.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from tests.support.gc_forks import _run, _standard_streams
from tests.support.programs import REPOSITORY, clean_environment
from tests.support.second_process.sitecustomize import tell_steps

_SECOND = Path(__file__).parent / "second_process"


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


class Forks:
    """The test's side."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[Forks]:
        """Start the process; it ends with the context."""
        with subprocess.Popen(
            [sys.executable, "-m", "tests.support.backup_forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=clean_environment(MLFLOW_DISABLE_TELEMETRY="true"),
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield cls(process)
            process.stdin.close()

    def run(
        self,
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
            second_kill: `itself` or `first`, which is killed before a step of the second process,
                and before which.
            number: Which signal.
            after_s: Send it after so many seconds instead.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        request = {
            "arguments": arguments,
            "cwd": str(cwd),
            "environment": clean_environment(MLFLOW_DISABLE_TELEMETRY="true", **environment),
            "kill_at": kill_at,
            "second_kill": second_kill,
            "number": int(number),
            "after_s": after_s,
        }
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        line = stdout.readline()
        assert line, "the process that forks has died; its stderr says why"
        return Ended(**json.loads(line))


def _serve() -> None:
    import alembic.command  # noqa: F401
    import mlflow.store.db.utils
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    import mlflow_server.backup.migrate
    import mlflow_server.backup.restore
    import mlflow_server.cli.backup
    import mlflow_server.cli.backup_report
    import mlflow_server.cli.progress
    import mlflow_server.cli.store  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        names = ("stdout", "stderr", "steps", "second")
        out, err, steps, second = (Path(folder) / name for name in names)
        print("ready", flush=True)
        for line in sys.stdin:
            steps.write_text("")
            second.write_text("")
            child = os.fork()
            if child == 0:
                _child(json.loads(line), out, err, steps, second)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            answer = {
                "returncode": code,
                "stdout": out.read_text(),
                "stderr": err.read_text(),
                "steps": steps.read_text("utf-8", "surrogateescape").splitlines(),
                "second_steps": second.read_text("utf-8", "surrogateescape").splitlines(),
            }
            print(json.dumps(answer), flush=True)


def _child(request: Mapping[str, Any], out: Path, err: Path, steps: Path, second: Path) -> NoReturn:
    code = 1
    try:
        with _standard_streams(out, err):
            try:
                os.chdir(request["cwd"])
                os.environ.clear()
                os.environ.update(request["environment"])
                tempfile.tempdir = None
                os.environ["TESTS_SECOND_STEPS"] = str(second)
                os.environ["TESTS_SECOND_KILL"] = request["second_kill"]
                sys.path.insert(0, str(_SECOND))
                end = partial(os.kill, os.getpid(), request["number"])
                tell_steps(steps, request["kill_at"], end)
                if request["after_s"]:
                    _end_after(request["after_s"], request["number"])
                code = _run(request["arguments"])
            except BaseException:
                traceback.print_exc()
    finally:
        os._exit(code)


def _end_after(seconds: float, number: int) -> None:
    pid = os.getpid()
    if os.fork():
        return
    import time

    time.sleep(seconds)
    try:
        if os.getppid() == pid:
            os.kill(pid, number)
    finally:
        os._exit(0)


if __name__ == "__main__":
    _serve()
