"""Reports of backups, restores and migrations: for people and for machines."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from mlflow_server.cli.shared import Context, make_report
from mlflow_server.errors import BadInputError, ExitCode
from mlflow_server.report import Item, Report, Status, render_time
from mlflow_server.units import render_size

if TYPE_CHECKING:
    from mlflow_server.backup.create import Created
    from mlflow_server.backup.prune import Pruned
    from mlflow_server.backup.shelf import Backup
    from mlflow_server.backup.verify import Verified

MANY = 20


def created_report(context: Context, created: "Created", place: str, *, is_dry_run: bool) -> Report:
    """What was stored, or would be."""
    found = created.artifacts
    failed = [] if found is None else failures(found.failed, "artifact")
    items = [
        Item(
            f"database:{name}",
            Status.OK,
            f"{sum(rows.values())} rows in {len(rows)} tables",
            facts={"rows": sum(rows.values()), "tables": rows},
        )
        for name, rows in created.rows.items()
    ]
    warnings = list(created.warnings)
    if found is not None:
        verb = "would be read" if is_dry_run else "stored"
        items.append(
            Item(
                "artifacts",
                Status.OK,
                f"{found.files} files, {render_size(found.size_bytes)}; "
                f"{found.stored_files} {verb}, {render_size(found.stored_bytes)}",
                facts={
                    "files": found.files,
                    "bytes": found.size_bytes,
                    "stored_files": found.stored_files,
                    "stored_bytes": found.stored_bytes,
                    "read_bytes": found.read_bytes,
                },
            )
        )
        warnings += [f"{path}: {what}" for path, what in found.passing]
    data: dict[str, Any] = {
        "dry_run": is_dry_run,
        "backup": None if is_dry_run else created.id,
        "place": place,
        "scope": created.scope.value,
        "base": created.base,
        "table_bytes": created.table_bytes,
    }
    return make_report(
        context,
        [*items, *failed],
        exit_code=ExitCode.ATTENTION if failed else ExitCode.OK,
        warnings=warnings,
        data=data,
    )


def echo_created(context: Context, report: Report) -> None:
    """Print a backup that was made, or would be."""
    data = report.data
    echo_findings(report)
    if data["dry_run"]:
        click.echo("Nothing was stored.")
        return
    base = f", beside {data['base']}" if data["base"] else ""
    click.echo(f"Tables take {render_size(data['table_bytes'])}.")
    click.echo(f"Made {data['scope']} backup {data['backup']}{base}: {data['place']}")


def list_report(context: Context, backups: Sequence["Backup"], place: str) -> Report:
    """The backups at a place."""
    items = []
    for backup in backups:
        manifest = backup.manifest
        if manifest is None:
            items.append(Item(backup.id, Status.FAILED, backup.problem or "cannot be read"))
            continue
        rows, artifacts = backup.rows, manifest.artifacts
        told = (
            "no artifacts"
            if artifacts is None
            else f"{artifacts.files} artifacts, {render_size(artifacts.size_bytes)}"
        )
        items.append(
            Item(
                backup.id,
                Status.OK,
                f"{manifest.scope.value}, {rows} rows, {told}",
                facts={
                    "created_at": render_time(manifest.created_at),
                    "label": manifest.label,
                    "scope": manifest.scope.value,
                    "rows": rows,
                    "databases": {
                        name: {"dialect": database.dialect, "revision": database.revision}
                        for name, database in manifest.databases.items()
                    },
                    "artifacts": None
                    if artifacts is None
                    else {
                        "files": artifacts.files,
                        "bytes": artifacts.size_bytes,
                        "stored_bytes": artifacts.stored_bytes,
                    },
                    "mlflow_version": manifest.mlflow_version,
                },
            )
        )
    damaged = any(item.status is Status.FAILED for item in items)
    code = ExitCode.ATTENTION if damaged else ExitCode.OK
    return make_report(context, items, exit_code=code, data={"place": place})


def echo_list(context: Context, report: Report) -> None:
    """Print the backups at a place, oldest first."""
    width = max((len(item.name) for item in report.items), default=0)
    for item in report.items:
        mark = "FAIL " if item.status is Status.FAILED else ""
        click.echo(f"{mark}{item.name:<{width}}  {item.detail}")
    click.echo(f"{len(report.items)} backups in {report.data['place']}")


def verified_report(context: Context, verified: "Verified", shown: str) -> Report:
    """Whether a backup is sound."""
    failed = [Item(file, Status.FAILED, problem) for file, problem in verified.problems]
    items = [
        Item("tables", Status.OK, f"{verified.rows} rows", facts={"rows": verified.rows}),
        Item(
            "artifacts",
            Status.OK,
            f"{verified.files} files, {render_size(verified.read_bytes)} read",
            facts={"files": verified.files, "read_bytes": verified.read_bytes},
        ),
    ]
    if verified.drilled is not None:
        drilled = {"rows": verified.drilled}
        items.append(Item("drill", Status.OK, f"{verified.drilled} rows restored", facts=drilled))
    return make_report(
        context,
        [*items, *failed],
        exit_code=BadInputError.exit_code if failed else ExitCode.OK,
        data={"backup": shown},
    )


def echo_verified(context: Context, report: Report) -> None:
    """Print whether a backup is sound."""
    echo_findings(report)
    damaged = report.counts[Status.FAILED.value]
    verdict = f"is damaged in {damaged} places" if damaged else "is as it was written"
    click.echo(f"{report.data['backup']} {verdict}.")


def pruned_report(context: Context, pruned: "Pruned", place: str, *, is_dry_run: bool) -> Report:
    """What went, or would go."""
    verb = "would go" if is_dry_run else "gone"
    items = [Item(name, Status.OK, verb, facts={"kept": False}) for name in pruned.removed]
    items += [
        Item(name, Status.OK, f"stays: {', '.join(why)}", facts={"kept": True, "rules": why})
        for name, why in reversed(pruned.kept.items())
    ]
    items += [
        Item(
            name,
            Status.FAILED,
            "cannot be read; it stays, and with it everything that backups share",
            fix=f"mlflow-server backup verify {name}; remove its folder by hand",
        )
        for name in pruned.unreadable
    ]
    return make_report(
        context,
        items,
        exit_code=ExitCode.ATTENTION if pruned.unreadable else ExitCode.OK,
        data={
            "dry_run": is_dry_run,
            "place": place,
            "removed": len(pruned.removed),
            "kept": len(pruned.kept),
            "packs": pruned.packs,
            "freed_bytes": pruned.size_bytes,
        },
    )


def echo_pruned(context: Context, report: Report) -> None:
    """Print what went, or would go."""
    echo_findings(report)
    data = report.data
    verb = "Would free" if data["dry_run"] else "Freed"
    click.echo(
        f"{data['removed']} removed, {data['kept']} kept. "
        f"{verb} {render_size(data['freed_bytes'])} in {data['packs']} packs."
    )
    if data["dry_run"]:
        click.echo("Nothing was changed.")


def failures(pairs: Sequence[tuple[str, str]], kind: str) -> list[Item]:
    """Items for what could not be done."""
    return [Item(f"{kind}:{what}", Status.FAILED, reason) for what, reason in pairs]


def echo_findings(report: Report) -> None:
    """Print warnings and items."""
    for warning in report.warnings[:MANY]:
        click.echo(f"warning: {warning}")
    if len(report.warnings) > MANY:
        click.echo(f"warning: and {len(report.warnings) - MANY} more; --json names them all")
    sound = [item for item in report.items if item.status is not Status.FAILED]
    width = max((len(item.name) for item in sound), default=0)
    for item in sound:
        click.echo(f"  {item.name:<{width}}  {item.detail}")
    failed = [item for item in report.items if item.status is Status.FAILED]
    for item in failed[:MANY]:
        click.echo(f"  FAIL {item.name}: {item.detail}")
    if len(failed) > MANY:
        click.echo(f"  FAIL and {len(failed) - MANY} more; --json names them all")
