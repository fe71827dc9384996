"""Old releases of MLflow, each installed by pip into a virtual environment of its own.

The environments are kept in the user's cache (`$XDG_CACHE_HOME` or `~/.cache`), below
`mlflow-tracking-server-tests`; whoever wants the room back may remove that folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.support.old_stores import Release
from tests.support.programs import REPOSITORY, clean_environment

# No golden file is there of these.
MADE_ON_THE_SPOT = {
    "2.15.1": Release("4465047574b1", 41, has_models=False),
    "3.5.1": Release("bf29a5ff90ea", 27, has_evaluation=True),
}
_SEED = REPOSITORY / "tests/support/old_release_seed.py"
_INSTALL_TIMEOUT_S = 600
_SEED_TIMEOUT_S = 300
# All that mlflow-skinny requires, and what its stores need besides: pip chooses nothing.
_SHARED = """
    alembic==1.20.1 blinker==1.9.0 certifi==2026.10.18 cffi==2.1.1 charset-normalizer==3.5.2
    click==8.5.1 cloudpickle==3.1.2 cryptography==50.0.2 databricks-sdk==0.156.0 flask==3.1.3
    gitdb==4.0.12 gitpython==3.2.1 google-auth==2.62.2 greenlet==3.5.6 idna==3.20
    itsdangerous==2.2.0 jinja2==3.1.6 mako==1.4.3 markupsafe==3.0.4 psycopg2-binary==2.9.13
    pyasn1==0.6.5 pyasn1-modules==0.4.2 pycparser==3.12 pyyaml==6.0.3 requests==2.34.2
    smmap==5.0.3 sqlalchemy==2.0.58 sqlparse==0.6.1 typing-extensions==4.16.0 urllib3==2.8.0
    werkzeug==3.1.9 zipp==4.1.2
"""
_PINS = {
    # Its spans do not end with OpenTelemetry 1.45, and setuptools 81 has no pkg_resources for it.
    "2.15.1": """
        mlflow-skinny==2.15.1 cachetools==5.5.2 deprecated==1.3.1 entrypoints==0.4.2
        importlib-metadata==7.2.1 opentelemetry-api==1.26.0 opentelemetry-sdk==1.26.0
        opentelemetry-semantic-conventions==0.47b0 packaging==24.2 protobuf==5.29.6 pytz==2024.2
        setuptools==80.9.0 wrapt==2.5.2
    """,
    "3.5.1": """
        mlflow-skinny==3.5.1 annotated-doc==0.0.7 annotated-types==0.8.0 anyio==4.16.0
        cachetools==6.2.6 fastapi==0.165.0 h11==0.16.0 importlib-metadata==8.9.0
        opentelemetry-api==1.45.2 opentelemetry-proto==1.45.2 opentelemetry-sdk==1.45.2
        opentelemetry-semantic-conventions==0.66b2 packaging==25.0 protobuf==6.33.6
        pydantic==2.14.3 pydantic-core==2.50.4 python-dotenv==1.2.4 starlette==1.10.0
        typing-inspection==0.4.5 uvicorn==0.54.0
    """,
}
# pip gives up on an index after its last attempt.
_UNREACHABLE = re.compile(r"Retry\(total=0,.*connection broken by")


class IndexUnreachableError(Exception):
    """A package could not be fetched: no network, or no index there."""


@dataclass(frozen=True)
class OldRelease:
    """An installed one.

    Args:
        python: The interpreter that has it.
    """

    python: Path

    def make_store(self, uri: str, artifacts: Path) -> None:
        """Have it make a store with everything that `check` looks for.

        Args:
            uri: Of a database without tables.
            artifacts: A folder for what its experiments keep.
        """
        # Isolated: the modules beside the program have names of packages.
        command = [self.python, "-I", "-W", "ignore", _SEED, uri, artifacts]
        # In a folder of its own: MLflow makes one for artifacts where it is.
        with tempfile.TemporaryDirectory() as folder:
            ended = subprocess.run(
                command,
                cwd=folder,
                env=clean_environment(MLFLOW_DISABLE_TELEMETRY="true"),
                capture_output=True,
                text=True,
                timeout=_SEED_TIMEOUT_S,
            )
        assert ended.returncode == 0, ended.stderr[-4000:]


def install(release: str) -> OldRelease:
    """A release, installed when it is not there yet (half a minute); others wait meanwhile.

    A run that was killed leaves an environment without its mark, which is made anew.

    Args:
        release: One of `MADE_ON_THE_SPOT`.

    Raises:
        IndexUnreachableError: It would have to be fetched, and cannot be.
    """
    pins = sorted((_SHARED + _PINS[release]).split())
    folder = _cache() / f"mlflow-{release}-{_fingerprint(pins)}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    installed, mark = OldRelease(folder / "bin/python"), folder / "complete"
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (mark.exists() and installed.python.exists()):
            venv.create(folder, clear=True, symlinks=True, with_pip=True)
            _pip_install(installed.python, pins, lock.fileno())
            mark.touch()
    return installed


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "mlflow-tracking-server-tests"


def _fingerprint(pins: list[str]) -> str:
    """Another one for other packages or another interpreter; such environments lie side by side."""
    parts = [*pins, sys.version, sys.base_prefix]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _pip_install(python: Path, pins: list[str], lock: int) -> None:
    command = [python, "-I", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    command += ["--no-input", "--no-deps", "--only-binary", ":all:", "--retries", "3", *pins]
    ended = subprocess.run(
        command,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=_INSTALL_TIMEOUT_S,
        pass_fds=[lock],  # held for as long as pip writes, should this process be killed
    )
    if ended.returncode != 0 and _UNREACHABLE.search(ended.stderr):
        said = ended.stderr.splitlines()[-1]
        raise IndexUnreachableError(f"the package index does not answer: {said}")
    assert ended.returncode == 0, ended.stderr[-4000:]
