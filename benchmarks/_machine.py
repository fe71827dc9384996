"""Facts about this machine and the programs that are measured; read-only."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil
from _stores import neutral_environment

PACKAGES = (
    "mlflow",
    "uvicorn",
    "uvloop",
    "httptools",
    "gunicorn",
    "uvicorn-worker",
    "fastapi",
    "flask",
    "sqlalchemy",
    "psycopg2-binary",
    "boto3",
)
VERSIONS_PROGRAM = """
import importlib.metadata, json, platform, sys
versions = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        versions[name] = None
json.dump(versions, sys.stdout)
"""


def machine_facts() -> dict[str, Any]:
    """Processors, memory and system; nothing that names the machine or its user."""
    return {
        "processor": processor_name(),
        "cpu_count": os.cpu_count(),
        "cpu_usable": len(os.sched_getaffinity(0)),
        "memory_mib": round(psutil.virtual_memory().total / 2**20),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def package_versions(python: str) -> dict[str, str | None]:
    """Versions of what is measured under the interpreter `python`; None is not installed."""
    output = subprocess.run(
        [python, "-c", VERSIONS_PROGRAM, *PACKAGES],
        env=neutral_environment(),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    versions: dict[str, str | None] = json.loads(output)
    return versions


def load_average() -> float:
    """Processes that were running or waiting, averaged over the last minute."""
    return os.getloadavg()[0]


def processor_name() -> str:
    """The model as Linux tells it, else what Python knows."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def wrk_version() -> str:
    # `wrk --version` prints its version and its usage, and exits with 1.
    done = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).splitlines()[0].partition("[")[0].strip()
