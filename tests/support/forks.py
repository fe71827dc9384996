"""Run Python programs out of a process that has imported MLflow already: 30 ms instead of 2 s.

`Popen` and `run` take the same as those of `subprocess`, for a command line that begins with this
interpreter and then has `-m`, `-c` or a file. Each program has a process of its own, with the
streams, folder, environment and session that were asked for, and may be killed like any other. What
differs from a start of the interpreter: a process list shows another command line, and modules are
there already. Tests that are about either start the interpreter.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tests.support import programs
from tests.support.programs import REPOSITORY, clean_environment

_LARGEST = 1 << 18
# Nothing of `mlflow.server`, which looks at the environment while it is imported.
_IMPORTED = (
    "alembic.command",
    "boto3",
    "fastapi",
    "flask",
    "graphene",
    "gunicorn.app.base",
    "mlflow.assistant.providers",
    "mlflow.gateway.budget",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "psycopg2",
    "pymysql",
    "requests",
    "sqlalchemy.dialects.mysql",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.dialects.sqlite",
    "uvicorn_worker",
)


@functools.cache
def _template() -> socket.socket:
    """The way to the process that forks; it ends when this one does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    atexit.register(ours.close)
    # Never waited for: it ends when nobody can ask it any more.
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.forks", str(theirs.fileno())],
        cwd=REPOSITORY,
        env=clean_environment(MLFLOW_DISABLE_TELEMETRY="true"),
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    theirs.close()
    assert ours.recv(_LARGEST) == b"ready", "the process that forks has ended; its stderr says why"
    process.returncode = 0
    return ours


def _for_python(environment: Mapping[str, str]) -> dict[str, str]:
    """What an interpreter reads when it starts."""
    return {name: value for name, value in environment.items() if name.startswith("PYTHON")}


class Popen(subprocess.Popen[Any]):
    """See `subprocess.Popen`; the child is the template's, which tells how it has ended."""

    def _execute_child(
        self, args: Sequence[str], _executable: Any, preexec_fn: Any, _close: Any, pass_fds: Any,
        cwd: Any, env: Mapping[str, str] | None, _startupinfo: Any, _flags: Any, shell: Any,
        p2cread: int, p2cwrite: int, c2pread: int, c2pwrite: int, errread: int, errwrite: int,
        _restore_signals: Any, _gid: Any, _gids: Any, _uid: Any, _umask: Any,
        start_new_session: bool, _process_group: Any,
    ) -> None:  # fmt: skip
        python, *rest = map(str, args)
        environment = dict(os.environ if env is None else env)
        assert python == sys.executable
        assert not (preexec_fn or pass_fds or shell)
        assert _for_python(environment) == _for_python(clean_environment())
        request = {
            "arguments": rest,
            "folder": str(cwd or Path.cwd()),
            "environment": environment,
            "leads": start_new_session,
        }
        streams = [
            standard if given < 0 else given
            for standard, given in enumerate((p2cread, c2pwrite, errwrite))
        ]
        self._told, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            message = json.dumps(request).encode()
            socket.send_fds(_template(), [message], [*streams, theirs.fileno()])
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]
        self.pid = int(self._told.recv(_LARGEST))
        self._child_created = True

    def _try_wait(self, flags: int) -> tuple[int, int]:
        self._told.setblocking(not flags & os.WNOHANG)
        try:
            status = self._told.recv(_LARGEST)
        except BlockingIOError:
            return 0, 0
        assert status, "the process that waits for the child was killed"
        self._told.close()
        return self.pid, int(status)

    def _internal_poll(self, _deadstate: int | None = None, **_: Any) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):  # type: ignore[attr-defined]
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode


def run(
    arguments: Sequence[str],
    *,
    timeout: float,
    typed: str | None = None,
    check: bool = False,
    **how: Any,
) -> subprocess.CompletedProcess[str]:
    """See `subprocess.run`; what is written is captured, as text.

    Args:
        arguments: The command line.
        timeout: Seconds; then the program is killed.
        typed: Its standard input; None for nothing.
        check: Whether another exit code than 0 is an error.
        how: See `subprocess.Popen`.
    """
    streams = {
        "stdin": subprocess.DEVNULL if typed is None else subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    with Popen(arguments, text=True, **streams, **how) as process:
        try:
            out, err = process.communicate(typed, timeout)
        except BaseException:
            process.kill()
            raise
    ended = subprocess.CompletedProcess(arguments, process.returncode, out, err)
    if check:
        ended.check_returncode()
    return ended


serve = functools.partial(programs.serve, start=Popen)
"""See `programs.serve`."""


# --- The template's side -------------------------------------------------------------------------


def _serve(control: socket.socket) -> None:
    from mlflow_server.store.schema import load_migrations

    for name in _IMPORTED:
        importlib.import_module(name)
    load_migrations()
    assert threading.active_count() == 1, threading.enumerate()
    # Who waits for the children is never waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    control.send(b"ready")
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, _LARGEST, 4)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            _wait_for_child(json.loads(message), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _wait_for_child(request: Mapping[str, Any], descriptors: Sequence[int]) -> NoReturn:
    """Fork the child, and tell the tests its number and how it has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # As it is in an interpreter that has only just begun.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    *streams, told = descriptors
    child = os.fork()
    if child == 0:
        os.close(told)
        _be_child(request, streams)
    for descriptor in (0, 1, 2, *streams):
        os.close(descriptor)
    # Ctrl-C and the like concern the child, which says how it ends.
    os.setsid()
    os.write(told, b"%d" % child)
    _, status = os.waitpid(child, 0)
    try:
        os.write(told, b"%d" % status)
    finally:
        os._exit(0)


def _be_child(request: Mapping[str, Any], streams: Sequence[int]) -> NoReturn:
    code = 1
    try:
        if request["leads"]:
            os.setsid()
        for standard, stream in enumerate(streams):
            os.dup2(stream, standard)
            os.close(stream)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        tempfile.tempdir = None
        time.tzset()
        code = _run(request["arguments"])
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _run(arguments: Sequence[str]) -> int:
    kind, *rest = arguments
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.path.insert(0, "")
        if kind == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102
        else:
            sys.argv = [kind, *rest]
            sys.path[0] = str(Path(kind).parent)
            runpy.run_path(kind, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
