"""The program `ae5`: installed as the real one is, into an environment of its own.

`ae5_tools/` is a stand-in for ae5-tools 0.7.3. Installed, it looks like the real thing from all
sides: an executable named `ae5` whose first line names the interpreter, and that interpreter can
import `ae5_tools`, `click` and `requests`, but nothing of ours. Also

    python -m tests.standins.ae5.program COMMAND…

In front of the stand-in or a real `ae5` stands a script that notes each call, so that tests can
count them and look for secrets among the arguments: those that a process list shows.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path

from tests.standins.ae5.cluster import PASSWORD, USER, Cluster

_PACKAGE = Path(__file__).parent / "ae5_tools"
# What a real installation has of what the stand-in needs.
_NEEDED = ("click", "requests", "urllib3", "certifi", "idna", "charset-normalizer")
_NOTES = "AE5_STANDIN_CALLS"
_RECORDER = """\
import json, os, runpy, sys
sys.argv[0] = {target!r}
if os.environ.get({notes!r}):
    with open("/proc/self/cmdline") as file:
        shown = set(file.read().split("\\0"))
    told = [text if text in shown else "(hidden)" for text in sys.argv[1:]]
    with open(os.environ[{notes!r}], "a") as notes:
        notes.write(json.dumps(told) + "\\n")
del json, os
runpy.run_path({target!r}, run_name="__main__")
"""
_START = "import sys\nfrom ae5_tools.cli.main import main\nsys.exit(main())\n"
# Longer first lines, and such with spaces, are not possible; pip writes a shell script then.
_SHELL_START = "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''\n"


@dataclass(frozen=True)
class Program:
    """A program `ae5` with everything that it needs to reach a cluster.

    Args:
        path: The executable.
        environment: Host, user and password; where to keep sessions; the way to the cluster; PATH.
        notes: Where each call is noted.
        is_real: It is not the stand-in.
    """

    path: Path
    environment: Mapping[str, str] = field(repr=False)
    notes: Path
    is_real: bool

    @property
    def calls(self) -> list[list[str]]:
        """The arguments of every call so far, by whomever."""
        if not self.notes.exists():
            return []
        return [json.loads(line) for line in self.notes.read_text().splitlines()]

    @property
    def state(self) -> Path:
        """Where it keeps sessions."""
        return Path(self.environment["AE5_TOOLS_CONFIG_DIR"])

    def run(
        self,
        *arguments: str,
        environment: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        typed: str = "",
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end, without a terminal.

        Args:
            arguments: Of the command line.
            environment: More variables; None takes one away.
            cwd: Where.
            typed: Its standard input.
            timeout: Seconds.
        """
        whole = {**os.environ, **self.environment, **(environment or {})}
        return subprocess.run(
            [str(self.path), *arguments],
            env={name: value for name, value in whole.items() if value is not None},
            cwd=cwd,
            input=typed,
            capture_output=True,
            text=True,
            timeout=timeout,
            start_new_session=True,
        )


def find_real() -> Path | None:
    """The real program: what AE5_CLI names, or an `ae5` on PATH."""
    named = os.environ.get("AE5_CLI") or shutil.which("ae5")
    return Path(named).absolute() if named else None


def interpreter_of(script: Path) -> Path:
    """Which Python a program of pip's making is run by.

    Raises:
        ValueError: Its beginning does not say it.
    """
    first, second, *_ = [*script.read_text("utf-8", "replace").splitlines()[:2], "", ""]
    words = shlex.split(first.removeprefix("#!")) if first.startswith("#!") else []
    if words == ["/bin/sh"] and second.startswith("'''exec' "):
        words = shlex.split(second.removeprefix("'''exec' "))
    if words and Path(words[0]).name == "env":
        words = [shutil.which(words[1]) or ""]
    if not words or "python" not in Path(words[0]).name:
        raise ValueError(f"{script} does not name its interpreter")
    return Path(words[0])


def _write(script: Path, python: Path, code: str, *, as_shell: bool = False) -> None:
    head = _SHELL_START.format(python=shlex.quote(str(python))) if as_shell else f"#!{python}\n"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(head + code)
    script.chmod(0o755)


def install(folder: Path, *, as_shell: bool = False) -> Path:
    """Make an environment with the stand-in in it; returns its `bin/ae5`.

    Args:
        folder: Becomes the environment.
        as_shell: The program begins as pip makes it when the path is long or has a space.
    """
    python = folder / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    python.parent.mkdir()
    python.symlink_to(Path(sys.base_prefix) / "bin" / version)
    home = Path(sys.base_prefix) / "bin"
    (folder / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")
    (packages / "ae5_tools").symlink_to(_PACKAGE)
    for name in _NEEDED:
        found = distribution(name)
        tops = {file.parts[0] for file in found.files or () if ".." not in file.parts}
        for top in tops - {"__pycache__"}:
            (packages / top).symlink_to(Path(str(found.locate_file(top))))
    _write(folder / "bin" / "ae5", python, _START, as_shell=as_shell)
    return folder / "bin" / "ae5"


def prepare(target: Path, cluster: Cluster, folder: Path, *, is_real: bool) -> Program:
    """Put a noting `ae5` into `folder/bin`, and say how it reaches the cluster.

    Args:
        target: The program that does the work.
        cluster: To be reached as its first user.
        folder: For the script, the notes and the saved sessions; it is HOME too.
        is_real: What `target` is.
    """
    script, notes = folder / "bin" / "ae5", folder / "calls"
    code = _RECORDER.format(target=str(target), notes=_NOTES)
    _write(script, interpreter_of(target), code)
    return Program(
        script,
        {
            **cluster.client_environment(),
            "AE5_HOSTNAME": cluster.authority,
            "AE5_USERNAME": USER,
            "AE5_PASSWORD": PASSWORD,
            "AE5_TOOLS_CONFIG_DIR": str(folder / "state"),
            "AE5_STANDIN_PACE": "0.05",
            "HOME": str(folder),
            "PATH": f"{script.parent}{os.pathsep}{os.environ.get('PATH', '')}",
            _NOTES: str(notes),
        },
        notes,
        is_real,
    )


if __name__ == "__main__":
    from tests.standins.ae5.ae5_tools.cli.main import main

    main()
