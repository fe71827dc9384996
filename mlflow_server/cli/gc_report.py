"""Reports of `gc`: for people and for machines."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from mlflow_server.cli.shared import Context, make_report
from mlflow_server.errors import ExitCode
from mlflow_server.gc.outcome import Outcome
from mlflow_server.gc.plan import NO_EXPERIMENT, REASONS, Kind, Plan
from mlflow_server.gc.request import Request
from mlflow_server.report import Item, Report, Status
from mlflow_server.units import render_duration, render_size

if TYPE_CHECKING:
    from mlflow_server.gc.orphans import Orphans

# More than this between two clocks moves the limit of what is old enough.
_SKEW_S = 60
_MANY = 20


def plan_report(context: Context, request: Request, plan: Plan, warnings: Sequence[str]) -> Report:
    """What would be done."""
    going = {kind: plan.total(kind) for kind in Kind}
    data = _data(request, plan, is_dry_run=True)
    sizes: Counter[str] = Counter()
    for (_, experiment), size in plan.size_bytes.items():
        sizes[str(experiment)] += size
    data["would_free"] = {
        "files": plan.files.total(),
        "bytes": plan.size_bytes.total(),
        "bytes_by_experiment": dict(sizes),
    }
    return make_report(
        context,
        _items(request, plan, going, "would go"),
        warnings=[*_skew(plan), *warnings],
        data=data,
    )


def outcome_report(
    context: Context, request: Request, outcome: Outcome, warnings: Sequence[str]
) -> Report:
    """What was done."""
    failed = [
        Item(
            name=f"files:{entry.kind}:{entry.entity_id}",
            status=Status.FAILED,
            detail=reason,
            fix="correct it; the next run tries again",
            facts={"attempts": entry.attempts + 1},
        )
        for entry, reason in outcome.failures
    ]
    data = {
        **_data(request, outcome.plan, is_dry_run=False),
        "purged": {kind.value: count for kind, count in outcome.purged.items() if count},
        "freed": {"files": outcome.freed.files, "bytes": outcome.freed.size_bytes},
        "seconds": {name: round(spent, 3) for name, spent in outcome.seconds.items()},
        "journal": {"waiting": outcome.waiting, "failed": len(outcome.failures)},
        "stopped_by": outcome.stopped_by,
    }
    return make_report(
        context,
        [*_items(request, outcome.plan, outcome.purged, "gone"), *failed],
        exit_code=ExitCode.ATTENTION if failed else ExitCode.OK,
        warnings=[*_skew(outcome.plan), *warnings],
        data=data,
    )


def orphans_report(context: Context, orphans: "Orphans", *, deleted: bool) -> Report:
    """Folders that no row knows."""
    items = [
        Item(
            name=f"orphan:{'/'.join(found.parts)}",
            status=Status.FAILED if found.error else Status.OK,
            detail=found.error or f"{found.files} files, {render_size(found.size_bytes)}",
            facts={"files": found.files, "bytes": found.size_bytes},
        )
        for found in orphans.found
    ]
    failed = any(found.error for found in orphans.found)
    data = {
        "deleted": deleted,
        "known": orphans.known,
        "younger": orphans.younger,
        "orphans": len(orphans.found),
        "bytes": sum(found.size_bytes for found in orphans.found),
    }
    return make_report(
        context, items, exit_code=ExitCode.ATTENTION if failed else ExitCode.OK, data=data
    )


def echo_report(context: Context, report: Report) -> None:
    """Print the report of a collection or of its plan as text."""
    for warning in report.warnings:
        click.echo(f"warning: {warning}")
    if not report.items:
        return
    data = report.data
    click.echo(f"Deleted more than {render_duration(data['older_than_s'])} ago:")
    for item in report.items:
        if item.status is Status.OK:
            click.echo(f"  {item.name:<13} {item.detail}")
    failed = [item for item in report.items if item.status is Status.FAILED]
    for item in failed[:_MANY]:
        click.echo(f"  FAIL {item.name}: {item.detail}")
    if len(failed) > _MANY:
        click.echo(f"  FAIL and {len(failed) - _MANY} more; --json names them all")
    if data["dry_run"]:
        size = data["would_free"]
        click.echo(f"Would free {size['files']} files, {render_size(size['bytes'])}.")
        click.echo("Nothing was changed.")
        return
    freed = data["freed"]
    click.echo(f"Freed {freed['files']} files, {render_size(freed['bytes'])}.")
    spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in data["seconds"].items())
    if spent:
        click.echo(f"Took: {spent} (files go while rows do).")
    if failed:
        click.echo(f"{len(failed)} locations could not be removed; the next run tries again.")
    if data["stopped_by"]:
        waiting = data["journal"]["waiting"]
        click.echo(
            f"Stopped by {data['stopped_by']}; the next run goes on "
            f"({waiting} locations are still to be removed)."
        )


def echo_orphans(context: Context, report: Report) -> None:
    """Print orphans as text."""
    data = report.data
    for item in report.items:
        mark = "FAIL" if item.status is Status.FAILED else "gone" if data["deleted"] else "orphan"
        click.echo(f"{mark:<7} {item.name.removeprefix('orphan:')}  {item.detail}")
    click.echo(
        f"{data['orphans']} folders that no row knows, {render_size(data['bytes'])}; "
        f"{data['known']} are known, {data['younger']} too young to tell."
    )
    if data["orphans"] and not data["deleted"]:
        click.echo("Nothing was changed; --orphans=delete removes them.")


def _items(request: Request, plan: Plan, going: Mapping[Kind, int], verb: str) -> list[Item]:
    """One item per kind that was asked for."""
    items = []
    asked = {Kind.JOB: request.wants_jobs, Kind.MODEL_VERSION: request.deleted_versions}
    for kind in Kind:
        if not asked.get(kind, True):
            continue
        count, kept = going.get(kind, 0), plan.kept(kind)
        parts = [f"{count} {verb}"]
        parts += [f"{number} stay: {REASONS[reason]}" for reason, number in kept.items()]
        facts = {"going": count, "staying": {reason.value: n for reason, n in kept.items()}}
        items.append(Item(kind.value, Status.OK, "; ".join(parts), facts=facts))
    return items


def _skew(plan: Plan) -> list[str]:
    if abs(plan.clock_skew_s) < _SKEW_S:
        return []
    ahead = "ahead of" if plan.clock_skew_s > 0 else "behind"
    return [
        f"the database's clock is {abs(plan.clock_skew_s):.0f} s {ahead} this host's; "
        "ages are by the database's"
    ]


def _data(request: Request, plan: Plan, *, is_dry_run: bool) -> dict[str, Any]:
    experiments: dict[int, dict[str, Any]] = {}

    def entry(experiment: int) -> dict[str, Any]:
        empty: dict[str, Any] = {"going": {}, "staying": {}}
        return experiments.setdefault(experiment, empty)

    for (kind, experiment), count in sorted(plan.going.items()):
        entry(experiment)["going"][kind.value] = count
    for (kind, experiment, reason), count in sorted(plan.staying.items()):
        entry(experiment)["staying"].setdefault(kind.value, {})[reason.value] = count
    experiments.pop(NO_EXPERIMENT, None)
    return {
        "dry_run": is_dry_run,
        "older_than_s": request.older_than_s,
        "database_time_ms": plan.now_ms,
        "clock_skew_s": round(plan.clock_skew_s, 3),
        "experiments": [
            {"experiment_id": str(experiment), **found} for experiment, found in experiments.items()
        ],
    }
