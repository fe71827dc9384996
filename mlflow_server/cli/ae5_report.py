"""Reports of `ae5`: for people and for machines."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_server.cli.shared import Context, make_report
from mlflow_server.errors import ExitCode
from mlflow_server.report import Item, Report, Status, render_time
from mlflow_server.units import render_size

if TYPE_CHECKING:
    from mlflow_server.ae5.build import Release
    from mlflow_server.ae5.credentials import Checked
    from mlflow_server.ae5.deployments import Deployment
    from mlflow_server.ae5.jobs import Ended, Job, Wanted
    from mlflow_server.ae5.projects import Project, UploadPlan
    from mlflow_server.ae5.server import Deployed
    from mlflow_server.ae5.sharing import Reader
    from mlflow_server.ae5.status import Finding


def built_report(
    context: Context, release: "Release", path: Path, *, is_dry_run: bool = False
) -> Report:
    """What was built, or would be."""
    facts = {
        "archive": str(path),
        "version": release.version,
        "size_bytes": len(release.content),
        "sha256": release.sha256,
        "files": len(release.files),
        "variables": dict(release.customisation.variables),
        "packages": list(release.customisation.packages),
    }
    item = Item(path.name, Status.OK, render_size(len(release.content)), facts=facts)
    return make_report(context, [item], data={"dry_run": is_dry_run})


def echo_built(_context: Context, report: Report) -> None:
    """Print what was built."""
    (item,) = report.items
    facts = item.facts
    click.echo(f"{facts['archive']}: {facts['files']} files, {item.detail}")
    click.echo(f"  sha256 {facts['sha256']}")
    for name, value in facts["variables"].items():
        click.echo(f"  {name}={value}")
    for package in facts["packages"]:
        click.echo(f"  {package}")
    if report.data["dry_run"]:
        click.echo("Nothing was changed.")


_DONE = {"nothing": "is there already", "upload": "uploaded", "replace": "replaced"}


def uploaded_report(
    context: Context,
    release: "Release",
    plan: "UploadPlan",
    project: "Project | None",
    *,
    is_dry_run: bool = False,
) -> Report:
    """What was uploaded, or would be."""
    facts = {
        "project": plan.name,
        "id": project.id if project else None,
        "version": release.version,
        "sha256": release.sha256,
        "action": str(plan.doing),
    }
    item = Item(plan.name, Status.OK, _DONE[plan.doing], facts=facts)
    warnings = [f"{plan.taken}: it is called {plan.name}"] if plan.taken else []
    return make_report(context, [item], warnings=warnings, data={"dry_run": is_dry_run})


def echo_uploaded(_context: Context, report: Report) -> None:
    """Print what was uploaded."""
    (item,) = report.items
    for warning in report.warnings:
        click.echo(warning)
    if report.data["dry_run"]:
        action = {"nothing": item.detail}.get(item.facts["action"], f"to {item.facts['action']}")
        click.echo(f"project {item.name}: {action}")
        click.echo("Nothing was changed.")
    else:
        click.echo(f"project {item.name} ({item.facts['id']}): {item.detail}")


def secrets_report(context: Context, checked: "Checked") -> Report:
    """Which secrets are there."""
    items = [
        Item(name, Status.SKIPPED, "the server does not read it")
        if name in checked.unknown
        else Item(name, Status.OK, "is there")
        for name in checked.there
    ]
    items += [
        Item(name, Status.FAILED, "is missing", f"mlflow-server ae5 secrets set {name}")
        for name in checked.missing
    ]
    code = ExitCode.ATTENTION if checked.missing else ExitCode.OK
    return make_report(context, items, exit_code=code)


def echo_secrets(_context: Context, report: Report) -> None:
    """Print the names of secrets."""
    width = max((len(item.name) for item in report.items), default=0)
    for item in report.items:
        click.echo(f"{item.name:<{width}}  {item.detail}")
        if item.fix:
            click.echo(f"{'':{width}}  fix: {item.fix}")
    if not report.items:
        click.echo("There are no secrets.")


def set_report(context: Context, names: Sequence[str], *, is_dry_run: bool = False) -> Report:
    """Which secrets were set, or would be."""
    items = [Item(name, Status.OK, "set") for name in names]
    return make_report(context, items, data={"dry_run": is_dry_run})


def echo_set(_context: Context, report: Report) -> None:
    """Print the names of what was set."""
    if report.data["dry_run"]:
        click.echo(f"to set: {', '.join(item.name for item in report.items)}")
        click.echo("Nothing was changed.")
        return
    for item in report.items:
        click.echo(f"{item.name}: set")
    click.echo("A server reads them when it starts: mlflow-server ae5 restart")


def deployed_report(
    context: Context, endpoint: str, done: "Deployed", *, is_dry_run: bool = False
) -> Report:
    """What has become of a deployment, or would."""
    deployment, before = done.deployment, done.before
    detail = "started" if done.is_new else "is there already"
    detail = "restarted" if before is not None else detail
    facts = {
        "endpoint": endpoint,
        "id": deployment.id if deployment else None,
        "url": deployment.url if deployment else None,
        "state": deployment.state if deployment else None,
        "stopped": before.id if before else None,
    }
    warnings = []
    if before is not None:
        warnings.append(
            "the token is another one: it is stored for the account's jobs; for other clients: "
            "mlflow-server ae5 token --to-file FILE"
        )
    item = Item(f"endpoint:{endpoint}", Status.OK, detail, facts=facts)
    return make_report(context, [item], warnings=warnings, data={"dry_run": is_dry_run})


def echo_deployed(_context: Context, report: Report) -> None:
    """Print what has become of a deployment."""
    (item,) = report.items
    if report.data["dry_run"]:
        verb = {"started": "to start", "restarted": "to restart"}.get(item.detail, item.detail)
        click.echo(f"endpoint {item.facts['endpoint']}: {verb}")
        click.echo("Nothing was changed.")
        return
    click.echo(f"{item.facts['url']}: {item.detail}, ready")
    for warning in report.warnings:
        click.echo(f"  {warning}")


def handed_report(
    context: Context,
    deployment: "Deployment",
    names: Sequence[str],
    file: Path | None = None,
    *,
    is_dry_run: bool = False,
) -> Report:
    """What was stored, or would be."""
    facts = {"url": deployment.url, "id": deployment.id, "file": str(file) if file else None}
    items = [Item(name, Status.OK, "stored as a secret", facts=facts) for name in names]
    return make_report(context, items, data={"dry_run": is_dry_run})


def echo_handed(_context: Context, report: Report) -> None:
    """Print the address, and what was stored."""
    facts = report.items[0].facts
    click.echo(facts["url"])
    if report.data["dry_run"]:
        click.echo(f"to store: {', '.join(item.name for item in report.items)}")
        click.echo("Nothing was changed.")
        return
    for item in report.items:
        click.echo(f"  {item.name}: {item.detail}")
    if facts["file"]:
        click.echo(f"  written to {facts['file']}")


def scheduled_report(
    context: Context,
    job: "Wanted",
    *,
    is_there: bool,
    is_changed: bool,
    is_dry_run: bool = False,
) -> Report:
    """What was scheduled, or would be."""
    from mlflow_server.ae5.cron import next_runs

    runs = [render_time(each) for each in next_runs(job.cron, datetime.now(UTC))]
    done = "is there already" if is_there else "made anew" if is_changed else "made"
    facts = {"cron": job.cron, "next": runs, "variables": dict(job.variables)}
    return make_report(
        context, [Item(job.name, Status.OK, done, facts=facts)], data={"dry_run": is_dry_run}
    )


def echo_scheduled(_context: Context, report: Report) -> None:
    """Print what was scheduled."""
    (item,) = report.items
    click.echo(f"job {item.name} ({item.facts['cron']}): {item.detail}")
    click.echo(f"  next: {', '.join(item.facts['next']) or 'never'}")
    if report.data["dry_run"]:
        click.echo("Nothing was changed.")


def schedules_report(
    context: Context, jobs: "Sequence[Job]", states: Mapping[str, Sequence[str]]
) -> Report:
    """When jobs run next, and how their last runs ended."""
    from mlflow_server.ae5.cron import next_runs
    from mlflow_server.ae5.jobs import has_failed

    items = []
    for job in jobs:
        runs = [render_time(each) for each in next_runs(job.schedule, datetime.now(UTC), 2)]
        last = list(states.get(job.name, ()))[:5]
        is_bad = bool(last) and has_failed(last[0])
        facts = {"id": job.id, "cron": job.schedule, "next": runs, "last": last}
        fix = f"ae5 job runs {job.id}" if is_bad else None
        detail = ", ".join(last) or "has not run yet"
        items.append(Item(job.name, Status.FAILED if is_bad else Status.OK, detail, fix, facts))
    failed = any(item.status is Status.FAILED for item in items)
    return make_report(context, items, exit_code=ExitCode.ATTENTION if failed else ExitCode.OK)


def echo_schedules(_context: Context, report: Report) -> None:
    """Print when jobs run next, and how their last runs ended."""
    for item in report.items:
        click.echo(f"{item.name}  {item.facts['cron']}")
        click.echo(f"  next: {', '.join(item.facts['next']) or 'never'}")
        click.echo(f"  last: {item.detail}")
        if item.fix:
            click.echo(f"  fix: {item.fix}")
    if not report.items:
        click.echo("There are no scheduled jobs.")


def run_report(context: Context, job: "Wanted", ended: "Ended | None") -> Report:
    """How a run has ended; None when it would be made."""
    if ended is None:
        return make_report(context, [Item(job.name, Status.OK, "to run")], data={"dry_run": True})
    facts = {"run": ended.id, "state": ended.state, "log": ended.log}
    status = Status.OK if ended.is_good else Status.FAILED
    fix = None if ended.is_good else "the log says why"
    item = Item(job.name, status, ended.state, fix, facts)
    code = ExitCode.OK if ended.is_good else ExitCode.FAILED
    return make_report(context, [item], exit_code=code, data={"dry_run": False})


def echo_run(_context: Context, report: Report) -> None:
    """Print the log of a run, and how it ended."""
    (item,) = report.items
    if report.data["dry_run"]:
        click.echo(f"job {item.name}: {item.detail}")
        click.echo("Nothing was changed.")
        return
    click.echo(item.facts["log"].rstrip("\n"))
    click.echo(f"job {item.name}: {item.detail}", err=True)


def shared_report(
    context: Context,
    deployment: "Deployment",
    readers: "Sequence[Reader]",
    added: "Sequence[Reader]",
    *,
    is_dry_run: bool = False,
) -> Report:
    """Who may open a server, and who of them could not before."""
    facts = {"url": deployment.url, "id": deployment.id}
    items = [
        Item(str(each), Status.OK, "added" if each in added else "is there already", facts=facts)
        for each in readers
    ]
    return make_report(context, items, data={"dry_run": is_dry_run})


def echo_shared(_context: Context, report: Report) -> None:
    """Print who may open a server."""
    for item in report.items:
        detail = "to add" if report.data["dry_run"] and item.detail == "added" else item.detail
        click.echo(f"{item.name}: {detail}")
    if report.data["dry_run"]:
        click.echo("Nothing was changed.")


def status_report(context: Context, found: "Sequence[Finding]") -> Report:
    """How a release is."""
    items = [
        Item(
            each.name,
            Status.OK if each.is_well else Status.FAILED,
            each.detail,
            each.fix,
            dict(each.facts),
        )
        for each in found
    ]
    is_well = all(each.is_well for each in found)
    return make_report(context, items, exit_code=ExitCode.OK if is_well else ExitCode.ATTENTION)


def retired_report(
    context: Context,
    deployment: "Deployment | None",
    jobs: "Sequence[Job]",
    *,
    is_dry_run: bool = False,
) -> Report:
    """What was stopped and deleted, or would be."""
    items = [Item(f"job:{job.name}", Status.OK, "deleted", facts={"id": job.id}) for job in jobs]
    if deployment is not None:
        facts = {"id": deployment.id, "url": deployment.url}
        items.append(Item(f"deployment:{deployment.name}", Status.OK, "stopped", facts=facts))
    return make_report(context, items, data={"dry_run": is_dry_run})


def echo_retired(_context: Context, report: Report) -> None:
    """Print what was stopped and deleted."""
    to_do = {"deleted": "to delete", "stopped": "to stop"}
    for item in report.items:
        detail = to_do[item.detail] if report.data["dry_run"] else item.detail
        click.echo(f"{item.name}: {detail}")
    if not report.items:
        click.echo("There is nothing to stop.")
    elif report.data["dry_run"]:
        click.echo("Nothing was changed.")
    else:
        click.echo("Database, artifacts, backups, secrets and the project are there still.")
