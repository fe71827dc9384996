"""Reports of migrations: for people and for machines."""

from typing import TYPE_CHECKING

import click

from mlflow_server.cli.backup_report import echo_findings, failures
from mlflow_server.cli.restore_report import database_item
from mlflow_server.cli.shared import Context, make_report
from mlflow_server.errors import ExitCode
from mlflow_server.report import Item, Report, Status
from mlflow_server.units import render_size

if TYPE_CHECKING:
    from mlflow_server.backup.migrate import Migrated, Request


def migrated_report(
    context: Context, migrated: "Migrated", request: "Request", *, is_dry_run: bool
) -> Report:
    """What was moved, or would be."""
    if migrated.database is not None:
        items = [database_item("backend", migrated.database)]
    else:
        rows = sum(migrated.rows.values())
        detail = f"{rows} rows, about {render_size(migrated.size_bytes)}"
        items = [Item("database:backend", Status.OK, detail, facts={"rows": migrated.rows})]
    failed, warnings = [], []
    copied = migrated.copied
    if copied is not None:
        detail = f"{copied.files} files, {render_size(copied.size_bytes)}"
        if copied.elsewhere:
            detail += f"; {copied.elsewhere} outside of the destination stay where they are"
        facts = {
            "files": copied.files,
            "bytes": copied.size_bytes,
            "elsewhere": copied.elsewhere,
        }
        items.append(Item("artifacts", Status.OK, detail, facts=facts))
        failed = failures(copied.failed, "artifact")
        warnings = [f"{path}: {what}" for path, what in copied.passing]
    destination = request.target_destination
    settings = {"MLFLOW_BACKEND_STORE_URI": request.target.shown}
    if destination is not None:
        settings["MLFLOW_ARTIFACTS_DESTINATION"] = destination.shown
    return make_report(
        context,
        [*items, *failed],
        exit_code=ExitCode.ATTENTION if failed else ExitCode.OK,
        warnings=warnings,
        data={
            "dry_run": is_dry_run,
            "revision": migrated.revision,
            "moved_locations": [{"from": old, "to": new} for old, new in migrated.moves],
            "resumed": migrated.is_resumed,
            "settings": settings,
        },
    )


def echo_migrated(context: Context, report: Report) -> None:
    """Print what was moved, and which settings to change."""
    data = report.data
    echo_findings(report)
    for move in data["moved_locations"]:
        click.echo(f"Locations: {move['from']} -> {move['to']}")
    if data["dry_run"]:
        click.echo("Nothing was changed.")
        return
    click.echo("Moved. The server needs these settings now:")
    for name, value in data["settings"].items():
        click.echo(f"  {name}={value}")
