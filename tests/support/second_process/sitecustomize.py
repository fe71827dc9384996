"""Imported by the second process of `backup create` at its start: tells what it does to the disk.

In a folder of its own, so that no other Python imports it; see `stepped`.
"""

import itertools
import os
import signal
import sys

STEPS = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "sqlite3.connect"}
"""What changes a disk, as Python's audit events tell; and files opened to be written."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def tell_steps(steps, kill_at, kill):  # type: ignore[no-untyped-def]
    """Write down each step, and kill before one of them.

    Args:
        steps: File that takes events with their first path; is there.
        kill_at: Before which step, counted from 1; 0 for none.
        kill: Does it.
    """
    descriptor = os.open(steps, os.O_WRONLY | os.O_APPEND)
    counted = itertools.count(1)

    def hook(event, arguments):  # type: ignore[no-untyped-def]
        if event not in STEPS and not (event == "open" and arguments[2] & WRITES):
            return
        if next(counted) == kill_at:
            kill()
        path = str(arguments[0]).replace("\n", " ")
        os.write(descriptor, f"{event} {path}\n".encode("utf-8", "surrogateescape"))

    sys.addaudithook(hook)


if steps := os.environ.get("TESTS_SECOND_STEPS"):
    whom, _, at = os.environ["TESTS_SECOND_KILL"].partition(" ")
    pid = os.getpid() if whom == "itself" else os.getppid()
    tell_steps(steps, int(at), lambda: os.kill(pid, signal.SIGKILL))
