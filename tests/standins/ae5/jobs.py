"""Jobs and their runs. A schedule is checked and kept, but nothing happens by itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.standins.ae5.deployments import read_source
from tests.standins.ae5.state import Job, Pod, Run, new_hex
from tests.standins.ae5.wire import Answer, Call, Refusal

if TYPE_CHECKING:
    from tests.standins.ae5.cluster import Cluster

# Minute, hour, day of month, month, day of week: lowest, highest, and what a step must divide.
_FIELDS = ((0, 59, 60), (0, 23, 24), (1, 31, 31), (1, 12, 12), (0, 7, 7))
_TERM = re.compile(r"(?:\*|(\d+)(?:-(\d+))?)(?:/(\d+))?")


def is_schedule(text: str) -> bool:
    """Whether AE5 takes this cron line: five fields, numbers, steps that divide a field's span."""
    fields = text.split()
    return len(fields) == len(_FIELDS) and all(
        _is_term(term, *limits)
        for field, limits in zip(fields, _FIELDS, strict=True)
        for term in field.split(",")
    )


def _is_term(term: str, lowest: int, highest: int, span: int) -> bool:
    found = _TERM.fullmatch(term)
    if found is None:
        return False
    first, last, step = (int(text) if text else None for text in found.groups())
    if first is not None and not lowest <= first <= (last if last is not None else highest):
        return False
    if last is not None and last > highest:
        return False
    return step is None or (step > 0 and span % step == 0)


def _pod_record(pod: Pod) -> dict[str, Any]:
    return {
        "id": pod.id,
        "name": pod.name,
        "owner": pod.owner,
        "command": pod.command,
        "revision": pod.revision,
        "resource_profile": pod.resource_profile,
        "created": pod.created,
        "updated": pod.updated,
        "state": pod.state,
        "project_url": pod.project.url,
        "project_name": pod.project.name,
        "variables": dict(pod.variables),
    }


def job_record(job: Job) -> dict[str, Any]:
    """As the API tells of it; the words for its state are assumed."""
    state = "paused" if job.is_paused else "scheduled" if job.schedule else "created"
    return {**_pod_record(job), "state": state, "schedule": job.schedule}


def run_record(run: Run) -> dict[str, Any]:
    """As the API tells of it."""
    return {**_pod_record(run), "status_text": run.status_text}


def create(cluster: Cluster, call: Call, user: str, project: str) -> Answer:
    """A new job, perhaps with a first run; what is refused is told in `error` with status 200."""
    found = cluster.project(user, project)
    told = cluster.read_json(
        call,
        {
            "source": str,
            "revision": str,
            "resource_profile": str,
            "command": str,
            "target": str,
            "schedule": (str, type(None)),
            "autorun": bool,
            "name": str,
        },
        optional={"variables": dict},
    )
    read_source(found, told)
    variables = told.get("variables", {})
    if not all(isinstance(text, str) for pair in variables.items() for text in pair):
        raise Refusal(400, "variables are names and texts", complaint=True)
    if not told["name"]:
        raise Refusal(400, "name is empty", complaint=True)
    if told["schedule"] is not None and not is_schedule(told["schedule"]):
        return Answer.of({"error": {"message": f"Invalid schedule: {told['schedule']}"}})
    with cluster.lock:
        taken = [pod.name for pod in (*cluster.jobs, *cluster.runs) if pod.owner == user]
        if told["name"] in taken:
            return Answer.of({"error": {"message": f"Job {told['name']} already exists"}})
        job = Job(
            new_hex(),
            told["name"],
            user,
            found,
            told["revision"],
            told["command"],
            told["resource_profile"],
            variables=variables,
            schedule=told["schedule"],
        )
        cluster.jobs.append(job)
        if told["autorun"]:
            start_run(cluster, job)
    return Answer.of(job_record(job), 201)


