"""MLflow's background jobs, when they are switched on: one runner process with its children."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mlflow_server.errors import SettingsError
from mlflow_server.process import end_tree
from mlflow_server.server.plan import LaunchPlan
from mlflow_server.server.runtime import RuntimeFolder

_STOP_S = 3.0
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where MLflow 3.17.2 keeps its queues as well


def require_job_execution() -> None:
    """Ask MLflow whether its jobs can run here.

    Raises:
        SettingsError: They cannot; says why.
    """
    from mlflow.server.jobs.utils import _check_requirements

    try:
        _check_requirements(os.environ["_MLFLOW_SERVER_FILE_STORE"])
    except Exception as err:
        reason = str(err).partition("\n")[0]
        raise SettingsError(
            [f"MLFLOW_SERVER_ENABLE_JOB_EXECUTION: MLflow cannot run jobs here: {reason}"],
            hint="set it to false, or install what is missing",
        ) from None


@dataclass(frozen=True)
class JobRunner:
    """The runner of one server.

    Args:
        pid: Of the runner; it has up to seven children (MLflow 3.17.2).
        folder: Its queues; MLflow itself would leave them behind at every stop.
    """

    pid: int
    folder: RuntimeFolder

    @classmethod
    def start(cls, plan: LaunchPlan) -> Self:
        """Start the runner; it ends by itself when this process is killed.

        Source: MLflow 3.17.2 `server/__init__.py` `_run_server`.
        """
        from mlflow.server.jobs.utils import _launch_job_execution_runner

        folder = RuntimeFolder(_SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None)
        os.environ["_MLFLOW_HUEY_STORAGE_PATH"] = str(folder.path)
        address = f"http://127.0.0.1:{plan.port}"
        environment = {
            "MLFLOW_BACKEND_STORE_URI": os.environ["_MLFLOW_SERVER_FILE_STORE"],
            "MLFLOW_TRACKING_URI": address,
            "MLFLOW_GATEWAY_URI": os.environ.get("MLFLOW_GATEWAY_URI", address),
        }
        runner = _launch_job_execution_runner(environment, os.getpid())
        return cls(runner.pid, folder)

    def stop(self) -> None:
        """End the runner and everything it started."""
        end_tree(self.pid, timeout_s=_STOP_S)
        self.folder.remove()
