"""What the stores of tests/data/old-stores have, made in a new store by an old release's client.

Run as a program by the interpreter of that release: `python -I old_release_seed.py STORE_URI
ARTIFACTS`; ARTIFACTS is a folder, where experiments keep theirs. The store is made by the release,
too. One store a process: the tracing of MLflow 2 stays with the first store that it has seen.
"""

import json
import math
import sys

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

BEGAN_MS = 1_700_000_000_000
MAJOR, MINOR = (int(part) for part in mlflow.__version__.split(".")[:2])


class Seed:
    """Fills a store.

    Args:
        store_uri: Of a database without tables.
        artifacts: Where experiments keep their artifacts.
    """

    def __init__(self, store_uri: str, artifacts: str) -> None:
        # As a server would be started: the client alone gives Default a folder of its own choice.
        self.store = SqlAlchemyStore(store_uri, artifacts)
        mlflow.set_tracking_uri(store_uri)
        mlflow.set_registry_uri(store_uri)
        self.artifacts = artifacts
        self.client = MlflowClient(store_uri, store_uri)

    def fill(self) -> None:
        """Put everything in."""
        self.experiments = [
            self.client.create_experiment(name, f"{self.artifacts}/{name}")
            for name in ("alpha", "beta", "gone")
        ]
        self.client.set_experiment_tag(self.experiments[0], "team", "vision")
        self.runs = [self.run(number) for number in range(6)]
        self.inputs()
        self.traces()
        for run_id in self.runs:
            self.client.set_terminated(run_id, "FINISHED", BEGAN_MS + 5_000)
        self.registry()
        if MAJOR >= 3:
            self.models()
        if (MAJOR, MINOR) >= (3, 5):
            self.evaluation()
        self.client.delete_run(self.runs[1])
        self.client.delete_experiment(self.experiments[2])

    def run(self, number: int) -> str:
        """One run, its experiment being dealt, with its metrics, params and tags."""
        made = self.client.create_run(
            self.experiments[number % 3],
            BEGAN_MS + 1_000 * number,
            {"mlflow.user": "ada"},
            f"run-{number}",
        )
        metrics = [
            Metric(f"m{key}", float(key + step), BEGAN_MS + step, step)
            for key in range(3)
            for step in range(3)
        ]
        if number == 0:
            metrics.append(Metric("nan", math.nan, BEGAN_MS, 0))
            metrics.append(Metric("inf", math.inf, BEGAN_MS, 1))
        params = [Param("lr", "0.1"), Param("long", "x" * 200)]
        self.client.log_batch(made.info.run_id, metrics, params, [RunTag("note", "n" * 50)])
        return made.info.run_id

    def inputs(self) -> None:
        """One dataset, read by three runs."""
        dataset = Dataset("ds", "d1g3st", "local", "{}", "{}", "{}")
        tags = [InputTag("mlflow.data.context", "training")]
        for run_id in self.runs[:3]:
            self.client.log_inputs(run_id, [DatasetInput(dataset, tags)])

    def traces(self) -> None:
        """Three traces of a run, each with a span below its root."""
        mlflow.set_experiment("alpha")
        with mlflow.start_run(self.runs[0]):
            for number in range(3):
                with mlflow.start_span("predict") as root:
                    root.set_inputs({"question": number})
                    if (MAJOR, MINOR) >= (3, 5):
                        tokens = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
                        root.set_attribute("mlflow.chat.tokenUsage", tokens)
                        mlflow.update_current_trace(metadata={"mlflow.trace.session": "s"})
                    with mlflow.start_span("look up") as child:
                        child.set_outputs(number * 2)
                    root.set_outputs({"answer": number * 2})

    def registry(self) -> None:
        """A model with two versions, the second of a run that is deleted afterwards."""
        client = self.client
        client.create_registered_model("churn", {"owner": "ada"}, "a model")
        for run_id in self.runs[:2]:
            source = f"{client.get_run(run_id).info.artifact_uri}/model"
            client.create_model_version("churn", source, run_id, {"k": "v"})
        client.transition_model_version_stage("churn", "1", "Production")
        client.set_registered_model_alias("churn", "champion", "1")

    def models(self) -> None:
        """Two logged models, the second deleted."""
        wanted = {"source_run_id": self.runs[0], "params": {"p": "1"}, "tags": {"k": "v"}}
        self.client.create_logged_model(self.experiments[0], "lm", **wanted)
        gone = self.client.create_logged_model(self.experiments[0], "lm-gone", self.runs[0])
        self.client.delete_logged_model(gone.model_id)

    def evaluation(self) -> None:
        """An assessment of a trace, a dataset with a record, and a scorer."""
        from mlflow.entities import AssessmentSource

        (trace, *_) = self.client.search_traces(self.experiments[:1], order_by=["timestamp_ms"])
        mlflow.log_feedback(
            trace_id=trace.info.trace_id,
            name="good",
            value=True,
            source=AssessmentSource("HUMAN", "ada"),
            rationale="it is",
        )
        dataset = self.client.create_dataset("golden", self.experiments[0], {"team": "vision"})
        record = {"inputs": {"question": 1}, "expectations": {"answer": 2}}
        self.store.upsert_dataset_records(dataset.dataset_id, [record])
        self.store.register_scorer(self.experiments[0], "length", json.dumps({"name": "length"}))


if __name__ == "__main__":
    Seed(*sys.argv[1:]).fill()
