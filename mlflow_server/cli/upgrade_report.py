"""Reports of upgrades: for people and for machines."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from mlflow_server.cli.shared import Context, make_report
from mlflow_server.errors import ExitCode
from mlflow_server.report import Item, Report, Status
from mlflow_server.units import render_size

if TYPE_CHECKING:
    from mlflow_server.upgrade.execute import Result
    from mlflow_server.upgrade.survey import Surveyed
    from mlflow_server.upgrade.undo import Undoable


def checked_report(context: Context, found: "Mapping[str, Surveyed]") -> Report:
    """What is pending."""
    items = [_checked_item(name, each) for name, each in found.items()]
    is_pending = any(each.is_pending for each in found.values())
    return make_report(context, items, exit_code=ExitCode.ATTENTION if is_pending else ExitCode.OK)


def _checked_item(name: str, found: "Surveyed") -> Item:
    from mlflow_server.store.revision import SchemaState
    from mlflow_server.upgrade.prepare import helps
    from mlflow_server.upgrade.revisions import known_revisions

    plan, known = found.plan, known_revisions()
    status = plan.status
    revision = known.get(status.current or "")
    current = revision.release if revision else None
    facts = {
        "store": found.uri.shown,
        "current": status.current,
        "current_release": current,
        "head": status.head,
        "head_release": known[status.head].release,
        "pending": [
            {
                "revision": each.revision.id,
                "release": each.revision.release,
                "title": each.revision.title,
                "tables": dict(each.tables),
                "seconds": round(each.seconds, 1),
                "slow": each.is_slow,
            }
            for each in plan.pending
        ],
        "auth_current": found.auth_revision,
        "auth_pending": list(found.auth_pending),
        "seconds": round(plan.seconds, 1),
        "can_be_prepared": helps(found),
        "size_bytes": plan.size_bytes,
        "disk_bytes": plan.disk_bytes,
    }
    if not found.is_pending:
        return Item(f"database:{name}", Status.OK, f"{found.uri.shown} is up to date", facts=facts)
    if status.state is SchemaState.EMPTY:
        detail = f"{found.uri.shown} is empty"
    elif status.state is SchemaState.HALF_WAY:
        detail = f"{found.uri.shown}: an upgrade was interrupted half way"
    elif plan.pending:
        detail = (
            f"{found.uri.shown} is at {status.current} (MLflow {current}), this release needs "
            f"{status.head} (MLflow {known[status.head].release}): {len(plan.pending)} to come"
        )
    else:
        detail = f"{found.uri.shown}: {len(found.auth_pending)} to come for users"
    return Item(
        f"database:{name}", Status.WARNING, detail, fix="mlflow-server upgrade", facts=facts
    )


def echo_checked(context: Context, report: Report) -> None:
    """Print what is pending."""
    for item in report.items:
        click.echo(item.detail)
        for each in item.facts["pending"]:
            line = f"  {each['revision']}  {each['release']:<7} {each['title']}"
            if each["slow"]:
                rows = ", ".join(f"{name} ({n} rows)" for name, n in each["tables"].items())
                line += f"\n{'':16}slow here, about {each['seconds']:.0f} s: goes through {rows}"
            click.echo(line)
        for revision in item.facts["auth_pending"]:
            click.echo(f"  {revision}  users")
        if item.facts["pending"]:
            if item.facts["can_be_prepared"]:
                click.echo(
                    "  Shorter when prepared beside the servers: mlflow-server upgrade --prepare"
                )
            disk = render_size(item.facts["disk_bytes"])
            click.echo(
                f"  About {item.facts['seconds']:.0f} s, and {disk} of disk for the backup and "
                "the work."
            )


def upgraded_report(context: Context, result: "Result") -> Report:
    """What was done."""
    from mlflow_server.store.revision import UPGRADABLE

    items, undo = [], False
    for name, done in result.databases.items():
        found = done.found
        status = found.plan.status
        is_store = status.current is not None
        facts: dict[str, Any] = {
            "store": found.uri.shown,
            "before": status.current if is_store else found.auth_revision,
            "after": status.head if is_store else (found.auth_pending or (None,))[-1],
        }
        if done.record is not None:
            kept = done.record.kept
            rows = sum(done.record.rows.values())
            pending = len(status.pending) + len(done.found.auth_pending)
            detail = f"{pending} revisions, {rows} rows as before"
            facts |= {
                "revisions": pending,
                "rows": rows,
                "backup": kept.path,
                "backup_kind": kept.kind,
                "backup_bytes": kept.size_bytes,
                "seconds": done.record.seconds,
            }
            undo = True
        elif done.is_prepared:
            detail = "prepared; the upgrade itself is to come"
        elif status.state in UPGRADABLE:
            detail = "nothing to prepare; the upgrade itself is to come"
        else:
            detail = "made" if done.is_made else "up to date"
        items.append(Item(f"database:{name}", Status.OK, detail, facts=facts))
    return make_report(context, items, data={"can_be_undone": undo})


def echo_upgraded(context: Context, report: Report) -> None:
    """Print what was done, and how to undo it."""
    for item in report.items:
        click.echo(f"{item.facts['store']}: {item.detail}")
        if "backup" in item.facts:
            size = render_size(item.facts["backup_bytes"])
            click.echo(f"  was {item.facts['before']}, is {item.facts['after']} now")
            click.echo(f"  backup: {item.facts['backup']} ({size})")


def undone_report(
    context: Context, undone: "Sequence[Undoable]", *, is_dry_run: bool = False
) -> Report:
    """What was undone, or would be."""
    items = [
        Item(
            f"database:{each.name}",
            Status.OK,
            f"back at {each.record.before or each.record.auth_before}, as it was at "
            f"{each.record.id}",
            facts={
                "store": each.uri.shown,
                "before": each.record.after,
                "after": each.record.before,
                "backup": each.record.kept.path,
                "lost_rows": each.written,
            },
        )
        for each in undone
    ]
    return make_report(context, items, data={"dry_run": is_dry_run})


def echo_undone(_context: Context, report: Report) -> None:
    """Print what was undone."""
    for item in report.items:
        click.echo(f"{item.facts['store']}: {item.detail}")
        for table, rows in item.facts["lost_rows"].items():
            click.echo(f"  {table}: {rows} rows written since")
    if report.data["dry_run"]:
        click.echo("Nothing was changed.")
