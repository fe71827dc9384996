"""Run a command, and write down how long it took and how much memory it needed.

A program of its own, because it has to be small: Linux counts what its parent had in memory when
it was started among the peak of a process.

    python benchmarks/_gc_child.py RESULT_FILE COMMAND [ARGUMENT ...]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """Write a JSON object: `seconds` from start to exit, `peak_kib`, exit `status`."""
    result_file, *command = sys.argv[1:]
    started = time.perf_counter()
    child = subprocess.Popen(command)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    result = {"seconds": seconds, "peak_kib": usage.ru_maxrss, "status": child.returncode}
    Path(result_file).write_text(json.dumps(result), "ascii")


if __name__ == "__main__":
    main()
