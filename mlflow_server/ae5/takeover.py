"""The steps by which a release takes the place of what runs at the endpoint."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mlflow_server.ae5 import jobs
from mlflow_server.ae5.deployments import Deployment, claimant
from mlflow_server.ae5.exchange import (
    Candidate,
    Places,
    bring,
    is_release,
    keep,
    name_for,
)
from mlflow_server.ae5.jobs import Job
from mlflow_server.ae5.projects import Project, remove, rename, with_tag
from mlflow_server.ae5.server import Server
from mlflow_server.ae5.steps import Options, Standing, Step
from mlflow_server.errors import ExitCode, OpsError, SchemaError, UsageError

_DOCUMENT = re.compile(r"^\{$.*?^\}$", re.MULTILINE | re.DOTALL)
_BACKUPS = "TRACKING_SERVER_BACKUP_FOLDER"
_CHECK = {"TRACKING_SERVER_CHECK": "true", "TRACKING_SERVER_JSON": "true"}


class TakeOver:
    """Of a release, from its upload to its name.

    Args:
        server: What the site wants.
        candidate: What is to run.
        options: How.
        places: The projects that are there.
        at_endpoint: What is deployed there.
        all_jobs: The account's jobs.
        secrets: Names of the account's secrets.

    Attributes:
        going: The projects whose place it takes.
        lost: Their jobs.

    Raises:
        UsageError: Something would be lost that only the operator can judge.
    """

    def __init__(
        self,
        server: Server,
        candidate: Candidate,
        options: Options,
        places: Places,
        at_endpoint: Deployment | None,
        all_jobs: Sequence[Job],
        secrets: Collection[str],
    ) -> None:
        self._server = server
        self._ae5 = server.ae5
        self._candidate = candidate
        self._options = options
        self._places = places
        self._secrets = secrets
        self.going = self._find_going(at_endpoint)
        ids = [project.id for project in self.going]
        self.lost = [job for job in all_jobs if job.project_id in ids]
        self._stopping = (
            at_endpoint if at_endpoint is not None and at_endpoint.project_id in ids else None
        )
        found = places.has(candidate.tag)
        stays = at_endpoint if self._stopping is None else None
        self.standing = Standing(found, stays)
        self._upgrades = False
        self._require_agreement()

    def upload(self) -> Step:
        """Have the release on the platform."""
        if self.standing.project is not None:
            return Step("upload", f"is there already, as {self.standing.project.name}")

        def act() -> str:
            made = bring(self._ae5, self._places, self._candidate)
            self.standing.project = made
            return f"{made.tag}, as {made.name}"

        return Step("upload", self._candidate.tag, act)

    def steps(self) -> list[Step]:
        """Those before its start, when another project has its name or its endpoint."""
        found = self.standing.project
        is_half_way = found is not None and found.name != self._places.name
        if not self.going and (not is_half_way or self.standing.deployment is not None):
            return []
        steps = []
        if not is_release(self._candidate.tag):
            # Its command of that name may be anything.
            steps.append(Step("schema", "cannot be asked: it is no release of this project"))
        elif self._options.restores is None:
            steps.append(Step("schema", "whether the database fits", self._check))
        steps += self._keep()
        return [*steps, self._take_over()] if self.going else steps

    def rename(self) -> list[Step]:
        """The one after its start: what runs is not kept waiting for it."""
        found = self.standing.project
        if self._places.name == (found.name if found is not None else name_for(self._places)):
            return []

        def act() -> None:
            self.standing.project = rename(self._ae5, self.standing.uploaded, self._places.name)

        return [Step("rename", f"the project is called {self._places.name}", act)]

    def _find_going(self, at_endpoint: Deployment | None) -> list[Project]:
        """Who is in the way: another release of that name, any other project with the endpoint."""
        going = []
        live = self._places.live
        if live is not None and live.tag != self._candidate.tag:
            going.append(live)
        if at_endpoint is not None:
            owner = (at_endpoint.project_id, at_endpoint.project_name)
        elif (found := claimant(self._ae5, self._server.wanted.endpoint)) is not None:
            owner = found
        else:
            return going
        wanted = self._places.has(self._candidate.tag)
        if owner[0] not in [each.id for each in (live, wanted) if each is not None]:
            going.append(with_tag(self._ae5, Project(*owner, owner="")))
        return going

    def _require_agreement(self) -> None:
        if self._options.replaces:
            return
        if strangers := [project.name for project in self.going if not is_release(project.tag)]:
            raise UsageError(
                f"project {' and '.join(strangers)}: is in the way, and no release of this project",
                hint="--replace takes its place; a copy of its newest revision is kept",
            )
        known = [job.name for job in self._server.scheduled()]
        if unknown := [job.name for job in self.lost if job.schedule and job.name not in known]:
            raise UsageError(
                f"job {', '.join(unknown)}: would go with its project, and is not in the release "
                "file",
                hint="write it there under schedules, or delete it: ae5 job delete; or --replace",
            )

    def _check(self) -> str:
        """Ask the release itself, in a job: nobody knows better which schema it needs."""
        ended = self._server.run_job(self.standing.uploaded, "upgrade", _CHECK)
        report = _report_in(ended.log)
        code = report.get("exit_code")
        if code == ExitCode.OK and ended.is_good:
            return "the database fits"
        if code == ExitCode.ATTENTION and not self._options.is_rollback:
            if not self._options.upgrades:
                raise SchemaError(
                    "the database has to be upgraded for this release; nothing has been stopped",
                    hint="the same with --upgrade: backup and upgrade, while the server is stopped",
                )
            self._require_backups(report)
            self._upgrades = True
            return "the database is upgraded when the server is stopped"
        if code in (ExitCode.ATTENTION, ExitCode.SCHEMA):
            raise SchemaError(
                "the database has the schema of another release; nothing has been stopped",
                hint="undo its upgrade first: docs/runbooks/ae5.md, Going back",
            )
        raise OpsError(
            "whether the database fits could not be found out; nothing has been stopped",
            hint=f"the job's log ends with:\n{ended.last_lines}",
        )

    def _require_backups(self, report: Mapping[str, Any]) -> None:
        """A SQLite file's backup lies beside it; any other would lie in the pod, and go with it."""
        told = {*self._server.wanted.upgrade.variables, *self._options.values, *self._secrets}
        stores = [str(item.get("facts", {}).get("store")) for item in report.get("items", ())]
        if _BACKUPS not in told and not all(store.startswith("sqlite") for store in stores):
            raise UsageError(
                f"{_BACKUPS}: is not set, so that the upgrade's backup would go with its pod; "
                "nothing has been stopped",
                hint="name a folder on a volume, under upgrade: variables: in the release file",
            )

    def _keep(self) -> list[Step]:
        if not self.going:
            return []
        # The last one has the endpoint.
        project, before = self.going[-1], self._places.before
        told = f"a copy of {project.name} ({project.tag})"
        if before is not None and before.tag == project.tag:
            return [Step("keep", f"{told} is there already")]

        def act() -> str:
            return f"{told}, as {keep(self._ae5, self._places, project).name}"

        return [Step("keep", told, act)]

    def _take_over(self) -> Step:
        told = [f"job {job.name} is deleted" for job in self.lost]
        told += [f"deployment {self._stopping.name} is stopped"] if self._stopping else []
        told += [f"project {project.name} is deleted" for project in self.going]

        def act() -> str:
            for job in self.lost:
                jobs.delete(self._ae5, job)
            if self._stopping is not None:
                self._server.stop(self._stopping)
            if self._upgrades:
                self._upgrade()
            for each in self.going:
                remove(self._ae5, each)
                self._server.memory.follow(each.id, self.standing.uploaded.id)
            return ", ".join(told)

        return Step("take-over", ", ".join(told), act)

    def _upgrade(self) -> None:
        self._server.tell("upgrading the database")
        ended = self._server.run_job(self.standing.uploaded, "upgrade")
        if not ended.is_good:
            raise OpsError(
                "the database was not upgraded, and the server is stopped",
                hint="mlflow-server ae5 deploy, and ae5 token, start the release before again; the "
                f"job's log ends with:\n{ended.last_lines}",
            )


def _report_in(log: str) -> dict[str, Any]:
    """The report of a command in the log of its run."""
    for text in reversed(_DOCUMENT.findall(log)):
        try:
            document: dict[str, Any] = json.loads(text)
        except ValueError:
            continue
        return document
    return {}
