"""The peer's environment: MLflow as `pip install mlflow` gives it, with database drivers.

What makes our server fast (uvloop, httptools) must not help the peer: plain MLflow 3.17.2 requires
neither, and uvicorn uses them as soon as they are there. Everything else has the same version, from
the same lock.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / ".venv-stock"
OURS_ALONE = ("uvloop", "httptools", "uvicorn-worker", "setuptools")


def stock_requirements() -> str:
    """The runtime lock, hashes included, without what MLflow and its drivers do not bring."""
    lock = (REPOSITORY / "requirements" / "runtime.txt").read_text("utf-8")
    blocks = re.split(r"\n(?=[A-Za-z0-9])", lock)
    kept = [
        block for block in blocks if re.split(r"[=\[; ]", block, maxsplit=1)[0] not in OURS_ALONE
    ]
    return "\n".join(kept) + "\n"


def stock_python() -> Path:
    """The interpreter of that environment, made in `.venv-stock` the first time (about a minute).

    Raises:
        subprocess.CalledProcessError: pip could not install it.
    """
    python = FOLDER / "bin" / "python"
    requirements = stock_requirements()
    stamp = FOLDER / "stamp"
    fingerprint = hashlib.sha256(requirements.encode()).hexdigest()
    if stamp.exists() and stamp.read_text("ascii") == fingerprint:
        return python
    print("making .venv-stock, the environment of stock (about a minute)", file=sys.stderr)
    venv.create(FOLDER, clear=True, with_pip=True)
    listing = FOLDER / "requirements.txt"
    listing.write_text(requirements, "utf-8")
    subprocess.run(
        [python, "-m", "pip", "install", "-qq", "--require-hashes", "-r", listing], check=True
    )
    stamp.write_text(fingerprint, "ascii")
    return python
