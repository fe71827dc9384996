"""Run a program and see what it needed; touches child processes and files of one folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from _machine import load_average
from _stores import neutral_environment

CHILD_PROGRAM = Path(__file__).resolve().parent / "_child.py"
LIMIT_S = 1_800.0
TAIL_LENGTH = 400


class VoidError(RuntimeError):
    """A program failed, or left something: what was measured means nothing."""


@dataclass(frozen=True)
class Finished:
    """A command that has ended with 0.

    Attributes:
        seconds: From start to exit.
        peak_mib: Most memory that one process had (resident): the program's, or of those that it
            started and waited for.
        tree_mib: Most memory that all processes of its tree had together; 0 when nobody looked.
        load_before: Load average of the last minute when it was started.
        load_after: The same when it ended.
        stdout: What it printed.
        stderr: The same.
        phases: Seconds by phase, where it tells them.
    """

    seconds: float
    peak_mib: float
    tree_mib: float
    load_before: float
    load_after: float
    stdout: str
    stderr: str
    phases: Mapping[str, float] = field(default_factory=dict)

    def phase(self, name: str) -> float:
        """Seconds of a phase.

        Raises:
            VoidError: The command does not tell.
        """
        if name not in self.phases:
            raise VoidError(f"the report has no seconds of {name}")
        return self.phases[name]


def run_command(
    command: Sequence[str], variables: Mapping[str, str], *, watches_tree: bool = False
) -> Finished:
    """Run a program in an empty folder, in a session of its own.

    Args:
        command: Argument list.
        variables: Added to the neutral environment.
        watches_tree: Look at the memory of all its processes often, which takes time itself.

    Raises:
        VoidError: It did not end with 0, or not in time.
    """
    with tempfile.TemporaryDirectory(prefix="mlflow-bench-run-") as text:
        folder = Path(text)
        work, result_file = folder / "cwd", folder / "result.json"
        work.mkdir()
        watch = ("--watch",) if watches_tree else ()
        load_before = load_average()
        with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, str(CHILD_PROGRAM), str(result_file), *watch, *command],
                cwd=work,
                env=neutral_environment() | dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            try:
                process.wait(LIMIT_S)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise VoidError(f"not done after {LIMIT_S:.0f} s") from None
                raise
        told = {name: (folder / name).read_text(errors="replace") for name in ("stdout", "stderr")}
        if not result_file.exists():
            raise VoidError(f"did not start: {tail(told['stderr'])}")
        result = json.loads(result_file.read_text("ascii"))
        if result["status"] != 0:
            said = tail(told["stderr"]) or tail(told["stdout"])
            raise VoidError(f"exit status {result['status']}: {said}")
        return Finished(
            seconds=result["seconds"],
            peak_mib=result["peak_kib"] / 1024,
            tree_mib=result["tree_kib"] / 1024,
            load_before=load_before,
            load_after=load_average(),
            stdout=told["stdout"],
            stderr=told["stderr"],
        )


def tail(text: str) -> str:
    """The end of what a program told, on one line."""
    return " ".join(text.split())[-TAIL_LENGTH:]
