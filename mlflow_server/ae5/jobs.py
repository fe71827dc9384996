"""`ae5 schedule` and `ae5 run`: commands of a release as jobs of the platform."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow_server.ae5.cron import require_cron
from mlflow_server.ae5.names import require_name
from mlflow_server.ae5.program import Ae5
from mlflow_server.errors import NotFoundError, OpsError, UnavailableError, UsageError
from mlflow_server.settings.secrets import require_no_secret

COMMANDS = {
    "gc": "GarbageCollection",
    "backup": "Backup",
    "upgrade": "DatabaseUpgrade",
    "doctor": "Doctor",
    "restore": "Restore",
}
"""What a job is called here, and the command of the project that it runs."""
SCHEDULED = ("gc", "backup")

# End states that ae5-tools 0.7.3 knows.
_ENDED = {"completed": True, "failed": False, "error": False, "stopped": False}
_PAUSES_S = (1.0, 2.0, 3.0, 5.0, 10.0)
_LOG_LINES = 15


@dataclass(frozen=True)
class Job:
    """A job that is there.

    Args:
        id: `a2-…`.
        name: One of the account's jobs and runs.
        command: Of the project.
        schedule: When; empty for one that is run by hand.
        project_id: Whose command.
        state: What the platform says.
        resource_profile: That it runs with.
        variables: For its runs; None where the platform does not say.
    """

    id: str
    name: str
    command: str
    schedule: str
    project_id: str
    state: str
    resource_profile: str
    variables: Mapping[str, str] | None


@dataclass(frozen=True)
class Wanted:
    """What a scheduled job is to be.

    Args:
        name: Of the job.
        command: Key of `COMMANDS`.
        cron: When.
        variables: For its runs: settings, none of them secret.
        resource_profile: None for the project's own.
    """

    name: str
    command: str
    cron: str
    variables: Mapping[str, str] = field(default_factory=dict)
    resource_profile: str | None = None

    def __post_init__(self) -> None:
        require_name(self.name, "job")
        require_cron(self.cron)
        for name, value in self.variables.items():
            require_no_secret("--variable", name, value)


@dataclass(frozen=True)
class Ended:
    """A run that has ended.

    Args:
        id: `a2-…`.
        state: Its last one.
        log: All that it said.
    """

    id: str
    state: str
    log: str

    @property
    def is_good(self) -> bool:
        """True when its command ended with 0."""
        return _ENDED.get(self.state, False)

    @property
    def last_lines(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.splitlines()[-_LOG_LINES:])


def list_jobs(ae5: Ae5) -> list[Job]:
    """The account's jobs."""
    return [_job(each) for each in ae5.records("job", "list")]


def last_runs(ae5: Ae5) -> dict[str, list[str]]:
    """States of the runs of each job by its name, the newest first: runs do not say its id."""
    found: dict[str, list[str]] = {}
    records = ae5.records("run", "list")
    for each in sorted(records, key=lambda run: str(run.get("created", "")), reverse=True):
        found.setdefault(str(each.get("name", "")), []).append(str(each.get("state", "")))
    return found


def is_as_wanted(job: Job, project_id: str, wanted: Wanted) -> bool:
    """True when a job need not be made anew."""
    return (
        job.project_id == project_id
        and job.command == COMMANDS[wanted.command]
        and job.schedule == wanted.cron
        and job.variables in (None, dict(wanted.variables))
        and wanted.resource_profile in (None, job.resource_profile)
    )


def schedule(ae5: Ae5, jobs: Sequence[Job], project_id: str, wanted: Wanted) -> Job:
    """Have a job run by the clock.

    A job cannot be changed: `ae5 job patch` fails. One that differs is deleted and made again.

    Args:
        ae5: The program.
        jobs: That are there.
        project_id: Whose command.
        wanted: What it is to be.

    Raises:
        OpsError: It was refused: a run of the old one is at work.
    """
    there = [job for job in jobs if job.name == wanted.name]
    for job in there:
        if is_as_wanted(job, project_id, wanted):
            return job
        delete(ae5, job)
    return _create(ae5, project_id, wanted.name, wanted, "--schedule", wanted.cron, "--no-run")


def run_now(
    ae5: Ae5,
    project_id: str,
    wanted: Wanted,
    wait_s: float,
    tell: Callable[[str], None],
) -> Ended:
    """Run a command as a job, once, and wait for its end.

    Args:
        ae5: The program.
        project_id: Whose command.
        wanted: Which; its schedule does not matter.
        wait_s: For how long, seconds.
        tell: Told each state.

    Raises:
        UnavailableError: It is at work still.
    """
    job = _create(ae5, project_id, wanted.name, wanted, "--make-unique", "--run")
    deadline = time.monotonic() + wait_s
    number = 0
    while True:
        runs = ae5.records("job", "runs", job.id)
        state = str(runs[0].get("state")) if runs else "waiting"
        tell(state)
        if runs and state in _ENDED:
            break
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"job {job.name}: is {state} after {wait_s:.0f} s",
                hint=f"it goes on: ae5 job runs {job.id}; or give it longer: --wait-ready",
            )
        time.sleep(_PAUSES_S[min(number, len(_PAUSES_S) - 1)])
        number += 1
    run_id = str(runs[0]["id"])
    log = ae5.text("run", "log", run_id)
    delete(ae5, job)
    return Ended(run_id, state, log)


def delete(ae5: Ae5, job: Job) -> None:
    """Delete a job.

    Raises:
        OpsError: A run of it is at work.
    """
    try:
        ae5.text("job", "delete", job.id, "--yes")
    except NotFoundError:
        return  # somebody was faster
    except OpsError as err:
        raise type(err)(
            f"job {job.name}: {err.message}",
            hint="a run of it may be at work: try again afterwards",
        ) from None


def _create(ae5: Ae5, project_id: str, name: str, wanted: Wanted, *how: str) -> Job:
    if wanted.command not in COMMANDS:
        raise UsageError(f"job {wanted.command!r}: is none of {', '.join(COMMANDS)}")
    arguments = ["job", "create", project_id, "--name", name, *how]
    arguments += ["--command", COMMANDS[wanted.command]]
    if wanted.resource_profile:
        arguments += ["--resource-profile", wanted.resource_profile]
    for key, value in wanted.variables.items():
        arguments += ["--variable", f"{key}={value}"]
    return _job(ae5.record(*arguments))


def _job(record: Mapping[str, Any]) -> Job:
    variables = record.get("variables")
    return Job(
        id=str(record["id"]),
        name=str(record.get("name", "")),
        command=str(record.get("command", "")),
        schedule=str(record.get("schedule") or ""),
        project_id=str(record.get("project_id", "")),
        state=str(record.get("state", "")),
        resource_profile=str(record.get("resource_profile", "")),
        variables={str(k): str(v) for k, v in variables.items()}
        if isinstance(variables, Mapping)
        else None,
    )


def has_failed(state: str) -> bool:
    """True for the state of a run that has ended badly."""
    return _ENDED.get(state) is False
