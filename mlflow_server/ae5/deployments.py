"""A server on the platform: start it, wait until it answers, its token, stop it."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_server.ae5.endpoint import Endpoint, Health
from mlflow_server.ae5.names import require_endpoint, require_name
from mlflow_server.ae5.program import Ae5
from mlflow_server.errors import (
    BusyError,
    NotFoundError,
    OpsError,
    UnavailableError,
    UsageError,
)

COMMAND = "TrackingServer"

_STARTED, _FAILED = "started", "failed"
_COMING = ("initial", "starting")
# The platform is asked at these intervals, seconds: it makes an environment first, for minutes.
_PAUSES_S = (1.0, 3.0, 5.0, 10.0, 20.0)
_POLL_S = 1.0
_LOG_LINES = 15


@dataclass(frozen=True)
class Wanted:
    """What a deployment is to be.

    Args:
        name: Of the deployment.
        endpoint: Of its address; a DNS label.
        resource_profile: None for the platform's default.
    """

    name: str
    endpoint: str
    resource_profile: str | None = None

    def __post_init__(self) -> None:
        require_name(self.name, "deployment")
        require_endpoint(self.endpoint)


@dataclass(frozen=True)
class Deployment:
    """A deployment that is there.

    Args:
        id: `a2-…`; another one after each restart.
        name: Not unique.
        endpoint: Unique while it is there.
        project_id: What runs.
        project_name: The same for people.
        revision: Which of its revisions.
        state: `initial`, `starting`, `started` or `failed`.
        url: Its address.
        public: Without a token.
        resource_profile: That it runs with.
    """

    id: str
    name: str
    endpoint: str
    project_id: str
    project_name: str
    revision: str
    state: str
    url: str
    public: bool = False
    resource_profile: str = ""

    @property
    def is_started(self) -> bool:
        """True when the platform says that it runs."""
        return self.state == _STARTED

    @property
    def is_coming(self) -> bool:
        """True while it may start yet."""
        return self.state in _COMING


def list_deployments(ae5: Ae5) -> list[Deployment]:
    """The deployments that the account sees."""
    return [_deployment(each) for each in ae5.records("deployment", "list")]


def find_at(deployments: list[Deployment], endpoint: str) -> Deployment | None:
    """The deployment at an endpoint."""
    wanted = require_endpoint(endpoint)
    return next((each for each in deployments if each.endpoint == wanted), None)


def start(ae5: Ae5, project_id: str, wanted: Wanted, wait_s: float) -> Deployment:
    """Start a deployment; it is not there yet when this returns.

    Args:
        ae5: The program.
        project_id: Of what.
        wanted: What it is to be.
        wait_s: How long to wait for the endpoint, seconds: the platform takes a minute or two to
            free one (documentation of ae5-tools).

    Raises:
        BusyError: The endpoint is in use still.
        OpsError: It was refused: another project has the endpoint.
    """
    profile = ("--resource-profile", wanted.resource_profile) if wanted.resource_profile else ()
    arguments = (
        *("project", "deploy", project_id, "--name", wanted.name),
        *("--endpoint", require_endpoint(wanted.endpoint), "--command", COMMAND),
        *profile,
        "--private",
    )
    deadline = time.monotonic() + wait_s
    for pause_s in _pauses():
        try:
            return _deployment(ae5.record(*arguments))
        except BusyError:
            if time.monotonic() + pause_s > deadline:
                raise
        # What was started although its answer was lost is in use, too.
        if found := find_at(list_deployments(ae5), wanted.endpoint):
            return found
        time.sleep(pause_s)
    raise AssertionError("pauses never end")


def claimant(ae5: Ae5, endpoint: str) -> tuple[str, str] | None:
    """Id and name of the project that has an endpoint, whether anything runs there or not."""
    wanted = require_endpoint(endpoint)
    for each in ae5.records("endpoint", "list"):
        if str(each.get("id")) == wanted and each.get("project_id"):
            return str(each["project_id"]), str(each.get("project_name", ""))
    return None


def wait_until_started(
    ae5: Ae5, deployment: Deployment, wait_s: float, tell: Callable[[str], None]
) -> Deployment:
    """Wait until the platform says that a deployment runs.

    Args:
        ae5: The program.
        deployment: Which.
        wait_s: For how long, seconds.
        tell: Told each state.

    Raises:
        OpsError: It has failed; the message ends with its log's last lines.
        UnavailableError: It is not there in time; it goes on starting.
    """
    deadline = time.monotonic() + wait_s
    for pause_s in _pauses():
        tell(deployment.state)
        if not deployment.is_coming:
            break
        if (left_s := deadline - time.monotonic()) <= 0:
            raise UnavailableError(
                f"deployment {deployment.name}: is {deployment.state} after {wait_s:.0f} s",
                hint=f"it goes on: ae5 deployment info {deployment.id}; or longer: --wait-ready",
            )
        time.sleep(min(pause_s, left_s))
        deployment = _deployment(ae5.record("deployment", "info", deployment.id))
    if deployment.state != _STARTED:
        raise OpsError(
            f"deployment {deployment.name}: did not start ({deployment.state})",
            hint=f"ae5 deployment logs {deployment.id} says why:\n{last_lines(ae5, deployment)}",
        )
    return deployment


def token_of(ae5: Ae5, deployment: Deployment) -> str:
    """The token for a deployment; void when that is restarted.

    Raises:
        UnavailableError: The platform gives none.
    """
    token = ae5.text("deployment", "token", deployment.id).strip()
    if not token or len(token.split()) != 1:
        raise UnavailableError(f"deployment {deployment.name}: the platform gives no token for it")
    return token


def wait_until_ready(endpoint: Endpoint, wait_s: float) -> Health:
    """Wait until a server answers through the platform.

    Args:
        endpoint: Where.
        wait_s: For how long, seconds.

    Raises:
        UnavailableError: It does not; says what it answers instead.
    """
    deadline = time.monotonic() + wait_s
    while not (health := endpoint.health()).is_ready:
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"{endpoint.url}: is not ready after {wait_s:.0f} s: {health.detail}",
                hint="mlflow-server ae5 status; ae5 deployment logs",
            )
        time.sleep(_POLL_S)
    return health


def stop(ae5: Ae5, deployment: Deployment, wait_s: float) -> None:
    """Stop a deployment, and wait until its endpoint is free; its token is void.

    Args:
        ae5: The program.
        deployment: Which.
        wait_s: For how long, seconds.

    Raises:
        UnavailableError: It has not ended in time.
    """
    try:
        ae5.text("deployment", "stop", deployment.id, "--yes")
    except NotFoundError:
        return  # somebody was faster
    deadline = time.monotonic() + wait_s
    for pause_s in _pauses():
        if deployment.id not in [each.id for each in list_deployments(ae5)]:
            return
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"deployment {deployment.name}: has not ended after {wait_s:.0f} s",
                hint=f"ae5 deployment info {deployment.id}; then the same again",
            )
        time.sleep(pause_s)


def last_lines(ae5: Ae5, deployment: Deployment) -> str:
    """The end of a deployment's log; our own log has no secrets in it."""
    try:
        log = ae5.text("deployment", "logs", deployment.id)
    except OpsError as err:
        return f"its log cannot be had: {err.message}"
    return "\n".join(log.splitlines()[-_LOG_LINES:])


def require_free(there: Deployment | None, project_id: str) -> None:
    """Raise when another project has the endpoint.

    Raises:
        UsageError: It has.
    """
    if there is not None and there.project_id != project_id:
        raise UsageError(
            f"endpoint {there.endpoint}: deployment {there.name} of project {there.project_name} "
            "is there",
            hint="mlflow-server ae5 release replaces it; or another --endpoint",
        )


def _pauses() -> Iterator[float]:
    yield from _PAUSES_S
    while True:
        yield _PAUSES_S[-1]


def _deployment(record: Mapping[str, Any]) -> Deployment:
    return Deployment(
        id=str(record["id"]),
        name=str(record.get("name", "")),
        endpoint=str(record.get("endpoint", "")),
        project_id=str(record.get("project_id", "")),
        project_name=str(record.get("project_name", "")),
        revision=str(record.get("revision", "")),
        state=str(record.get("state", "")),
        url=str(record.get("url", "")).rstrip("/"),
        public=bool(record.get("public")),
        resource_profile=str(record.get("resource_profile", "")),
    )
