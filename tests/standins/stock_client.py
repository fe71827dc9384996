"""A user's script with a stock MLflow client: log everything once, read it back, say what came.

Run as a program of its own, with MLFLOW_TRACKING_URI set and nothing of this project on the path.
Its last line of output is one JSON document; `tests/acceptance/test_client.py` judges it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    """Log, read back, report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--artifact-bytes", type=int, default=50 * 1024 * 1024)
    options = parser.parse_args()

    import mlflow

    facts: dict[str, Any] = {}
    experiment = mlflow.set_experiment("acceptance")
    mlflow.MlflowClient().set_experiment_tag(experiment.experiment_id, "team", "tests")
    with mlflow.start_run(run_name="first") as run:
        mlflow.log_params({"alpha": 0.5, "text": "ä ö / \u2603"})
        for step in range(5):
            mlflow.log_metric("loss", 1.0 / (step + 1), step=step)
        mlflow.log_metrics({"accuracy": 0.75, "huge": 1e300})
        mlflow.set_tag("stage", "trial")
    with mlflow.start_run(run_name="second"):
        mlflow.log_metric("accuracy", 0.25)

    facts["experiment"] = _experiment(experiment.experiment_id)
    facts["run"] = _run(run.info.run_id)
    facts["search"] = _search(experiment.experiment_id)
    facts["artifact"] = _artifact(run.info.run_id, options.artifact_bytes)
    facts["logged_model"], facts["registered_model"] = _models()
    facts["trace"] = _trace(experiment.experiment_id)
    print(json.dumps(facts))


def _experiment(experiment_id: str) -> dict[str, Any]:
    import mlflow

    found = mlflow.get_experiment(experiment_id)
    return {
        "name": found.name,
        "team": found.tags.get("team"),
        "location": found.artifact_location,
        "all": sorted(each.name for each in mlflow.search_experiments()),
    }


def _run(run_id: str) -> dict[str, Any]:
    import mlflow

    found = mlflow.get_run(run_id)
    history = mlflow.MlflowClient().get_metric_history(run_id, "loss")
    return {
        "status": found.info.status,
        "params": dict(found.data.params),
        "metrics": dict(found.data.metrics),
        "stage": found.data.tags.get("stage"),
        "history": [[point.step, point.value] for point in sorted(history, key=lambda p: p.step)],
    }


def _search(experiment_id: str) -> list[str]:
    import mlflow

    found = mlflow.search_runs(
        [experiment_id],
        filter_string="metrics.accuracy > 0.5 and params.alpha = '0.5' and tags.stage = 'trial'",
        order_by=["metrics.accuracy DESC"],
        output_format="list",
    )
    return [run.info.run_name for run in found]


def _artifact(run_id: str, size: int) -> dict[str, Any]:
    import mlflow

    client = mlflow.MlflowClient()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "large ü.bin", Path(folder) / "back"
        source.write_bytes(os.urandom(size))
        target.mkdir()
        client.log_artifact(run_id, str(source), "deep/er")
        back = Path(client.download_artifacts(run_id, f"deep/er/{source.name}", str(target)))
        listed = client.list_artifacts(run_id, "deep/er")
        return {
            "size": back.stat().st_size,
            "equal": _digest(source) == _digest(back),
            "listed": [[entry.path, entry.file_size] for entry in listed],
        }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _models() -> tuple[dict[str, Any], dict[str, Any]]:
    import mlflow
    import mlflow.pyfunc

    class Doubler(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: list[int], params: Any = None) -> list[int]:
            return [2 * value for value in model_input]

    client = mlflow.MlflowClient()
    with mlflow.start_run(run_name="model") as run:
        info = mlflow.pyfunc.log_model(
            name="doubler",
            python_model=Doubler(),
            registered_model_name="doubler",
            pip_requirements=["mlflow"],
            params={"factor": 2},
        )
    client.set_registered_model_alias("doubler", "champion", 1)
    version = client.get_model_version_by_alias("doubler", "champion")
    loaded = mlflow.pyfunc.load_model("models:/doubler@champion")
    logged = mlflow.get_logged_model(info.model_id)
    found = mlflow.search_logged_models(
        experiment_ids=[run.info.experiment_id], output_format="list"
    )
    return (
        {
            "name": logged.name,
            "status": str(logged.status),
            "params": dict(logged.params),
            "from_run": logged.source_run_id == run.info.run_id,
            "found": [each.name for each in found],
        },
        {
            "version": int(version.version),
            "status": version.status,
            "from_run": version.run_id == run.info.run_id,
            "names": [each.name for each in client.search_registered_models()],
            "predicts": loaded.predict([1, 21]),
        },
    )


def _trace(experiment_id: str) -> dict[str, Any]:
    import mlflow

    with mlflow.start_span("outer") as outer:
        outer.set_inputs({"question": "6 * 7"})
        with mlflow.start_span("inner"):
            pass
        outer.set_outputs({"answer": 42})
    mlflow.flush_trace_async_logging()
    trace = mlflow.get_trace(outer.trace_id)
    spans = trace.data.spans if trace else []
    found = mlflow.search_traces(locations=[experiment_id], return_type="list")
    return {
        "spans": sorted(span.name for span in spans),
        "state": str(trace.info.state) if trace else None,
        "outputs": next((span.outputs for span in spans if span.name == "outer"), None),
        "found": [each.info.trace_id == outer.trace_id for each in found],
    }


if __name__ == "__main__":
    main()
