"""Reports of restores: for people and for machines."""

from typing import TYPE_CHECKING

import click

from mlflow_server.cli.backup_report import echo_findings, failures
from mlflow_server.cli.shared import Context, make_report
from mlflow_server.errors import ExitCode
from mlflow_server.report import Item, Report, Status
from mlflow_server.units import render_size

if TYPE_CHECKING:
    from mlflow_server.backup.fill import Filled
    from mlflow_server.backup.restore import Restored


def restored_report(context: Context, restored: "Restored", *, is_dry_run: bool) -> Report:
    """What was restored, or would be."""
    manifest = restored.manifest
    if is_dry_run:
        items = [
            Item(
                f"database:{name}",
                Status.OK,
                f"{sum(rows.values())} rows from {manifest.databases[name].dialect} at "
                f"revision {manifest.databases[name].revision}",
                facts={"rows": rows},
            )
            for name, rows in restored.planned.items()
        ]
    else:
        items = [database_item(name, filled) for name, filled in restored.databases.items()]
    if manifest.artifacts is not None:
        items.append(
            Item(
                "artifacts",
                Status.OK,
                f"{restored.files} files, {render_size(restored.size_bytes)}",
                facts={"files": restored.files, "bytes": restored.size_bytes},
            )
        )
    kept_back = [
        Item(
            f"location:{location}",
            Status.FAILED,
            f"{count} files were not restored: it is outside of the destination",
            fix=f"--artifact-map {location}=NEW says where they go",
            facts={"files": count},
        )
        for location, count in restored.kept_back.items()
    ]
    failed = [*kept_back, *failures(restored.failed, "artifact")]
    return make_report(
        context,
        [*items, *failed],
        exit_code=ExitCode.ATTENTION if failed else ExitCode.OK,
        warnings=manifest.warnings,
        data={
            "dry_run": is_dry_run,
            "backup": manifest.id,
            "moved_locations": [{"from": old, "to": new} for old, new in restored.moves],
            "saved_as": restored.saved_as,
            "resumed": restored.is_resumed,
        },
    )


def database_item(name: str, filled: "Filled") -> Item:
    """What was put into a database."""
    rows = sum(filled.rows.values())
    detail = f"{rows} rows in {len(filled.rows)} tables, compared"
    if filled.moved:
        detail += f"; {filled.moved} locations rewritten"
    if filled.adapted:
        tables = ", ".join(f"{table} {count}" for table, count in filled.adapted.items())
        detail += f"; adapted to what this database can keep: {tables}"
    if filled.renumbered:
        detail += (
            f"; {len(filled.renumbered)} experiments have new numbers, as theirs were larger than "
            "this database can keep"
        )
    facts = {
        "rows": rows,
        "tables": filled.rows,
        "moved": filled.moved,
        "adapted": filled.adapted,
        "renumbered": {str(old): str(new) for old, new in filled.renumbered.items()},
    }
    return Item(f"database:{name}", Status.OK, detail, facts=facts)


def echo_restored(context: Context, report: Report) -> None:
    """Print what was restored, or would be."""
    data = report.data
    echo_findings(report)
    for move in data["moved_locations"]:
        click.echo(f"Locations: {move['from']} -> {move['to']}")
    if data["dry_run"]:
        click.echo("Nothing was changed.")
        return
    if data["saved_as"]:
        click.echo(f"What was there before is in the backup {data['saved_as']}.")
    click.echo(f"Restored {data['backup']}.")
