"""Everything that a server's API says of its store, as one canonical document.

Run as a program: `python api_dump.py SERVER_URL`; prints JSON. WORKSPACES names the workspaces to
look into, where they are on. Values that JSON has no word for are strings.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

MLFLOW = "2.0/mlflow"
MLFLOW_3 = "3.0/mlflow"


class Dumper:
    """Asks a server.

    Args:
        url: Of it.
        workspace: Which one is looked into; None where there are none.
        wants_files: Whether artifacts are downloaded, which takes MLflow.
    """

    def __init__(self, url: str, workspace: str | None = None, *, wants_files: bool = True) -> None:
        self.url = url
        self.workspace = workspace
        self.wants_files = wants_files

    def ask(self, path: str, body: object = None, **query: str) -> Any:
        """The answer of one route; an error is one, too."""
        text = "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())
        headers = {"Content-Type": "application/json"}
        if self.workspace is not None:
            headers["X-MLFLOW-WORKSPACE"] = self.workspace
        content = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}/api/{path}?{text}", content, headers)
        try:
            with urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())
        except HTTPError as err:
            with err:
                return {"status": err.code, "answer": json.loads(err.read())}

    def pages(self, path: str, key: str, body: dict[str, Any]) -> Iterator[Any]:
        """All that a search finds, asked by POST."""
        token = ""
        while True:
            answer = self.ask(path, {**body, **({"page_token": token} if token else {})})
            assert "status" not in answer, (path, answer)
            yield from answer.get(key, [])
            token = answer.get("next_page_token", "")
            if not token:
                return

    def found(self, path: str, key: str, **query: str) -> Iterator[Any]:
        """All that a search finds, asked by GET."""
        token = ""
        while True:
            answer = self.ask(path, None, **query, **({"page_token": token} if token else {}))
            assert "status" not in answer, (path, answer)
            yield from answer.get(key, [])
            token = answer.get("next_page_token", "")
            if not token:
                return

    def dump(self) -> dict[str, Any]:
        """All of it."""
        body = {"view_type": "ALL", "max_results": 1000}
        experiments = list(self.pages(f"{MLFLOW}/experiments/search", "experiments", body))
        ids = [experiment["experiment_id"] for experiment in experiments]
        runs = [
            self.run(run["info"]["run_id"])
            for run in self.pages(
                f"{MLFLOW}/runs/search",
                "runs",
                {"experiment_ids": ids, "run_view_type": "ALL", "max_results": 1000},
            )
        ]
        return {
            "experiments": by(experiments, "experiment_id"),
            "runs": {run["run"]["info"]["run_id"]: run for run in runs},
            "logged_models": self.logged_models(ids),
            "traces": {id_: self.traces(id_) for id_ in ids},
            "registered_models": self.registered_models(),
            "prompts": self.prompts(),
            "datasets": self.datasets(ids),
            "webhooks": by(self.found(f"{MLFLOW}/webhooks", "webhooks"), "webhook_id"),
            "others": {id_: self.others(id_) for id_ in ids},
            "secrets": self.ask(f"{MLFLOW_3}/gateway/secrets/list"),
            "workspaces": self.ask(f"{MLFLOW_3}/workspaces") if self.workspace else None,
        }

    def run(self, run_id: str) -> dict[str, Any]:
        run = self.ask(f"{MLFLOW}/runs/get", run_id=run_id)["run"]
        keys = sorted({metric["key"] for metric in run["data"].get("metrics", [])})
        return {
            "run": run,
            "metrics": {
                key: list(
                    self.found(
                        f"{MLFLOW}/metrics/get-history", "metrics", run_id=run_id, metric_key=key
                    )
                )
                for key in keys
            },
            "artifacts": self.artifacts(run["info"]["artifact_uri"]),
        }

    def artifacts(self, location: str) -> dict[str, str]:
        """The digest of every file, each downloaded by MLflow's client."""
        if not self.wants_files:
            return {}
        from mlflow.artifacts import download_artifacts

        found = {}
        with TemporaryDirectory() as place:
            try:
                download_artifacts(artifact_uri=location, dst_path=place)
            except Exception as err:
                return {"error": type(err).__name__}
            for path in filter(Path.is_file, Path(place).rglob("*")):
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                found[str(path.relative_to(place))] = digest
        return found

    def logged_models(self, ids: list[str]) -> dict[str, Any]:
        search = {"experiment_ids": ids, "max_results": 50}
        models = [
            self.ask(f"{MLFLOW}/logged-models/{model['info']['model_id']}")["model"]
            for model in self.pages(f"{MLFLOW}/logged-models/search", "models", search)
        ]
        return {
            model["info"]["model_id"]: {
                **model,
                "files": self.artifacts(model["info"]["artifact_uri"]),
            }
            for model in models
        }

    def traces(self, experiment_id: str) -> dict[str, Any]:
        search = {
            "locations": [
                {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment_id}}
            ],
            "max_results": 100,
        }
        found = self.pages(f"{MLFLOW_3}/traces/search", "traces", search)
        return {
            info["trace_id"]: {
                "info": info,
                "whole": self.ask(f"{MLFLOW_3}/traces/get", trace_id=info["trace_id"]),
                "spans": self.spans(info),
            }
            for info in found
        }

    def spans(self, info: Any) -> Any:
        """Those of a trace whose spans are in a file; the database's are in the trace."""
        location = info.get("tags", {}).get("mlflow.artifactLocation")
        return self.artifacts(location) if location else None

    def registered_models(self) -> dict[str, Any]:
        path = f"{MLFLOW}/registered-models"
        models = self.found(f"{path}/search", "registered_models", max_results="1000")
        found = {}
        for model in models:
            name = model["name"]
            versions = self.found(
                f"{MLFLOW}/model-versions/search", "model_versions", filter=f"name='{name}'"
            )
            found[name] = {
                "model": self.ask(f"{path}/get", name=name),
                "versions": {
                    version["version"]: {
                        "version": self.ask(
                            f"{MLFLOW}/model-versions/get", name=name, version=version["version"]
                        ),
                        "uri": self.ask(
                            f"{MLFLOW}/model-versions/get-download-uri",
                            name=name,
                            version=version["version"],
                        ),
                    }
                    for version in versions
                },
            }
        return found

    def prompts(self) -> dict[str, Any]:
        path = f"{MLFLOW}/registered-models"
        wanted = "tags.`mlflow.prompt.is_prompt` = 'true'"
        return {
            prompt["name"]: {
                "prompt": self.ask(f"{path}/get", name=prompt["name"]),
                "versions": sorted(
                    self.found(
                        f"{MLFLOW}/model-versions/search",
                        "model_versions",
                        filter=f"name='{prompt['name']}' AND {wanted}",
                    ),
                    key=lambda version: int(version["version"]),
                ),
            }
            for prompt in self.found(f"{path}/search", "registered_models", filter=wanted)
        }

    def datasets(self, ids: list[str]) -> dict[str, Any]:
        search = {"experiment_ids": ids, "max_results": 50}
        found = {}
        for dataset in self.pages(f"{MLFLOW_3}/datasets/search", "datasets", search):
            path = f"{MLFLOW_3}/datasets/{dataset['dataset_id']}"
            records = self.ask(f"{path}/records")["records"]
            whole = self.ask(path)
            whole["dataset"]["tags"] = json.loads(whole["dataset"].get("tags", "{}"))
            found[dataset["dataset_id"]] = {
                "dataset": whole,
                "records": by(json.loads(records), "dataset_record_id"),
                "experiments": self.ask(f"{path}/experiment-ids"),
            }
        return found

    def others(self, experiment_id: str) -> dict[str, Any]:
        scorers = self.ask(f"{MLFLOW_3}/scorers/list", experiment_id=experiment_id)
        return {
            "scorers": [
                self.ask(
                    f"{MLFLOW_3}/scorers/versions",
                    experiment_id=experiment_id,
                    name=scorer["scorer_name"],
                )
                for scorer in scorers.get("scorers", [])
            ],
            "issues": self.ask(f"{MLFLOW_3}/issues/search", {"experiment_id": experiment_id}),
            "schemas": self.ask(f"{MLFLOW_3}/label-schemas/list", experiment_id=experiment_id),
        }


def by(found: Iterable[Any], key: str) -> dict[str, Any]:
    """Things by their ids."""
    return {thing[key]: thing for thing in found}


def canonical(value: Any) -> Any:
    """The same, with lists in one order where the API promises none."""
    if isinstance(value, dict):
        return {key: canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        listed = [canonical(each) for each in value]
        return sorted(listed, key=lambda each: json.dumps(each, sort_keys=True))
    return repr(value) if isinstance(value, float) else value


def main() -> None:
    """Print it."""
    import mlflow

    url = sys.argv[1]
    mlflow.set_tracking_uri(url)
    document = {}
    for name in os.environ.get("WORKSPACES", "").split(","):
        if name:
            mlflow.set_workspace(name)
        document[name] = Dumper(url, name or None).dump()
    print(json.dumps(canonical(document), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
