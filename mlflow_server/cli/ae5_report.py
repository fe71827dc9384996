"""Reports of `ae5`: for people and for machines."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_server.cli.shared import Context, make_report
from mlflow_server.report import Item, Report, Status
from mlflow_server.units import render_size

if TYPE_CHECKING:
    from mlflow_server.ae5.build import Release


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
