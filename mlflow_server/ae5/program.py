"""The operator's own `ae5` program: run it, and understand what it says.

Results are on stdout and everything else on stderr; a call that is refused ends with `Error: …` and
exit code 1, one that was not foreseen with a traceback (facts of ae5-tools 0.7.3). Both may repeat
the request with its secrets, so that only what is recognised is ever shown.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_server.errors import (
    BusyError,
    NotFoundError,
    OpsError,
    PermissionDeniedError,
    SettingsError,
    UnavailableError,
)

_CALL_TIMEOUT_S = 120.0
_GRACE_S = 5.0
_INTERPRETER = re.compile(rb"^#!\s*(\S+)")
# Where a path is too long for `#!`, pip and conda write a script that the shell and Python can run.
_LONG_INTERPRETER = re.compile(rb"^'''exec' \"?([^\"\n]+?)\"? \"\$0\"", re.MULTILINE)
_REFUSED = re.compile(r"^Error: Unexpected response: (\d{3})\b", re.MULTILINE)
_ERROR = re.compile(r"^Error: (.+)$", re.MULTILINE)
_NOT_FOUND = re.compile(r"^Error: No (\w[\w -]*) found matching ", re.MULTILINE)
_LAST_OF_TRACEBACK = re.compile(r"^([\w.]*(?:Error|Exception|Timeout|Refused))\b", re.MULTILINE)
# Runs the program's own file in its own interpreter, with arguments that no process list shows.
_HIDDEN = """
import sys
del sys.path[0]
import json, runpy
path, calls = json.load(sys.stdin)
sys.stdin = open("/dev/null")
for arguments in calls:
    sys.argv = [path, *arguments]
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
"""


@dataclass(frozen=True)
class Said:
    """How a call ended.

    Args:
        code: Exit code.
        out: Its result.
        err: Whatever else it said; may hold what was sent.
    """

    code: int
    out: str
    err: str


def find_program(named: str | None, search: str | None) -> Path:
    """Where `ae5` is.

    Args:
        named: What TRACKING_SERVER_AE5 says.
        search: PATH.

    Raises:
        SettingsError: It is not where it is said to be.
        UnavailableError: It is nowhere.
    """
    found = shutil.which(named or "ae5", path=search)
    if found is None and named:
        raise SettingsError(
            [f"TRACKING_SERVER_AE5: {named} is no program"], hint="pip show ae5-tools"
        )
    if found is None:
        raise UnavailableError(
            "the program ae5 (ae5-tools) is not on PATH",
            hint="install it where you sign in to the platform, or name it: TRACKING_SERVER_AE5",
        )
    return Path(found)


class Ae5:
    """Calls the program, which signs in by its own means.

    Args:
        path: Of the program.
        environ: For it: AE5_HOSTNAME and the like.
        timeout_s: How long a call may take, seconds.

    Attributes:
        calls: How many there were.
    """

    def __init__(
        self, path: Path, environ: Mapping[str, str], timeout_s: float = _CALL_TIMEOUT_S
    ) -> None:
        self._path = path
        # Its warnings would stand among what it says.
        self._environ = {**environ, "PYTHONWARNINGS": "ignore"}
        self._timeout_s = timeout_s
        self.calls = 0

    def records(self, *arguments: str) -> list[dict[str, Any]]:
        """The records that a call lists.

        Raises:
            OpsError: See `text`.
        """
        found = self._json(*arguments)
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise _not_understood(arguments)
        return found

    def record(self, *arguments: str, timeout_s: float | None = None) -> dict[str, Any]:
        """The one record that a call is about.

        Raises:
            OpsError: See `text`.
        """
        found = self._json(*arguments, timeout_s=timeout_s)
        if not isinstance(found, dict):
            raise _not_understood(arguments)
        return found

    def text(self, *arguments: str, timeout_s: float | None = None) -> str:
        """What a call says on stdout.

        Args:
            arguments: No secret among them: everybody on the machine can read them.
            timeout_s: How long it may take, seconds, if not as usual.

        Raises:
            PermissionDeniedError: Nobody is signed in, or may not do that.
            NotFoundError: There is no such thing.
            UnavailableError: The platform cannot be reached, or does not answer in time.
            OpsError: It was refused.
        """
        command = [str(self._path), *arguments]
        return self._finished(arguments, self._run(command, "", timeout_s))

    def hidden(self, *calls: Sequence[str]) -> str:
        """Make calls, one after the other, whose arguments nobody else may see.

        The program's own interpreter runs the program's own file and reads them from its stdin.

        Args:
            calls: The arguments of each.

        Returns:
            What they say on stdout.

        Raises:
            OpsError: See `text`; the message does not repeat an argument.
        """
        if not calls:
            return ""
        command = [str(self._interpreter()), "-c", _HIDDEN]
        told = json.dumps([str(self._path), list(map(list, calls))])
        return self._finished(calls[0][:2], self._run(command, told, None))

    def _interpreter(self) -> Path:
        try:
            with self._path.open("rb") as file:
                head = file.read(4096)
        except OSError as err:
            raise UnavailableError(f"{self._path}: cannot be read: {err.strerror}") from None
        found = _LONG_INTERPRETER.search(head) or _INTERPRETER.match(head)
        interpreter = Path(os.fsdecode(found[1])) if found else None
        if interpreter is not None and interpreter.name == "env":
            words = head.splitlines()[0].split()
            interpreter = Path(shutil.which(os.fsdecode(words[-1])) or "")
        if interpreter is None or "python" not in interpreter.name:
            raise UnavailableError(
                f"{self._path}: is no Python program, so that it cannot be given a secret safely",
                hint="name the ae5 that pip or conda installed: TRACKING_SERVER_AE5",
            )
        return interpreter

    def _json(self, *arguments: str, timeout_s: float | None = None) -> Any:
        told = self.text(*arguments, "--format", "json", timeout_s=timeout_s)
        try:
            return json.loads(told)
        except ValueError:
            raise _not_understood(arguments) from None

    def _run(self, command: Sequence[str], told: str, timeout_s: float | None) -> Said:
        self.calls += 1
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        with subprocess.Popen(  # noqa: S603 - the operator's own program
            command, env=self._environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
        ) as process:  # fmt: skip
            try:
                out, err = process.communicate(told, timeout=limit_s)
            except subprocess.TimeoutExpired:
                _end(process)
                raise UnavailableError(
                    f"ae5 did not answer within {limit_s:.0f} s", hint="look at the platform"
                ) from None
            except BaseException:
                _end(process)
                raise
        return Said(process.returncode, out, err)

    def _finished(self, arguments: Sequence[str], said: Said) -> str:
        if said.code == 0:
            return said.out
        raise explain(_called(arguments), said)


def _end(process: "subprocess.Popen[str]") -> None:
    """End a call with what it has started, first politely."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + _GRACE_S
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if process.returncode is not None:
            return


