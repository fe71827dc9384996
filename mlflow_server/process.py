"""End child programs together with everything they started."""

import contextlib
import os
import signal
import time
from pathlib import Path


def tree_of(root: int) -> list[int]:
    """The process ids of `root` and all its descendants, parents first. Reads /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError, ValueError):
            # The command name in brackets may hold anything; the fields after it do not.
            fields = (
                (entry / "stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()
            )
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def end_tree(root: int, *, timeout_s: float) -> None:
    """Ask a child and its descendants to end, then make them.

    Args:
        root: A child of this process.
        timeout_s: Time between SIGTERM and SIGKILL, seconds.
    """
    pids = tree_of(root)
    _signal_all(pids, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and any(map(_is_alive, pids)):
        _reap(root)
        time.sleep(0.05)
    _signal_all([pid for pid in pids if _is_alive(pid)], signal.SIGKILL)
    _reap(root, wait=True)


def _signal_all(pids: list[int], sig: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sig)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _reap(pid: int, *, wait: bool = False) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0 if wait else os.WNOHANG)
