"""Reports of `ae5`: for people and for machines."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_server.cli.shared import Context, make_report
from mlflow_server.errors import ExitCode
from mlflow_server.report import Item, Report, Status
from mlflow_server.units import render_size

if TYPE_CHECKING:
    from mlflow_server.ae5.build import Release
    from mlflow_server.ae5.credentials import Checked
    from mlflow_server.ae5.projects import Project, UploadPlan


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
