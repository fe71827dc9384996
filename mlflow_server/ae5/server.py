"""A server of a release: deploy it, hand out its address and its token, restart it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mlflow_server.ae5 import jobs
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
from mlflow_server.ae5.memory import memory_of
from mlflow_server.ae5.program import Ae5
from mlflow_server.ae5.projects import Project, find_projects
from mlflow_server.ae5.release_file import JobFile, ReleaseFile
from mlflow_server.ae5.sharing import missing_readers, readers_at, share
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
        self.wanted = wanted
        self.wait_s = wait_s
        self.tell = tell
        self.memory = memory_of(environ, wanted.project, wanted.endpoint)
        self._environ = environ
        self._tokens: dict[str, str] = {}

    def project(self) -> Project:
        """The project of that very name.

        Raises:
            NotFoundError: There is none.
        """
        for project in find_projects(self.ae5, self.wanted.project):
            if project.name == self.wanted.project:
                return project
        raise NotFoundError(
            f"project {self.wanted.project}: is not there", hint="mlflow-server ae5 upload"
        )

    def deployment(self) -> Deployment:
        """What is at the endpoint.

        Raises:
            NotFoundError: Nothing is.
        """
        found = find_at(list_deployments(self.ae5), self.wanted.endpoint)
        if found is None:
            raise NotFoundError(
                f"endpoint {self.wanted.endpoint}: nothing is deployed there",
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
        there = find_at(list_deployments(self.ae5), self.wanted.endpoint)
        require_free(there, project.id)
        if is_dry_run:
            return Deployed(there, is_new=there is None)
        if there is None:
            return Deployed(self.start(project.id), is_new=True)
        return Deployed(self.ready(there))

    def restart(self, *, is_dry_run: bool = False) -> Deployed:
        """Stop the server and start it anew, at the same endpoint; its token is another one.

        Raises:
            NotFoundError: Nothing is at the endpoint.
            OpsError: It did not start.
        """
        before = self.deployment()
        if is_dry_run:
            return Deployed(None, is_new=True, before=before)
        self.stop(before)
        started = self.start(before.project_id)
        self.hand_out_token(started)
        return Deployed(started, is_new=True, before=before)

    def stop(self, deployment: Deployment) -> None:
        """Stop a server; who may open it is remembered for the next one.

        Raises:
            OpsError: It has not ended in time.
        """
        self.memory.carry([*self.memory.carried, *readers_at(self.ae5, deployment)])
        stop(self.ae5, deployment, self.wait_s)

    def start(self, project_id: str) -> Deployment:
        """Start a server, and wait until it answers.

        Raises:
            OpsError: It does not.
        """
        wanted = Wanted(self.wanted.deployment, self.wanted.endpoint, self.wanted.resource_profile)
        return self.ready(start(self.ae5, project_id, wanted, self.wait_s))

    def ready(self, deployment: Deployment) -> Deployment:
        """Wait until a server answers; who could open the one before it may open it, too.

        Raises:
            OpsError: It does not.
        """
        deployment = wait_until_started(self.ae5, deployment, self.wait_s, self.tell)
        endpoint = self.endpoint(deployment)
        self.tell("waiting for /readyz")
        wait_until_ready(endpoint, self.wait_s)
        if carried := self.memory.carried:
            share(self.ae5, deployment, missing_readers(self.ae5, deployment, carried))
            self.memory.carry([])
        return deployment

    def token(self, deployment: Deployment) -> str:
        """The token of a deployment, which stays the same as long as that is there.

        Raises:
            UnavailableError: The platform gives none.
        """
        if deployment.id not in self._tokens:
            self._tokens[deployment.id] = token_of(self.ae5, deployment)
        return self._tokens[deployment.id]

    def endpoint(self, deployment: Deployment) -> Endpoint:
        """Where a server answers, to whoever has its token."""
        return Endpoint(deployment.url, self.token(deployment), self._environ)

    def hand_out_addresses(self, deployment: Deployment) -> None:
        """Store the address as secrets of the account."""
        self._set(deployment, dict.fromkeys(ADDRESSES, deployment.url))

    def handed_out(self, deployment: Deployment) -> dict[str, str]:
        """What the account's secrets say of a server: its address and its token."""
        return {**dict.fromkeys(ADDRESSES, deployment.url), TOKEN: self.token(deployment)}

    def hand_out(self, deployment: Deployment) -> None:
        """Store address and token as secrets of the account."""
        self._set(deployment, self.handed_out(deployment))

    def scheduled(self) -> list[jobs.Wanted]:
        """What the site wants to run by the clock."""
        return [
            jobs.Wanted(
                f"{self.wanted.deployment}-{kind}", kind, told.cron, told.variables,
                told.resource_profile,
            )
            for kind, told in self.wanted.schedules.items()
        ]  # fmt: skip

    def own_jobs(
        self, all_jobs: Sequence[jobs.Job], deployments: Sequence[Deployment]
    ) -> list[jobs.Job]:
        """The scheduled jobs that nobody needs without this server.

        Args:
            all_jobs: The account's.
            deployments: The same; another server of a project needs its jobs.
        """
        names = {f"{self.wanted.deployment}-{command}" for command in jobs.SCHEDULED}
        busy = {each.project_id for each in deployments if each.endpoint != self.wanted.endpoint}
        return [
            job
            for job in all_jobs
            if job.schedule and job.name in names and job.project_id not in busy
        ]

    def job(self, command: str, variables: Mapping[str, str]) -> jobs.Wanted:
        """A command that runs once, as the site wants it.

        Args:
            command: Key of `jobs.COMMANDS`.
            variables: Settings that beat those of the site.

        Raises:
            UsageError: One of them is a secret.
        """
        parts: dict[str, JobFile] = {"upgrade": self.wanted.upgrade, "restore": self.wanted.restore}
        for kind, told in self.wanted.schedules.items():
            parts[kind] = told
        part = parts.get(command, JobFile())
        return jobs.Wanted(
            f"{self.wanted.deployment}-{command}-now", command, "0 0 * * *",
            {**part.variables, **variables}, part.resource_profile,
        )  # fmt: skip

    def run_job(
        self, project: Project, command: str, variables: Mapping[str, str] | None = None
    ) -> jobs.Ended:
        """Run a command as a job, and wait for its end; see `job`.

        Raises:
            UnavailableError: It is at work still.
        """
        wanted = self.job(command, variables or {})
        return jobs.run_now(self.ae5, project.id, wanted, self.wait_s, self.tell)

    def hand_out_token(self, deployment: Deployment) -> str:
        """Store the token as a secret of the account.

        Returns:
            The token, which nobody but a file of the operator's gets to see.
        """
        token = self.token(deployment)
        self._set(deployment, {TOKEN: token})
        return token

    def _set(self, deployment: Deployment, values: Mapping[str, str]) -> None:
        set_secrets(self.ae5, values)
        self.memory.note([deployment.project_id], values)
