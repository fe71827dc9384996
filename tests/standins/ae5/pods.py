"""Pods: an uploaded command, run for real, in a folder of its own.

Source: anaconda-project 0.13: `/bin/sh -c LINE` in the project folder with PROJECT_DIR set; a line
that supports HTTP options gets the platform's flags appended, any other is a jinja2 template.
There is no conda here: instead of an env spec, a command finds the Python of the tests first.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import jinja2

from tests.standins.ae5.archive import unpack
from tests.standins.ae5.state import Command, Deployment, Pod
from tests.support.programs import free_port

_LOOK_S = 0.02


class _Stopped(Exception):
    """Told to stop before the command was started."""


@dataclass
class Pods:
    """What runs on a cluster.

    Args:
        folder: Holds a folder for each pod: `project`, `home`, `log`.
        host: Of the cluster, as in addresses, perhaps with a port.
        environment: What every pod has, beside its own variables.
        secrets: Makes sure that the folder of a user's secrets is there; returns it.
        grace_s: How long a pod may take to stop after SIGTERM.
    """

    folder: Path
    host: str
    environment: dict[str, str]
    secrets: Callable[[str], Path]
    grace_s: float = 30.0
    is_closed: bool = False
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, repr=False)
    _stopping: set[str] = field(default_factory=set, repr=False)
    _threads: list[threading.Thread] = field(default_factory=list, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def project_folder(self, pod: Pod) -> Path:
        """Where the archive of a pod was unpacked."""
        return self.folder / pod.hex / "project"

    def in_background(self, work: Callable[[], None]) -> None:
        """Do it in a thread that ends before the cluster does."""
        thread = threading.Thread(target=work, daemon=True)
        with self._lock:
            self._threads = [each for each in self._threads if each.is_alive()]
            self._threads.append(thread)
        thread.start()

    def run(self, pod: Pod) -> int:
        """Run the command of a pod to its end; returns the exit status, -9 when it was killed.

        A deployment becomes "started" as soon as its port answers.
        """
        folder = self.folder / pod.hex
        try:
            process = self._start(pod, folder)
        except _Stopped:
            return -signal.SIGTERM
        while process.poll() is None:
            if isinstance(pod, Deployment) and pod.state == "starting" and _answers(pod.port):
                pod.become("started", "Started")
            time.sleep(_LOOK_S)
        self._sweep(process)
        return process.returncode

    def _start(self, pod: Pod, folder: Path) -> subprocess.Popen[bytes]:
        revision = pod.project.revision(pod.revision)
        assert revision is not None
        command = revision.command(pod.command)
        assert command is not None
        unpack(revision.archive.name, revision.archive.read_bytes(), folder / "project")
        (folder / "home").mkdir()
        pod.log_file = folder / "log"
        declared = {**command.variables, **revision.variables}
        environment = self._environment(pod, declared)
        missing = [name for name in declared if not environment.get(name)]
        pod.become("starting", "Starting")
        with pod.log_file.open("ab") as log:
            if missing:
                log.write(f"missing requirement to run: {', '.join(missing)}\n".encode())
                line = "exit 1"
            else:
                log.write(b"The project is ready to run commands.\n")
                line = self._line(pod, command, environment)
            log.flush()
            with self._lock:
                if self.is_closed or pod.hex in self._stopping:
                    raise _Stopped
                self._processes[pod.hex] = process = subprocess.Popen(
                    ["/bin/sh", "-c", line],
                    cwd=folder / "project",
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        return process

    def _environment(self, pod: Pod, declared: Mapping[str, str | None]) -> dict[str, str]:
        folder = self.folder / pod.hex
        own_python = str(Path(sys.executable).parent)
        defaults = {name: value for name, value in declared.items() if value is not None}
        return {
            "PATH": os.pathsep.join([own_python, "/usr/local/bin", "/usr/bin", "/bin"]),
            "HOME": str(folder / "home"),
            "LANG": "C.UTF-8",
            "PROJECT_DIR": str(folder / "project"),
            "TRACKING_SERVER_SECRETS_DIR": str(self.secrets(pod.owner)),
            **defaults,
            **self.environment,
            **pod.variables,
        }

    def _line(self, pod: Pod, command: Command, environment: Mapping[str, str]) -> str:
        """What the shell is told, with what the platform adds."""
        port, name = free_port(), pod.hex
        if isinstance(pod, Deployment):
            pod.port, name = port, pod.endpoint
        public = f"{name}.{self.host}"
        if not command.http_options:
            words = {
                "port": port,
                "address": "127.0.0.1",
                "host": public,
                "hosts": [public],
                "iframe_hosts": [self.host],
                "no_browser": True,
                "use_xheaders": True,
                "url_prefix": "",
            }
            # A shell line, not a page.
            template = jinja2.Environment().from_string(command.unix)  # noqa: S701
            return template.render({**environment, **words})
        flags = {
            "port": str(port),
            "address": "127.0.0.1",
            "host": public,
            "no-browser": None,
            "use-xheaders": None,
            "iframe-hosts": self.host,
        }
        added = [
            word
            for flag, value in flags.items()
            for word in (f"--anaconda-project-{flag}", value)
            if word is not None
        ]
        return f"{command.unix} {shlex.join(added)}"

    def stop(self, pod: Pod) -> None:
        """SIGTERM to everything of a pod, SIGKILL when that does not help; returns at its end."""
        with self._lock:
            self._stopping.add(pod.hex)
            process = self._processes.get(pod.hex)
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + self.grace_s
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        self._sweep(process)

    def _sweep(self, process: subprocess.Popen[bytes]) -> None:
        """A pod ends as a whole, whatever its command has left behind."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def processes(self, pod: Pod) -> list[int]:
        """The shell or what it has become, as long as it runs."""
        process = self._processes.get(pod.hex)
        return [] if process is None or process.poll() is not None else [process.pid]

    def close(self) -> None:
        """Kill everything."""
        with self._lock:
            self.is_closed = True
            processes, threads = list(self._processes.values()), list(self._threads)
        for process in processes:
            self._sweep(process)
        for thread in threads:
            thread.join(10)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
