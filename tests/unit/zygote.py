"""A process that has MLflow's schema code imported and forks a child per command.

Importing it takes two seconds and makes threads and warnings that tests should not have in their
own process. `python -m tests.unit.zygote` is the other side: one JSON command a line on stdin.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from tests.support.programs import REPOSITORY, clean_environment

DID_IT, FOUND_IT_DONE = 10, 11


class Zygote:
    """The test's side."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[Zygote]:
        """Start the process; it ends with the context."""
        with subprocess.Popen(
            [sys.executable, "-m", "tests.unit.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=clean_environment(),
        ) as process:
            zygote = cls(process)
            assert zygote._ask({"do": "hello"}) == "hello"
            yield zygote
            assert process.stdin is not None
            process.stdin.close()

    def alembic_tree(self) -> dict[str, list[str]]:
        """Each revision with those before it, as alembic reads them from the installed MLflow."""
        tree: dict[str, list[str]] = self._ask({"do": "tree"})
        return tree

    def initialise(self, uri: str, *, kill_after_s: float | None = None) -> list[int]:
        """Initialise a store in a child; returns the children's exit codes, -9 when killed."""
        return self.initialise_at_once(uri, 1, kill_after_s=kill_after_s)

    def initialise_at_once(
        self, uri: str, times: int, *, kill_after_s: float | None = None
    ) -> list[int]:
        """Let several children initialise the same store at the same time."""
        codes: list[int] = self._ask(
            {"do": "initialise", "uri": uri, "times": times, "kill_after_s": kill_after_s}
        )
        return codes

    def _ask(self, command: dict[str, object]) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(command) + "\n")
        stdin.flush()
        line = stdout.readline()
        assert line, "the zygote has died; its stderr says why"
        return json.loads(line)


def _serve() -> None:
    import warnings

    warnings.simplefilter("ignore")
    import mlflow.store.db.utils  # noqa: F401

    for line in sys.stdin:
        command = json.loads(line)
        match command["do"]:
            case "hello":
                answer: object = "hello"
            case "tree":
                answer = _alembic_tree()
            case _:
                answer = _initialise(command["uri"], command["times"], command["kill_after_s"])
        print(json.dumps(answer), flush=True)


def _alembic_tree() -> dict[str, list[str]]:
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    scripts = ScriptDirectory.from_config(_get_alembic_config(""))
    return {
        script.revision: list(script._versioned_down_revisions)
        for script in scripts.walk_revisions()
    }


def _initialise(uri: str, times: int, kill_after_s: float | None) -> list[int]:
    children = []
    for _ in range(times):
        child = os.fork()
        if child == 0:
            _child(uri)
        children.append(child)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        for child in children:
            os.kill(child, signal.SIGKILL)  # not reaped yet, so the id is still its own
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _child(uri: str) -> NoReturn:
    from mlflow_server.store.schema import initialise
    from mlflow_server.uris import parse_store_uri

    code = 1
    try:
        code = DID_IT if initialise(parse_store_uri(uri)) else FOUND_IT_DONE
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def sqlite_uri(path: Path) -> str:
    """The URI of a SQLite file, as an operator writes it."""
    return f"sqlite:///{path}"


if __name__ == "__main__":
    _serve()
