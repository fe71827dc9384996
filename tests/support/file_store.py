"""A folder of MLflow's own file store, as `./mlruns` beside a notebook.

Run as a program: `python file_store.py FOLDER`.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any


def make(folder: Path) -> None:
    """Make it."""
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

    client: Any = MlflowClient(folder.as_uri())
    experiment = client.create_experiment("größe", tags={"team": "vision"})
    gone = client.create_experiment("gone")
    run = client.create_run(experiment, run_name="run").info.run_id
    metrics = [Metric("loss", 1 / step, step, step) for step in range(1, 6)]
    metrics += [Metric("odd", math.nan, 1, 0), Metric("odd", math.inf, 2, -3)]
    client.log_batch(run, metrics)
    client.log_param(run, "lr", "0.1")
    client.log_text(run, "größe", "folder/größe.txt")
    data = Dataset("data", "digest", "local", "{}")
    client.log_inputs(run, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
    client.set_terminated(run)
    deleted = client.create_run(experiment, run_name="deleted").info.run_id
    client.log_text(deleted, "of a deleted run", "a.txt")
    client.delete_run(deleted)
    client.create_run(gone, run_name="of gone")
    client.delete_experiment(gone)
    client.create_registered_model("model", {"owner": "ada"})
    client.create_model_version("model", f"runs:/{run}/folder", run)
    client.set_registered_model_alias("model", "best", "1")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
