"""A server of a release: deploy it, hand out its address and its token, restart it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mlflow_server.ae5.credentials import set_secrets
from mlflow_server.ae5.deployments import (
    Deployment,
    Wanted,
    find_at,
    list_deployments,
    require_free,
    start,
    stop,
    token_of,
    wait_until_ready,
    wait_until_started,
)
from mlflow_server.ae5.endpoint import Endpoint
from mlflow_server.ae5.program import Ae5
from mlflow_server.ae5.projects import Project, find_projects
from mlflow_server.ae5.release_file import ReleaseFile
from mlflow_server.errors import NotFoundError

ADDRESSES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
"""Secrets with the address, for jobs and sessions of the account."""
TOKEN = "MLFLOW_TRACKING_TOKEN"  # noqa: S105 - its name
"""The secret with the token."""

# Told what is being waited for.
Telling = Callable[[str], None]


@dataclass(frozen=True)
class Deployed:
    """What has become of a deployment.

    Args:
        deployment: As it is now; None for one that would be started.
        is_new: It was started now.
        before: The one that was stopped for it.
    """

    deployment: Deployment | None
    is_new: bool = False
    before: Deployment | None = None


class Server:
    """The server of a release on the platform.

    Args:
        ae5: The program.
        wanted: What the site wants.
        environ: Says which certificates to trust.
        wait_s: How long to wait for a start, seconds.
        tell: Told what is being waited for.
    """

    def __init__(
        self,
        ae5: Ae5,
        wanted: ReleaseFile,
        environ: Mapping[str, str],
        wait_s: float,
        tell: Telling,
    ) -> None:
        self.ae5 = ae5
        self._wanted = wanted
        self._environ = environ
        self._wait_s = wait_s
        self._tell = tell

    def project(self) -> Project:
        """The project of that very name.

        Raises:
            NotFoundError: There is none.
        """
        for project in find_projects(self.ae5, self._wanted.project):
            if project.name == self._wanted.project:
                return project
        raise NotFoundError(
            f"project {self._wanted.project}: is not there", hint="mlflow-server ae5 upload"
        )

    def deployment(self) -> Deployment:
        """What is at the endpoint.

        Raises:
            NotFoundError: Nothing is.
        """
        found = find_at(list_deployments(self.ae5), self._wanted.endpoint)
        if found is None:
            raise NotFoundError(
                f"endpoint {self._wanted.endpoint}: nothing is deployed there",
                hint="mlflow-server ae5 deploy",
            )
        return found

    def deploy(self, *, is_dry_run: bool = False) -> Deployed:
        """Have the project's server at the endpoint, ready; a server that is there is left alone.

        Raises:
            UsageError: Another project has the endpoint.
            OpsError: It did not start.
        """
        project = self.project()
        there = find_at(list_deployments(self.ae5), self._wanted.endpoint)
        require_free(there, project.id)
        if is_dry_run:
            return Deployed(there, is_new=there is None)
        if there is None:
            started = self._start(project.id)
            return Deployed(self._ready(started), is_new=True)
        return Deployed(self._ready(there))

    def restart(self, *, is_dry_run: bool = False) -> Deployed:
        """Stop the server and start it anew, at the same endpoint; its token is another one.

        Raises:
            NotFoundError: Nothing is at the endpoint.
            OpsError: It did not start.
        """
        before = self.deployment()
        if is_dry_run:
            return Deployed(None, is_new=True, before=before)
        stop(self.ae5, before, self._wait_s)
        started = self._ready(self._start(before.project_id))
        self.hand_out_token(started)
        return Deployed(started, is_new=True, before=before)

    def hand_out_addresses(self, deployment: Deployment) -> None:
        """Store the address as secrets of the account."""
        set_secrets(self.ae5, dict.fromkeys(ADDRESSES, deployment.url))

    def hand_out_token(self, deployment: Deployment) -> str:
        """Store the token as a secret of the account.

        Returns:
            The token, which nobody but a file of the operator's gets to see.
        """
        token = token_of(self.ae5, deployment)
        set_secrets(self.ae5, {TOKEN: token})
        return token

    def _start(self, project_id: str) -> Deployment:
        wanted = Wanted(
            self._wanted.deployment, self._wanted.endpoint, self._wanted.resource_profile
        )
        return start(self.ae5, project_id, wanted)

    def _ready(self, deployment: Deployment) -> Deployment:
        deployment = wait_until_started(self.ae5, deployment, self._wait_s, self._tell)
        token = token_of(self.ae5, deployment)
        self._tell("waiting for /readyz")
        wait_until_ready(Endpoint(deployment.url, token, self._environ), self._wait_s)
        return deployment
