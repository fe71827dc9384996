"""mlflow-export-import, the peer of `migrate`: its environment, and a move through two servers.

It is not on PyPI in the version that is compared with; what is not said to be elsewhere is fetched
from its repository and put into a folder that is removed at the end.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from _backup_bench import Bench
from _backup_commands import seconds_of
from _command import tell
from _programs import Finished, VoidError, run_command, tail
from _servers import Server, stock

COMMIT = "cf626079"
SOURCE = "git+https://github.com/mlflow/mlflow-export-import"
REQUIREMENTS = ("databricks-cli==0.18.0", "oauthlib", "pyjwt", "six", "tabulate==0.9.0")
SITE_PROGRAM = "import sysconfig; print(sysconfig.get_path('purelib'))"
# `export-all` and `export-models` of this commit die at their start: they ask for an option by a
# name that was changed. No other line of it is touched.
ALIAS = "\nopt_runs_until = opt_until\n"
ALIASED = Path("mlflow_export_import", "common", "click_options.py")


def make_peer(folder: Path, stock_python: str, source: str) -> str:
    """An environment with the tool beside stock MLflow and everything that has.

    Args:
        folder: For it; not in the repository.
        stock_python: Interpreter of stock.
        source: What pip installs it from, without the commit.

    Returns:
        Its interpreter.

    Raises:
        subprocess.CalledProcessError: pip could not install it.
    """
    tell("making the environment of mlflow-export-import")
    venv.create(folder)
    python = folder / "bin" / "python"
    packages = (f"{source}@{COMMIT}", *REQUIREMENTS)
    pip = (stock_python, "-m", "pip", "--python", str(python), "install", "-qq", "--no-deps")
    subprocess.run((*pip, *packages), check=True, stdout=sys.stderr)
    site, site_of_stock = (
        Path(subprocess.check_output((name, "-c", SITE_PROGRAM), text=True).strip())
        for name in (str(python), stock_python)
    )
    (site / "stock.pth").write_text(f"{site_of_stock}\n")
    with (site / ALIASED).open("a") as options:
        options.write(ALIAS)
    return str(python)


@dataclass(frozen=True)
class Moved:
    """What one move by the peer took.

    Attributes:
        exported: `export-experiments`.
        imported: `import-experiments`.
    """

    exported: Finished
    imported: Finished

    @property
    def seconds(self) -> float:
        """Both."""
        return seconds_of((self.exported, self.imported))


def move(bench: Bench, source: str, target: str, folder: Path, experiments: list[str]) -> Moved:
    """Export experiments through a server of one store, import them through one of another.

    Args:
        bench: Has the interpreters.
        source: URI of the store that has them.
        target: URI of the store that gets them.
        folder: For servers and files.
        experiments: Their names.

    Raises:
        VoidError: It failed, or there is no peer.
        ServerError: A server did not start.
    """
    if bench.peer_python is None:
        raise VoidError("there is no mlflow-export-import")
    exchange = folder / "exchange"
    with Server(stock(bench.stock_python), source, folder / "source-server") as server:
        server.wait_until_idle()
        names = ("--experiments", ",".join(experiments), "--output-dir", str(exchange))
        exported = call(bench.peer_python, "export_experiments", server.port, *names)
    with Server(stock(bench.stock_python), target, folder / "target-server") as server:
        server.wait_until_idle()
        imported = call(
            bench.peer_python, "import_experiments", server.port, "--input-dir", str(exchange)
        )
    return Moved(exported, imported)


def call(python: str, module: str, port: int, *options: str) -> Finished:
    """A command of the peer against a server.

    Raises:
        VoidError: It failed.
    """
    command = (python, "-m", f"mlflow_export_import.bulk.{module}", *options)
    finished = run_command(command, {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"})
    if "Traceback" in finished.stderr:  # it ends with 0 all the same
        raise VoidError(f"{module}: {tail(finished.stderr)}")
    return finished
