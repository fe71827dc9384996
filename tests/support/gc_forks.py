"""A process that has our commands imported and forks a child for each: 30 ms instead of 500 ms.

Every command runs in a fresh process all the same, so that what a command does to its process
(logging, signals, the environment) cannot reach the next one, nor the tests.
`python -m tests.support.gc_forks` is the other side: one JSON command a line on stdin.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from tests.support.programs import REPOSITORY, clean_environment


class Forks:
    """The test's side."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @classmethod
    @contextmanager
    def start(cls, environment: Mapping[str, str], *warm_up: str) -> Iterator[Forks]:
        """Start the process; it ends with the context.

        Args:
            environment: Settings for every command.
            warm_up: A command that reads only: what it imports, the children need not.
        """
        with subprocess.Popen(
            [sys.executable, "-m", "tests.support.gc_forks", *warm_up],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=clean_environment(**environment),
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield cls(process)
            process.stdin.close()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command in a process of its own."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(arguments) + "\n")
        stdin.flush()
        line = stdout.readline()
        assert line, "the process that forks has died; its stderr says why"
        return subprocess.CompletedProcess(arguments, **json.loads(line))


def _serve(warm_up: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "stdout", Path(folder) / "stderr"
        with _standard_streams(out, err):
            assert _run(warm_up) == 0, err.read_text()
        print("ready", flush=True)
        for line in sys.stdin:
            child = os.fork()
            if child == 0:
                _child(json.loads(line), out, err)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            answer = {"returncode": code, "stdout": out.read_text(), "stderr": err.read_text()}
            print(json.dumps(answer), flush=True)


def _child(arguments: Sequence[str], out: Path, err: Path) -> NoReturn:
    code = 1
    try:
        with _standard_streams(out, err):
            try:
                code = _run(arguments)
            except BaseException:
                traceback.print_exc()
    finally:
        os._exit(code)


def _run(arguments: Sequence[str]) -> int:
    from mlflow_server.cli.main import main

    try:
        main(arguments)
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code


@contextmanager
def _standard_streams(out: Path, err: Path) -> Iterator[None]:
    """Send both to files, below Python as well: a crash writes there too."""
    before: Any = [(stream, os.dup(stream.fileno())) for stream in (sys.stdout, sys.stderr)]
    try:
        for (stream, _), path in zip(before, (out, err), strict=True):
            with path.open("w") as file:
                os.dup2(file.fileno(), stream.fileno())
        yield
    finally:
        for stream, descriptor in before:
            stream.flush()
            os.dup2(descriptor, stream.fileno())
            os.close(descriptor)


if __name__ == "__main__":
    _serve(sys.argv[1:])
