"""`ae5 release` and `ae5 rollback`: the whole way, planned first, and gone on with when run again.

What has been done is seen on the platform, step by step; so an interrupted release goes on where it
stopped, and one that is as wanted does nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mlflow_server.ae5 import jobs
from mlflow_server.ae5.credentials import list_secrets, set_secrets
from mlflow_server.ae5.deployments import Deployment, find_at, list_deployments
from mlflow_server.ae5.exchange import Candidate, find_places
from mlflow_server.ae5.jobs import Job, list_jobs
from mlflow_server.ae5.projects import Project, download
from mlflow_server.ae5.server import ADDRESSES, TOKEN, Server
from mlflow_server.ae5.sharing import missing_readers, readers_of, share
from mlflow_server.ae5.smoke import SmokeTest
from mlflow_server.ae5.steps import Options, Standing, Step
from mlflow_server.ae5.takeover import TakeOver
from mlflow_server.errors import NotFoundError, OpsError, UsageError


class Rollout:
    """A release on its way.

    Args:
        server: What the site wants.
        candidate: What is to run.
        options: How.
    """

    def __init__(self, server: Server, candidate: Candidate, options: Options) -> None:
        self._server = server
        self._ae5 = server.ae5
        self._wanted = server.wanted
        self._candidate = candidate
        self._options = options
        self._standing = Standing()

    @property
    def deployment(self) -> Deployment | None:
        """What runs of it."""
        return self._standing.deployment

    def plan(self) -> list[Step]:
        """Look what is there, and what is left to do.

        Raises:
            UsageError: Something is in the way, or missing, that only the operator can judge.
            OpsError: The platform cannot be asked.
        """
        places = find_places(self._ae5, self._wanted.project, self._candidate.tag)
        names = list_secrets(self._ae5)
        self._require_secrets(names)
        at_endpoint = find_at(list_deployments(self._ae5), self._wanted.endpoint)
        all_jobs = list_jobs(self._ae5)
        takeover = TakeOver(
            self._server, self._candidate, self._options, places, at_endpoint, all_jobs, names
        )
        self._standing = takeover.standing
        ids = [each.id for each in (places.live, places.next) if each is not None]
        values = self._changed(ids, names)
        deploy = self._deploy(is_changed=bool(values))
        # What runs on as it is may have got everything already.
        lasting = self._standing.deployment if deploy.is_done else None
        return [
            takeover.upload(),
            self._secrets(ids, values),
            *takeover.steps(),
            *self._restore(),
            deploy,
            *takeover.rename(),
            self._hand_out(lasting, names),
            *self._share(lasting),
            *self._schedule([job for job in all_jobs if job not in takeover.lost]),
            self._smoke_test(lasting),
        ]

    def run(self, steps: Sequence[Step], done: Callable[[Step], None]) -> None:
        """Take the steps that are left, one after the other.

        Args:
            steps: As planned.
            done: Told each step that was taken.

        Raises:
            OpsError: One failed; run again, the release goes on there.
        """
        for step in steps:
            if step.act is not None:
                self._server.tell(f"{step.name}: {step.detail}")
                step.detail = step.act() or step.detail
                done(step)
        self._server.memory.go_back()

    def _require_secrets(self, names: Sequence[str]) -> None:
        known = {*names, *self._options.values}
        if missing := [name for name in self._wanted.secrets if name not in known]:
            raise UsageError(
                f"secret {', '.join(missing)}: is missing, and a server needs it",
                hint="--values-file FILE; or leave it out of secrets: in the release file",
            )

    def _changed(self, projects: Sequence[str], names: Sequence[str]) -> dict[str, str]:
        """Secrets that are not known to be as they should be."""
        knows = self._server.memory.knows
        return {
            name: value
            for name, value in self._options.values.items()
            if name not in names or not knows(projects, name, value)
        }

    def _secrets(self, projects: Sequence[str], values: Mapping[str, str]) -> Step:
        if not values:
            wanted = [*self._options.values] or self._wanted.secrets
            return Step("secrets", f"are there already: {', '.join(wanted) or 'none is needed'}")

        def act() -> None:
            if self._standing.deployment is not None:
                self._server.memory.outdate(self._standing.deployment.id)
            set_secrets(self._ae5, values)
            self._server.memory.note({*projects, self._standing.uploaded.id}, values)

        return Step("secrets", ", ".join(values), act)

    def _restore(self) -> list[Step]:
        backup = self._options.restores
        if backup is None:
            return []
        if self._standing.deployment is not None:
            raise UsageError(
                f"endpoint {self._wanted.endpoint}: a server runs; a backup is restored before",
                hint="mlflow-server ae5 retire; then the same again",
            )

        def act() -> str:
            told = {"TRACKING_SERVER_ARCHIVE": backup}
            ended = self._server.run_job(self._standing.uploaded, "restore", told)
            if not ended.is_good:
                raise OpsError(
                    f"{backup}: was not restored",
                    hint="when a release that was interrupted has restored it: the same without "
                    f"--restore; the job's log ends with:\n{ended.last_lines}",
                )
            return f"{backup} was restored"

        return [Step("restore", backup, act)]

    def _deploy(self, *, is_changed: bool) -> Step:
        there = self._standing.deployment
        where = f"at {self._wanted.endpoint}"
        if there is None:
            return Step("deploy", where, partial(self._start, None))
        profile = self._wanted.resource_profile
        reasons = []
        if is_changed or self._server.memory.outdated == there.id:
            reasons.append("secrets were changed")
        if profile not in (None, there.resource_profile):
            reasons.append(f"its resource profile is {there.resource_profile}")
        if not there.is_started and not there.is_coming:
            reasons.append(f"it is {there.state}")
        if reasons:
            detail = f"{where}, anew: {', '.join(reasons)}"
            return Step("deploy", detail, partial(self._start, there))
        if there.is_started and self._server.endpoint(there).health().is_ready:
            return Step("deploy", f"{there.url} is there already, and answers")

        def act() -> str:
            self._standing.deployment = self._server.ready(there)
            return f"{there.url} answers"

        return Step("deploy", f"{where}: is there, and has to answer", act)

    def _start(self, before: Deployment | None) -> str:
        if before is not None:
            self._server.stop(before)
        self._standing.deployment = started = self._server.start(self._standing.uploaded.id)
        return f"{started.url} answers"

    def _hand_out(self, lasting: Deployment | None, names: Sequence[str]) -> Step:
        if lasting is not None:
            values = self._server.handed_out(lasting)
            knows = self._server.memory.knows
            if all(
                name in names and knows([lasting.project_id], name, value)
                for name, value in values.items()
            ):
                return Step("token", "is stored already, and the address too")
        told = f"{', '.join((*ADDRESSES, TOKEN))} as secrets"
        return Step("token", told, lambda: self._server.hand_out(self._standing.running))

    def _share(self, lasting: Deployment | None) -> list[Step]:
        readers = readers_of(self._wanted.share)
        if not readers:
            return []
        missing = missing_readers(self._ae5, lasting, readers) if lasting is not None else readers
        if not missing:
            return [Step("share", f"with {', '.join(map(str, readers))} already")]

        def act() -> None:
            running = self._standing.running
            share(self._ae5, running, missing_readers(self._ae5, running, missing))

        return [Step("share", f"with {', '.join(map(str, missing))}", act)]

    def _schedule(self, there: Sequence[Job]) -> list[Step]:
        project = self._standing.project
        steps = []
        for wanted in self._server.scheduled():
            step = Step(f"schedule:{wanted.command}", f"{wanted.cron}, as {wanted.name}")
            same = [job for job in there if job.name == wanted.name]
            if project and any(jobs.is_as_wanted(job, project.id, wanted) for job in same):
                step.detail += ", already"
            else:
                step.act = partial(self._make_job, same, wanted)
            steps.append(step)
        return steps

    def _make_job(self, same: Sequence[Job], wanted: jobs.Wanted) -> str | None:
        project = self._standing.uploaded
        if project.lacks(jobs.COMMANDS[wanted.command]):
            return f"left out: the release has no command {jobs.COMMANDS[wanted.command]}"
        jobs.schedule(self._ae5, same, project.id, wanted)
        return None

    def _smoke_test(self, lasting: Deployment | None) -> Step:
        def test(deployment: Deployment) -> SmokeTest:
            return SmokeTest(self._server.endpoint(deployment), deployment.id)

        if lasting is not None and test(lasting).has_passed():
            return Step("smoke-test", "has been passed")
        told = "log a run with an artifact, read both back, delete them"
        return Step("smoke-test", told, lambda: test(self._standing.running).run())


def go_back(server: Server, *, is_dry_run: bool) -> Candidate:
    """The release to go back to: the one before, or that of a rollback that was interrupted.

    Args:
        server: What the site wants.
        is_dry_run: It is not going to happen, and need not be remembered.

    Raises:
        NotFoundError: There was none before.
        UsageError: The one before is the one that runs.
    """
    places = find_places(server.ae5, server.wanted.project, None)
    live = places.live.tag if places.live is not None else None
    match server.memory.going_back:
        case [begun, wanted] if live in (begun, wanted, None):
            source = places.has(wanted) or places.before
            if source is not None and source.tag == wanted:
                return _copy_of(server, source)
    if places.before is None:
        raise NotFoundError(
            f"project {server.wanted.project}: there is no release before it",
            hint="mlflow-server ae5 release ARCHIVE, with the archive of that release",
        )
    if places.before.tag == live:
        raise UsageError(
            f"project {server.wanted.project}: the release that was to follow never ran",
            hint="mlflow-server ae5 release goes on with it",
        )
    if not is_dry_run:
        server.memory.go_back(live or "", places.before.tag or "")
    return _copy_of(server, places.before)


def _copy_of(server: Server, project: Project) -> Candidate:
    return Candidate(project.tag or "", lambda path: download(server.ae5, project, path))
