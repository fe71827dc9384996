"""`ae5 status`: what there is of a release on the platform, and whether it is well. Only reads."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow_server.ae5.credentials import check_secrets
from mlflow_server.ae5.deployments import Deployment, find_at, list_deployments, token_of
from mlflow_server.ae5.endpoint import Endpoint
from mlflow_server.ae5.exchange import find_places
from mlflow_server.ae5.jobs import has_failed, last_runs, list_jobs
from mlflow_server.ae5.program import Ae5
from mlflow_server.ae5.release_file import ReleaseFile
from mlflow_server.errors import OpsError


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        name: Of it.
        is_well: Nothing has to be done.
        detail: How it is.
        fix: What to do.
        facts: For machines.
    """

    name: str
    is_well: bool
    detail: str
    fix: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def look(ae5: Ae5, wanted: ReleaseFile, environ: Mapping[str, str]) -> list[Finding]:
    """Look at everything that a release needs; what cannot be looked at is a finding, too.

    Raises:
        OpsError: The platform cannot be reached, or nobody is signed in.
    """
    deployment = find_at(list_deployments(ae5), wanted.endpoint)
    findings = [_of_deployment(wanted, deployment)]
    if deployment is not None:
        findings += _tried("health", lambda: _of_health(ae5, deployment, environ))
    findings += _tried("project", lambda: _of_project(ae5, wanted))
    findings += _tried("secrets", lambda: _of_secrets(ae5, wanted))
    findings += _tried("schedules", lambda: _of_schedules(ae5, wanted))
    return findings


def _tried(name: str, find: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return [*find()]
    except OpsError as err:
        return [Finding(name, False, err.message, err.hint)]


def _of_deployment(wanted: ReleaseFile, found: Deployment | None) -> Finding:
    if found is None:
        return Finding(
            "deployment",
            False,
            f"nothing is deployed at {wanted.endpoint}",
            "mlflow-server ae5 deploy",
            {"endpoint": wanted.endpoint, "id": None},
        )
    facts = {
        "endpoint": found.endpoint, "id": found.id, "state": found.state, "url": found.url,
        "project": found.project_name, "revision": found.revision, "public": found.public,
    }  # fmt: skip
    detail = f"{found.name} at {found.url}: {found.state}, of {found.project_name}"
    is_well = found.state == "started"
    return Finding(
        "deployment", is_well, detail, None if is_well else _LOGS.format(found.id), facts
    )


def _of_health(ae5: Ae5, found: Deployment, environ: Mapping[str, str]) -> Iterator[Finding]:
    health = Endpoint(found.url, token_of(ae5, found), environ).health()
    fix = None if health.is_ready else _LOGS.format(found.id)
    yield Finding("health", health.is_ready, health.detail, fix)
    fits = (health.checks or {}).get("schema")
    if fits is None:
        yield Finding(
            "schema", False, "is not known: the server does not tell", _LOGS.format(found.id)
        )
    elif fits:
        yield Finding("schema", True, "fits this release")
    else:
        yield Finding("schema", False, "is that of another release", _UPGRADE)


def _of_project(ae5: Ae5, wanted: ReleaseFile) -> Iterator[Finding]:
    places = find_places(ae5, wanted.project, None)
    live, before = places.live, places.before
    if live is None:
        yield Finding("project", False, f"{wanted.project} is not there", _UPLOAD)
        return
    told = f"{live.name}, {live.tag}" + (f"; before it: {before.tag}" if before else "")
    facts = {"id": live.id, "release": live.tag, "before": before.tag if before else None}
    yield Finding("project", True, told, None, facts)


def _of_secrets(ae5: Ae5, wanted: ReleaseFile) -> Iterator[Finding]:
    checked = check_secrets(ae5, wanted.secrets)
    facts = {"there": list(checked.there), "missing": list(checked.missing)}
    if checked.missing:
        names = " ".join(checked.missing)
        detail = f"{', '.join(checked.missing)}: missing"
        yield Finding("secrets", False, detail, f"mlflow-server ae5 secrets set {names}", facts)
    else:
        yield Finding("secrets", True, ", ".join(checked.there) or "none", None, facts)


def _of_schedules(ae5: Ae5, wanted: ReleaseFile) -> Iterator[Finding]:
    jobs = {job.name: job for job in list_jobs(ae5) if job.schedule}
    states = last_runs(ae5) if jobs else {}
    for kind, schedule in wanted.schedules.items():
        if f"{wanted.deployment}-{kind}" not in jobs:
            yield Finding(
                f"schedule:{kind}",
                False,
                f"is wanted ({schedule.cron}), and not there",
                f"mlflow-server ae5 schedule {kind}",
            )
    for name, job in jobs.items():
        last = list(states.get(name, ()))[:5]
        is_well = not last or not has_failed(last[0])
        detail = f"{job.schedule}; last: {', '.join(last) or 'has not run yet'}"
        fix = None if is_well else f"ae5 job runs {job.id}"
        yield Finding(
            f"schedule:{name}", is_well, detail, fix, {"cron": job.schedule, "last": last}
        )


_LOGS = "ae5 deployment logs {}"
_UPLOAD = "mlflow-server ae5 upload"
_UPGRADE = "mlflow-server ae5 release --upgrade"
