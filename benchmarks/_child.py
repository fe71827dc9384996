"""Run a command, and write down how long it took and how much memory it needed.

A program of its own, because it has to be small: Linux counts what its parent had in memory when
it was started among the peak of a process.

    python benchmarks/_child.py RESULT_FILE [--watch] COMMAND [ARGUMENT ...]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

WATCH = "--watch"
WATCH_EVERY_S = 0.02
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


def main() -> None:
    """Write a JSON object: `seconds` from start to exit, `peak_kib`, `tree_kib`, exit `status`."""
    result_file, *command = sys.argv[1:]
    watches = command[0] == WATCH
    started = time.perf_counter()
    child = subprocess.Popen(command[1:] if watches else command)
    tree_kib = 0
    while watches and os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        tree_kib = max(tree_kib, resident_kib(child.pid))
        time.sleep(WATCH_EVERY_S)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    result = {
        "seconds": seconds,
        "peak_kib": usage.ru_maxrss,
        "tree_kib": tree_kib,
        "status": child.returncode,
    }
    Path(result_file).write_text(json.dumps(result), "ascii")


def resident_kib(pid: int) -> int:
    """Resident memory of a process and of all that descend from it; pages shared count twice."""
    folder = Path(f"/proc/{pid}")
    try:
        pages = int((folder / "statm").read_text("ascii").split()[1])
        tasks = [task.read_text("ascii").split() for task in folder.glob("task/*/children")]
    except (OSError, IndexError):
        return 0  # it has ended meanwhile
    return pages * PAGE_KIB + sum(resident_kib(int(child)) for task in tasks for child in task)


if __name__ == "__main__":
    main()
