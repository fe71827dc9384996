"""The smoke test of a release: a run with an artifact, through the public endpoint and back.

The calls are those that MLflow's own client makes (MLflow's REST API; `mlflow-artifacts` is its
proxy for artifacts). Each deployment is tested in an experiment of its own, which is deleted
afterwards: that it is there and deleted says that the test has passed.
"""

from typing import Any
from urllib.parse import quote, urlsplit

from mlflow_server.ae5.endpoint import Answer, Endpoint
from mlflow_server.errors import OpsError, UnavailableError

_API = "/api/2.0/mlflow"
_PROXY = "/api/2.0/mlflow-artifacts/artifacts"
_FILE = "smoke-test.txt"
_CONTENT = b"logged by the smoke test of a release\n"
_METRIC, _VALUE = "smoke_test", 42.5


class SmokeTest:
    """Of one deployment.

    Args:
        endpoint: Its address.
        deployment_id: `a2-…`.
    """

    def __init__(self, endpoint: Endpoint, deployment_id: str) -> None:
        self._endpoint = endpoint
        self._name = f"smoke test of {deployment_id}"

    def has_passed(self) -> bool:
        """Whether this deployment has been tested.

        Raises:
            UnavailableError: It does not answer.
        """
        experiment = self._experiment()
        return experiment is not None and experiment["lifecycle_stage"] == "deleted"

    def run(self) -> str:
        """Log a run with an artifact, read both back, and remove them.

        Returns:
            What was done.

        Raises:
            UnavailableError: The server does not answer.
            OpsError: What comes back is not what was logged.
        """
        experiment = self._experiment()
        if experiment is None:
            experiment = self._call("POST", "experiments/create", {"name": self._name})
        try:
            number = experiment["experiment_id"]
            run = self._call("POST", "runs/create", {"experiment_id": number})["run"]["info"]
            metric = {"run_id": run["run_id"], "key": _METRIC, "value": _VALUE, "timestamp": 1}
            self._call("POST", "runs/log-metric", metric)
            read = self._call("GET", "runs/get", {"run_id": run["run_id"]})["run"]["data"]
            if [each["value"] for each in read.get("metrics", ())] != [_VALUE]:
                raise OpsError(f"{self._endpoint.url}: gives back another metric than was logged")
            has_artifact = self._artifact(str(run["artifact_uri"]))
            self._call("POST", "runs/delete", {"run_id": run["run_id"]})
            self._call("POST", "experiments/delete", {"experiment_id": number})
        except (KeyError, TypeError):
            raise self._no_mlflow() from None
        if has_artifact:
            return "a run with an artifact was logged, read back and deleted"
        return "a run was logged, read back and deleted; artifacts do not go through the server"

    def _artifact(self, location: str) -> bool:
        """Whether artifacts go through the server; then one did, and came back."""
        parts = urlsplit(location)
        if parts.scheme != "mlflow-artifacts":
            return False
        path = f"{_PROXY}{quote(parts.path.rstrip('/'))}/{_FILE}"
        self._require(self._endpoint.ask("PUT", path, data=_CONTENT), "upload of an artifact")
        answer = self._endpoint.ask("GET", path)
        self._require(answer, "download of an artifact")
        if answer.content != _CONTENT:
            raise OpsError(f"{self._endpoint.url}: gives back another artifact than was logged")
        self._require(self._endpoint.ask("DELETE", path), "removal of an artifact")
        return True

    def _experiment(self) -> dict[str, Any] | None:
        told = {"experiment_name": self._name}
        answer = self._endpoint.ask("GET", f"{_API}/experiments/get-by-name", params=told)
        if answer.status == 404 and answer.document.get("error_code"):
            return None
        self._require(answer, "search for an experiment")
        found = answer.document.get("experiment")
        if not isinstance(found, dict) or "lifecycle_stage" not in found:
            raise self._no_mlflow()
        return found

    def _no_mlflow(self) -> OpsError:
        return UnavailableError(
            f"{self._endpoint.url}: smoke test: what answers is no MLflow server",
            hint="mlflow-server ae5 status",
        )

    def _call(self, method: str, path: str, told: dict[str, Any]) -> dict[str, Any]:
        sent = {"params": told} if method == "GET" else {"json": told}
        answer = self._endpoint.ask(method, f"{_API}/{path}", **sent)
        self._require(answer, path)
        return answer.document

    def _require(self, answer: Answer, what: str) -> None:
        if answer.status == 200:
            return
        detail = answer.refusal or f"it answers {answer.status}"
        if code := answer.document.get("error_code"):
            detail += f" ({code})"
        raise UnavailableError(
            f"{self._endpoint.url}: smoke test: {what}: {detail}",
            hint="mlflow-server ae5 status; mlflow-server ae5 run doctor",
        )
