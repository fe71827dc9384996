"""What every kind of object store has to stand: use by a server, refusal without MLflow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

from tests.support.places import Place
from tests.support.programs import STORE, Server, clean_environment, free_port, http

KEPT = "a/folder with space/b.bin"
_BYTES = bytes(range(256)) * 400


def use_artifacts(server: Server) -> None:
    """Upload, list, download and delete through the proxy of a server; `KEPT` stays there."""
    base = f"{server.url}/api/2.0/mlflow-artifacts/artifacts"
    for path in (KEPT, "gone.bin"):
        put = http(f"{base}/{path.replace(' ', '%20')}", method="PUT", body=_BYTES)
        assert put.status == 200, (put.body, server.log)
        assert http(f"{base}/{path.replace(' ', '%20')}").body == _BYTES
    assert http(f"{base}/gone.bin", method="DELETE").status == 200
    listed = http(f"{base}?path=a/folder%20with%20space").json()
    assert listed == {"files": [{"path": "b.bin", "is_dir": False, "file_size": len(_BYTES)}]}


def heavy_imports(place: Place, environment: Mapping[str, str]) -> set[str]:
    """Which of MLflow and its weight had been imported when `serve` ended by itself."""
    ended = _serve_in(
        "import atexit\n"
        "heavy = {'mlflow', 'pandas', 'fastapi'}\n"
        "atexit.register(lambda: print('imported:', *(heavy & set(sys.modules))))\n",
        place,
        environment,
    )
    assert ended.returncode > 2, ended.stderr
    return set(ended.stdout.rpartition("imported:")[2].split())


def serve_without(
    module: str, place: Place, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run `serve` where a module cannot be found."""
    return _serve_in(f"sys.modules[{module!r}] = None\n", place, environment)


def _serve_in(
    preparation: str, place: Place, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    whole = {
        STORE: f"sqlite:///{place.store}",
        "MLFLOW_PORT": str(free_port()),
        "TRACKING_SERVER_SECRETS_DIR": str(place.root / "no-secrets"),
        "HOME": str(place.root / "home"),
        **environment,
    }
    program = f"import sys\n{preparation}from mlflow_server.cli.main import main\nmain(['serve'])\n"
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=place.project,
        env=clean_environment(**whole),
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