def start_run(cluster: Cluster, job: Job) -> Run:
    """Run a job now; nothing keeps two runs of it from overlapping."""
    run = Run(
        new_hex(),
        job.name,
        job.owner,
        job.project,
        job.revision,
        job.command,
        job.resource_profile,
        variables=job.variables,
        job=job.hex,
    )
    with cluster.lock:
        cluster.runs.append(run)
    fails = cluster.faults.take_pod("failing_runs")

    def live() -> None:
        status = 1 if fails else cluster.pods.run(run)
        run.become("completed" if status == 0 else "failed", f"exit status {status}")

    cluster.pods.in_background(live)
    return run


def list_jobs(cluster: Cluster, call: Call, user: str) -> Answer:
    """All of the caller's; it has to be a bare list."""
    return Answer.of([job_record(each) for each in cluster.jobs if each.owner == user])


def jobs_of_project(cluster: Cluster, call: Call, user: str, project: str) -> Answer:
    """Those of one project."""
    wanted = cluster.project(user, project)
    found = [each for each in cluster.jobs if each.owner == user and each.project is wanted]
    return Answer.of([job_record(each) for each in found])


def show_job(cluster: Cluster, call: Call, user: str, job: str) -> Answer:
    """One of them."""
    return Answer.of(job_record(cluster.job(user, job)))


def delete_job(cluster: Cluster, call: Call, user: str, job: str) -> Answer:
    """Remove it and its runs, unless one of them is active."""
    found = cluster.job(user, job)
    with cluster.lock:
        runs = [each for each in cluster.runs if each.job == found.hex]
        if any(each.is_active for each in runs):
            raise Refusal(409, "the job has an active run")
        cluster.jobs.remove(found)
        if not cluster.runs_outlive_jobs:
            cluster.runs[:] = [each for each in cluster.runs if each.job != found.hex]
    return Answer.of(None)


def pause(cluster: Cluster, call: Call, user: str, job: str) -> Answer:
    """The schedule does not count any more."""
    found = cluster.job(user, job)
    found.is_paused = True
    return Answer.of(job_record(found))


def unpause(cluster: Cluster, call: Call, user: str, job: str) -> Answer:
    """The schedule counts again."""
    found = cluster.job(user, job)
    found.is_paused = False
    return Answer.of(job_record(found))


def runs_of_job(cluster: Cluster, call: Call, user: str, job: str) -> Answer:
    """The oldest first."""
    wanted = cluster.job(user, job)
    return Answer.of([run_record(each) for each in cluster.runs if each.job == wanted.hex])


def run_job(cluster: Cluster, call: Call, user: str, job: str) -> Answer:
    """Run it now."""
    return Answer.of(run_record(start_run(cluster, cluster.job(user, job))), 201)


def list_runs(cluster: Cluster, call: Call, user: str) -> Answer:
    """All of the caller's; it has to be a bare list."""
    return Answer.of([run_record(each) for each in cluster.runs if each.owner == user])


def runs_of_project(cluster: Cluster, call: Call, user: str, project: str) -> Answer:
    """Those of one project."""
    wanted = cluster.project(user, project)
    found = [each for each in cluster.runs if each.owner == user and each.project is wanted]
    return Answer.of([run_record(each) for each in found])


def show_run(cluster: Cluster, call: Call, user: str, run: str) -> Answer:
    """One of them."""
    return Answer.of(run_record(cluster.run(user, run)))


def run_logs(cluster: Cluster, call: Call, user: str, run: str) -> Answer:
    """What it has written."""
    return Answer.of({"job": cluster.run(user, run).log})


def stop_run(cluster: Cluster, call: Call, user: str, run: str) -> Answer:
    """End it; no error when it has ended already."""
    found = cluster.run(user, run)
    cluster.pods.in_background(lambda: cluster.pods.stop(found))
    return Answer.of(None)


def delete_run(cluster: Cluster, call: Call, user: str, run: str) -> Answer:
    """Remove the record of a run that has ended."""
    found = cluster.run(user, run)
    with cluster.lock:
        if found.is_active:
            raise Refusal(409, "the run is active")
        cluster.runs.remove(found)
    return Answer.of(None)
