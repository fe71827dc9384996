"""A store with everything in it that MLflow's API can make, made by a client of a real server.

Run as a program: `python everything.py SERVER_URL OWN_LOCATION`; OWN_LOCATION is a folder beside
the destination, for an experiment that keeps its artifacts by itself. With workspaces on, the
variable WORKSPACES names those to make, with a few things in each.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from typing import Any
from urllib.request import Request, urlopen

# Of runs; what is hard about names and contents of artifacts, as far as MLflow's client can.
ARTIFACTS: Mapping[str, bytes] = {
    "plain.txt": b"plain",
    "empty": b"",
    "größe/日本語.txt": "größe".encode(),
    "folder with space/a+b.txt": b"signs",
    "/".join("abcdefghijkl") + "/deep.bin": bytes(range(256)) * 8,
    "same-1.bin": b"the same" * 1000,
    "same-2.bin": b"the same" * 1000,
}
LARGE = "large.bin"
LARGE_BYTES = 20 * 1024 * 1024
LONG = "x" * 6_000
# Of a network for documentation (RFC 5737); a name would have to be found.
ADDRESS = "https://203.0.113.7"


class Maker:
    """Makes it.

    Args:
        url: Of the server.
        own: Where an experiment keeps its artifacts by itself.
    """

    def __init__(self, url: str, own: str) -> None:
        import mlflow
        from mlflow import MlflowClient

        mlflow.set_tracking_uri(url)
        self.url = url
        self.own = own
        self.client: Any = MlflowClient(url)

    def make(self) -> None:
        """All of it."""
        self.experiments()
        self.runs()
        self.models()
        self.registry()
        self.prompts()
        self.traces()
        self.datasets()
        self.hooks()
        self.others()
        self.deleted()

    def experiments(self) -> None:
        tags = {"team": "vision", "mlflow.note.content": "# Größe\nnote", "empty": ""}
        self.main = self.client.create_experiment("everything", tags=tags)
        self.elsewhere = self.client.create_experiment("elsewhere", artifact_location=self.own)
        self.gone = self.client.create_experiment("gone")
        self.client.create_experiment("empty 日本語")

    def runs(self) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

        client = self.client
        parent = client.create_run(self.main, run_name="parent", tags={"mlflow.user": "ada"})
        self.parent = parent.info.run_id
        above = self.parent
        for level in ("child", "grandchild"):
            tags = {"mlflow.parentRunId": above}
            above = client.create_run(self.main, run_name=level, tags=tags).info.run_id
        metrics = [
            Metric("loss", 1.0 / step, 1_700_000_000_000 + step, step) for step in range(1, 40)
        ]
        metrics += [
            Metric("odd", value, 1_700_000_000_000, step)
            for value, step in (
                (math.nan, 0), (math.inf, 1), (-math.inf, 2), (-0.0, -7), (1e-308, -1),
                (0.1 + 0.2, 3), (1.7976931348623157e308, 4), (1.0, 5), (2.0, 5), (5e-324, 6),
            )
        ]  # fmt: skip
        metrics += [Metric("größe/μ", 1.5, 1, 0), Metric("nan", math.nan, 2, 2)]
        params = [Param("long", LONG), Param("größe", "日本語 😀"), Param("blank", " ")]
        tags = [
            RunTag("mlflow.note.content", "note 😀"),
            RunTag("empty", ""),
            RunTag("signs", "a\tb\\n\n"),
        ]
        client.log_batch(self.parent, metrics, params, tags)
        for number in range(2):
            data = Dataset(f"data-{number}", f"digest{number}", "local", '{"uri": "x"}', "{}", "{}")
            inputs = [InputTag("mlflow.data.context", "training"), InputTag("größe", "ß")]
            client.log_inputs(self.parent, [DatasetInput(data, inputs)])
            client.log_inputs(above, [DatasetInput(data, [])])
        self.lay(self.parent, ARTIFACTS)
        self.lay(self.parent, {LARGE: bytes(range(256)) * (LARGE_BYTES // 256)})
        client.set_terminated(self.parent, "FINISHED", 1_700_000_100_000)
        client.set_terminated(above, "FAILED")
        own = client.create_run(self.elsewhere, run_name="own", start_time=1_600_000_000_000)
        self.own_run = own.info.run_id
        self.lay(self.own_run, {"own/x.bin": b"own", "same-1.bin": ARTIFACTS["same-1.bin"]})
        self.old = client.create_run(self.main, run_name="deleted").info.run_id
        client.log_metric(self.old, "m", 1.0)
        self.lay(self.old, {"a.txt": b"of a deleted run"})
        for number in range(2):
            run = client.create_run(self.gone, run_name=f"gone-{number}").info.run_id
            client.log_param(run, "p", number)
        client.create_run("0", run_name="of Default")

    def lay(self, run_id: str, files: Mapping[str, bytes]) -> None:
        """Upload artifacts of a run as bytes."""
        from pathlib import Path
        from tempfile import TemporaryDirectory

        with TemporaryDirectory() as place:
            for name, content in files.items():
                path = Path(place) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self.client.log_artifacts(run_id, place)

    def models(self) -> None:
        from mlflow.entities import LoggedModelInput, LoggedModelOutput, Metric

        client = self.client
        made = client.create_logged_model(
            self.main, "lm", self.parent, {"t": "ü"}, {"p": LONG[:5_000]}, "agent"
        )
        self.model = made.model_id
        client.log_model_artifact(self.model, __file__)
        client.finalize_logged_model(self.model, "READY")
        alone = client.create_logged_model(self.main, "alone").model_id
        client.set_logged_model_tags(alone, {"größe": "日本語"})
        failed = client.create_logged_model(self.elsewhere, "failed", self.own_run).model_id
        client.finalize_logged_model(failed, "FAILED")
        away = client.create_logged_model(self.main, "away", self.parent).model_id
        client.delete_logged_model(away)
        client.log_outputs(self.parent, [LoggedModelOutput(self.model, 3)])
        client.log_inputs(self.own_run, models=[LoggedModelInput(alone)])
        metric = Metric(
            "accuracy", 0.75, 1_700_000_000_000, 2, model_id=self.model,
            dataset_name="data-0", dataset_digest="digest0", run_id=self.parent,
        )  # fmt: skip
        client.log_batch(self.parent, [metric])

    def registry(self) -> None:
        client = self.client
        client.create_registered_model("churn", {"owner": "ada", "größe": "ß"}, "description ü")
        source = f"runs:/{self.parent}/model"
        for number in range(5):
            client.create_model_version(
                "churn", source, self.parent, {"n": str(number)}, description=f"v{number}"
            )
        client.create_model_version("churn", f"models:/{self.model}", model_id=self.model)
        client.create_model_version("churn", f"runs:/{self.old}/a.txt", self.old)
        client.transition_model_version_stage("churn", "1", "Staging")
        client.transition_model_version_stage("churn", "3", "Production")
        client.transition_model_version_stage("churn", "4", "Archived")
        client.set_registered_model_alias("churn", "champion", "5")
        client.set_registered_model_alias("churn", "größe", "5")
        client.set_registered_model_alias("churn", "old", "1")
        client.delete_model_version("churn", "2")
        client.delete_model_version("churn", "4")
        client.create_registered_model("no versions 日本語")
        client.create_registered_model("copy")
        client.copy_model_version("models:/churn/3", "copy")

    def prompts(self) -> None:
        client = self.client
        for number in range(3):
            client.register_prompt(
                "greeting",
                f"Hello {{{{name}}}}, größe {number}",
                commit_message=f"change {number}",
                tags={"lang": "de"},
            )
        client.register_prompt("chat", [{"role": "user", "content": "{{q}} 日本語"}])
        client.set_prompt_alias("greeting", "production", 2)
        client.set_prompt_tag("greeting", "team", "nlp")
        client.delete_prompt_version("greeting", "1")

    def traces(self) -> None:
        import mlflow
        from mlflow.entities import AssessmentSource, SpanEvent

        person = AssessmentSource("HUMAN", "ada@example.com")
        self.trace_ids = []
        for number in range(4):
            root = self.client.start_trace(
                f"trace-{number}",
                inputs={"q": "größe 日本語", "n": number},
                tags={"env": "prod", "größe": "ß"},
                experiment_id=self.main,
            )
            self.trace_ids.append(root.trace_id)
            child = self.client.start_span(
                "child", root.trace_id, root.span_id, "RETRIEVER", {"x": [1, 2, {"y": None}]}
            )
            child.add_event(SpanEvent("happened", attributes={"a": 1, "b": "ü"}))
            child.set_attribute("tokens", 17)
            self.client.end_span(root.trace_id, child.span_id, outputs=["o"], status="ERROR")
            self.client.end_trace(root.trace_id, outputs={"answer": LONG}, attributes={"k": "v"})
        mlflow.flush_trace_async_logging()
        first, second = self.trace_ids[:2]
        mlflow.log_feedback(
            trace_id=first, name="good", value=True, source=person, rationale="ü",
            metadata={"k": "v"},
        )  # fmt: skip
        scored = mlflow.log_feedback(trace_id=first, name="score", value=0.5)
        mlflow.override_feedback(
            trace_id=first, assessment_id=scored.assessment_id, value={"nested": [1, 2.5, None]}
        )
        mlflow.log_feedback(
            trace_id=second, name="failed", error=RuntimeError("größe"), source=person
        )
        mlflow.log_expectation(
            trace_id=first, name="answer", value={"größe": ["日本語"]}, source=person
        )
        mlflow.log_expectation(trace_id=second, name="text", value="plain")
        self.client.set_trace_tag(second, "later", "ü")
        self.client.delete_traces(self.main, trace_ids=[self.trace_ids[3]])
        self.client.link_traces_to_run([first], self.parent)

    def datasets(self) -> None:
        client = self.client
        dataset = client.create_dataset("golden", [self.main, self.elsewhere], {"team": "nlp"})
        dataset.merge_records(
            [
                {"inputs": {"q": f"größe {number}"}, "expectations": {"a": [number, None]},
                 "tags": {"n": str(number)}}
                for number in range(4)
            ]
        )  # fmt: skip
        client.set_dataset_tags(dataset.dataset_id, {"größe": "ß"})
        client.create_dataset("without records", [self.gone])

    def hooks(self) -> None:
        from mlflow.entities.webhook import WebhookEvent

        self.client.create_webhook(
            "hook", f"{ADDRESS}/größe", [WebhookEvent.from_str("model_version_alias.created")],
            "description", "secret-of-hook",
        )  # fmt: skip
        self.client.create_webhook(
            "off",
            f"{ADDRESS}/off",
            [WebhookEvent.from_str("model_version.created")],
            status="DISABLED",
        )

    def others(self) -> None:
        """What the client has no method for."""
        scorer = json.dumps({"name": "length", "größe": 1})
        for text in (scorer, scorer.replace("1", "2")):
            self.post(
                "3.0/mlflow/scorers/register",
                {"experiment_id": self.main, "name": "length", "serialized_scorer": text},
            )
        self.post(
            "3.0/mlflow/issues",
            {"experiment_id": self.main, "name": "slow", "description": "größe"},
        )
        schema = {"name": "quality", "type": "FEEDBACK", "experiment_id": self.main,
                  "input": {"text": {}}, "instruction": "ü"}  # fmt: skip
        self.post("3.0/mlflow/label-schemas/create", schema)
        self.post(
            "3.0/mlflow/gateway/secrets/create",
            {"secret_name": "key", "secret_value": {"api_key": "value"}, "provider": "openai"},
        )

    def post(self, path: str, document: Mapping[str, Any]) -> Any:
        request = Request(
            f"{self.url}/api/{path}",
            json.dumps(document).encode(),
            {"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def deleted(self) -> None:
        self.client.delete_run(self.old)
        self.client.delete_experiment(self.gone)


def make_workspaces(url: str, names: list[str]) -> None:
    """A few things of the same names in several workspaces."""
    import mlflow
    from mlflow import MlflowClient

    mlflow.set_tracking_uri(url)
    client: Any = MlflowClient(url)
    for name in names:
        if name != "default":
            client.create_workspace(name, f"of {name}")
        mlflow.set_workspace(name)
        experiment = client.create_experiment("same name")
        run = client.create_run(experiment, run_name=name).info.run_id
        client.log_metric(run, "m", 1.5)
        client.log_text(run, name, "who.txt")
        client.create_registered_model("model", {"of": name})
        client.create_model_version("model", f"runs:/{run}/who.txt", run)
        client.set_registered_model_alias("model", "best", "1")
        client.register_prompt("prompt", f"{name}: {{{{x}}}}")


if __name__ == "__main__":
    if wanted := os.environ.get("WORKSPACES"):
        make_workspaces(sys.argv[1], wanted.split(","))
    else:
        Maker(sys.argv[1], sys.argv[2]).make()