def _called(arguments: Sequence[str]) -> str:
    """The command of a call, without what may be anybody's."""
    words = [word for word in arguments[:3] if re.fullmatch(r"[a-z-]+", word)]
    return " ".join(("ae5", *words[:2]))


def _not_understood(arguments: Sequence[str]) -> OpsError:
    return UnavailableError(
        f"{_called(arguments)}: answered something that is not understood",
        hint="ae5-tools 0.7 or newer is needed: ae5 --version",
    )


def explain(called: str, said: Said) -> OpsError:
    """What a failed call means.

    Args:
        called: The command.
        said: How it ended.
    """
    err = said.err
    if "Invalid username or password" in err:
        return PermissionDeniedError(
            "ae5: the platform refuses this user or password",
            hint="check AE5_USERNAME and AE5_PASSWORD, or: ae5 login",
        )
    if "Aborted!" in err:
        return PermissionDeniedError(
            "ae5: nobody is signed in, and there is no password to do it with",
            hint="ae5 login; or set AE5_HOSTNAME, AE5_USERNAME and AE5_PASSWORD",
        )
    if found := _NOT_FOUND.search(err):
        return NotFoundError(f"{called}: the platform has no such {found[1].rstrip('s')}")
    if found := _REFUSED.search(err):
        return _refused(called, int(found[1]))
    if "Error: Unexpected response: " in err:
        return UnavailableError(
            f"{called}: the platform cannot be reached", hint="check AE5_HOSTNAME; ae5 project list"
        )
    if "Conflicting values for" in err:
        return SettingsError(
            ["AE5_…: a variable and an option of ae5 say different things"],
            hint="give each value in one way only",
        )
    if said.code == 2:
        return UnavailableError(
            f"{called}: this ae5 does not know an option that is needed",
            hint="ae5-tools 0.7 or newer is needed: ae5 --version",
        )
    if "is already in use" in err:
        return BusyError(
            f"{called}: the endpoint is in use", hint="the platform needs minutes to free one"
        )
    if found := _ERROR.search(err):
        return OpsError(f"{called}: {found[1][:300]}")
    kinds = _LAST_OF_TRACEBACK.findall(err)
    kind = kinds[-1].rpartition(".")[2] if kinds else f"exit code {said.code}"
    if kind == "RetryError" and "403" in err:
        return _refused(called, 403)
    return UnavailableError(
        f"{called}: failed ({kind})",
        hint="the platform cannot be reached, or does not answer as expected: ae5 project list",
    )


def _refused(called: str, status: int) -> OpsError:
    if status in (401, 403):
        return PermissionDeniedError(
            f"{called}: the platform does not allow it ({status})",
            hint="sign in as the account that owns the project",
        )
    if status == 404:
        return NotFoundError(f"{called}: the platform has no such thing (404)")
    if status >= 500:
        return UnavailableError(f"{called}: the platform failed ({status})", hint="try again")
    return OpsError(f"{called}: the platform refused it ({status})")
